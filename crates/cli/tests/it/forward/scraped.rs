//! `--metrics`: the metrics that Prometheus gets from the programs.

use std::net::TcpListener;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tunnel::{soon, target, tcp};
use crate::process::Program;

/// One request on a connection of its own.
async fn ask(addr: &str, method: Method, path: &str) -> Response<String> {
    let socket = TcpStream::connect(addr).await.expect("the program listens");
    let (mut client, connection) = handshake(TokioIo::new(socket)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", addr).body(Empty::<Bytes>::new());
    let response = client.send_request(request.unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(head, String::from_utf8(body.to_vec()).unwrap())
}

/// The metrics of a program, each line `name{labels} value`.
pub(crate) struct Scrape(String);

impl Scrape {
    pub(crate) async fn of(addr: &str) -> Self {
        let response = soon("the scrape", ask(addr, Method::GET, "/metrics")).await;
        assert_eq!(response.status(), 200);
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
        Self(response.into_body())
    }

    /// The value of a metric, written with its labels.
    pub(crate) fn value(&self, metric: &str) -> f64 {
        let lines = self.0.lines().filter_map(|line| line.rsplit_once(' '));
        let mut found = lines.filter(|(name, _)| *name == metric);
        let (_, value) = found
            .next()
            .unwrap_or_else(|| panic!("no {metric} in {}", self.0));
        value.parse().expect("a number")
    }
}

/// A program started with `--metrics`, and their address.
fn scraped(args: &[&str]) -> (Program, String) {
    let mut program = Program::start(&[args, &["--metrics", "127.0.0.1:0"]].concat());
    let url = program.metrics();
    let addr = url
        .strip_prefix("http://")
        .and_then(|url| url.strip_suffix("/metrics"));
    (program, addr.expect("a URL").to_owned())
}

#[tokio::test]
async fn connections_that_serve_refuses_are_counted() {
    let serve_args = ["serve", "--listen", "127.0.0.1:0", "--allow", "127.0.0.1:1"];
    let (mut serve, metrics) = scraped(&serve_args);
    let via = serve.listening();
    let mut forward = Program::start(&["forward", "0=127.0.0.1:2", "--via", &via]);
    let entry = tcp(&forward.listening());
    let refused = "ringmux_connections_refused_total";
    assert_eq!(Scrape::of(&metrics).await.value(refused), 0.0);
    for _ in 0..3 {
        let mut client = TcpStream::connect(&entry).await.unwrap();
        let read = soon("the reset", client.read(&mut [0])).await;
        assert!(!matches!(read, Ok(1..)), "{read:?}");
    }
    assert_eq!(Scrape::of(&metrics).await.value(refused), 3.0);
}

#[tokio::test]
async fn values_move_with_the_traffic_and_say_how_sessions_ended() {
    let (listener, addr) = target().await;
    let serve_args = ["serve", "--listen", "127.0.0.1:0", "--allow", &addr];
    let (mut serve, serve_metrics) = scraped(&serve_args);
    let via = serve.listening();
    let pair = format!("0={addr}");
    let (mut forward, forward_metrics) = scraped(&["forward", &pair, "--via", &via]);
    let entry = tcp(&forward.listening());

    let idle = Scrape::of(&serve_metrics).await;
    assert_eq!(idle.value("ringmux_sessions"), 1.0);
    assert_eq!(idle.value("ringmux_streams"), 0.0);
    assert!(
        idle.0.contains("# TYPE ringmux_messages_total counter"),
        "{}",
        idle.0
    );
    assert!(
        idle.0.contains("# HELP ringmux_messages_total Messages."),
        "{}",
        idle.0
    );

    let mut client = TcpStream::connect(&entry).await.unwrap();
    let (mut server, _) = soon("the connection", listener.accept()).await.unwrap();
    for _ in 0..10 {
        client.write_all(&[7; 1000]).await.unwrap();
        soon("a thousand bytes", server.read_exact(&mut [0; 1000]))
            .await
            .unwrap();
    }
    let busy = Scrape::of(&serve_metrics).await;
    assert_eq!(busy.value("ringmux_streams"), 1.0);
    assert_eq!(busy.value("ringmux_connections"), 1.0);
    assert_eq!(busy.value("ringmux_streams_opened_total{by=\"peer\"}"), 1.0);
    let received = "ringmux_bytes_total{direction=\"received\"}";
    assert!(busy.value(received) >= idle.value(received) + 10_000.0);
    let uplink = Scrape::of(&forward_metrics).await;
    assert_eq!(
        uplink.value("ringmux_manager_ready{manager=\"uplink\"}"),
        1.0
    );
    assert_eq!(
        uplink.value("ringmux_manager_sessions_total{manager=\"uplink\"}"),
        1.0
    );
    assert_eq!(
        uplink.value("ringmux_streams_opened_total{by=\"local\"}"),
        1.0
    );

    serve.kill();
    forward.logged(&["WARN", "session lost"]);
    let lost = Scrape::of(&forward_metrics).await;
    assert_eq!(lost.value("ringmux_sessions"), 0.0);
    assert_eq!(lost.value("ringmux_manager_ready{manager=\"uplink\"}"), 0.0);
    assert_eq!(
        lost.value("ringmux_manager_lost_total{manager=\"uplink\"}"),
        1.0
    );
    let ended = |reason| format!("ringmux_sessions_ended_total{{reason=\"{reason}\"}}");
    let broken: f64 = ["disconnected", "io"]
        .map(|reason| lost.value(&ended(reason)))
        .iter()
        .sum();
    assert_eq!(broken, 1.0, "{}", lost.0);
    let sent = "ringmux_bytes_total{direction=\"sent\"}";
    assert!(
        lost.value(sent) >= uplink.value(sent),
        "the counts of a session outlive it"
    );
}

#[tokio::test]
async fn only_a_get_of_the_metrics_is_answered() {
    let (_serve, addr) = scraped(&["serve", "--listen", "127.0.0.1:0", "--allow", "*:*"]);
    assert_eq!(ask(&addr, Method::GET, "/").await.status(), 404);
    let post = ask(&addr, Method::POST, "/metrics").await;
    assert_eq!(
        (post.status().as_u16(), &post.headers()["allow"]),
        (405, &"GET".parse().unwrap())
    );
}

#[test]
fn a_port_in_use_is_one_clear_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for command in [
        ["serve", "--listen", "127.0.0.1:0", "--allow", "*:*"],
        [
            "forward",
            "0=127.0.0.1:1",
            "--via",
            "127.0.0.1:1",
            "--wait=1s",
        ],
    ] {
        let mut program = Program::start(&[&command[..], &["--metrics", &addr]].concat());
        assert_eq!(program.ended().code(), Some(1));
        let line = program.only_line();
        let expected = format!("error: cannot listen on {addr} for metrics: ");
        assert!(line.starts_with(&expected), "{line}");
        assert!(
            line.to_lowercase().contains("address already in use"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn silent_clients_keep_no_scraper_out() {
    let (_serve, addr) = scraped(&["serve", "--listen", "127.0.0.1:0", "--allow", "*:*"]);
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut socket = TcpStream::connect(&addr).await.unwrap();
        // Half of them send the beginning of a request.
        if n % 2 == 0 {
            socket
                .write_all(b"GET /metrics HTTP/1.1\r\n")
                .await
                .unwrap();
        }
        silent.push(socket);
    }
    // One that does not read the answers.
    let mut deaf = TcpStream::connect(&addr).await.unwrap();
    let asking = b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(1), deaf.write_all(&asking)).await;
    for _ in 0..3 {
        Scrape::of(&addr).await;
    }
    // All but a few were evicted.
    let mut closed = 0;
    for socket in &mut silent {
        let mut byte = [0];
        let read =
            tokio::time::timeout(std::time::Duration::from_millis(1), socket.read(&mut byte));
        closed += usize::from(read.await.is_ok());
    }
    assert!(closed >= 184, "{closed}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_hung_up_on() {
    let (_serve, addr) = scraped(&["serve", "--listen", "127.0.0.1:0", "--allow", "*:*"]);
    let mut silent = TcpStream::connect(&addr).await.unwrap();
    let mut slow = TcpStream::connect(&addr).await.unwrap();
    slow.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
    for socket in [&mut silent, &mut slow] {
        let read = soon("the end", socket.read(&mut [0])).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}
