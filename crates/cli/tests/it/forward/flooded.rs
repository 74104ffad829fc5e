//! Lines that a peer can cause: the first, then counts; one for one foreign client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ringmux::{Config, Driver, Engine};
use rustix::process::Signal;

use super::tunnel::{soon, tcp};
use crate::process::Program;

const SERVE: [&str; 5] = ["serve", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1:1"];
/// Lines of a kind at level DEBUG within the 10 s that a window has; at the levels above there is one.
const DETAILS: usize = 10;

/// The number in front of `more like it`, of all such lines about `about`.
fn left_out(lines: &[String], about: &str) -> u64 {
    let lines = lines.iter().filter(|line| line.contains(about));
    let counts = lines.filter_map(|line| line.split_once(": and ")?.1.split_once(" more like it"));
    counts.map(|(count, _)| count.parse::<u64>().unwrap()).sum()
}

/// The same for lines suppressed by the library: reported in a later line, or by the program.
fn left_out_by_the_library(lines: &[String]) -> u64 {
    let number = |text: &str| text.split(' ').next().and_then(|n| n.parse::<u64>().ok());
    // The program counts what no line of the library has told so far; the next line of the library counts it again.
    let (mut told, mut untold) = (0, 0);
    for line in lines {
        if let Some((_, later)) = line.split_once("left_out=") {
            told += number(later).unwrap_or_default();
            untold = 0;
        } else if let Some((_, program)) = line.split_once("ringmux: and ") {
            untold += number(program).unwrap_or_default();
        }
    }
    told + untold
}

#[tokio::test]
async fn refused_streams_are_one_line_and_a_count() {
    const STREAMS: usize = 400;
    for log in ["info", "debug"] {
        let mut serve = Program::start(&[&SERVE[..], &["--log", log]].concat());
        let via = serve.listening();
        let engine = Engine::inline(Driver::Tokio).unwrap();
        let (via, config) = (via.parse().unwrap(), Config::default());
        let session = engine.connect(&via, &config);
        let session = soon("the session", session).await.unwrap();
        let begun = Instant::now();
        for n in 0..STREAMS {
            let (_send, mut recv) = session.open(format!("127.0.0.1:{}", n + 2)).await.unwrap();
            let answer = soon("the refusal", recv.recv()).await;
            assert!(answer.unwrap_err().to_string().contains("--allow"));
        }
        let windows = 1 + begun.elapsed().as_secs() as usize / 10;
        serve.signal(Signal::TERM);
        serve.ended();
        let refused = "connection refused";
        let told = serve
            .stderr()
            .iter()
            .filter(|line| line.contains(refused) && !line.contains("more like it"));
        let told = told.count();
        assert!(told <= windows, "{told} lines");
        let left_out = left_out(serve.stderr(), refused);
        assert_eq!(
            told as u64 + left_out,
            STREAMS as u64,
            "{log}: every one is counted"
        );
        let all = serve.stderr().len();
        assert!(
            all < 20 * DETAILS * windows,
            "{log}: {all} lines: {:#?}",
            serve.stderr()
        );
    }
}

#[test]
fn a_stranger_is_one_line_with_its_address() {
    for driver in ["tokio", "uring", "tokio-uring"] {
        let mut serve = Program::start(&[&SERVE[..], &["--driver", driver]].concat());
        let via = tcp(&serve.listening());
        let mut stranger = TcpStream::connect(via).unwrap();
        let addr = stranger.local_addr().unwrap().to_string();
        stranger
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        // The server's reason, and the end.
        let _ = stranger.read_to_end(&mut Vec::new());
        serve.logged(&["handshake failed"]);
        serve.signal(Signal::TERM);
        serve.ended();
        let about: Vec<_> = serve
            .stderr()
            .iter()
            .filter(|line| !line.contains("shut"))
            .collect();
        let [line] = about[..] else {
            panic!("{driver}: one line: {about:#?}")
        };
        assert!(line.contains(&format!("peer=tcp://{addr} ")), "{line}");
        assert!(
            line.contains("WARN") && line.contains("the peer broke the protocol"),
            "{line}"
        );
    }
}

#[test]
fn strangers_in_great_number_are_one_line_and_a_count() {
    const STRANGERS: usize = 300;
    let mut serve = Program::start(&SERVE);
    let via = tcp(&serve.listening());
    let begun = Instant::now();
    for _ in 0..STRANGERS {
        let mut stranger = TcpStream::connect(&via).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let _ = stranger.read_to_end(&mut Vec::new());
    }
    let windows = 1 + begun.elapsed().as_secs() as usize / 10;
    serve.signal(Signal::TERM);
    serve.ended();
    let lines = serve.stderr().len();
    assert!(
        lines <= 2 * windows + 3,
        "{lines} lines: {:#?}",
        serve.stderr()
    );
    let of_strangers = |line: &&String| line.contains("handshake failed");
    let told = serve.stderr().iter().filter(of_strangers).count() as u64;
    assert_eq!(
        told + left_out_by_the_library(serve.stderr()),
        STRANGERS as u64,
        "every one is counted: {:#?}",
        serve.stderr()
    );
}

#[test]
fn a_lack_of_descriptors_is_told_once_and_not_at_every_attempt() {
    let limited = ["sh", "-c", "ulimit -n 40; exec \"$0\" \"$@\""];
    let forward = [
        "forward",
        "--retry",
        "0=127.0.0.1:1",
        "--via",
        "127.0.0.1:1",
    ];
    for args in [&SERVE[..], &forward] {
        let mut program = Program::under(&limited, args, Stdio::piped());
        let entry = tcp(&program.listening());
        let connect = |_| TcpStream::connect(&entry).ok();
        let _held: Vec<_> = (0..64).map(connect).collect();
        program.logged(&["cannot accept"]);
        // It tries again every 50 ms.
        std::thread::sleep(Duration::from_secs(2));
        program.kill();
        program.ended();
        let about = program
            .stderr()
            .iter()
            .filter(|line| line.contains("cannot accept"));
        let about = about.count();
        assert!(about <= 2, "{about} lines in 2 s: {:#?}", program.stderr());
    }
}
