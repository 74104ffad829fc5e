//! h2: bare HTTP/2. A stream is a request whose body carries one direction and whose response's
//! body carries the other; its path names its role.

use std::future::poll_fn;
use std::sync::Arc;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio::task;

use super::link::{Client, Closing, Receiver, Role, Sender, Transport};
use super::runtime::{accept, block_on, connect, during};
use super::server::{self, Accepted, Acceptor};
use super::{MAX_FRAME, MAX_STREAMS, Windows};
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;
use ringmux_measure::workload::Shape;

/// Bytes that a stream may queue before its sender has to wait.
const SEND_BUFFER: usize = 128 << 10;
/// h2 closes connections on which many small frames wait; here they are the workload.
const SMALL_FRAMES: usize = usize::MAX >> 1;

#[derive(Clone, Debug)]
pub(super) struct H2;

impl Transport for H2 {
    type Client = H2Client;
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
        let windows = Windows::of(shape);
        let socket = accept(listening).await?;
        let connection = h2::server::Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .max_frame_size(MAX_FRAME)
            .max_concurrent_streams(MAX_STREAMS)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_FRAMES)
            .handshake(socket)
            .await
            .map_err(during("the handshake failed on the server"))?;
        server::serve(H2Acceptor { connection }, window).await
    }

    async fn connect(
        self,
        (): (),
        shape: Shape,
        address: &str,
    ) -> Result<(H2Client, Closing), Failure> {
        let windows = Windows::of(shape);
        let socket = connect(address).await?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(windows.stream)
            .initial_connection_window_size(windows.connection)
            .max_frame_size(MAX_FRAME)
            .initial_max_send_streams(MAX_STREAMS as usize)
            .max_send_buffer_size(SEND_BUFFER)
            .data_frame_budget(SMALL_FRAMES)
            .handshake(socket)
            .await
            .map_err(during("the handshake failed"))?;
        let connection = task::spawn_local(connection);
        let closing = async move {
            connection
                .await
                .map_err(during("the connection panicked"))?
                .map_err(during("the connection failed"))
        };
        Ok((H2Client { requests }, Box::pin(closing)))
    }
}

#[derive(Clone, Debug)]
pub(super) struct H2Client {
    requests: SendRequest<Bytes>,
}

impl Client for H2Client {
    type Sender = H2Sender;
    type Receiver = H2Receiver;

    async fn open(&self, role: Role) -> Result<(H2Sender, H2Receiver), Failure> {
        let ready = self.requests.clone().ready().await;
        let mut requests = ready.map_err(during("no stream can be opened"))?;
        let request = Request::post(format!("http://perf{}", role.path()))
            .body(())
            .map_err(during("cannot make a request"))?;
        let (response, stream) = requests
            .send_request(request, false)
            .map_err(during("cannot open a stream"))?;
        Ok((H2Sender { stream }, H2Receiver::Waiting(response)))
    }
}

struct H2Acceptor {
    connection: h2::server::Connection<TcpStream, Bytes>,
}

impl Acceptor for H2Acceptor {
    type Sender = H2Sender;
    type Receiver = H2Receiver;

    async fn accept(&mut self) -> Result<Option<Accepted<H2Sender, H2Receiver>>, Failure> {
        let Some(accepted) = self.connection.accept().await else {
            return Ok(None);
        };
        let (request, mut respond) = accepted.map_err(during("the connection failed"))?;
        let role = Role::by_path(request.uri().path())
            .ok_or_else(|| Failure::new("a stream was opened with an unknown path"))?;
        let stream = respond
            .send_response(Response::new(()), false)
            .map_err(during("cannot respond"))?;
        Ok(Some(Accepted {
            role,
            sender: H2Sender { stream },
            receiver: H2Receiver::Body(request.into_body()),
        }))
    }
}

pub(super) struct H2Sender {
    stream: SendStream<Bytes>,
}

impl H2Sender {
    /// Waits until flow control and the send buffer have room for this many bytes.
    async fn reserve(&mut self, len: usize) -> Result<(), Failure> {
        self.stream.reserve_capacity(len);
        while self.stream.capacity() < len {
            match poll_fn(|cx| self.stream.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Failure::new("cannot send").because(&error)),
                None => return Err(Failure::new("a stream ended while it was sent to")),
            }
        }
        Ok(())
    }

    async fn send_data(&mut self, message: Bytes, is_last: bool) -> Result<(), Failure> {
        self.reserve(message.len()).await?;
        self.stream
            .send_data(message, is_last)
            .map_err(during("cannot send"))
    }
}

impl Sender for H2Sender {
    async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        self.send_data(message, false).await
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        self.stream
            .send_data(Bytes::new(), true)
            .map_err(during("cannot finish a stream"))
    }

    /// The end travels with the message, in one frame.
    async fn send_last(&mut self, message: Bytes) -> Result<(), Failure> {
        self.send_data(message, true).await
    }
}

pub(super) enum H2Receiver {
    /// The server has not responded yet.
    Waiting(ResponseFuture),
    Body(RecvStream),
}

impl Receiver for H2Receiver {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        if let Self::Waiting(response) = self {
            let response = response.await.map_err(during("no response came"))?;
            *self = Self::Body(response.into_body());
        }
        let Self::Body(body) = self else {
            unreachable!("the lines above have replaced it")
        };
        let Some(chunk) = body.data().await else {
            return Ok(None);
        };
        let chunk = chunk.map_err(during("cannot receive"))?;
        body.flow_control()
            .release_capacity(chunk.len())
            .map_err(during("cannot return credit"))?;
        Ok(Some(chunk))
    }
}
