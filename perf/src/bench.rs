//! The measurements. The frame around them (two pinned threads, the window, the samples, plain
//! sockets, ringmux itself) is that of `ringmux bench`, compiled from the same files, so that the
//! figures of both programs mean the same.

#[path = "../../src/bin/ringmux/bench/host.rs"]
mod host;
#[path = "../../src/bin/ringmux/bench/limit/mod.rs"]
mod limit;
#[path = "../../src/bin/ringmux/bench/machine.rs"]
mod machine;
#[path = "../../src/bin/ringmux/bench/message.rs"]
mod message;
#[path = "../../src/bin/ringmux/bench/mux/mod.rs"]
mod mux;
#[path = "../../src/bin/ringmux/bench/pair.rs"]
mod pair;
#[path = "../../src/bin/ringmux/bench/progress.rs"]
mod progress;
#[path = "../../src/bin/ringmux/bench/row.rs"]
mod row;
#[path = "../../src/bin/ringmux/bench/sample.rs"]
mod sample;
#[path = "../../src/bin/ringmux/bench/window.rs"]
mod window;
#[path = "../../src/bin/ringmux/bench/workload.rs"]
mod workload;

pub(crate) mod compare;
pub(crate) mod load;
pub(crate) mod open_loop;
mod peers;
mod report;
mod run;
pub(crate) mod scale;
mod subject;
