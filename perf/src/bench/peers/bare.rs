//! The least that makes many calls over one connection: a task that writes what has queued up in one piece, a task that reads, and
//! a map of the calls under way. No streams, limits, deadlines, cancellation or status: what batching alone gives.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task;

use super::link::Closing;
use super::rpc::{Rpc, Stack};
use super::runtime::{accept, connect, during, without_delay};
use ringmux_measure::calls::Ten;
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;

/// Length, method and call.
const HEADER_LEN: usize = 4 + 1 + 8;
/// Messages that one write takes.
const BATCH: usize = 1024;
const READ_BYTES: usize = 64 * 1024;
const ECHO: u8 = 0;
const ECHO_TEN: u8 = 1;

/// A message, with its method and its call.
type Frame = (u8, u64, Bytes);

/// Writes all that is queued, in pieces as large as possible.
async fn write(mut frames: UnboundedReceiver<Frame>, mut socket: OwnedWriteHalf) -> io::Result<()> {
    let (mut some, mut bytes) = (Vec::with_capacity(BATCH), BytesMut::new());
    while frames.recv_many(&mut some, BATCH).await > 0 {
        for (method, call, message) in some.drain(..) {
            bytes.put_u32_le(message.len() as u32);
            bytes.put_u8(method);
            bytes.put_u64_le(call);
            bytes.put(message);
        }
        socket.write_all(&bytes).await?;
        bytes.clear();
    }
    socket.shutdown().await
}

/// Reads until the other side ends.
async fn read(mut socket: OwnedReadHalf, mut each: impl FnMut(Frame)) -> io::Result<()> {
    let mut bytes = BytesMut::with_capacity(READ_BYTES);
    while socket.read_buf(&mut bytes).await? > 0 {
        while let Some(mut head) = bytes.get(..HEADER_LEN) {
            let (len, method, call) = (head.get_u32_le(), head.get_u8(), head.get_u64_le());
            if bytes.len() < HEADER_LEN + len as usize {
                break;
            }
            bytes.advance(HEADER_LEN);
            each((method, call, bytes.split_to(len as usize).freeze()));
        }
        bytes.reserve(READ_BYTES);
    }
    Ok(())
}

/// A task for each call.
async fn serve(socket: TcpStream) -> io::Result<()> {
    let (from, to) = socket.into_split();
    let (answers, queue) = unbounded_channel();
    let writing = task::spawn(write(queue, to));
    let read = read(from, |(method, call, request)| {
        let answers = answers.clone();
        task::spawn(async move { answers.send((method, call, handle(method, request).await)) });
    });
    read.await?;
    drop(answers);
    writing.await?
}

async fn handle(method: u8, request: Bytes) -> Bytes {
    match method {
        ECHO => request,
        _ => Ten::decode(request)
            .map(|message| message.encode_to_vec().into())
            .unwrap_or_default(),
    }
}

/// The client's end.
#[derive(Clone, Debug)]
pub(in crate::bench) struct BareClient {
    requests: UnboundedSender<Frame>,
    calls: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
    next: Arc<AtomicU64>,
}

impl BareClient {
    /// The future ends with the connection, which the last client ends.
    fn start(socket: TcpStream) -> (Self, impl Future<Output = io::Result<()>> + Send) {
        let (from, to) = socket.into_split();
        let (requests, queue) = unbounded_channel();
        let calls = Arc::new(Mutex::new(HashMap::<_, oneshot::Sender<_>>::new()));
        let client = Self {
            requests,
            calls: Arc::clone(&calls),
            next: Arc::default(),
        };
        let writing = task::spawn(write(queue, to));
        let reading = async move {
            read(from, |(_, call, answer)| {
                let called = lock(&calls).remove(&call);
                if let Some(called) = called {
                    let _ = called.send(answer);
                }
            })
            .await?;
            writing.await?
        };
        (client, reading)
    }

    async fn answer(&self, method: u8, request: Bytes) -> Result<Bytes, Failure> {
        let (called, answer) = oneshot::channel();
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.calls).insert(call, called);
        let sent = self.requests.send((method, call, request));
        sent.map_err(during("the connection has ended"))?;
        answer.await.map_err(during("the connection has ended"))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Rpc for BareClient {
    async fn call(&self, message: Bytes) -> Result<Bytes, Failure> {
        self.answer(ECHO, message).await
    }

    async fn call_ten(&self, message: &Ten) -> Result<Ten, Failure> {
        let answer = self
            .answer(ECHO_TEN, message.encode_to_vec().into())
            .await?;
        Ten::decode(answer).map_err(during("an answer cannot be decoded"))
    }

    async fn feed(
        &self,
        _: impl FnMut(&[u8]) -> Result<bool, Failure> + Send,
    ) -> Result<(), Failure> {
        Err(Failure::new("the bare multiplexer has no streams"))
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Bare;

impl Stack for Bare {
    type Client = BareClient;

    async fn serve(self, listening: Listening, _: &Arc<Window>) -> Result<Received, Failure> {
        let served = serve(accept(listening).await?).await;
        served.map_err(during("the connection failed"))?;
        Ok(Received::default())
    }

    async fn connect(self, address: &str) -> Result<(BareClient, Closing), Failure> {
        let (client, ended) = BareClient::start(connect(address).await?);
        let ended = task::spawn(ended);
        let closing = async move {
            ended
                .await
                .map_err(during("the connection panicked"))?
                .map_err(during("the connection failed"))
        };
        Ok((client, Box::pin(closing)))
    }
}

/// Listens, and serves every connection. Returns the address.
pub(in crate::bench) async fn listen_untuned() -> Result<String, Failure> {
    let no_port = during("cannot listen on 127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(&no_port)?;
    let address = listener.local_addr().map_err(&no_port)?.to_string();
    task::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            task::spawn(async { serve(without_delay(socket)?).await.map_err(during("")) });
        }
    });
    Ok(address)
}

/// Connects.
pub(in crate::bench) async fn connect_untuned(address: &str) -> Result<BareClient, Failure> {
    let (client, ended) = BareClient::start(connect(address).await?);
    task::spawn(ended);
    Ok(client)
}
