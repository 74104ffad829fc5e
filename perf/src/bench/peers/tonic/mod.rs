//! tonic: gRPC. Echoes are a bidirectional method, calls a unary one, one-way streams a client
//! streaming one whose response confirms the last message. The workloads of calls have methods of their own for messages of
//! protobuf, by tonic's own codec, and for streams of answers.

mod codec;
pub(in crate::bench) mod server;

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::link::{Client, Closing, Receiver, Role, Sender, Source, Transport};
use super::rpc::{Rpc, Stack};
use super::runtime::{block_on, during};
use super::{MAX_FRAME, MAX_STREAMS, Windows};
use codec::Raw;
use ringmux_measure::calls::Ten;
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;
use ringmux_measure::workload::Shape;

/// Messages between a task and the stream that tonic takes them from.
const QUEUE: usize = 1024;
/// Called without meaning when the client has finished, so that the server ends in order.
const END: &str = "/perf.Perf/End";
/// Sends a message of ten fields back.
const ECHO_TEN: &str = "/perf.Perf/EchoTen";
/// Numbered messages until the window is done.
const FEED: &str = "/perf.Perf/Feed";
/// Any shape that is not bulk beside round trips has the same windows.
const CALLS: Shape = Shape::Unary { calls: 1 };

#[derive(Clone, Debug)]
pub(super) struct Tonic;

impl Transport for Tonic {
    type Client = TonicClient;
    type Host = ();

    fn block_on<F, Fut>(&self, end: F) -> Result<Fut::Output, Failure>
    where
        F: FnOnce(()) -> Fut,
        Fut: Future,
    {
        block_on(end(()))
    }

    async fn serve(
        self,
        (): (),
        shape: Shape,
        listening: Listening,
        window: &Arc<Window>,
    ) -> Result<Received, Failure> {
        server::run(Windows::of(shape), listening, window).await
    }

    async fn connect(
        self,
        (): (),
        shape: Shape,
        address: &str,
    ) -> Result<(TonicClient, Closing), Failure> {
        let windows = Windows::of(shape);
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(during("the server's address is wrong"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .max_frame_size(MAX_FRAME)
            .buffer_size(MAX_STREAMS as usize)
            .connect()
            .await
            .map_err(during("cannot connect"))?;
        let client = TonicClient { channel };
        let last = client.clone();
        let closing = async move {
            let mut grpc = last.ready().await?;
            let path = PathAndQuery::from_static(END);
            let ended = grpc.unary(Request::new(Bytes::new()), path, Raw).await;
            ended.map(drop).map_err(during("cannot end the server"))
        };
        Ok((client, Box::pin(closing)))
    }
}

impl Stack for Tonic {
    type Client = TonicClient;

    async fn serve(self, listening: Listening, window: &Arc<Window>) -> Result<Received, Failure> {
        server::run(Windows::of(CALLS), listening, window).await
    }

    async fn connect(self, address: &str) -> Result<(TonicClient, Closing), Failure> {
        Transport::connect(self, (), CALLS, address).await
    }
}

/// Connects with the defaults.
pub(in crate::bench) async fn connect_untuned(address: &str) -> Result<TonicClient, Failure> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(during("the server's address is wrong"))?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(during("cannot connect"))?;
    Ok(TonicClient { channel })
}

#[derive(Clone, Debug)]
pub(in crate::bench) struct TonicClient {
    channel: Channel,
}

impl Rpc for TonicClient {
    async fn call(&self, message: Bytes) -> Result<Bytes, Failure> {
        let mut grpc = self.ready().await?;
        let reply = grpc
            .unary(Request::new(message), path(Role::Call), Raw)
            .await;
        let reply = reply.map_err(during("a call failed"))?;
        Ok(reply.into_inner())
    }

    async fn call_ten(&self, message: &Ten) -> Result<Ten, Failure> {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(ECHO_TEN);
        let codec = ProstCodec::<Ten, Ten>::default();
        let reply = grpc.unary(Request::new(message.clone()), path, codec).await;
        let reply = reply.map_err(during("a call failed"))?;
        Ok(reply.into_inner())
    }

    async fn feed(
        &self,
        mut each: impl FnMut(&[u8]) -> Result<bool, Failure> + Send,
    ) -> Result<(), Failure> {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(FEED);
        let begun = grpc
            .server_streaming(Request::new(Bytes::new()), path, Raw)
            .await;
        let mut messages = begun.map_err(during("cannot begin a feed"))?.into_inner();
        let failed = during("a feed failed");
        while let Some(message) = messages.message().await.map_err(&failed)? {
            if !each(&message)? {
                break;
            }
        }
        Ok(())
    }
}

impl TonicClient {
    async fn ready(&self) -> Result<Grpc<Channel>, Failure> {
        let mut grpc = Grpc::new(self.channel.clone());
        let ready = grpc.ready().await;
        ready.map_err(during("no stream can be opened"))?;
        Ok(grpc)
    }
}

fn path(role: Role) -> PathAndQuery {
    PathAndQuery::from_static(role.path())
}

impl Client for TonicClient {
    type Sender = TonicSender;
    type Receiver = TonicReceiver;

    async fn open(&self, role: Role) -> Result<(TonicSender, TonicReceiver), Failure> {
        let mut grpc = self.ready().await?;
        let (queue, messages) = mpsc::channel(QUEUE);
        let response = grpc
            .streaming(Request::new(ReceiverStream::new(messages)), path(role), Raw)
            .await
            .map_err(during("cannot open a stream"))?;
        let sender = TonicSender { queue: Some(queue) };
        Ok((sender, TonicReceiver(response.into_inner())))
    }

    async fn call(&self, message: Bytes) -> Result<Bytes, Failure> {
        let mut grpc = self.ready().await?;
        let reply: Result<_, Status> = grpc
            .unary(Request::new(message), path(Role::Call), Raw)
            .await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(during("a call failed"))
    }

    async fn one_way(&self, role: Role, source: Source) -> Result<(), Failure> {
        let mut grpc = self.ready().await?;
        let messages = Request::new(tokio_stream::iter(source));
        let taken = grpc.client_streaming(messages, path(role), Raw).await;
        taken.map(drop).map_err(during("cannot send"))
    }
}

pub(super) struct TonicSender {
    queue: Option<mpsc::Sender<Bytes>>,
}

impl Sender for TonicSender {
    async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        match &self.queue {
            Some(queue) => queue.send(message).await.map_err(during("cannot send")),
            None => Err(Failure::new("cannot send: the stream is finished")),
        }
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        self.queue = None;
        Ok(())
    }
}

pub(super) struct TonicReceiver(Streaming<Bytes>);

impl Receiver for TonicReceiver {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        self.0.message().await.map_err(during("cannot receive"))
    }
}
