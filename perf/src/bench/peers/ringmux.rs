//! ringmux as a candidate of the open loop, like its peers. (Closed loops measure it with the program's own
//! `bench`.)

use std::sync::Arc;

use bytes::Bytes;
use ringmux::{Addr, Config, Engine, RecvStream, SendStream, Session};

use super::link::{Client, Closing, Receiver, Role, Sender, Transport};
use super::runtime::during;
use super::server::{self, Accepted, Acceptor};
use super::{Load, MAX_STREAMS};
use crate::bench::open_loop::Schedule;
use ringmux_measure::failure::Failure;
use ringmux_measure::host::{Host, Wait};
use ringmux_measure::pair::{Listening, Pair, Received};
use ringmux_measure::sample::Sample;
use ringmux_measure::window::Window;
use ringmux_measure::workload::Shape;

/// Measures one slice in an open loop.
pub(in crate::bench) fn open_loop(
    host: Host,
    schedule: Schedule,
    pair: &Pair,
) -> Result<Sample, Failure> {
    // Its engine waits as the host says, and needs no help.
    super::measure(Ringmux(host), Load::Open(schedule), Wait::Park, pair)
}

#[derive(Clone, Copy, Debug)]
struct Ringmux(Host);

/// The defaults, except the number of streams.
fn config() -> Result<Config, Failure> {
    Config::builder()
        .max_streams(MAX_STREAMS)
        .max_pending_opens(MAX_STREAMS)
        .build()
        .map_err(during("cannot configure the session"))
}

impl Transport for Ringmux {
    type Client = RingmuxClient;
    type Host = Engine;

    fn block_on<F, Fut>(&self, end: F) -> Result<Fut::Output, Failure>
    where
        F: FnOnce(Engine) -> Fut,
        Fut: Future,
    {
        self.0.block_on(end)
    }

    async fn serve(
        self,
        engine: Engine,
        _: Shape,
        listening: Listening,
        window: &Arc<Window>,
    ) -> Result<Received, Failure> {
        let anywhere = Addr::Tcp("127.0.0.1:0".to_owned());
        let listener = engine.listen(&anywhere, &config()?).await;
        let listener = listener.map_err(during("cannot listen"))?;
        if let Addr::Tcp(address) = listener.local_addr() {
            listening.at(address);
        }
        let session = listener.accept().await;
        let session = session.map_err(during("cannot accept the session"))?;
        server::serve(RingmuxAcceptor { session }, window).await
    }

    async fn connect(
        self,
        engine: Engine,
        _: Shape,
        address: &str,
    ) -> Result<(RingmuxClient, Closing), Failure> {
        let address = Addr::Tcp(address.to_owned());
        let session = engine.connect(&address, &config()?).await;
        let session = session.map_err(during("cannot connect"))?;
        let last = session.clone();
        let closing = async move {
            last.close();
            last.closed().await;
            Ok(())
        };
        Ok((RingmuxClient { session }, Box::pin(closing)))
    }
}

#[derive(Clone, Debug)]
struct RingmuxClient {
    session: Session,
}

impl Client for RingmuxClient {
    type Sender = SendStream;
    type Receiver = RecvStream;

    async fn open(&self, role: Role) -> Result<(SendStream, RecvStream), Failure> {
        let opened = self.session.open(role.path().as_bytes()).await;
        opened.map_err(during("cannot open a stream"))
    }
}

struct RingmuxAcceptor {
    session: Session,
}

impl Acceptor for RingmuxAcceptor {
    type Sender = SendStream;
    type Receiver = RecvStream;

    async fn accept(&mut self) -> Result<Option<Accepted<SendStream, RecvStream>>, Failure> {
        let (sender, receiver) = match self.session.accept().await {
            Ok(Some(halves)) => halves,
            Ok(None) => return Ok(None),
            Err(error) => return Err(Failure::new("the session failed").because(&error)),
        };
        let path = str::from_utf8(sender.opening()).ok();
        let role = path
            .and_then(Role::by_path)
            .ok_or_else(|| Failure::new("a stream was opened with an unknown block"))?;
        Ok(Some(Accepted {
            role,
            sender,
            receiver,
        }))
    }
}

impl Sender for SendStream {
    async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        self.send_slice(&message)
            .await
            .map_err(during("cannot send"))
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        Self::finish(self).map_err(during("cannot finish a stream"))
    }
}

impl Receiver for RecvStream {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let message = self.lease().await.map_err(during("cannot receive"))?;
        Ok(message.map(|message| Bytes::copy_from_slice(&message.to_contiguous())))
    }
}
