//! `ringmux serve`: the far end of `ringmux forward`; connects to targets.

mod allow;
mod connection;

use std::sync::Arc;
use std::time::Duration;

use ringmux::{Addr, Engine, ListenError, Listener, Session, SessionError};

use crate::output;
use crate::tunnel::{Endpoint, OpenConnections, Options, Signals, config};
use allow::Allow;
use ringmux_measure::failure::Failure;
use ringmux_measure::units::parse_duration;

const EXAMPLES: &str = "\
Examples:
  ringmux serve --listen tcp://0.0.0.0:7000 --allow 127.0.0.1:8080
  ringmux serve --listen unix:///run/ringmux.sock --allow localhost:* --allow 'unix:///run/app/*'
  ringmux serve --listen 0.0.0.0:7000 --allow db:5432 --metrics 127.0.0.1:9100 --grace 30s
  curl -s http://127.0.0.1:9100/metrics | grep ringmux_streams

Then, on another machine:
  ringmux forward 127.0.0.1:8080=127.0.0.1:8080 --via tcp://server:7000

Targets are compared as they are written: `localhost:80` does not allow `127.0.0.1:80`.
Peers are not authenticated: listen where only they can connect.";

/// Arguments of `ringmux serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen for `ringmux forward`: tcp://HOST:PORT, HOST:PORT or unix:///PATH.
    #[arg(long, value_name = "ADDR")]
    listen: Addr,

    /// What clients may reach: HOST:PORT, HOST:*, *:PORT, unix:///PATH or unix:///DIRECTORY/*.
    #[arg(long, value_name = "TARGET", required = true, num_args = 1..)]
    allow: Vec<Allow>,

    /// How long connecting to a target may take.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    connect_timeout: Duration,

    #[command(flatten)]
    options: Options,
}

/// What all connections share.
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
    let listener = engine
        .listen(&args.listen, &config(&args.options)?)
        .await
        .map_err(|error| unavailable(&args.listen, &error))?;
    if let Some(addr) = args.options.metrics {
        tokio::spawn(Endpoint::bind(addr, open.clone()).await?.serve());
    }
    output::announce(format_args!("listening on {}", listener.local_addr()));

    let server = Arc::new(Server {
        allow: args.allow.clone(),
        connect_timeout: args.connect_timeout,
        open: open.clone(),
    });
    let serving = accept_sessions(&listener, &server);
    tokio::select! {
        result = serving => result?,
        () = signals.next() => {}
    }
    signals
        .shut_down(&listener, &open, args.options.grace)
        .await
}

fn unavailable(listen: &Addr, error: &ListenError) -> Failure {
    let failure = Failure::new(format!("cannot listen on {listen}"));
    match error {
        ListenError::Io { error, .. } => failure.because(error),
        error => failure.because(error),
    }
}

async fn accept_sessions(listener: &Listener, server: &Arc<Server>) -> Result<(), Failure> {
    loop {
        let session = listener.accept().await;
        let session =
            session.map_err(|error| Failure::new("cannot accept any more").because(&error))?;
        tokio::spawn(serve_session(session, Arc::clone(server)));
    }
}

/// Takes the streams of one session until it ends. Whoever shuts the listener down ends it.
async fn serve_session(session: Session, server: Arc<Server>) {
    let peer = session
        .peer_addr()
        .map_or_else(|| "unix".to_owned(), ToString::to_string);
    tracing::info!(%peer, driver = %session.driver(), "session begins");
    let end = loop {
        match session.accept().await {
            Ok(stream) => {
                tokio::spawn(connection::serve(stream, peer.clone(), Arc::clone(&server)));
            }
            Err(end) => break end,
        }
    };
    match end {
        SessionError::Closed | SessionError::PeerClosed { .. } => {
            tracing::info!(%peer, reason = %end, "session ended");
        }
        _ => tracing::warn!(%peer, reason = %end, "session lost"),
    }
}
