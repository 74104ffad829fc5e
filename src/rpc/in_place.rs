//! Unary calls in one frame whose handlers are ready at once: no task, no box, no allocation.
//!
//! The future of a handler is put into memory that is kept for the next call of its method, and polled there. If it is not ready, it goes on in
//! that memory as a task, and the next call gets another. What is beside it (`Incoming`, the context) is kept too. A session keeps no
//! memory for a future longer than [`SLOT_MAX`], and for all together no more than `serve` says.
//! Interceptors, bounds of a method, and handlers that are tasks from the start take the ordinary way.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};

use bytes::Bytes;

use super::answering::Answering;
use super::codec::Coding;
use super::context::Context;
use super::incoming::{Incoming, undecodable};
use super::method::{Method, Unary};
use super::mode::{Free, Here, InPlace, Local, Mode, Shared};
use super::polling::while_in_place;
use super::status::Status;
use super::warm::Warm;
use crate::handle::call::IncomingCall;

/// The longest future, in bytes, whose memory is kept from one call to the next.
const SLOT_MAX: usize = 1024;

/// Of a handler behind the pointer `P`, which makes futures `F`.
struct Runner<P, F, Req, Resp> {
    handler: P,
    method: Method<Req, Resp, Unary>,
    slot: Option<Pin<Box<Option<F>>>>,
}

/// A future that was polled before.
struct Resumed<F>(Pin<Box<Option<F>>>);

impl<F: Future> Future for Resumed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Task<'_>) -> Poll<F::Output> {
        // It was put there before.
        self.0
            .as_mut()
            .as_pin_mut()
            .map_or(Poll::Pending, |future| future.poll(cx))
    }
}

/// What a call came to where it was taken.
enum Came<F> {
    Over,
    /// It goes on; the handler is not ready.
    Waits(Pin<Box<Option<F>>>, Context),
    /// Its answer has metadata, or is long.
    Answers(Bytes, Context),
}

impl<P, F, Req, Resp> Runner<P, F, Req, Resp>
where
    F: Future<Output = Result<Resp, Status>>,
{
    const KEEPS_SLOT: bool = size_of::<Option<F>>() <= SLOT_MAX;
    const KEEPS: usize = match Self::KEEPS_SLOT {
        true => size_of::<Self>() + size_of::<Option<F>>(),
        false => size_of::<Self>(),
    };

    /// Receives the request, makes the future and polls it once.
    #[inline]
    fn step(
        &mut self,
        warm: &mut Warm,
        call: &mut IncomingCall,
        make: impl FnOnce(&P, Context, Req) -> F,
    ) -> Came<F> {
        if call.is_gone() {
            warm.call.held.server.counters.cancelled.add();
            warm.call.held.over();
            return Came::Over;
        }
        let message = call.hold_request();
        call.note_read();
        let request = match (self.method.request.decode)(message.into()) {
            Ok(request) => request,
            Err(error) => {
                warm.call.send = Answering::Call(std::mem::take(call));
                warm.call.refuse(&undecodable(&error));
                warm.call.held.over();
                return Came::Over;
            }
        };
        let cx = warm.context();
        warm.call.begin_span(&cx);
        let given = cx.clone();
        let slot = self.slot.get_or_insert_with(|| Box::pin(None));
        let handler = &self.handler;
        let seen = &warm.call.held;
        slot.set(Some(seen.in_span(|| make(handler, given, request))));
        let mut task = Task::from_waker(Waker::noop());
        let future = slot.as_mut().as_pin_mut();
        let polled = while_in_place(|| {
            seen.in_span(|| future.map_or(Poll::Pending, |future| future.poll(&mut task)))
        });
        let Poll::Ready(outcome) = polled else {
            let waits = self.slot.take().unwrap_or_else(|| Box::pin(None));
            return Came::Waits(waits, cx);
        };
        slot.set(None);
        if !Self::KEEPS_SLOT {
            self.slot = None;
        }
        let coding = self.method.response;
        match warm.call.answer_here(call, &cx, outcome, coding) {
            None => {
                warm.rest(cx);
                Came::Over
            }
            Some(answer) => Came::Answers(answer, cx),
        }
    }
}

impl<P, F, Req, Resp> Runner<P, F, Req, Resp> {
    /// The handler, the codec, or a destructor panicked in [`step`](Self::step).
    #[cold]
    fn panicked(&mut self, warm: &mut Warm, panic: &(dyn Any + Send)) {
        let slot = self.slot.take();
        let left = catch_unwind(AssertUnwindSafe(|| drop(slot)));
        warm.call.end_panicked(panic);
        drop(left);
        warm.call.held.over();
        warm.call.send = Answering::Over;
    }
}

/// Goes on with a call whose handler was not ready.
async fn go_on<F, Resp>(
    mut call: Incoming,
    cx: Context,
    slot: Pin<Box<Option<F>>>,
    coding: Coding<Resp>,
) where
    F: Future<Output = Result<Resp, Status>>,
{
    if let Ok(outcome) = call
        .guard(&cx, Status::of_handler, move || Resumed(slot))
        .await
    {
        call.answer(&cx, outcome, coding).await;
    }
}

async fn answer(mut call: Incoming, cx: Context, answer: Bytes) {
    call.send_answer(&cx, answer).await;
}

macro_rules! modes {
    ($($mode:ident: $pointer:path, $send:ident, $sync:ident;)+) => {
        $(impl<H, F, Req, Resp> InPlace<$mode> for Runner<$pointer, F, Req, Resp>
        where
            Req: 'static + $send,
            Resp: 'static + $send,
            H: Fn(Context, Req) -> F + 'static + $send + $sync,
            F: Future<Output = Result<Resp, Status>> + 'static + $send,
        {
            fn run(&mut self, warm: &mut Warm, mut call: Here) -> Option<<$mode as Mode>::Call> {
                // Around everything of the application, whose panic ends this call and no other.
                let stepped = catch_unwind(AssertUnwindSafe(|| {
                    let make = |handler: &$pointer, cx, request| handler(cx, request);
                    self.step(warm, &mut call.0, make)
                }));
                if let Ok(Came::Over) = stepped {
                    return None;
                }
                warm.call.send = Answering::Call(call.0);
                match stepped {
                    Ok(Came::Over) => None,
                    Ok(Came::Waits(slot, cx)) => {
                        let coding = self.method.response;
                        // Not polled here again: it has just said that it waits.
                        $mode::spawn(Box::pin(go_on(warm.take(), cx, slot, coding)));
                        None
                    }
                    Ok(Came::Answers(encoded, cx)) => {
                        Some(Box::pin(answer(warm.take(), cx, encoded)))
                    }
                    Err(panic) => {
                        self.panicked(warm, &*panic);
                        None
                    }
                }
            }

            fn keeps(&self) -> usize {
                Self::KEEPS
            }
        })+
    };
}

modes! {
    Shared: Arc<H>, Send, Sync;
    Local: Rc<H>, Free, Free;
}

macro_rules! makers {
    ($mode:ident, $pointer:ident, $send:ident, $sync:ident) => {
        impl $mode {
            /// Makes what runs a handler in place.
            pub(super) fn unary<H, F, Req, Resp>(
                handler: &$pointer<H>,
                method: Method<Req, Resp, Unary>,
            ) -> Option<<$mode as Mode>::NewInPlace>
            where
                Req: 'static + $send,
                Resp: 'static + $send,
                H: Fn(Context, Req) -> F + 'static + $send + $sync,
                F: Future<Output = Result<Resp, Status>> + 'static + $send,
            {
                let handler = $pointer::clone(handler);
                Some($pointer::new(move || -> <$mode as Mode>::InPlace {
                    Box::new(Runner {
                        handler: $pointer::clone(&handler),
                        method,
                        slot: None,
                    })
                }))
            }

            makers!($mode, server_streaming client_streaming bidirectional);
        }
    };
    ($mode:ident, $($streaming:ident)+) => {
        $(pub(super) fn $streaming<H, M>(_: &H, _: M) -> Option<<$mode as Mode>::NewInPlace> {
            None
        })+
    };
}

makers!(Shared, Arc, Send, Sync);
makers!(Local, Rc, Free, Free);
