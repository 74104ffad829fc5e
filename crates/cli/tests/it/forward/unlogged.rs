//! A log that cannot be written: the disk is full, its reader has closed it, or does not read. The service continues.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::scraped::Scrape;
use super::tunnel::{is_reset, soon, target, tcp};
use crate::process::{PATIENCE, Program};

/// The destination of stderr.
#[derive(Clone, Copy, Debug)]
enum Sink {
    /// Every write fails with `ENOSPC`.
    Full,
    /// Every write fails with `EPIPE`.
    Left,
    /// A full pipe: every write waits.
    Unread,
}

const SINKS: [Sink; 3] = [Sink::Full, Sink::Left, Sink::Unread];

impl Sink {
    /// Also returns the reader that does not read, to keep it open.
    fn open(self) -> (Stdio, Option<PipeReader>) {
        if let Self::Full = self {
            let full = OpenOptions::new().write(true).open("/dev/full");
            return (full.expect("Linux has it").into(), None);
        }
        let (reader, mut writer) = std::io::pipe().expect("descriptors are left");
        if let Self::Left = self {
            return (writer.into(), None);
        }
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        let set = |flags| rustix::fs::fcntl_setfl(&writer, flags).unwrap();
        set(flags | rustix::fs::OFlags::NONBLOCK);
        let mut filler = writer.try_clone().unwrap();
        while filler.write(&[b'.'; 4096]).is_ok() {}
        // The flag belongs to the pipe, which the program shares.
        set(flags);
        drop(filler);
        let _ = writer.flush();
        (writer.into(), Some(reader))
    }
}

/// Both ends with such a log: connections that are refused, and then one that is not.
async fn goes_on(sink: Sink, driver: &str, log: &str) {
    let (listener, good) = target().await;
    tokio::spawn(echo(listener));
    let options = ["--driver", driver, "--log", log, "--grace", "1s"];
    let (stderr, _unread) = sink.open();
    let serve_args = ["serve", "--listen", "127.0.0.1:0", "--allow", &good];
    let mut serve = Program::start_with(&[&serve_args, &options[..]].concat(), stderr);
    let via = serve.listening();
    let (stderr, _unread) = sink.open();
    let to_good = format!("0={good}");
    let forward_args = ["forward", &to_good, "0=127.0.0.1:1", "--via", &via];
    let mut forward = Program::start_with(&[&forward_args, &options[..]].concat(), stderr);
    let mut entries = [tcp(&forward.listening()), tcp(&forward.listening())];
    // The order of the two listeners is arbitrary.
    if !is_good(&entries[0]).await {
        entries.swap(0, 1);
    }
    let [entry, refused] = entries;
    for _ in 0..20 {
        assert!(!is_good(&refused).await, "{sink:?} {driver} {log}");
    }
    assert!(is_good(&entry).await, "{sink:?} {driver} {log}");
    for program in [&mut forward, &mut serve] {
        program.signal(Signal::TERM);
        let code = program.ended().code();
        assert_eq!(code, Some(0), "{sink:?} {driver} {log}");
    }
}

async fn echo(listener: TcpListener) {
    while let Ok((mut socket, _)) = listener.accept().await {
        tokio::spawn(async move {
            let (mut reader, mut writer) = socket.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
    }
}

/// Whether there is an echo.
async fn is_good(entry: &str) -> bool {
    // A reset can arrive so early that connecting fails.
    let Ok(mut client) = TcpStream::connect(entry).await else {
        return false;
    };
    let mut answer = [0; 5];
    let asked = client.write_all(b"hello").await;
    let read = soon("an answer or a reset", client.read(&mut answer)).await;
    assert!(
        is_reset(&read) || asked.is_err() || matches!(read, Ok(5)),
        "{read:?}"
    );
    &answer == b"hello"
}

#[tokio::test]
async fn serve_and_forward_go_on_without_a_log_on_tokio() {
    for sink in SINKS {
        for log in ["info", "debug"] {
            goes_on(sink, "tokio", log).await;
        }
    }
}

#[tokio::test]
async fn serve_and_forward_go_on_without_a_log_on_uring() {
    for sink in SINKS {
        for log in ["info", "debug"] {
            goes_on(sink, "uring", log).await;
        }
    }
}

#[tokio::test]
async fn serve_and_forward_go_on_without_a_log_on_tokio_uring() {
    for sink in SINKS {
        for log in ["info", "debug"] {
            goes_on(sink, "tokio-uring", log).await;
        }
    }
}

#[test]
fn a_command_that_fails_without_a_log_fails_in_order() {
    for sink in SINKS {
        for (args, code) in [
            (&["ping", "127.0.0.1:1"][..], 1),
            (&["forward", "0=127.0.0.1:1", "--via", "127.0.0.1:1"], 1),
            (&["bench", "--driver", "tokio", "--wait", "spin"], 1),
        ] {
            let (stderr, _unread) = sink.open();
            let mut program = Program::start_with(args, stderr);
            assert_eq!(program.ended().code(), Some(code), "{sink:?} {args:?}");
        }
        if let Sink::Unread = sink {
            // The command line is parsed before the writer thread exists.
            continue;
        }
        let (stderr, _unread) = sink.open();
        let mut program = Program::start_with(&["ping"], stderr);
        assert_eq!(program.ended().code(), Some(2), "{sink:?}");
    }
}

/// A file that may not grow stands for a full disk; the limit can be raised from outside.
#[tokio::test]
async fn lines_that_were_lost_are_counted_and_told_when_the_log_works_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let file = File::create(&path).unwrap();
    let limited = [
        "sh",
        "-c",
        "trap '' XFSZ; ulimit -S -f 0; exec \"$0\" \"$@\"",
    ];
    let args = [
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--allow",
        "127.0.0.1:1",
        "--metrics",
        "127.0.0.1:0",
    ];
    let mut serve = Program::under(&limited, &args, file.into());
    let url = serve.metrics();
    let metrics = url
        .trim_start_matches("http://")
        .trim_end_matches("/metrics");
    let via = tcp(&serve.listening());
    let engine = ringmux::Engine::inline(ringmux::Driver::Tokio).unwrap();
    let (via, config) = (via.parse().unwrap(), ringmux::Config::default());
    let session = engine.connect(&via, &config).await.unwrap();
    let begun = Instant::now();
    while Scrape::of(metrics)
        .await
        .value("ringmux_log_lines_lost_total")
        == 0.0
    {
        assert!(begun.elapsed() < PATIENCE, "no line was lost");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
    let pid = serve.pid().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited"])
        .status();
    assert!(raised.expect("`prlimit`, of util-linux").success());
    session.close();
    session.closed().await;
    let log = loop {
        let log = std::fs::read_to_string(&path).unwrap();
        if log.contains("session ended") {
            break log;
        }
        assert!(begun.elapsed() < PATIENCE, "{log}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let first = log.lines().next().unwrap_or_default();
    assert!(first.ends_with(" lines of the log were lost"), "{log}");
}

/// When the reader reads at last, it finds only whole lines.
#[test]
fn a_pipe_that_is_read_at_last_has_whole_lines() {
    let (stderr, reader) = Sink::Unread.open();
    let args = ["serve", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1:1"];
    let mut serve = Program::start_with(&args, stderr);
    serve.listening();
    serve.signal(Signal::TERM);
    let mut reader = reader.expect("it is kept");
    let mut text = String::new();
    match reader.read_to_string(&mut text) {
        Err(error) if error.kind() != ErrorKind::Interrupted => panic!("{error}"),
        _ => {}
    }
    assert_eq!(serve.ended().code(), Some(0));
    let log = text.trim_start_matches('.');
    assert!(
        log.contains("shutting down") && log.contains("shut down"),
        "{log}"
    );
    for line in log.lines() {
        assert!(line.contains(" INFO "), "{line}");
    }
}
