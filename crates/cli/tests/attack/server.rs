//! The server: it echoes messages, delays some, and counts its handlers; or it serves calls, in the same way.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringmux::rpc::{self, Context, Method, Raw, Status};
use ringmux::{Addr, Config, Driver, Engine, RecvStream, SendStream, Session};
use tokio::sync::oneshot;

/// How long a handler of an attacker's stream is busy, independent of the attacker.
const WORK: Duration = Duration::from_millis(60);

/// What a request begins with that is never answered.
const HOLD: &[u8] = b"hold";

/// The method of a server of calls. A request without bytes is the neighbour's.
pub(crate) const METHOD: Method<Bytes, Bytes> = Method::unary::<Raw>("attack.Attack/Call");

/// What is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    Streams,
    Calls,
}

pub(crate) struct Server {
    pub(crate) addr: Addr,
    pub(crate) config: Config,
    most: Arc<AtomicU64>,
    calls: rpc::Server,
    /// With the grace of its shutdown.
    stop: Option<oneshot::Sender<Duration>>,
    /// How long its shutdown took.
    thread: Option<JoinHandle<Duration>>,
}

impl Server {
    /// A server that has had its first session, so that one-time allocations are done.
    pub(crate) fn start(driver: Driver, config: Config, serves: Serves) -> Self {
        let (addr_tx, addr) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let most = Arc::new(AtomicU64::new(0));
        let (counted, serving) = (Arc::clone(&most), config.clone());
        let calls = calls(Arc::clone(&most));
        let served = calls.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let engine = Engine::thread(driver).expect("the driver works here");
                let any = Addr::Tcp("127.0.0.1:0".to_owned());
                let listener = engine.listen(&any, &serving).await.unwrap();
                addr_tx.send(listener.local_addr().clone()).unwrap();
                let accepting = async {
                    if serves == Serves::Calls {
                        let ended = served.serve(&listener).await;
                        return drop(ended);
                    }
                    while let Ok(session) = listener.accept().await {
                        tokio::spawn(serve(session, Arc::clone(&counted)));
                    }
                };
                let grace = tokio::select! {
                    () = accepting => Duration::ZERO,
                    grace = stopped => grace.unwrap_or_default(),
                };
                let since = Instant::now();
                listener.shutdown(grace).await;
                since.elapsed()
            })
        });
        let server = Self {
            addr: addr.recv().unwrap(),
            config,
            most,
            calls,
            stop: Some(stop),
            thread: Some(thread),
        };
        server.first_session();
        server
    }

    fn first_session(&self) {
        let addr = self.addr.to_string();
        let mut socket = TcpStream::connect(addr.trim_start_matches("tcp://")).unwrap();
        // The preface, and empty SETTINGS.
        socket.write_all(b"RINGMUX\x01\0\0\0\x70\0\0\0\0").unwrap();
        socket.read_exact(&mut [0; 16]).unwrap();
    }

    /// Calls that are under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.calls.stats().in_flight
    }

    /// Shuts down; returns how long it took.
    pub(crate) fn shutdown(mut self, grace: Duration) -> Duration {
        let stop = self.stop.take().expect("it runs");
        stop.send(grace).expect("it runs");
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the server has not panicked")
    }

    /// The most handlers that one session has had at a time.
    pub(crate) fn most_handlers(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the server has panicked");
        }
    }
}

/// One of a session's handlers, as long as it runs.
struct Running(Arc<AtomicU64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(session: Session, most: Arc<AtomicU64>) {
    let running = Arc::new(AtomicU64::new(0));
    while let Ok(Some(stream)) = session.accept().await {
        let now = running.fetch_add(1, Ordering::Relaxed) + 1;
        most.fetch_max(now, Ordering::Relaxed);
        tokio::spawn(handle(stream, Running(Arc::clone(&running))));
    }
}

/// The neighbour's streams have no opening block. `running` is dropped before the stream.
async fn handle((mut send, mut recv): (SendStream, RecvStream), running: Running) {
    if !send.opening().is_empty() {
        tokio::time::sleep(WORK).await;
    }
    while let Ok(Some(message)) = recv.recv().await {
        if send.send(message).await.is_err() {
            break;
        }
    }
    // A stream that the peer has ended cannot be finished.
    let _ = send.finish();
    drop(running);
}

/// A server of one method, with its defaults.
fn calls(most: Arc<AtomicU64>) -> rpc::Server {
    let sessions = Arc::new(Mutex::new(HashMap::<String, Arc<AtomicU64>>::new()));
    let handler = move |cx: Context, request: Bytes| {
        let (sessions, most) = (Arc::clone(&sessions), Arc::clone(&most));
        async move {
            if request.is_empty() {
                return Ok(request);
            }
            // TCP tells sessions apart.
            let session = cx.peer_addr().map(ToString::to_string).unwrap_or_default();
            let running = {
                let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
                // Sessions that are over have no handlers.
                sessions.retain(|_, running| running.load(Ordering::Relaxed) > 0);
                Arc::clone(sessions.entry(session).or_default())
            };
            let now = running.fetch_add(1, Ordering::Relaxed) + 1;
            let _running = Running(running);
            most.fetch_max(now, Ordering::Relaxed);
            if request.starts_with(HOLD) {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(WORK).await;
            Ok::<_, Status>(request)
        }
    };
    let server = rpc::Server::builder().unary(METHOD, handler).build();
    server.expect("one method")
}
