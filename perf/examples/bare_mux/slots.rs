//! The minimum without any thread-safety: sent messages go straight into the batch, received ones into their slot.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::task::{Poll, Waker};

use tokio::task::{spawn_local, yield_now};

use crate::Talk;
use crate::pump::{Batch, Engine, Message, pump};

/// The received message of a stream, and the task that waits for it.
#[derive(Default)]
struct Slot {
    message: Option<Message>,
    waker: Option<Waker>,
}

struct Mux {
    out: RefCell<Batch>,
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
}

impl Mux {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            out: RefCell::new(Batch::new()),
            slots: RefCell::default(),
            free: RefCell::default(),
        })
    }

    fn send(&self, stream: u32, message: &Message) {
        let messages = std::iter::once(message);
        self.out.borrow_mut().extend(stream, messages);
    }

    async fn recv(&self, stream: u32) -> Message {
        poll_fn(|cx| {
            let slot = &mut self.slots.borrow_mut()[stream as usize];
            if let Some(message) = slot.message.take() {
                return Poll::Ready(message);
            }
            slot.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn open(&self) -> u32 {
        if let Some(free) = self.free.borrow_mut().pop() {
            return free;
        }
        let mut slots = self.slots.borrow_mut();
        slots.push(Slot::default());
        slots.len() as u32 - 1
    }

    fn deliver(&self, stream: u32, message: Message) {
        let slot = &mut self.slots.borrow_mut()[stream as usize];
        slot.message = Some(message);
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

/// The multiplexer, and the handler of received messages.
struct Side<F> {
    mux: Rc<Mux>,
    arrived: F,
}

impl<F: FnMut(&Rc<Mux>, u32, Message)> Engine for Side<F> {
    fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        self.mux.out.borrow_mut().send(socket)
    }

    fn deliver(&mut self, stream: u32, message: &Message) -> bool {
        (self.arrived)(&self.mux, stream, *message);
        true
    }
}

/// Returns how many messages came back.
pub(crate) async fn talk(
    talk: Talk,
    socket: &TcpStream,
    is_over: impl Fn() -> bool,
) -> io::Result<u64> {
    let mux = Mux::new();
    let trips = Rc::new(Cell::new(0));
    for _ in 0..talk.under_way() {
        let (mux, trips) = (Rc::clone(&mux), Rc::clone(&trips));
        spawn_local(async move {
            let stream = mux.open();
            loop {
                if let Talk::Calls(_) = talk {
                    let call = Rc::clone(&mux);
                    let call = spawn_local(async move {
                        let stream = call.open();
                        call.send(stream, &[7; 64]);
                        call.recv(stream).await;
                        call.free.borrow_mut().push(stream);
                    });
                    call.await.expect("it does not panic");
                } else {
                    mux.send(stream, &[7; 64]);
                    mux.recv(stream).await;
                }
                trips.set(trips.get() + 1);
            }
        });
    }
    // The tasks come first.
    yield_now().await;
    let arrived = |mux: &Rc<Mux>, stream, message| mux.deliver(stream, message);
    pump(&mut Side { mux, arrived }, socket, is_over).await?;
    Ok(trips.get())
}

/// Until the client closes.
pub(crate) async fn answer(talk: Talk, socket: &TcpStream) -> io::Result<()> {
    let arrived = |mux: &Rc<Mux>, stream: u32, message| {
        let known = (stream as usize) < mux.slots.borrow().len();
        if matches!(talk, Talk::Echo(_)) && known {
            return mux.deliver(stream, message);
        }
        let mux = Rc::clone(mux);
        if let Talk::Calls(_) = talk {
            spawn_local(async move { mux.send(stream, &message) });
            return;
        }
        (mux.slots.borrow_mut()).resize_with(stream as usize + 1, Slot::default);
        mux.deliver(stream, message);
        spawn_local(async move {
            loop {
                let message = mux.recv(stream).await;
                mux.send(stream, &message);
            }
        });
    };
    let mux = Mux::new();
    pump(&mut Side { mux, arrived }, socket, || false).await
}
