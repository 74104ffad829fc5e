//! `idle`: the cost of an unused stream, on the side that opened it and on the other.
//!
//! The other side is a process of its own, so that the memory of each can be told apart. It reports its memory in lines
//! on its stdout; a line on its stdin is answered with another one.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ringmux::{Addr, Config, RecvStream, SendStream, Session};
use serde::Serialize;

use super::footprint::Footprint;
use super::{during, introduce, print, print_json};
use crate::bench::report::table;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Driver, Host, Wait};

/// Streams whose messages are under way at once, when each stream carries one.
const AT_ONCE: usize = 128;
const MESSAGE: &[u8; 64] = &[7; 64];
/// Maximum cost of one idle stream on each side.
const WANTED_BYTES: f64 = 1024.0;

/// Arguments of `idle`, and of the process that it starts.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Args {
    /// Streams of one session.
    #[arg(long, value_name = "N", default_value = "1000000",
          value_parser = clap::value_parser!(u32).range(1..=1 << 23))]
    streams: u32,

    /// The driver of the session.
    #[arg(long, value_enum, value_name = "NAME", default_value = "uring")]
    driver: Driver,

    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Row {
    streams: u32,
    driver: &'static str,
    /// `opened`, or `used`: after one message each way.
    state: &'static str,
    side: &'static str,
    rss_bytes_per_stream: f64,
    /// None unless built with the feature `count-allocations`.
    allocated_bytes_per_stream: Option<f64>,
}

/// Opens the streams, and reports their cost; then has each echo a message, and reports again.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    introduce(args.json)?;
    let runtime = runtime()?;
    let mut peer = Peer::start(args)?;
    let addr: Addr = peer
        .line()?
        .parse()
        .map_err(during("the other process did not listen"))?;
    let engine = args.host().builder().thread();
    let engine = engine.map_err(during("cannot start the engine"))?;
    let session = runtime
        .block_on(engine.connect(&addr, &args.config()?))
        .map_err(during("cannot connect"))?;
    let before = peer.and_this()?;

    let mut streams = runtime.block_on(open(&session, args.streams))?;
    let opened = peer.and_this()?;
    runtime.block_on(round_trips(&mut streams))?;
    let used = peer.and_this()?;

    let mut rows = Vec::new();
    for (state, after) in [("opened", opened), ("used", used)] {
        for (side, at) in [("opened by", 0), ("accepted by", 1)] {
            rows.push(args.row(state, side, before[at], after[at]));
        }
    }
    report(args, &rows)
}

impl Args {
    fn host(self) -> Host {
        Host::nearest(self.driver, Wait::Park)
    }

    fn config(self) -> Result<Config, Failure> {
        Config::builder()
            .max_streams(self.streams.max(16))
            .build()
            .map_err(during("cannot configure the session"))
    }

    fn row(
        self,
        state: &'static str,
        side: &'static str,
        before: Footprint,
        after: Footprint,
    ) -> Row {
        let per_stream = |bytes: u64| bytes as f64 / f64::from(self.streams);
        Row {
            streams: self.streams,
            driver: self.driver.name(),
            state,
            side,
            rss_bytes_per_stream: per_stream(after.rss_bytes.saturating_sub(before.rss_bytes)),
            allocated_bytes_per_stream: after
                .allocated_bytes
                .zip(before.allocated_bytes)
                .map(|(after, before)| per_stream(after.saturating_sub(before))),
        }
    }
}

fn report(args: &Args, rows: &[Row]) -> Result<(), Failure> {
    let mut table = table::start(&["state", "side", "rss a stream", "allocated a stream"], 2);
    for row in rows {
        if args.json {
            print_json(row)?;
            continue;
        }
        table.add_row([
            row.state.to_owned(),
            row.side.to_owned(),
            format!("{:.0} B", row.rss_bytes_per_stream),
            row.allocated_bytes_per_stream
                .map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0} B")),
        ]);
    }
    if args.json {
        return Ok(());
    }
    print(&format!(
        "{} streams of one session over {}\n{table}\nwanted: at most {WANTED_BYTES} B on each side",
        args.streams,
        args.driver.name()
    ))
}

async fn open(session: &Session, count: u32) -> Result<Vec<(SendStream, RecvStream)>, Failure> {
    let mut streams = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let opened = session.open("").await;
        streams.push(opened.map_err(during("cannot open a stream"))?);
    }
    Ok(streams)
}

async fn round_trips(streams: &mut [(SendStream, RecvStream)]) -> Result<(), Failure> {
    for some in streams.chunks_mut(AT_ONCE) {
        for (send, _) in some.iter_mut() {
            let sent = send.send_slice(MESSAGE).await;
            sent.map_err(during("cannot send"))?;
        }
        for (_, recv) in some {
            let echo = recv.lease().await.map_err(during("cannot receive"))?;
            if echo.is_none_or(|echo| echo.as_slice() != Some(MESSAGE)) {
                return Err(Failure::new("a stream came back without its message"));
            }
        }
    }
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(during("cannot make a runtime"))
}

// ---- the other process ----------------------------------------------------------------------

/// The side that accepts; ends when its stdin does.
pub(crate) fn serve(args: &Args) -> Result<(), Failure> {
    let runtime = runtime()?;
    let engine = args.host().builder().thread();
    let engine = engine.map_err(during("cannot start the engine"))?;
    let anywhere = Addr::Tcp("127.0.0.1:0".to_owned());
    let listener = runtime
        .block_on(engine.listen(&anywhere, &args.config()?))
        .map_err(during("cannot listen"))?;
    print(&listener.local_addr().to_string())?;
    let session = runtime
        .block_on(listener.accept())
        .map_err(during("cannot accept the session"))?;
    let mut asked = io::stdin().lines();
    let mut tell = || -> Result<(), Failure> {
        if asked.next().is_some() {
            print_json(&Footprint::now()?)?;
        }
        Ok(())
    };
    tell()?;
    let mut streams = Vec::with_capacity(args.streams as usize);
    for _ in 0..args.streams {
        let accepted = runtime.block_on(session.accept());
        let accepted = accepted.map_err(during("cannot accept a stream"))?;
        streams.push(accepted.ok_or_else(|| Failure::new("the session ended"))?);
    }
    tell()?;
    runtime.block_on(async {
        for (send, recv) in &mut streams {
            let message = recv.recv().await.map_err(during("cannot receive"))?;
            let message =
                message.ok_or_else(|| Failure::new("a stream ended without a message"))?;
            send.send(message).await.map_err(during("cannot send"))?;
        }
        Ok(())
    })?;
    tell()?;
    // Wait until the other side has measured itself.
    let _ = io::stdin().lines().next();
    Ok(())
}

struct Peer {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    fn start(args: &Args) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(during("cannot find this program"))?;
        let streams = args.streams.to_string();
        let mut process = Command::new(program)
            .args(["idle-peer", "--streams", &streams])
            .args(["--driver", args.driver.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(during("cannot start the other process"))?;
        let gone = || Failure::new("the other process has no pipes");
        let stdin = process.stdin.take().ok_or_else(gone)?;
        let stdout = process.stdout.take().ok_or_else(gone)?;
        Ok(Self {
            process,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line);
        match read.map_err(during("the other process is gone"))? {
            0 => Err(Failure::new("the other process has ended")),
            _ => Ok(line.trim().to_owned()),
        }
    }

    /// The memory of this process and the other one, once that has reached the same point.
    fn and_this(&mut self) -> Result<[Footprint; 2], Failure> {
        writeln!(self.stdin, "footprint").map_err(during("the other process is gone"))?;
        let other = serde_json::from_str(&self.line()?);
        let other = other.map_err(during("the other process talks nonsense"))?;
        Ok([Footprint::now()?, other])
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
