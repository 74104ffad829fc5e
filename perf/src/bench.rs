//! The measurements. The harness around them (two pinned threads, the window, the samples, plain
//! sockets, ringmux itself) is that of `ringmux bench`, the crate `ringmux-measure`.

pub(crate) mod compare;
pub(crate) mod load;
pub(crate) mod open_loop;
mod peers;
mod report;
mod run;
pub(crate) mod scale;
mod subject;
pub(crate) mod untuned;
