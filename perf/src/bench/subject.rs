//! The candidates: ringmux over one of its drivers, or one of its peers.

use super::open_loop::Schedule;
use super::peers::{Load, Peer, ringmux};
use ::ringmux::Wire;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Driver, Host, Wait};
use ringmux_measure::mux;
use ringmux_measure::pair::Pair;
use ringmux_measure::sample::Sample;
use ringmux_measure::workload::Workload;

/// One candidate of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Ringmux(Host),
    /// A peer that sleeps or polls.
    Peer(Peer, Wait),
}

impl Subject {
    /// All candidates, ringmux first, as both lists order them.
    pub(super) fn list(
        drivers: &[Driver],
        wait: Wait,
        own_thread: bool,
        peers: &[Peer],
    ) -> Vec<Self> {
        let ringmux = drivers.iter().map(|driver| {
            let host = Host::nearest(*driver, wait);
            Self::Ringmux(Host { own_thread, ..host })
        });
        ringmux
            .chain(peers.iter().map(|peer| Self::peer(*peer, wait)))
            .collect()
    }

    /// ringmux over this driver, with this idle strategy if supported.
    pub(super) fn ringmux(driver: Driver, wait: Wait) -> Self {
        Self::Ringmux(Host::nearest(driver, wait))
    }

    /// This peer, which polls with `spin`, and sleeps otherwise: a tokio runtime has no mode in between.
    pub(super) const fn peer(peer: Peer, wait: Wait) -> Self {
        match wait {
            Wait::Spin => Self::Peer(peer, Wait::Spin),
            Wait::Park | Wait::Adaptive => Self::Peer(peer, Wait::Park),
        }
    }

    /// The library.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ringmux(_) => "ringmux",
            Self::Peer(peer, _) => peer.name(),
        }
    }

    /// Its driver: the peers have tokio only.
    pub(super) const fn host(self) -> Host {
        match self {
            Self::Ringmux(host) => host,
            Self::Peer(_, wait) => Host::inline(Driver::Tokio, wait),
        }
    }

    pub(super) const fn driver(self) -> Driver {
        self.host().driver
    }

    /// Library and driver, where the driver is a choice.
    pub(super) fn label(self) -> String {
        match self {
            Self::Ringmux(host) => {
                let thread = if host.own_thread { " thread" } else { "" };
                format!(
                    "ringmux {} {}{thread}",
                    host.driver.name(),
                    host.wait.name()
                )
            }
            Self::Peer(peer, wait) => format!("{} {}", peer.name(), wait.name()),
        }
    }

    pub(super) const fn can(self, workload: Workload) -> bool {
        match self {
            Self::Ringmux(_) => true,
            Self::Peer(peer, _) => peer.can(workload),
        }
    }

    /// Measures one slice in a closed loop.
    pub(super) fn measure(self, workload: Workload, pair: &Pair) -> Result<Sample, Failure> {
        match self {
            Self::Ringmux(host) => mux::measure(workload.shape(), host, Wire::Native, pair),
            Self::Peer(peer, wait) => peer.measure(Load::Closed(workload.shape()), wait, pair),
        }
    }

    /// Measures one slice in an open loop.
    pub(super) fn open_loop(self, schedule: Schedule, pair: &Pair) -> Result<Sample, Failure> {
        match self {
            Self::Ringmux(host) => ringmux::open_loop(host, schedule, pair),
            Self::Peer(peer, wait) => peer.measure(Load::Open(schedule), wait, pair),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bench::run::or_all;
    use ringmux_measure::machine::Cpus;

    fn everybody() -> Vec<Subject> {
        let polling = or_all(&[])
            .iter()
            .map(|peer| Subject::peer(*peer, Wait::Spin));
        Subject::list(or_all(&[]), Wait::Park, false, or_all(&[]))
            .into_iter()
            .chain(polling)
            .collect()
    }

    #[test]
    fn who_is_to_spin_polls_where_it_can() {
        let listed = Subject::list(&[Driver::Uring], Wait::Spin, false, or_all(&[]));
        assert!(
            listed
                .iter()
                .all(|subject| subject.host().wait == Wait::Spin)
        );
        let adaptive = Subject::list(&[Driver::Tokio], Wait::Adaptive, false, or_all(&[]));
        assert!(
            adaptive
                .iter()
                .all(|subject| subject.host().wait == Wait::Park)
        );
    }

    fn pair() -> Pair {
        Pair {
            warmup: Duration::from_millis(20),
            measured: Duration::from_millis(50),
            cpus: Cpus::unpinned(),
        }
    }

    #[test]
    fn everybody_carries_every_workload_that_it_can() {
        for subject in everybody() {
            for workload in or_all(&[]) {
                let sample = subject.measure(*workload, &pair());
                let what = format!("{} over {}", workload.name(), subject.label());
                // Check only for an orderly end: a busy machine may finish no message in time.
                match sample {
                    Ok(sample) => assert!(subject.can(*workload), "{what}: {sample:?}"),
                    Err(failure) => assert!(!subject.can(*workload), "{what}: {failure}"),
                }
            }
        }
    }

    #[test]
    fn everybody_echoes_on_schedule() {
        let schedule = Schedule {
            rate: 2000.0,
            streams: 64,
            warmup: Duration::from_millis(1),
        };
        for subject in everybody() {
            if subject.can(Workload::Conc64) {
                let sample = subject.open_loop(schedule, &pair());
                let sample = sample.unwrap_or_else(|failure| {
                    panic!("{}: {failure}", subject.label());
                });
                // Every message that was due is answered, in the window or after it.
                assert!(sample.quantile_ns(0.5).is_some(), "{}", subject.label());
            }
        }
    }
}
