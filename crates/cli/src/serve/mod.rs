//! `ringmux serve`: the far end of `ringmux forward`; connects to targets.

mod allow;
mod connection;
mod listen;

use std::sync::Arc;
use std::time::Duration;

use ringmux::{Chain, Engine, Listener, Session, SessionError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::output;
use crate::tunnel::{Endpoint, OpenConnections, Options, Signals, config};
use crate::waiting::Waiting;
use allow::Allow;
use listen::Listen;
use ringmux_measure::failure::Failure;
use ringmux_measure::units::parse_duration;

const EXAMPLES: &str = "\
Examples:
  ringmux serve --listen tcp://0.0.0.0:7000 --allow 127.0.0.1:8080
  ringmux serve --listen unix:///run/ringmux.sock --allow 'localhost:*' --allow 'unix:///run/app/*'
  ringmux serve --listen 0.0.0.0:7000 --allow db:5432 --metrics 127.0.0.1:9100 --grace 30s
  systemd-socket-activate -l 7000 ringmux serve --listen systemd:0 --allow 127.0.0.1:8080
  curl -s http://127.0.0.1:9100/metrics | grep ringmux_streams

Then, on another machine:
  ringmux forward 127.0.0.1:8080=127.0.0.1:8080 --via tcp://server:7000

Targets are compared as they are written: `localhost:80` does not allow `127.0.0.1:80`.
Peers are not authenticated: listen where only they can connect.";

/// Arguments of `ringmux serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen for `ringmux forward`: tcp://HOST:PORT, HOST:PORT, unix:///PATH or unix://@NAME; systemd:N is socket N,
    /// from 0, of those that the service manager passed (LISTEN_FDS).
    #[arg(long, value_name = "ADDR")]
    listen: Listen,

    /// Targets that clients may reach: HOST:PORT, HOST:*, *:PORT, unix:///PATH or unix:///DIRECTORY/*.
    #[arg(long, value_name = "TARGET", required = true, num_args = 1..)]
    allow: Vec<Allow>,

    /// How long connecting to a target may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    connect_timeout: Duration,

    /// Sessions open at once; further ones are closed at once.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_sessions: u32,

    #[command(flatten)]
    options: Options,
}

/// State shared by all connections.
#[derive(Debug)]
struct Server {
    allow: Vec<Allow>,
    connect_timeout: Duration,
    open: OpenConnections,
}

/// Serves until SIGTERM or Ctrl-C.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.options.block_on(|engine| serve(args, engine))
}

async fn serve(args: &Args, engine: Engine) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let open = OpenConnections::new(args.options.max_connections);
    let config = config(&args.options)?;
    let mut waiting = Waiting::on(&args.listen);
    let listener = tokio::select! {
        listener = waiting.during(args.listen.bind(&engine, &config)) => listener?,
        () = signals.next() => return Ok(()),
    };
    if let Some(addr) = args.options.metrics.as_deref() {
        tokio::spawn(Endpoint::bind(addr, open.clone()).await?.serve());
    }
    output::announce(format_args!("listening on {}", listener.local_addr()));

    let server = Arc::new(Server {
        allow: args.allow.clone(),
        connect_timeout: args.connect_timeout,
        open: open.clone(),
    });
    let serving = accept_sessions(&listener, &server, args.max_sessions);
    tokio::select! {
        result = serving => result?,
        () = signals.next() => {}
    }
    signals
        .shut_down(&listener, &open, args.options.grace)
        .await
}

async fn accept_sessions(
    listener: &Listener,
    server: &Arc<Server>,
    max: u32,
) -> Result<(), Failure> {
    let places = Arc::new(Semaphore::new(max as usize));
    loop {
        let session = listener.accept().await;
        let session =
            session.map_err(|error| Failure::new("cannot accept any more").because(&error))?;
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            let peer = peer_of(&session);
            tracing::warn!(%peer, open = max, "session closed: as many are open as --max-sessions");
            session.close();
            continue;
        };
        tokio::spawn(serve_session(session, Arc::clone(server), place));
    }
}

/// Serves the streams of one session until it ends; the listener's shutdown ends it.
async fn serve_session(session: Session, server: Arc<Server>, _place: OwnedSemaphorePermit) {
    let peer = peer_of(&session);
    tracing::info!(%peer, driver = %session.driver(), "session begins");
    let end = loop {
        match session.accept().await {
            Ok(Some(stream)) => {
                tokio::spawn(connection::serve(stream, peer.clone(), Arc::clone(&server)));
            }
            Ok(None) => break session.closed().await,
            Err(end) => break end,
        }
    };
    match end {
        SessionError::Closed | SessionError::PeerClosed { .. } => {
            tracing::info!(%peer, reason = %Chain(&end), "session ended");
        }
        _ => tracing::warn!(%peer, reason = %Chain(&end), "session lost"),
    }
}

/// The peer's address, for logs.
fn peer_of(session: &Session) -> String {
    let peer = session.peer_addr();
    peer.map_or_else(|| "unix".to_owned(), ToString::to_string)
}
