//! Small messages in one direction, numbered by stream and checked on arrival, as in `compare`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::mem::replace;
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::task::spawn_local;

use crate::Flow;
use crate::bell::Bell;
use crate::pump::{Batch, Engine, Message, others_first, pump};
use crate::queues::{Accepting, Core, End};

/// Messages that a ring has room for.
const ROOM: usize = 1024;

/// The messages of one stream.
#[derive(Default)]
pub(crate) struct Numbers {
    count: u64,
}

impl Numbers {
    /// By value, so that no part of it is written to memory before the whole is copied.
    #[inline]
    pub(crate) fn next(&mut self) -> Message {
        self.count += 1;
        let mut message = [7; 64];
        message[..8].copy_from_slice(&self.count.to_le_bytes());
        message
    }

    #[inline]
    pub(crate) fn check(&mut self, message: &Message) {
        self.count += 1;
        let number = u64::from_le_bytes(message[..8].try_into().expect("eight bytes"));
        assert_eq!(number, self.count, "a message was lost or changed");
    }

    pub(crate) const fn count(&self) -> u64 {
        self.count
    }
}

/// State shared by the sending tasks.
struct Sending {
    is_over: Cell<bool>,
    running: Cell<usize>,
    sent: Cell<u64>,
}

impl Sending {
    fn done(&self, numbers: &Numbers) {
        self.running.set(self.running.get() - 1);
        self.sent.set(self.sent.get() + numbers.count());
    }
}

/// Sends until the time is over. Returns the number of messages.
pub(crate) async fn send(
    flow: Flow,
    streams: usize,
    socket: &TcpStream,
    is_over: impl Fn() -> bool,
) -> io::Result<u64> {
    let sending = Rc::new(Sending {
        is_over: Cell::new(false),
        running: Cell::new(streams),
        sent: Cell::new(0),
    });
    let done = || {
        sending.is_over.set(is_over());
        sending.running.get() == 0
    };
    if flow == Flow::Bare {
        let shared = Rc::new(Shared::new());
        let share = shared.batch.borrow().room() / streams;
        for stream in 0..streams as u32 {
            let (shared, sending) = (Rc::clone(&shared), Rc::clone(&sending));
            spawn_local(frame_all(stream, share, shared, sending));
        }
        pump(&mut &*shared, socket, done).await?;
        (&*shared).send(socket)?;
    } else {
        let mut core = Core::new(ROOM, Bell::kept);
        for _ in 0..streams {
            spawn_local(push_all(flow, core.open(), Rc::clone(&sending)));
        }
        pump(&mut core, socket, done).await?;
        while core.has_ready() {
            core.send(socket)?;
        }
    }
    socket.shutdown(Shutdown::Write)?;
    Ok(sending.sent.get())
}

/// Its share of each batch.
async fn frame_all(stream: u32, share: usize, shared: Rc<Shared>, sending: Rc<Sending>) {
    let mut numbers = Numbers::default();
    while !sending.is_over.get() {
        let messages = (0..share).map(|_| numbers.next());
        shared.batch.borrow_mut().extend(stream, messages);
        shared.sent().await;
    }
    sending.done(&numbers);
}

async fn push_all(flow: Flow, mut end: End, sending: Rc<Sending>) {
    let mut numbers = Numbers::default();
    while !sending.is_over.get() {
        if flow == Flow::Sent {
            end.fill(End::raise, || numbers.next());
        } else {
            end.fill(|_| (), || numbers.next());
            end.raise();
        }
        end.room().await;
    }
    sending.done(&numbers);
}

/// The batch, and the tasks that wait until it is sent.
struct Shared {
    batch: RefCell<Batch>,
    waiting: RefCell<Vec<Waker>>,
}

impl Shared {
    fn new() -> Self {
        Self {
            batch: RefCell::new(Batch::new()),
            waiting: RefCell::default(),
        }
    }

    async fn sent(&self) {
        let mut waited = false;
        poll_fn(|cx| {
            if replace(&mut waited, true) {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Engine for &Shared {
    fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
        self.batch.borrow_mut().send(socket)
    }

    fn deliver(&mut self, _: u32, _: &Message) -> bool {
        unreachable!("nothing comes back")
    }
}

/// Until the client has shut down. Returns how many messages arrived.
pub(crate) async fn receive(flow: Flow, socket: &TcpStream) -> io::Result<u64> {
    if flow == Flow::Bare {
        let mut counts = Counts::default();
        pump(&mut counts, socket, || false).await?;
        return Ok(counts.0.iter().map(Numbers::count).sum());
    }
    let received = Rc::new(Cell::new(0));
    let accept = |end| {
        spawn_local(look_at_all(end, Rc::clone(&received)));
    };
    let core = Core::new(ROOM, Bell::kept);
    let mut accepting = Accepting { core, accept };
    pump(&mut accepting, socket, || false).await?;
    while !accepting.core.is_taken() {
        others_first().await;
    }
    Ok(received.get())
}

async fn look_at_all(mut end: End, received: Rc<Cell<u64>>) {
    let mut numbers = Numbers::default();
    loop {
        let before = numbers.count();
        end.look(|message| numbers.check(message)).await;
        received.set(received.get() + numbers.count() - before);
    }
}

/// The streams, checked by the engine itself.
#[derive(Default)]
struct Counts(Vec<Numbers>);

impl Engine for Counts {
    fn send(&mut self, _: &TcpStream) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    fn deliver(&mut self, stream: u32, message: &Message) -> bool {
        let stream = stream as usize;
        if stream >= self.0.len() {
            self.0.resize_with(stream + 1, Numbers::default);
        }
        self.0[stream].check(message);
        true
    }
}
