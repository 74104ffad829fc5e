//! What is measured: ringmux over one of its drivers, or one of its peers.

use super::host::{Driver, Host, Wait};
use super::mux;
use super::open_loop::Schedule;
use super::pair::Pair;
use super::peers::{Load, Peer, ringmux};
use super::sample::Sample;
use super::workload::Workload;
use crate::failure::Failure;

/// One candidate of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Ringmux(Host),
    Peer(Peer),
}

impl Subject {
    /// All candidates, ringmux first, as both lists order them.
    pub(super) fn list(drivers: &[Driver], wait: Wait, peers: &[Peer]) -> Vec<Self> {
        let hosts = drivers.iter().map(|driver| Host::nearest(*driver, wait));
        let ringmux = hosts.map(Self::Ringmux);
        ringmux
            .chain(peers.iter().copied().map(Self::Peer))
            .collect()
    }

    /// The library.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ringmux(_) => "ringmux",
            Self::Peer(peer) => peer.name(),
        }
    }

    /// What it runs on: the peers know tokio only.
    pub(super) const fn host(self) -> Host {
        match self {
            Self::Ringmux(host) => host,
            Self::Peer(_) => Host {
                driver: Driver::Tokio,
                wait: Wait::Park,
            },
        }
    }

    pub(super) const fn driver(self) -> Driver {
        self.host().driver
    }

    /// Library and driver, where the driver is a choice.
    pub(super) fn label(self) -> String {
        match self {
            Self::Ringmux(host) => format!("ringmux {} {}", host.driver.name(), host.wait.name()),
            Self::Peer(peer) => peer.name().to_owned(),
        }
    }

    pub(super) const fn can(self, workload: Workload) -> bool {
        match self {
            Self::Ringmux(_) => true,
            Self::Peer(peer) => peer.can(workload),
        }
    }

    /// Measures one slice in a closed loop.
    pub(super) fn measure(self, workload: Workload, pair: &Pair) -> Result<Sample, Failure> {
        match self {
            Self::Ringmux(host) => mux::measure(workload, host, pair),
            Self::Peer(peer) => peer.measure(Load::Closed(workload.shape()), pair),
        }
    }

    /// Measures one slice in an open loop.
    pub(super) fn open_loop(self, schedule: Schedule, pair: &Pair) -> Result<Sample, Failure> {
        match self {
            Self::Ringmux(host) => ringmux::open_loop(host, schedule, pair),
            Self::Peer(peer) => peer.measure(Load::Open(schedule), pair),
        }
    }
}
