//! `ringmux serve`: the far end of `ringmux forward`; connects to targets.

mod allow;
mod connection;

use std::sync::Arc;
use std::time::Duration;

use ringmux::{Addr, Engine, ListenError, Listener, Session, SessionError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::tunnel::{OpenConnections, Options, Signals, config};
use crate::units::parse_duration;
use allow::Allow;

/// Sessions that do not end this long after they were closed are left behind.
const CLOSE_TIME: Duration = Duration::from_secs(3);

const EXAMPLES: &str = "\
Examples:
  ringmux serve --listen tcp://0.0.0.0:7000 --allow 127.0.0.1:8080
  ringmux serve --listen unix:///run/ringmux.sock --allow localhost:* --allow 'unix:///run/app/*'

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

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Serving,
    /// Open connections go on, new ones are refused.
    Draining,
    /// Sessions are closed.
    Closing,
}

/// What all connections share.
#[derive(Debug)]
struct Server {
    allow: Vec<Allow>,
    connect_timeout: Duration,
    open: OpenConnections,
    phase: watch::Receiver<Phase>,
}

/// Serves until SIGTERM or Ctrl-C.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.options.block_on(|engine| serve(args, engine))
}

async fn serve(args: &Args, engine: Engine) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let listener = engine
        .listen(&args.listen, &config(&args.options)?)
        .await
        .map_err(|error| unavailable(&args.listen, &error))?;
    println!("listening on {}", listener.local_addr());

    let (phase, phases) = watch::channel(Phase::Serving);
    let server = Arc::new(Server {
        allow: args.allow.clone(),
        connect_timeout: args.connect_timeout,
        open: OpenConnections::new(args.options.max_connections),
        phase: phases,
    });
    let mut sessions = JoinSet::new();
    tokio::select! {
        result = accept_sessions(&listener, &server, &mut sessions) => result?,
        () = signals.next() => {}
    }
    drop(listener);
    phase.send_replace(Phase::Draining);
    let drained = signals.drain(&server.open, args.options.grace).await;
    phase.send_replace(Phase::Closing);
    if timeout(CLOSE_TIME, async {
        while sessions.join_next().await.is_some() {}
    })
    .await
    .is_err()
    {
        tracing::warn!(sessions = sessions.len(), "sessions were left unclosed");
    }
    drained
}

fn unavailable(listen: &Addr, error: &ListenError) -> Failure {
    let failure = Failure::new(format!("cannot listen on {listen}"));
    match error {
        ListenError::Io { source, .. } => failure.because(source),
        error => failure.because(error),
    }
}

async fn accept_sessions(
    listener: &Listener,
    server: &Arc<Server>,
    sessions: &mut JoinSet<()>,
) -> Result<(), Failure> {
    loop {
        tokio::select! {
            session = listener.accept() => {
                let session = session.map_err(|error| {
                    Failure::new("cannot accept any more").because(&error)
                })?;
                sessions.spawn(serve_session(session, Arc::clone(server)));
            }
            Some(_) = sessions.join_next() => {}
        }
    }
}

/// Takes the streams of one session until it ends, or until all are to be closed.
async fn serve_session(session: Session, server: Arc<Server>) {
    let peer = session
        .peer_addr()
        .map_or_else(|| "unix".to_owned(), ToString::to_string);
    tracing::info!(%peer, driver = %session.driver(), "session begins");
    let mut phase = server.phase.clone();
    let end = loop {
        tokio::select! {
            stream = session.accept() => match stream {
                Ok(stream) => {
                    tokio::spawn(connection::serve(stream, peer.clone(), Arc::clone(&server)));
                }
                Err(end) => break end,
            },
            () = closing(&mut phase) => {
                session.close();
                break session.closed().await;
            }
        }
    };
    match end {
        SessionError::Closed | SessionError::PeerClosed { .. } => {
            tracing::info!(%peer, reason = %end, "session ended");
        }
        _ => tracing::warn!(%peer, reason = %end, "session lost"),
    }
}

async fn closing(phase: &mut watch::Receiver<Phase>) {
    // If the sender is gone, so is whoever served.
    let _ = phase.wait_for(|phase| *phase == Phase::Closing).await;
}
