//! Two cores as values, joined by bytes alone: no handle, no lane, no waker, no clock. Each test runs over both wires.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::tiny::Tiny;
use crate::config::Config;
use crate::core::port::{Count, RecvEnd, SendEnd, SessionPort};
use crate::core::tests::{App, Plain, Pool};
use crate::core::{Core, Key};
use crate::error::{SessionError, Side, StreamError};
use crate::wire::{Batch, Native, Role, Wire};

struct End<W> {
    core: Core<App>,
    wire: W,
    recv: BytesMut,
}

impl<W: Wire> End<W> {
    fn new(role: Role, config: &Config, now: Instant) -> Self {
        let app = App::new(W::TERMS.floors.streams);
        let start = (W::is_silent(role), 0);
        let (core, window) = Core::new(app, Pool::new(1 << 30), config, W::TERMS, start, now);
        let mut end = Self {
            core,
            wire: W::new(role, config, window),
            recv: BytesMut::new(),
        };
        end.wire.begin(&mut end.core);
        end
    }

    fn transmit(&mut self, batch: &mut Batch, now: Instant) {
        self.core.begin_turn(now);
        self.core.end_turn(now);
        if self.core.life.may_send() {
            self.wire.transmit(&mut self.core, batch, now);
        }
    }

    fn receive(&mut self, bytes: &[u8], now: Instant) {
        self.recv.extend_from_slice(bytes);
        while self.core.begin_reception(now) {
            match (self.wire).receive(&mut self.core, &mut self.recv, 1 << 20, now) {
                Ok(true) => self.core.mux.base.deliver_wakes(),
                Ok(false) => {
                    self.core.end_reception(!self.recv.is_empty(), now);
                    break;
                }
                Err(error) => {
                    self.core.end(error);
                    break;
                }
            }
        }
        self.core.mux.base.deliver_wakes();
    }

    fn open(&mut self, block: &[u8], now: Instant) -> Key {
        let refusal = self.core.life.refusal();
        let port = Plain::opened_with(block);
        let opened = self.core.mux.insert_local(port, refusal, now);
        opened.expect("it is not refused")
    }

    fn port(&mut self, key: Key) -> &mut Plain {
        let stream = self.core.mux.base.streams.get_mut(key);
        &mut stream.expect("the stream is there").port
    }

    /// The only stream.
    fn only(&mut self) -> Key {
        let streams = &mut self.core.mux.base.streams;
        assert_eq!(streams.len(), 1);
        streams.iter_mut().next().unwrap().0
    }

    fn send(&mut self, key: Key, message: &[u8]) {
        self.port(key).send(message);
        self.core.mux.on_queued(key, false);
    }

    fn finish(&mut self, key: Key) {
        self.port(key).finish();
        self.core.mux.on_queued(key, false);
    }

    fn recv(&mut self, key: Key, now: Instant) -> Option<Vec<u8>> {
        let message = self.port(key).receive();
        self.core.mux.on_consumed(key, now);
        message
    }
}

struct Pair<W> {
    now: Instant,
    ends: [End<W>; 2],
}

const D: usize = 0;
const A: usize = 1;

impl<W: Wire> Pair<W> {
    fn new() -> Self {
        let now = Instant::now();
        let end = |role| End::new(role, &Config::default(), now);
        let ends = [end(Role::Dialer), end(Role::Acceptor)];
        let mut pair = Self { now, ends };
        pair.drive();
        pair
    }

    /// Until neither side sends anything.
    fn drive(&mut self) {
        loop {
            let mut said = false;
            for side in [D, A] {
                let mut batch = Batch::new();
                self.ends[side].transmit(&mut batch, self.now);
                if !batch.is_empty() {
                    said = true;
                    let bytes = batch.remaining().concat();
                    self.ends[1 - side].receive(&bytes, self.now);
                }
            }
            if !said {
                return;
            }
        }
    }

    /// A stream, at both ends.
    fn stream(&mut self, block: &[u8]) -> [Key; 2] {
        let opened = self.ends[D].open(block, self.now);
        self.drive();
        let accepted = self.ends[A].only();
        self.ends[A].core.mux.on_consumed(accepted, self.now);
        [opened, accepted]
    }
}

/// Makes each a test over both wires.
macro_rules! over_both_wires {
    ($($(#[$doc:meta])* fn $name:ident<W: Wire>() $body:block)+) => {
        $(
            $(#[$doc])*
            fn $name<W: Wire>() $body
        )+

        mod native {
            use super::Native;
            $(#[test] fn $name() { super::$name::<Native>(); })+
        }

        mod tiny {
            use super::Tiny;
            $(#[test] fn $name() { super::$name::<Tiny>(); })+
        }
    };
}

over_both_wires! {
    fn a_call_goes_there_and_back<W: Wire>() {
        let mut pair = Pair::<W>::new();
        let [call, served] = pair.stream(b"a name");
        assert_eq!(pair.ends[A].port(served).opening, "a name");
        pair.ends[D].send(call, b"question");
        pair.ends[D].finish(call);
        pair.drive();
        let now = pair.now;
        assert_eq!(pair.ends[A].recv(served, now).unwrap(), b"question");
        assert!(pair.ends[A].port(served).has_finished());
        assert!(pair.ends[A].port(served).receiver_wakes > 0);
        pair.ends[A].send(served, b"answer");
        pair.ends[A].finish(served);
        pair.drive();
        assert_eq!(pair.ends[D].recv(call, now).unwrap(), b"answer");
        for (end, key) in pair.ends.iter_mut().zip([call, served]) {
            end.core.mux.on_dropped(key);
            assert!(end.core.mux.base.streams.is_empty());
            assert_eq!(end.core.mux.base.app.get(Count::Finished), 1);
        }
    }

    fn messages_of_any_length_arrive_as_they_were<W: Wire>() {
        let mut pair = Pair::<W>::new();
        let [call, served] = pair.stream(b"");
        for len in [0, 1, 999, 1000, 1001, 20_000, 300_000] {
            let message = ringmux_testing::message(len);
            pair.ends[D].send(call, &message);
            pair.drive();
            let now = pair.now;
            assert!(pair.ends[A].recv(served, now).unwrap() == message, "{len}");
            pair.drive();
        }
    }

    fn a_cancel_ends_both_directions_on_both_sides<W: Wire>() {
        let mut pair = Pair::<W>::new();
        let [call, served] = pair.stream(b"");
        pair.ends[D].core.mux.cancel(call, 7);
        pair.drive();
        let port = pair.ends[A].port(served);
        let is_cancel = |error: &StreamError| {
            matches!(error, StreamError::Cancelled { by: Side::Peer, code: 7 })
        };
        assert!(matches!(port.send_end.get(), Some(SendEnd::Error(error)) if is_cancel(error)));
        assert!(matches!(port.recv_end.get(), Some(RecvEnd::Discard(error)) if is_cancel(error)));
        for (end, key) in pair.ends.iter_mut().zip([call, served]) {
            end.core.mux.on_dropped(key);
            assert!(end.core.mux.base.streams.is_empty());
        }
    }

    fn who_wants_nothing_more_is_delivered_nothing_more<W: Wire>() {
        let mut pair = Pair::<W>::new();
        let [call, served] = pair.stream(b"");
        pair.ends[A].core.mux.stop(served, 5);
        pair.ends[D].send(call, b"too late");
        pair.drive();
        assert!(matches!(pair.ends[A].port(served).recv_end.get(), Some(RecvEnd::Discard(_))));
        // The other direction stays open.
        pair.ends[A].send(served, b"still here");
        pair.drive();
        let now = pair.now;
        assert_eq!(pair.ends[D].recv(call, now).unwrap(), b"still here");
        assert_eq!(pair.ends[A].core.mux.flow.window.held(), 0);
    }

    fn an_error_comes_behind_the_messages<W: Wire>() {
        let mut pair = Pair::<W>::new();
        let [call, served] = pair.stream(b"");
        pair.ends[A].send(served, b"half");
        pair.ends[A].port(served).fail(9, "no more");
        pair.ends[A].core.mux.on_queued(served, false);
        pair.drive();
        let now = pair.now;
        assert_eq!(pair.ends[D].recv(call, now).unwrap(), b"half");
        let Some(RecvEnd::Error(StreamError::Failed(failure))) = pair.ends[D].port(call).recv_end.get() else {
            panic!("it failed");
        };
        assert_eq!((failure.code, &failure.message[..]), (9, "no more"));
    }

    fn a_close_ends_a_session_once_all_was_said<W: Wire>() {
        let mut pair = Pair::<W>::new();
        let [call, served] = pair.stream(b"");
        pair.ends[D].send(call, b"last words");
        let now = pair.now;
        pair.ends[D].core.close(now);
        pair.drive();
        assert!(matches!(pair.ends[D].core.mux.base.app.end, Some(SessionError::Closed)));
        assert_eq!(pair.ends[A].recv(served, now).unwrap(), b"last words");
        pair.ends[A].core.eof();
        assert!(pair.ends[A].core.mux.base.app.end.is_some());
    }

    fn a_drain_lets_streams_come_to_their_end<W: Wire>() {
        let mut pair = Pair::<W>::new();
        let [call, served] = pair.stream(b"");
        let now = pair.now;
        pair.ends[D].core.drain(Duration::from_secs(10), now);
        pair.ends[D].send(call, b"question");
        pair.ends[D].finish(call);
        pair.drive();
        assert!(pair.ends[D].core.mux.base.app.end.is_none());
        assert_eq!(pair.ends[A].recv(served, now).unwrap(), b"question");
        pair.ends[A].finish(served);
        pair.drive();
        assert!(matches!(pair.ends[D].core.mux.base.app.end, Some(SessionError::Closed)));
        assert_eq!(pair.ends[D].core.mux.base.app.get(Count::ShutdownForced), 0);
    }
}
