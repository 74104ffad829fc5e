//! A well-behaved session, and the times of its round trips.

use std::cmp::Ordering;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use hdrhistogram::Histogram;
use ringmux::rpc::{Channel, Code, Method, Origin, Raw};
use ringmux::{Addr, Config, Driver, Engine, Limit, Session, SessionError};
use tokio::time::{Instant, timeout};

use crate::connect;
use ringmux_measure::failure::Failure;

/// Round trips are kept with three significant digits up to this many nanoseconds.
const RTT_NS_MAX: u64 = 60_000_000_000;
/// Seconds without an answer after which the server counts as dead: keepalive detects a dead server in 25. Counted one by one,
/// so that time in which this process was stopped counts as one.
const PATIENCE_SECONDS: u32 = 30;
/// Round trips before the first that counts.
const WARM_UP: usize = 50;

/// The kind of round trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RoundTrip {
    /// A PING. A server with `Config::edge` allows one a second
    Ping,
    /// A stream that is opened, finished, and ended by the server, with any result
    Call,
    /// A unary call of `--method` with an empty request, with any result
    Unary,
}

/// See the module.
pub(super) struct Neighbour {
    session: Session,
    /// Keeps the sessions going.
    engine: Engine,
    addr: Addr,
    how: RoundTrip,
    method: Method<Bytes, Bytes>,
}

/// The round trips of a time.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    rtts: Histogram<u64>,
}

impl Slice {
    fn new() -> Self {
        let rtts = Histogram::new_with_max(RTT_NS_MAX, 3).expect("a constant range that is valid");
        Self { rtts }
    }

    fn record(&mut self, rtt: Duration) {
        let ns = u64::try_from(rtt.as_nanos()).unwrap_or(RTT_NS_MAX);
        let ns = ns.clamp(1, RTT_NS_MAX);
        self.rtts.record(ns).expect("in range by the line above");
    }
}

/// The median of the slices' quantiles, which leaves out a slice disturbed by other load.
pub(super) fn median_ns(slices: &[Slice], quantile: f64) -> u64 {
    let of = |slice: &Slice| slice.rtts.value_at_quantile(quantile);
    median(slices.iter().map(of).collect()).unwrap_or(0)
}

/// The median of the ratios of the slices' quantiles to those of the slices just before them.
pub(super) fn median_ratio(before: &[Slice], during: &[Slice], quantile: f64) -> f64 {
    let of = |slice: &Slice| slice.rtts.value_at_quantile(quantile);
    let pairs = before.iter().zip(during);
    let ratios = pairs.map(|(before, during)| of(during) as f64 / of(before).max(1) as f64);
    median(ratios.collect()).unwrap_or(0.0)
}

fn median<T: Copy + PartialOrd>(mut values: Vec<T>) -> Option<T> {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    values.get(values.len().saturating_sub(1) / 2).copied()
}

/// The ratio of the average round trip to the one before the attack was first played: the server's backlog in pauses of the
/// attack is not taken as the baseline.
pub(super) fn slowdown(before: &[Slice], during: &[Slice]) -> f64 {
    let first = before.get(..1).unwrap_or_default();
    mean_ns(during) / mean_ns(first).max(1.0)
}

/// The average of a round trip.
pub(super) fn mean_ns(slices: &[Slice]) -> f64 {
    let sum: f64 = slices
        .iter()
        .map(|slice| slice.rtts.mean() * slice.rtts.len() as f64)
        .sum();
    sum / (count(slices) as f64).max(1.0)
}

/// How many round trips there were.
pub(super) fn count(slices: &[Slice]) -> u64 {
    slices.iter().map(|slice| slice.rtts.len()).sum()
}

impl Neighbour {
    /// A session to the server, after a few round trips that do not count.
    ///
    /// # Errors
    /// Connecting failed, or the session ended.
    pub(super) async fn connect(
        addr: &Addr,
        how: RoundTrip,
        method: Method<Bytes, Bytes>,
    ) -> Result<Self, Failure> {
        let engine = Engine::inline(Driver::Tokio)
            .map_err(|error| Failure::new("cannot start an engine").because(&error))?;
        let neighbour = Self {
            session: session(&engine, addr).await?,
            engine,
            addr: addr.clone(),
            how,
            method,
        };
        for _ in 0..WARM_UP {
            neighbour.round_trip().await?;
        }
        Ok(neighbour)
    }

    /// One round trip after the other, for this long.
    ///
    /// # Errors
    /// A round trip was not answered: the server did not survive.
    pub(super) async fn measure(&self, time: Duration) -> Result<Slice, Failure> {
        let until = Instant::now() + time;
        let mut slice = Slice::new();
        while Instant::now() < until {
            slice.record(self.round_trip().await?);
        }
        Ok(slice)
    }

    /// Whether the server still accepts new clients.
    ///
    /// # Errors
    /// It does not.
    pub(super) async fn newcomer(&self) -> Result<(), Failure> {
        let session = session(&self.engine, &self.addr).await?;
        let newcomer = Self {
            session,
            engine: self.engine.clone(),
            addr: self.addr.clone(),
            how: self.how,
            method: self.method,
        };
        newcomer.round_trip().await?;
        newcomer.close();
        Ok(())
    }

    pub(super) fn close(&self) {
        self.session.close();
    }

    async fn round_trip(&self) -> Result<Duration, Failure> {
        let what = match self.how {
            RoundTrip::Ping => "ping",
            RoundTrip::Call | RoundTrip::Unary => "call",
        };
        let failure = || Failure::new(format!("a {what} of the neighbour was not answered"));
        let since = std::time::Instant::now();
        let round_trip = async {
            match self.how {
                RoundTrip::Ping => self.session.ping().await.map(drop),
                RoundTrip::Call => self.call().await,
                RoundTrip::Unary => self.unary().await,
            }
        };
        let mut round_trip = std::pin::pin!(round_trip);
        for _ in 0..PATIENCE_SECONDS {
            match timeout(Duration::from_secs(1), &mut round_trip).await {
                Ok(Ok(())) => return Ok(since.elapsed()),
                Ok(Err(error)) => return Err(advised(failure().because(&error), &error)),
                Err(_) => {}
            }
        }
        Err(failure().advise(format!("no answer within {PATIENCE_SECONDS} s")))
    }

    /// Whether the server answers calls, and not only streams: it says that it does not have a method.
    pub(super) async fn is_for_calls(&self) -> bool {
        let channel = Channel::new(self.session.clone());
        let probe = Bytes::new();
        let answer = channel.call(&PROBE, &probe).timeout(PROBE_TIME).await;
        answer.is_err_and(|status| {
            status.code() == Code::UNIMPLEMENTED && status.origin() == Origin::PeerLibrary
        })
    }

    async fn unary(&self) -> Result<(), SessionError> {
        let channel = Channel::new(self.session.clone());
        // The server may fail the call: that is an answer. The end of the session is none.
        let _ = channel.call(&self.method, &Bytes::new()).await;
        self.session.state().end().map_or(Ok(()), Err)
    }

    /// The server may refuse the stream or fail it: that is an answer. The end of the session is none.
    async fn call(&self) -> Result<(), SessionError> {
        let ended = || self.session.state().end();
        let Ok((mut send, mut recv)) = self.session.open("").await else {
            return ended().map_or(Ok(()), Err);
        };
        // Fails if the server has ended the stream.
        let _ = send.finish();
        while let Ok(Some(_)) = recv.recv().await {}
        ended().map_or(Ok(()), Err)
    }
}

/// A method that no server has.
const PROBE: Method<Bytes, Bytes> = Method::unary::<Raw>("ringmux.attack/Probe");
/// How long a server of streams may take not to answer a call.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Advises calls instead of PINGs if the server limits PINGs.
fn advised(failure: Failure, error: &SessionError) -> Failure {
    match error {
        SessionError::PeerClosed { reason, .. } if reason.contains(Limit::PingRate.name()) => {
            failure.advise("try --neighbour call")
        }
        _ => failure,
    }
}

async fn session(engine: &Engine, addr: &Addr) -> Result<Session, Failure> {
    connect::connect(engine, addr, &Config::default(), "a ringmux server").await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(us: u64) -> Slice {
        let mut slice = Slice::new();
        (0..100).for_each(|_| slice.record(Duration::from_micros(us)));
        slice
    }

    /// The machine has other load during two slices, and again during one.
    #[test]
    fn what_the_machine_does_to_both_kinds_of_slices_is_not_in_the_ratio() {
        let before = [100, 9000, 100].map(slice);
        let ratio = median_ratio(&before, &[110, 9900, 5000].map(slice), 0.99);
        assert!((1.09..1.11).contains(&ratio), "{ratio}");
        let starved = median_ratio(&before, &[300, 9900, 290].map(slice), 0.99);
        assert!(starved > 2.8, "{starved}");
        assert!(median_ratio(&[], &[], 0.99) < 1.0);
    }

    /// Its backlog lasts into the pauses of the attack.
    #[test]
    fn a_server_that_lags_behind_an_attack_is_slowed_down_by_it() {
        let before = [100, 900, 900].map(slice);
        let during = [900, 900, 900].map(slice);
        assert!(median_ratio(&before, &during, 0.99) < 1.1);
        assert!(slowdown(&before, &during) > 8.9);
        assert!(slowdown(&before, &[110, 110, 110].map(slice)) < 1.2);
        assert!(slowdown(&[], &[]) < 1.0);
    }

    #[test]
    fn one_slice_of_three_does_not_move_the_median() {
        let slices = [slice(50), slice(9000), slice(60)];
        let p99 = median_ns(&slices, 0.99);
        assert!((59_000..62_000).contains(&p99), "{p99}");
        assert_eq!(count(&slices), 300);
        assert_eq!(median_ns(&[], 0.99), 0);
    }
}
