//! yamux: byte streams over one connection, as libp2p uses them.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{AsyncWrite, Stream as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, Mode, Stream};

use super::link::{Client, Closing, Receiver, Role, Sender, Transport};
use super::runtime::{accept, block_on, connect, during};
use super::server::{self, Accepted, Acceptor};
use super::{MAX_FRAME, MAX_STREAMS};
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;
use ringmux_measure::workload::Shape;

#[derive(Clone, Debug)]
pub(super) struct Yamux;

fn config() -> Config {
    let mut config = Config::default();
    // In this order, because the limit on all windows bounds the number of streams.
    config.set_max_connection_receive_window(None);
    config.set_max_num_streams(MAX_STREAMS as usize);
    config.set_split_send_size(MAX_FRAME as usize);
    config
}

impl Transport for Yamux {
    type Client = YamuxClient;
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
        let socket = accept(listening).await?;
        let acceptor = YamuxAcceptor {
            connection: Connection::new(socket.compat(), config(), Mode::Server),
            shape,
            is_first: true,
        };
        server::serve(acceptor, window).await
    }

    async fn connect(
        self,
        (): (),
        _: Shape,
        address: &str,
    ) -> Result<(YamuxClient, Closing), Failure> {
        let socket = connect(address).await?;
        let (openings, requests) = mpsc::unbounded_channel();
        let driver = ClientDriver {
            connection: Connection::new(socket.compat(), config(), Mode::Client),
            requests,
            waiting: None,
            closing: false,
        };
        let driver = task::spawn_local(driver.run());
        let closing = async move { driver.await.map_err(during("the connection panicked"))? };
        Ok((YamuxClient { openings }, Box::pin(closing)))
    }
}

type Opening = oneshot::Sender<Stream>;

#[derive(Clone, Debug)]
pub(super) struct YamuxClient {
    openings: mpsc::UnboundedSender<Opening>,
}

impl Client for YamuxClient {
    type Sender = YamuxSender;
    type Receiver = YamuxReceiver;

    async fn open(&self, _: Role) -> Result<(YamuxSender, YamuxReceiver), Failure> {
        let (opening, opened) = oneshot::channel();
        // If the driver has ended, the other end of `opened` is dropped as well.
        let _ = self.openings.send(opening);
        let stream = opened.await.map_err(during("cannot open a stream"))?;
        Ok(halves(stream))
    }
}

/// Drives the client's connection, and opens streams for its tasks: yamux requires both in one task.
struct ClientDriver {
    connection: Connection<Compat<TcpStream>>,
    requests: mpsc::UnboundedReceiver<Opening>,
    waiting: Option<Opening>,
    closing: bool,
}

impl ClientDriver {
    async fn run(mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        while !self.closing {
            if self.waiting.is_none() {
                match self.requests.poll_recv(cx) {
                    Poll::Ready(Some(opening)) => self.waiting = Some(opening),
                    Poll::Ready(None) => self.closing = true,
                    Poll::Pending => break,
                }
                continue;
            }
            match self.connection.poll_new_outbound(cx) {
                Poll::Ready(Ok(stream)) => {
                    let waiting = self.waiting.take().expect("it was some above");
                    // Fails if the task has failed meanwhile.
                    let _ = waiting.send(stream);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(broken(&error))),
                Poll::Pending => break,
            }
        }
        if self.closing {
            let closed = self.connection.poll_close(cx);
            return closed.map_err(|error| broken(&error));
        }
        self.connection.poll_next_inbound(cx).map(|event| {
            Err(match event {
                Some(Err(error)) => broken(&error),
                Some(Ok(_)) => Failure::new("the server opened a stream"),
                None => Failure::new("the server closed the connection"),
            })
        })
    }
}

struct YamuxAcceptor {
    connection: Connection<Compat<TcpStream>>,
    shape: Shape,
    is_first: bool,
}

impl Acceptor for YamuxAcceptor {
    type Sender = YamuxSender;
    type Receiver = YamuxReceiver;

    async fn accept(&mut self) -> Result<Option<Accepted<YamuxSender, YamuxReceiver>>, Failure> {
        let stream = match poll_fn(|cx| self.connection.poll_next_inbound(cx)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => return Err(broken(&error)),
            None => return Ok(None),
        };
        let role = Role::by_order(self.shape, self.is_first);
        self.is_first = false;
        let (sender, receiver) = halves(stream);
        Ok(Some(Accepted {
            role,
            sender,
            receiver,
        }))
    }
}

fn broken(error: &yamux::ConnectionError) -> Failure {
    Failure::new("the connection failed").because(error)
}

/// Both directions are one object in yamux; on one thread they share it without a lock.
fn halves(stream: Stream) -> (YamuxSender, YamuxReceiver) {
    let stream = Rc::new(RefCell::new(stream));
    (YamuxSender(Rc::clone(&stream)), YamuxReceiver(stream))
}

pub(super) struct YamuxSender(Rc<RefCell<Stream>>);

impl Sender for YamuxSender {
    async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        let mut rest = &message[..];
        while !rest.is_empty() {
            let write =
                |cx: &mut Context<'_>| Pin::new(&mut *self.0.borrow_mut()).poll_write(cx, rest);
            let n = poll_fn(write).await.map_err(during("cannot send"))?;
            rest = &rest[n..];
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_close(cx))
            .await
            .map_err(during("cannot finish a stream"))
    }
}

pub(super) struct YamuxReceiver(Rc<RefCell<Stream>>);

impl Receiver for YamuxReceiver {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let packet = poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)).await;
        packet
            .transpose()
            .map(|packet| packet.map(Bytes::from_owner))
            .map_err(during("cannot receive"))
    }
}
