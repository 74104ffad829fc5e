//! Each command: arguments in, lines and exit codes out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use ringmux::drpc::Profile;
use ringmux::{Config, Engine, Session, SessionError};
use serde_json::Value;
use tokio::runtime::Builder;

use rustix::process::Signal;

use crate::process::{Program, signal, tells_of_a_wait};
use ringmux_testing::denial::{Denial, LOW_MEMLOCK_BYTES};

/// The keys that every line of `bench --json` begins with, in this order.
const KEYS: [&str; 10] = [
    "workload",
    "driver",
    "wait",
    "rate_per_s",
    "bytes_per_s",
    "p50_ns",
    "p99_ns",
    "p999_ns",
    "limit_rate_per_s",
    "limit_p50_ns",
];

fn ringmux(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmux"))
        .args(line.split_whitespace())
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("stdout is text")
}

/// Its lines on stderr, except for reports of long waits.
fn stderr(output: &Output) -> String {
    let text = std::str::from_utf8(&output.stderr).expect("stderr is text");
    let lines = text.split_inclusive('\n');
    lines.filter(|line| !tells_of_a_wait(line)).collect()
}

fn bench(line: &str) -> Vec<Value> {
    let output = ringmux(line);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let parse = |line: &str| {
        let mut from = 0;
        for key in KEYS {
            let key = format!("\"{key}\":");
            from += line[from..]
                .find(&key)
                .unwrap_or_else(|| panic!("no {key} in {line}"));
        }
        serde_json::from_str(line).expect("a line is one JSON object")
    };
    stdout(&output).lines().map(parse).collect()
}

/// Measures for longer where a busy machine let nothing through.
fn bench_until_all_moved(line: &str) -> Vec<Value> {
    let moved = |row: &Value| {
        let rates = ["rate_per_s", "limit_rate_per_s"];
        rates.iter().all(|rate| row[rate].as_f64() > Some(0.0))
    };
    let mut rows = Vec::new();
    for seconds in ["0.2", "1", "5"] {
        rows = bench(&format!("bench --seconds {seconds} {line}"));
        if rows.iter().all(moved) {
            break;
        }
    }
    rows
}

fn number(row: &Value, key: &str) -> f64 {
    row[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key} is no number in {row}"))
}

#[test]
fn bench_prints_a_json_object_for_each_workload() {
    let rows = bench_until_all_moved("--workload pingpong,oneway --json");
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["workload"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["pingpong", "oneway"]);
    for row in &rows {
        assert_eq!(
            (&row["driver"], &row["wait"]),
            (&Value::from("uring"), &Value::from("park"))
        );
        assert!(
            number(row, "rate_per_s") > 0.0 && number(row, "limit_rate_per_s") > 0.0,
            "{row}"
        );
        let bytes = number(row, "rate_per_s") * 64.0;
        assert!((number(row, "bytes_per_s") - bytes).abs() < 1.0, "{row}");
    }
    let [pingpong, oneway] = &rows[..] else {
        panic!("two rows")
    };
    let times = ["p50_ns", "p99_ns", "p999_ns"].map(|key| number(pingpong, key));
    assert!(times[0] > 0.0 && times.is_sorted(), "{pingpong}");
    assert!(number(pingpong, "limit_p50_ns") > 0.0);
    assert!(
        oneway["p50_ns"].is_null() && oneway["limit_p50_ns"].is_null(),
        "{oneway}"
    );
}

#[test]
fn every_workload_runs_over_the_tokio_driver() {
    let rows = bench_until_all_moved("--driver tokio --json");
    assert_eq!(rows.len(), 13);
    for row in &rows {
        assert!(number(row, "rate_per_s") > 0.0, "{row}");
        assert_eq!(
            row["bulk_bytes_per_s"].is_number(),
            row["workload"] == "mixed",
            "{row}"
        );
    }
}

#[test]
fn bench_without_json_is_a_table_under_a_line_about_the_machine() {
    let output = ringmux("bench --seconds 0.1 --workload conc64");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.starts_with(concat!("ringmux ", env!("CARGO_PKG_VERSION"), ": ")),
        "{text}"
    );
    assert!(
        text.contains("of limit") && text.contains("conc64"),
        "{text}"
    );
    assert!(
        !stderr(&output).contains('\r'),
        "no progress bar without a terminal"
    );
}

#[test]
fn help_shows_commands_examples_and_exit_codes() {
    let output = ringmux("--help");
    assert_eq!(output.status.code(), Some(0));
    for expected in ["bench", "doctor", "ping", "attack", "Exit codes:"] {
        assert!(stdout(&output).contains(expected), "{expected}");
    }
    for command in ["bench", "doctor", "ping", "attack", "serve", "forward"] {
        let output = ringmux(&format!("{command} --help"));
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("Examples:"), "{command}");
    }
}

#[test]
fn an_unknown_workload_is_wrong_usage_and_lists_the_known_ones() {
    let output = ringmux("bench --workload nonesuch");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("nonesuch") && stderr(&output).contains("conc64"));
    assert_eq!(stdout(&output), "");
}

/// Starts an endpoint that accepts one session and holds it until its client leaves. Its address.
fn endpoint() -> String {
    endpoint_with(Config::default())
}

fn endpoint_with(config: Config) -> String {
    serving(config, async |session| drop(session.closed().await))
}

/// The address of a server that serves one session.
fn serving(config: Config, serve: impl AsyncFnOnce(Session) + Send + 'static) -> String {
    let (address, addresses) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            let engine = Engine::auto().expect("an engine starts");
            let any = "127.0.0.1:0".parse().unwrap();
            let listener = engine.listen(&any, &config).await.expect("a port is free");
            address.send(listener.local_addr().to_string()).unwrap();
            serve(listener.accept().await.expect("the program connects")).await;
        });
    });
    addresses.recv().expect("the endpoint listens")
}

#[test]
fn ping_prints_each_round_trip_and_how_they_are_distributed() {
    let address = endpoint();
    let output = ringmux(&format!("ping -c 20 -i 1ms {address}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    let round_trips = text.lines().filter(|line| line.contains(" seq="));
    assert_eq!(round_trips.count(), 20, "{text}");
    assert!(
        text.contains("20 round trips: min ") && text.contains('█'),
        "{text}"
    );
}

#[test]
fn over_drpc_a_round_trip_is_a_call_and_its_error() {
    for wire in ["drpc", "native"] {
        let config = Config::builder().detect_drpc(Some(Profile::STORJ));
        let address = serving(config.build().unwrap(), async |session| {
            // Fails each call.
            while let Ok(Some(stream)) = session.accept().await {
                drop(stream);
            }
        });
        let output = ringmux(&format!("ping --wire {wire} -c 3 -i 0 --json {address}"));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(stdout(&output).lines().count(), 4, "{}", stdout(&output));
    }
    let rows = bench_until_all_moved("--wire drpc --workload unary64 --json");
    assert_eq!(rows.len(), 1);
    let output = ringmux("bench --wire drpc --workload conc64");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("one stream at a time"),
        "{}",
        stderr(&output)
    );
    let output = ringmux("attack --wire drpc --attack metadata 127.0.0.1:1");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("no attack to play"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn ping_prints_json_lines_and_the_summary_last() {
    let output = ringmux(&format!("ping -c 5 -i 0 --json {}", endpoint()));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let parse = |line| serde_json::from_str(line).expect("a line is one JSON object");
    let lines: Vec<Value> = stdout(&output).lines().map(parse).collect();
    let (summary, round_trips) = lines.split_last().expect("there are lines");
    assert_eq!(round_trips.len(), 5);
    assert!(round_trips.iter().all(|line| number(line, "rtt_ns") > 0.0));
    assert_eq!(summary["count"], 5);
    let quantiles = ["min_ns", "p50_ns", "p99_ns", "max_ns"].map(|key| number(summary, key));
    assert!(quantiles.is_sorted(), "{summary}");
}

#[test]
fn an_interrupted_ping_still_prints_its_summary() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmux"))
        .args(["ping", "-i", "10ms", &endpoint()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let mut next = || lines.next().map(|line| line.expect("stdout is text"));
    while !next().expect("a round trip is printed").contains(" seq=") {}
    signal(&child, Signal::INT);
    let rest: Vec<String> = std::iter::from_fn(next).collect();
    assert_eq!(child.wait().expect("the program ends").code(), Some(0));
    assert!(
        rest.iter().any(|line| line.contains(" round trips: min ")),
        "{rest:?}"
    );
}

#[test]
fn an_address_without_a_server_is_one_clear_line() {
    for command in ["ping -c 1", "attack --attack metadata --seconds 1"] {
        let output = ringmux(&format!("{command} tcp://127.0.0.1:1"));
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(
            text.starts_with("error: cannot connect to tcp://127.0.0.1:1: "),
            "{text}"
        );
        assert!(text.to_lowercase().contains("connection refused"), "{text}");
        assert!(
            text.trim_end()
                .ends_with("is a ringmux server listening there?"),
            "{text}"
        );
    }
}

/// Accepts one connection, sends bytes of another protocol, and waits for its client to leave. Its address.
fn stranger() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("the program connects");
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        socket.read_to_end(&mut Vec::new())
    });
    address
}

#[test]
fn a_server_of_another_protocol_is_one_clear_line() {
    for command in [
        "ping",
        "attack --attack metadata",
        "forward 0=127.0.0.1:1 --via",
    ] {
        let address = stranger();
        let output = ringmux(&format!("{command} {address}"));
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        let start =
            format!("error: cannot connect to tcp://{address}: the peer broke the protocol: ");
        assert!(text.starts_with(&start), "{text}");
        assert!(text.trim_end().ends_with("listening there?"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert_eq!(text.matches(&address).count(), 1, "{text}");
    }
}

#[test]
fn an_interrupted_ping_takes_its_leave() {
    let (ended, end) = mpsc::channel();
    let (address, addresses) = mpsc::channel();
    thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            let listener = ringmux::listen("127.0.0.1:0").await.expect("a port");
            address.send(listener.local_addr().to_string()).unwrap();
            while let Ok(session) = listener.accept().await {
                ended.send(session.closed().await).unwrap();
            }
        });
    });
    let address = addresses.recv().expect("the endpoint listens");
    // A single one could succeed by chance.
    for _ in 0..20 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ringmux"))
            .args(["ping", "-i", "60s", &address])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        let mut lines = lines.map(|line| line.expect("stdout is text"));
        assert!(lines.any(|line| line.contains(" seq=1 ")));
        signal(&child, Signal::INT);
        assert!(lines.any(|line| line.contains("1 round trips: ")));
        assert_eq!(child.wait().expect("the program ends").code(), Some(0));
        let end = end.recv().expect("the session ends");
        assert!(matches!(end, SessionError::PeerClosed { .. }), "{end}");
    }
}

#[test]
fn a_bench_of_nothing_says_what_can_be_measured() {
    let output = ringmux("bench --driver tokio --wait spin");
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.starts_with("error: nothing to measure: "), "{text}");
    assert!(text.contains("--wait park"), "{text}");
}

/// Runs a program until it has printed its address, if it can, and a moment more; ends it.
fn with_nobody_at_stdout(arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().expect("descriptors are left");
    drop(reader);
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringmux"))
        .args(arguments)
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
    let mut said = String::new();
    while let Some(Ok(line)) = lines.next() {
        said.push_str(&line);
        said.push('\n');
        if line.contains("cannot write to stdout") {
            signal(&child, Signal::TERM);
        }
    }
    (child.wait().expect("the program ends").code(), said)
}

#[test]
fn a_server_goes_on_if_nobody_reads_where_it_listens() {
    let serve = ["serve", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1:1"];
    let (code, said) = with_nobody_at_stdout(&serve);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("shut down"), "{said}");
    let address = endpoint();
    let forward = ["forward", "0=127.0.0.1:1", "--via", &address];
    let (code, said) = with_nobody_at_stdout(&forward);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("shutting down"), "{said}");
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let dir = tempfile::tempdir().expect("there is room");
    let path = dir.path().join("letter.txt");
    std::fs::write(&path, "precious").expect("there is room");
    let local = format!("unix://{}", path.display());
    for command in [
        format!("serve --listen {local} --allow 127.0.0.1:1"),
        format!("forward {local}=127.0.0.1:1 --via {}", endpoint()),
    ] {
        let output = ringmux(&command);
        assert_eq!(output.status.code(), Some(1));
        let text = stderr(&output);
        assert!(text.contains("address already in use"), "{text}");
        assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
    }
}

// ---- attack ---------------------------------------------------------------------------------

/// A running `ringmux serve`, and where.
fn serve(listen: &str) -> (Program, String) {
    let mut program = Program::start(&["serve", "--listen", listen, "--allow", "localhost:1"]);
    let addr = program.listening();
    (program, addr)
}

/// `ringmux attack` under way.
fn attacking(line: &str, addr: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ringmux"))
        .args(line.split_whitespace())
        .arg(addr)
        .env_remove("RUST_LOG")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// The shortest attack. Times are those of a busy machine, and not checked.
const ATTACK: &str = "attack --seconds 100ms --rate 1000 --max-ratio 1000000";

#[test]
fn an_attack_that_a_server_withstands_is_a_table() {
    let (_server, addr) = serve("127.0.0.1:0");
    let output = ringmux(&format!("{ATTACK} --attack oversized,tiny-frames {addr}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    let text = stdout(&output);
    let row = |name: &str| {
        let mut rows = text.lines().filter(|line| line.contains(name));
        rows.next().unwrap_or_else(|| panic!("no {name} in {text}"))
    };
    assert!(row("oversized").contains("A13") && row("oversized").contains("frame-too-long"));
    assert!(row("tiny-frames").contains("A3"), "{text}");
    assert!(text.contains("p99 before") && text.contains("slowdown   of"));
    let widest = text.lines().map(|line| line.chars().count()).max();
    assert!(widest < Some(160), "{text}");
}

#[test]
fn all_attacks_without_a_choice_are_a_json_object_each_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", dir.path().join("socket").display());
    let (_server, addr) = serve(&socket);
    let output = ringmux(&format!("{ATTACK} --json --neighbour call {addr}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let parse = |line| serde_json::from_str(line).expect("a line is one JSON object");
    let rows: Vec<Value> = stdout(&output).lines().map(parse).collect();
    let names: Vec<_> = rows.iter().map(|row| row["row"].clone()).collect();
    // Of one row there are two.
    let of_streams = (1..=7).chain(7..=13).map(|n| format!("A{n}"));
    let of_calls = (1..=15).map(|n| format!("C{n}"));
    let expected: Vec<_> = of_streams.chain(of_calls).map(Value::from).collect();
    assert_eq!(names, expected);
    let played = |row: &&Value| row["applicable"] == true;
    let others: Vec<_> = rows.iter().filter(|row| !played(row)).collect();
    let names: Vec<_> = others.iter().map(|row| row["attack"].clone()).collect();
    let calls = ["call-flood", "call-unknown", "call-late"];
    let frames = ["unread", "reset", "held", "largest"].iter();
    let frames = frames.chain(&["broken", "half", "unknown", "replies"]);
    let frames = frames.map(|name| format!("unary-{name}"));
    let unanswered: Vec<_> = calls.map(String::from).into_iter().chain(frames).collect();
    assert_eq!(names, unanswered, "it answers no calls");
    for row in rows.iter().filter(played) {
        assert!(row["failure"].is_null(), "{row}");
        assert!(number(row, "connections") > 0.0, "{row}");
        for key in [
            "p99_before_ns",
            "p99_during_ns",
            "ratio",
            "slowdown",
            "seconds",
        ] {
            assert!(number(row, key) > 0.0, "{row}");
        }
        let calls = row["round_trips"].as_array().expect("two numbers");
        assert!(calls.iter().all(|count| count.as_u64() > Some(0)), "{row}");
    }
    assert!(number(&rows[13]["answers"], "frame-too-long") > 0.0);
}

#[test]
fn what_an_attacker_says_at_length_does_not_fill_the_log() {
    let (mut server, addr) = serve("127.0.0.1:0");
    let output = ringmux(&format!("{ATTACK} --attack metadata {addr}"));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let line = server.logged(&["connection refused", "(8192 bytes)"]);
    assert!(line.len() < 400, "{line}");
}

#[test]
fn a_server_that_goes_half_way_is_not_withstood_and_what_was_seen_before_is_shown() {
    let (mut server, addr) = serve("127.0.0.1:0");
    // The second attack begins after a fifth of it, and the server is gone before the rest is over.
    let line = "attack --seconds 20s --attack ping-flood,oversized --rate 1000000";
    let child = attacking(line, &addr);
    server.logged(&["SETTINGS must be sent once"]);
    server.kill();
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert_eq!(error.lines().count(), 1, "{error}");
    let begin = "error: not withstood: ping-flood (a ping of the neighbour was not answered: ";
    assert!(error.starts_with(begin), "{error}");
    let text = stdout(&output);
    let row = text.lines().find(|line| line.contains("ping-flood"));
    let row = row.unwrap_or_else(|| panic!("no row in {text}"));
    assert!(row.contains(" - "), "nothing was measured: {row}");
    assert!(!text.contains("oversized"), "no server was left to attack");
}

#[test]
fn an_interrupted_attack_still_shows_those_that_were_finished() {
    let (mut server, addr) = serve("127.0.0.1:0");
    // The signal comes early in the second and later ones, which take a minute together. Only these lose sessions.
    let line = format!(
        "attack --seconds 100ms --rate 1000000 --attack slowloris{}",
        ",ping-flood".repeat(300)
    );
    let child = attacking(&line, &addr);
    server.logged(&["SETTINGS must be sent once"]);
    signal(&child, Signal::INT);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "error: interrupted\n");
    assert!(stdout(&output).contains("slowloris"), "{}", stdout(&output));
}

#[test]
fn an_attack_that_nobody_knows_is_wrong_usage_and_lists_the_known_ones() {
    for (line, expected) in [
        ("attack --attack nonesuch 127.0.0.1:1", "rapid-reset"),
        ("attack --seconds 1ms 127.0.0.1:1", "at least 100ms"),
        ("attack --max-ratio 0.5 127.0.0.1:1", "a number from 1 up"),
        ("attack", "<ADDR>"),
    ] {
        let output = ringmux(line);
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn a_server_that_limits_pings_is_to_be_called_by_the_neighbour() {
    let edge = Config::edge().build().unwrap();
    let output = ringmux(&format!(
        "{ATTACK} --attack oversized {}",
        endpoint_with(edge)
    ));
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("limit ping-rate exceeded"), "{error}");
    assert!(
        error.trim_end().ends_with("try --neighbour call"),
        "{error}"
    );
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    let output = ringmux("ping carrier-pigeon://loft");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("carrier-pigeon"));
}

// ---- doctor ---------------------------------------------------------------------------------

fn denied(denial: Denial, line: &str) -> Output {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    denial.output(env!("CARGO_BIN_EXE_ringmux"), &arguments, &[])
}

fn object(output: &Output) -> Value {
    serde_json::from_str(stdout(output)).expect("stdout is one JSON object")
}

#[test]
fn doctor_shows_every_check_and_that_uring_works() {
    let output = ringmux("doctor");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for line in [
        "kernel",
        "sysctl kernel.io_uring_disabled",
        "seccomp",
        "RLIMIT_MEMLOCK",
        "operation RECV",
        "multishot receive",
        "fixed files",
        "backend: uring",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    for absent in ["REFUSES", "FAILED", "not tried", "change:"] {
        assert!(!text.contains(absent), "{absent} is in\n{text}");
    }
    assert_eq!(stderr(&output), "");
}

#[test]
fn doctor_as_json_has_the_documented_keys() {
    let output = ringmux("doctor --json");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = object(&output);
    assert_eq!(report["backend"], "uring");
    assert!(report["reason"].is_null() && report["change"].is_null());
    assert_eq!(report["steps"][0]["step"], "set-up");
    let passed = |list: &str| {
        let list = report[list].as_array().expect("a list");
        list.iter().all(|item| item["outcome"] == "passed") && !list.is_empty()
    };
    assert!(passed("steps") && passed("operations"), "{report}");
    assert!(number(&report, "completions") > 0.0);
    for key in [
        "version",
        "kernel",
        "io_uring_disabled",
        "io_uring_group",
        "seccomp",
        "memlock_soft_bytes",
        "memlock_hard_bytes",
        "memlock_exempt",
        "fixed_files",
        "registered_ring",
    ] {
        assert!(report.get(key).is_some(), "no {key} in {report}");
    }
}

#[test]
fn doctor_names_the_filter_that_refuses_and_what_to_change() {
    for (denial, errno) in [(Denial::Eperm, "EPERM"), (Denial::Enosys, "ENOSYS")] {
        let output = denied(denial, "doctor");
        assert_eq!(output.status.code(), Some(1), "{denial:?}");
        let text = stdout(&output);
        let reason = format!("a seccomp filter answers io_uring_setup with {errno}");
        for expected in [&reason, "REFUSES", "FAILED", "backend: tokio, the fallback"] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(text.contains("change:  allow io_uring_setup"), "{text}");
        let error = stderr(&output);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(
            error.starts_with("error: io_uring cannot be used: a seccomp filter"),
            "{error}"
        );

        let output = denied(denial, "doctor --json");
        assert_eq!(output.status.code(), Some(1), "{denial:?}");
        let report = object(&output);
        assert_eq!(
            (&report["backend"], &report["seccomp"]),
            (&"tokio".into(), &"filter".into())
        );
        assert_eq!(report["reason"], reason);
        assert_eq!(report["steps"][0]["outcome"], "failed");
        assert_eq!(report["steps"][1]["outcome"], "not-tried");
        assert!(report["completions"].is_null(), "{report}");
    }
}

#[test]
fn doctor_shows_a_low_limit_and_whether_a_ring_has_room_in_it() {
    let output = denied(Denial::LowMemlock, "doctor --json");
    let report = object(&output);
    assert_eq!(report["memlock_soft_bytes"], LOW_MEMLOCK_BYTES);
    assert_eq!(report["memlock_exempt"], false);
    // Other processes of this user may have locked all of it.
    match output.status.code() {
        Some(0) => assert_eq!(report["backend"], "uring", "{report}"),
        _ => assert!(
            report["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("RLIMIT_MEMLOCK")),
            "{report}"
        ),
    }
}

#[test]
fn a_denied_bench_without_a_driver_measures_tokio_and_says_why() {
    let output = denied(
        Denial::Eperm,
        "bench --seconds 0.1 --workload pingpong --json",
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let row: Value = serde_json::from_str(stdout(&output)).expect("one row");
    assert_eq!(row["driver"], "tokio");
    let text = stderr(&output);
    let warnings: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("falling back to the driver tokio"),
        "{warnings:?}"
    );
    assert!(warnings[0].contains("seccomp filter"), "{warnings:?}");
}

#[test]
fn a_denied_serve_over_uring_is_one_clear_line() {
    let output = denied(
        Denial::Eperm,
        "serve --listen 127.0.0.1:0 --allow localhost:1 --driver uring",
    );
    assert_eq!(output.status.code(), Some(1));
    let error = stderr(&output);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("error: cannot start: "), "{error}");
    assert!(
        error.contains("seccomp filter answers io_uring_setup with EPERM"),
        "{error}"
    );
    assert!(error.trim_end().ends_with("try --driver tokio"), "{error}");
}

#[test]
fn a_denied_bench_of_uring_is_one_clear_line() {
    let output = denied(
        Denial::Eperm,
        "bench --seconds 0.1 --workload pingpong --driver uring --json",
    );
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    let error = text.lines().last().unwrap_or_default();
    assert!(
        error.starts_with("error: cannot measure pingpong over uring: "),
        "{error}"
    );
    assert!(
        error.contains("seccomp filter answers io_uring_setup with EPERM"),
        "{error}"
    );
    assert!(error.ends_with("try --driver tokio"), "{error}");
}
