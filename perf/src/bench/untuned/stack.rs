//! The stacks with their defaults.

use bytes::Bytes;
use ringmux::rpc::{Channel, Context, Sender, Server, Status};

use super::calling::{self, Run};
use crate::bench::peers::rpc::{Job, Rpc};
use crate::bench::peers::{Peer, bare, tarpc, tonic};
use ringmux_measure::calls::{ECHO, ECHO_TEN, FEED, Ten};
use ringmux_measure::failure::Failure;
use ringmux_measure::message::Numbered;
use ringmux_measure::sample::Sample;
use ringmux_measure::workload::Workload;

/// A stack of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Stack {
    Ringmux,
    Tonic,
    Tarpc,
    Bare,
}

impl Stack {
    /// ringmux, and those of the peers that have calls.
    pub(super) fn list(peers: &[Peer]) -> Vec<Self> {
        let others = peers.iter().filter_map(|peer| match peer {
            Peer::Tonic => Some(Self::Tonic),
            Peer::Tarpc => Some(Self::Tarpc),
            Peer::Bare => Some(Self::Bare),
            Peer::Yamux | Peer::H2 | Peer::Quinn => None,
        });
        std::iter::once(Self::Ringmux).chain(others).collect()
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ringmux => "ringmux",
            Self::Tonic => Peer::Tonic.name(),
            Self::Tarpc => Peer::Tarpc.name(),
            Self::Bare => Peer::Bare.name(),
        }
    }

    pub(super) const fn can(self, workload: Workload) -> bool {
        let has_streams = !matches!(self, Self::Tarpc | Self::Bare);
        match Job::of(workload.shape()) {
            None => false,
            Some(Job::Feeds(_)) => has_streams,
            Some(Job::Calls(..)) => true,
        }
    }

    /// Listens, and serves every connection on this runtime. Returns the address.
    pub(super) async fn listen(self) -> Result<String, Failure> {
        match self {
            Self::Ringmux => listen().await,
            Self::Tonic => tonic::server::listen_untuned().await,
            Self::Tarpc => tarpc::listen_untuned().await,
            Self::Bare => bare::listen_untuned().await,
        }
    }

    /// Connects, and calls.
    pub(super) async fn call(self, address: &str, run: Run) -> Result<Sample, Failure> {
        match self {
            Self::Ringmux => {
                let session = ringmux::connect(address).await;
                let session = session.map_err(during("cannot connect"))?;
                calling::run(RingmuxClient(Channel::new(session)), run).await
            }
            Self::Tonic => calling::run(tonic::connect_untuned(address).await?, run).await,
            Self::Tarpc => calling::run(tarpc::connect_untuned(address).await?, run).await,
            Self::Bare => calling::run(bare::connect_untuned(address).await?, run).await,
        }
    }
}

fn during<E: std::error::Error + 'static>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(what).because(&error)
}

async fn listen() -> Result<String, Failure> {
    async fn feed(_: Context, _: Bytes, mut out: Sender<Bytes>) -> Result<(), Status> {
        let mut message = Numbered::new();
        loop {
            out.send(Bytes::copy_from_slice(message.advance())).await?;
        }
    }
    let listener = ringmux::listen("tcp://127.0.0.1:0").await;
    let listener = listener.map_err(during("cannot listen"))?;
    let address = listener.local_addr().to_string();
    let server = Server::builder()
        .unary(ECHO, async |_, message: Bytes| Ok(message))
        .unary(ECHO_TEN, async |_, message: Ten| Ok(message))
        .server_streaming(FEED, feed)
        .build()
        .map_err(during("cannot make the server"))?;
    tokio::spawn(async move { server.serve(listener).await });
    Ok(address)
}

#[derive(Clone, Debug)]
struct RingmuxClient(Channel);

impl Rpc for RingmuxClient {
    async fn call(&self, message: Bytes) -> Result<Bytes, Failure> {
        let answer = self.0.call(&ECHO, &message).await;
        answer.map_err(during("a call failed"))
    }

    async fn call_ten(&self, message: &Ten) -> Result<Ten, Failure> {
        let answer = self.0.call(&ECHO_TEN, message).await;
        answer.map_err(during("a call failed"))
    }

    async fn feed(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<bool, Failure> + Send,
    ) -> Result<(), Failure> {
        let request = Bytes::new();
        let begun = self.0.server_streaming(&FEED, &request).open().await;
        let mut messages = begun.map_err(during("cannot begin a feed"))?;
        let failed = during("a feed failed");
        while let Some(message) = messages.recv().await.map_err(&failed)? {
            if !each(&message)? {
                break;
            }
        }
        Ok(())
    }
}
