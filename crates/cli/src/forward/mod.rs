//! `ringmux forward`: listens locally and carries each connection to a target behind
//! `ringmux serve`, all over one session.

mod connection;
mod pair;
mod uplink;

use std::sync::Arc;
use std::time::Duration;

use ringmux::{Addr, Engine};
use tokio::task::JoinSet;

use crate::endpoint;
use crate::output;
use crate::tunnel::{Endpoint, Listener, OpenConnections, Options, Signals, config};
use crate::waiting::Waiting;
use connection::Route;
use pair::Pair;
use ringmux_measure::failure::Failure;
use ringmux_measure::units::parse_duration;
use uplink::Uplink;

const EXAMPLES: &str = "\
Examples:
  ringmux forward --listen 127.0.0.1:8080 --to 127.0.0.1:80 --via tcp://server:7000
  ringmux forward 8080=127.0.0.1:80 5432=db:5432 --via tcp://server:7000
  ringmux forward --retry 8080=127.0.0.1:80 --via tcp://server:7000    whether it is there yet or not
  ringmux forward unix:///run/local.sock=unix:///run/app/api.sock --via unix:///run/ringmux.sock

Targets are connected to by `ringmux serve`, from where it runs. A lost session is made anew; the
connections on it end, new ones wait for it.";

/// Arguments of `ringmux forward`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Connections to carry: LOCAL=TARGET, each an address; a PORT alone as LOCAL is on 127.0.0.1.
    #[arg(value_name = "LOCAL=TARGET", required_unless_present = "listen")]
    pairs: Vec<Pair>,

    /// Where to listen: HOST:PORT, PORT or unix:///PATH. The same as LOCAL of a pair.
    #[arg(long, value_name = "LOCAL", requires = "to", value_parser = endpoint::local)]
    listen: Option<Addr>,

    /// Where to carry it: HOST:PORT or unix:///PATH. The same as TARGET of a pair.
    #[arg(long, value_name = "TARGET", requires = "listen", value_parser = endpoint::remote)]
    to: Option<Addr>,

    /// Where `ringmux serve` listens: tcp://HOST:PORT, HOST:PORT or unix:///PATH.
    #[arg(long, value_name = "ADDR", value_parser = endpoint::remote)]
    via: Addr,

    /// Listen at once and retry until `ringmux serve` is reachable; without it the first failure ends the program.
    #[arg(long)]
    retry: bool,

    /// How long a new connection waits for the session while there is none.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    wait: Duration,

    #[command(flatten)]
    options: Options,
}

impl Args {
    fn pairs(&self) -> Vec<Pair> {
        let named = self.listen.clone().zip(self.to.clone());
        let named = named.map(|(local, target)| Pair { local, target });
        self.pairs.iter().cloned().chain(named).collect()
    }
}

/// Forwards until SIGTERM or Ctrl-C.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    args.options.block_on(|engine| forward(args, engine))
}

async fn forward(args: &Args, engine: Engine) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let mut listeners = Vec::new();
    for pair in args.pairs() {
        let listener = tokio::select! {
            listener = bind(&pair.local) => listener?,
            () = signals.next() => return Ok(()),
        };
        listeners.push((listener, pair.target));
    }
    let open = OpenConnections::new(args.options.max_connections);
    let endpoint = match args.options.metrics.as_deref() {
        Some(addr) => Some(Endpoint::bind(addr, open.clone()).await?),
        None => None,
    };
    let uplink = tokio::select! {
        uplink = Uplink::start(engine, args.via.clone(), config(&args.options)?, args.retry) => uplink?,
        () = signals.next() => return Ok(()),
    };
    if let Some(endpoint) = endpoint {
        uplink.watch_in(&endpoint);
        tokio::spawn(endpoint.serve());
    }
    let mut accepting = JoinSet::new();
    for (listener, target) in listeners {
        announce(&listener, &target)?;
        let route = Route {
            target: target.to_string(),
            uplink: uplink.handle(),
            wait: args.wait,
        };
        accepting.spawn(accept(listener, Arc::new(route), open.clone()));
    }
    signals.next().await;
    accepting.shutdown().await;
    let drained = signals.drain(&open, args.options.grace).await;
    uplink.close().await;
    drained
}

async fn bind(local: &Addr) -> Result<Listener, Failure> {
    let bound = Waiting::on(local).during(Listener::bind(local)).await;
    bound.map_err(|error| Failure::new(format!("cannot listen on {local}")).because(&error))
}

fn announce(listener: &Listener, target: &Addr) -> Result<(), Failure> {
    let local = listener
        .addr()
        .map_err(|error| Failure::new("cannot read the listening address").because(&error))?;
    output::announce(format_args!("listening on {local} for {target}"));
    Ok(())
}

async fn accept(listener: Listener, route: Arc<Route>, open: OpenConnections) {
    loop {
        let socket = listener.accept().await;
        let place = open.enter().await;
        let route = Arc::clone(&route);
        tokio::spawn(async move {
            connection::forward(socket, &route).await;
            drop(place);
        });
    }
}
