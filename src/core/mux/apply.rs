//! Actions of applications on their streams.

use std::time::Instant;

use super::Mux;
use crate::core::budget::SEND_FLOOR;
use crate::core::flow::Flow;
use crate::core::port::{RecvEnd, SendEnd, SessionPort, StreamPort};
use crate::core::state::{Effect, Event, Sending};
use crate::core::stream::{Opening, Stream, owed, wake};
use crate::core::streams::Key;
use crate::error::{SessionError, Side, StreamError};

impl<S: SessionPort> Mux<S> {
    /// A handle has opened a stream. `None` if it is refused, with the reason given to the handle.
    pub(crate) fn insert_local(
        &mut self,
        mut port: S::Stream,
        refusal: Option<SessionError>,
        now: Instant,
    ) -> Option<Key> {
        if let Some(reason) = refusal {
            if port.is_granted() {
                self.base.app.add_open_credit(1);
            }
            self.budget.take_back(&port);
            let error = StreamError::NotProcessed(reason);
            port.end_send(SendEnd::Error(error.clone()));
            port.end_recv(RecvEnd::Error(error));
            port.wake_sender();
            port.wake_receiver();
            return None;
        }
        let with_permit = port.is_granted();
        let granted =
            with_permit || (self.permits.waiting.is_empty() && self.base.app.take_open_credit());
        let opening = if granted {
            Opening::Granted
        } else {
            Opening::Waiting
        };
        let grown = port.send_limit() > SEND_FLOOR;
        let (key, _) = self.insert(port, 0, opening, now);
        if grown {
            self.budget.list_borrower(&mut self.base.streams, key);
        }
        self.base.count_streams();
        if with_permit {
            self.permits.opens.push_back(key);
        } else {
            self.permits.enter(&mut self.base, key, granted);
        }
        Some(key)
    }

    /// A stream over these queues, with its id if it has one.
    #[inline(never)]
    pub(super) fn insert(
        &mut self,
        port: S::Stream,
        id: u32,
        opening: Opening,
        now: Instant,
    ) -> (Key, &mut Stream<S::Stream>) {
        let window = self.base.config.stream_window();
        let window = Flow::<S::Memory>::initial(self.base.terms.credit, window);
        let now = self.base.stamp(now);
        let stream = Stream::new(port, id, opening, (self.stream_credit, window), now);
        self.base.streams.insert(stream)
    }

    /// Its sender has queued records, or waits for room.
    #[inline(always)] // Several wires call it, each in one place: 90 instructions of a round trip.
    pub(crate) fn on_queued(&mut self, key: Key, wants_room: bool) {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return;
        };
        if stream.state.sending != Sending::Open {
            if let Some(code) = self.budget.discard_before_error(stream) {
                // The peer's STOP was answered when it was queued: no ERROR can follow, but its effect on the other direction
                // stays.
                self.budget.discard_queued(stream);
                self.stop(key, code);
            }
            return;
        }
        if wants_room {
            if std::mem::take(&mut stream.made_room) {
                self.base.wakes.notify(key, stream, wake::SENDER);
            } else {
                stream.wants_room = true;
            }
        }
        if stream.opening.is_done() {
            self.schedule.enter(key, stream);
        }
    }

    /// It was accepted, or its receiver has consumed bytes.
    pub(crate) fn on_consumed(&mut self, key: Key, now: Instant) {
        self.flow.release_open_charge(&mut self.base, key);
        self.feed(key, now);
        self.grown.watch(&mut self.base, key, now);
    }

    /// Ends both directions.
    pub(crate) fn cancel(&mut self, key: Key, code: u32) {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return;
        };
        if stream.state.is_over() {
            return;
        }
        let error = StreamError::Cancelled {
            by: Side::This,
            code,
        };
        stream.port.end_send(SendEnd::Error(error.clone()));
        stream.port.end_recv(RecvEnd::Discard(error));
        self.cancel_stream(key, code, Event::LocalCancel);
        self.remove_if_done(key);
    }

    /// The application wants to receive no more.
    pub(crate) fn stop(&mut self, key: Key, code: u32) {
        let Some(stream) = self.base.streams.get_mut(key) else {
            return;
        };
        if stream.state.on(Event::LocalStop) != Effect::Act {
            return;
        }
        stream.owed_code = code;
        stream
            .port
            .end_recv(RecvEnd::Discard(StreamError::Cancelled {
                by: Side::This,
                code,
            }));
        stream.owes &= !owed::WINDOW;
        // A STOP would overtake a queued ERROR, and the peer would not get the reason.
        let error_follows = stream.state.sending == Sending::Open && stream.port.is_failing();
        if !error_follows {
            self.base.owing.owe(key, stream, owed::STOP);
        }
        self.base.wakes.notify(key, stream, wake::RECEIVER);
        self.flow.discard_received(&mut self.base, key);
        let stream = self.base.streams.at(key);
        if !self.base.terms.credit {
            // There is no STOP. A wire may return the credit of discarded messages.
            self.base.owing.owe(key, stream, owed::WINDOW);
        } else if error_follows {
            self.base.owing.keep_stopped_stream_moving(key, stream);
        }
    }

    /// No handle is left.
    pub(crate) fn on_dropped(&mut self, key: Key) {
        if let Some(stream) = self.base.streams.get_mut(key) {
            stream.dropped = true;
        }
        self.remove_if_done(key);
    }

    /// A stream of the peer that no application will accept. True if it was alive.
    pub(crate) fn refuse_unaccepted(&mut self, key: Key, code: u32) -> bool {
        let stream = self.base.streams.get_mut(key);
        let alive = stream.is_some_and(|stream| !stream.state.is_over());
        // Until the peer has been told, the stream holds what is queued, as one that an application has cancelled.
        self.cancel(key, code);
        self.on_dropped(key);
        alive
    }
}
