//! The minimum with lock-free queues between tasks and engine, as in a library whose streams may be used from any
//! thread. Here they share one thread, which leaves out the cost of cache lines between two.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};
use tokio::task::{spawn_local, yield_now};

use crate::Talk;
use crate::bell::Bell;
use crate::pump::{Batch, Engine, Message, pump};
use crate::ready::{Link, ReadyList};

/// Messages that a ring has room for with one at a time under way; more would only touch more memory.
const ROOM: usize = 2;

/// State shared by both sides of a stream, besides the rings.
struct Lane {
    link: Link,
    bell: Bell,
    ready: Arc<ReadyList>,
}

/// The application's end of a stream.
pub(crate) struct End {
    tx: Producer<Message>,
    rx: Consumer<Message>,
    lane: Arc<Lane>,
}

impl End {
    /// Notifies the engine of pushed messages.
    #[inline]
    pub(crate) fn raise(&self) {
        self.lane.ready.raise(&self.lane.link);
    }

    /// For at most one message under way, so that there is always room.
    #[inline]
    fn send(&mut self, message: Message) {
        self.tx.push(message).expect("there is room for one");
        self.raise();
    }

    async fn recv(&mut self) -> Message {
        poll_fn(|cx| {
            let look = || self.rx.pop().ok();
            self.lane.bell.wait(cx, look)
        })
        .await
    }

    /// Pushes until there is no more room. A message that is not made before stays out of the future's memory.
    #[inline]
    pub(crate) fn fill(&mut self, each: impl Fn(&Self), mut next: impl FnMut() -> Message) {
        while !self.tx.is_full() {
            self.tx.push(next()).expect("there is room");
            each(self);
        }
    }

    pub(crate) async fn room(&self) {
        poll_fn(|cx| {
            let look = || (!self.tx.is_full()).then_some(());
            self.lane.bell.wait(cx, look)
        })
        .await;
    }

    /// Waits for messages and checks all that have arrived.
    pub(crate) async fn look(&mut self, mut at: impl FnMut(&Message)) {
        let messages = poll_fn(|cx| {
            let look = || Some(self.rx.slots()).filter(|messages| *messages > 0);
            self.lane.bell.wait(cx, look)
        })
        .await;
        let chunk = self.rx.read_chunk(messages).expect("so many are there");
        let (first, second) = chunk.as_slices();
        first.iter().chain(second).for_each(&mut at);
        chunk.commit_all();
    }
}

/// The engine's end of a stream.
struct Far {
    rx: Consumer<Message>,
    tx: Producer<Message>,
    lane: Arc<Lane>,
}

/// The engine's state.
pub(crate) struct Core {
    ready: Arc<ReadyList>,
    streams: Vec<Far>,
    batch: Batch,
    room: usize,
    bell: fn() -> Bell,
    /// Taken off the list, not yet drained.
    taken: Vec<u32>,
    /// Streams whose tasks are to be woken.
    unwoken: Vec<u32>,
}

impl Core {
    pub(crate) fn new(room: usize, bell: fn() -> Bell) -> Self {
        Self {
            ready: Arc::new(ReadyList::new()),
            streams: Vec::new(),
            batch: Batch::new(),
            room,
            bell,
            taken: Vec::new(),
            unwoken: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self) -> End {
        let lane = Arc::new(Lane {
            link: Link::new(self.streams.len() as u32),
            bell: (self.bell)(),
            ready: Arc::clone(&self.ready),
        });
        let (near_tx, far_rx) = RingBuffer::new(self.room);
        let (far_tx, near_rx) = RingBuffer::new(self.room);
        self.streams.push(Far {
            rx: far_rx,
            tx: far_tx,
            lane: Arc::clone(&lane),
        });
        End {
            tx: near_tx,
            rx: near_rx,
            lane,
        }
    }

    fn knows(&self, stream: u32) -> bool {
        (stream as usize) < self.streams.len()
    }

    /// Frames the stream's messages, as far as the batch has room.
    fn drain(&mut self, stream: u32) {
        let far = &mut self.streams[stream as usize];
        let pushed = far.rx.slots();
        let room = self.batch.room();
        let chunk = far.rx.read_chunk(pushed.min(room));
        let chunk = chunk.expect("so many are there");
        let (first, second) = chunk.as_slices();
        self.batch.extend(stream, first.iter());
        self.batch.extend(stream, second.iter());
        chunk.commit_all();
        if pushed > room {
            self.taken.push(stream);
        }
        // Only then may its task wait for room.
        if pushed == self.room {
            self.unwoken.push(stream);
        }
    }

    #[inline]
    fn push(&mut self, stream: u32, message: &Message) -> bool {
        self.streams[stream as usize].tx.push(*message).is_ok()
    }

    fn wake(&mut self) {
        if self.unwoken.is_empty() {
            return;
        }
        // One for all streams: a task that does not wait yet will see the delivered messages.
        fence(Ordering::SeqCst);
        for stream in self.unwoken.drain(..) {
            self.streams[stream as usize].lane.bell.ring();
        }
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty() || !self.taken.is_empty()
    }

    /// Whether the tasks have taken all delivered messages.
    pub(crate) fn is_taken(&self) -> bool {
        self.streams.iter().all(|far| far.tx.slots() == self.room)
    }
}

impl Engine for Core {
    fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        if self.taken.is_empty() {
            let streams = &self.streams;
            let link = |stream| &streams[stream as usize].lane.link;
            self.ready.take(link, &mut self.taken);
        }
        while self.batch.room() > 0
            && let Some(stream) = self.taken.pop()
        {
            self.drain(stream);
        }
        self.batch.send(socket)
    }

    #[inline]
    fn deliver(&mut self, stream: u32, message: &Message) -> bool {
        if self.unwoken.last() != Some(&stream) {
            self.unwoken.push(stream);
        }
        self.push(stream, message)
    }

    fn pause(&mut self) {
        self.wake();
    }
}

/// A [`Core`] that accepts streams.
pub(crate) struct Accepting<F> {
    pub(crate) core: Core,
    pub(crate) accept: F,
}

impl<F: FnMut(End)> Engine for Accepting<F> {
    fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.core.send(socket)
    }

    #[inline]
    fn deliver(&mut self, stream: u32, message: &Message) -> bool {
        while !self.core.knows(stream) {
            (self.accept)(self.core.open());
        }
        self.core.deliver(stream, message)
    }

    fn pause(&mut self) {
        self.core.pause();
    }
}

/// A [`Core`] that has a task answer each message.
struct Answering {
    core: Core,
    /// Ends without a task.
    idle: Rc<RefCell<Vec<Option<End>>>>,
}

impl Engine for Answering {
    fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.core.send(socket)
    }

    fn deliver(&mut self, stream: u32, message: &Message) -> bool {
        while !self.core.knows(stream) {
            self.idle.borrow_mut().push(Some(self.core.open()));
        }
        let end = self.idle.borrow_mut()[stream as usize].take();
        let mut end = end.expect("the stream was answered before it came again");
        let idle = Rc::clone(&self.idle);
        assert!(self.core.push(stream, message), "one at a time");
        spawn_local(async move {
            let message = end.recv().await;
            end.send(message);
            idle.borrow_mut()[stream as usize] = Some(end);
        });
        true
    }
}

/// Returns how many messages came back.
pub(crate) async fn talk(
    talk: Talk,
    socket: &TcpStream,
    is_over: impl Fn() -> bool,
) -> io::Result<u64> {
    let mut core = Core::new(ROOM, bell(talk));
    let ends = (0..talk.under_way()).map(|_| core.open()).collect();
    let free = Rc::new(RefCell::new(ends));
    let trips = Rc::new(Cell::new(0));
    for _ in 0..talk.under_way() {
        let (free, trips) = (Rc::clone(&free), Rc::clone(&trips));
        spawn_local(async move {
            loop {
                if let Talk::Calls(_) = talk {
                    let call = spawn_local(call(Rc::clone(&free)));
                    call.await.expect("it does not panic");
                    trips.set(trips.get() + 1);
                } else {
                    echoes(take(&free), &trips).await;
                }
            }
        });
    }
    // The tasks come first.
    yield_now().await;
    pump(&mut core, socket, is_over).await?;
    Ok(trips.get())
}

/// The stream of a call sees one task after another.
fn bell(talk: Talk) -> fn() -> Bell {
    match talk {
        Talk::Echo(_) => Bell::kept,
        Talk::Calls(_) => Bell::passing,
    }
}

type Free = RefCell<Vec<End>>;

fn take(free: &Free) -> End {
    let end = free.borrow_mut().pop();
    end.expect("there are as many as are under way")
}

async fn call(free: Rc<Free>) {
    let mut end = take(&free);
    end.send([7; 64]);
    end.recv().await;
    free.borrow_mut().push(end);
}

async fn echoes(mut end: End, trips: &Cell<u64>) {
    loop {
        end.send([7; 64]);
        end.recv().await;
        trips.set(trips.get() + 1);
    }
}

/// Until the client closes.
pub(crate) async fn answer(talk: Talk, socket: &TcpStream) -> io::Result<()> {
    let core = Core::new(ROOM, bell(talk));
    if let Talk::Calls(_) = talk {
        let idle = Rc::default();
        return pump(&mut Answering { core, idle }, socket, || false).await;
    }
    let accept = |mut end: End| {
        spawn_local(async move {
            loop {
                let message = end.recv().await;
                end.send(message);
            }
        });
    };
    pump(&mut Accepting { core, accept }, socket, || false).await
}
