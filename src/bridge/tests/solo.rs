//! One connection, and frames written out by the test: those that an honest peer would not send, or not
//! at that time.

use super::*;
use crate::wire::native::frame::tests::bytes_of;
use crate::wire::native::frame::{Frame, HEADER_LEN, Header, Scope, Settings, StreamId, preface};

pub(super) struct Solo {
    pub(super) now: Instant,
    pub(super) end: End,
}

pub(super) fn id(n: u32) -> StreamId {
    StreamId::new(n).expect("not 0")
}

pub(super) fn open(stream: u32, block: &[u8]) -> Frame<'_> {
    Frame::Open {
        stream: id(stream),
        block,
        fin: false,
    }
}

pub(super) fn data(stream: u32, payload: &[u8], end: bool, fin: bool) -> Frame<'_> {
    Frame::Data {
        stream: id(stream),
        payload,
        end,
        fin,
    }
}

pub(super) fn window(scope: Scope, credit: u32) -> Frame<'static> {
    Frame::Window {
        scope,
        credit: credit.try_into().expect("not 0"),
    }
}

pub(super) fn cancel(stream: u32, code: u32, stop: bool) -> Frame<'static> {
    Frame::Cancel {
        stream: id(stream),
        code,
        stop,
    }
}

impl Solo {
    /// A connection whose peer has sent nothing yet.
    pub(super) fn silent(role: Role, config: &Config) -> Self {
        let now = Instant::now();
        let end = End::new(role, config, &Pool::new(1 << 30), now);
        Self { now, end }
    }

    /// A connection whose peer has sent these SETTINGS.
    pub(super) fn with(role: Role, config: &Config, settings: Settings) -> Self {
        let mut solo = Self::silent(role, config);
        solo.hello(settings);
        solo
    }

    /// A connection whose peer's limits are the floors.
    pub(super) fn new(role: Role, config: &Config) -> Self {
        Self::with(role, config, Settings::FLOORS)
    }

    /// Delivers the peer's preface and SETTINGS, drops the frames sent in answer, and answers the first PING.
    pub(super) fn hello(&mut self, settings: Settings) {
        let mut bytes = BytesMut::from(&preface::encode(preface::VERSION)[..]);
        settings.put(&mut bytes);
        while self.end.connection.receive(&mut bytes, self.now) {
            self.end.connection.deliver_wakes();
        }
        self.said();
        let opaque = self
            .end
            .connection
            .core
            .ping
            .in_flight()
            .map(|(opaque, _)| opaque);
        if let Some(opaque) = opaque {
            self.hear(&Frame::Ping { opaque, ack: true });
        }
    }

    pub(super) fn hear(&mut self, frame: &Frame<'_>) {
        let mut bytes = bytes_of(frame);
        self.end.connection.take_work(self.now);
        while self.end.connection.receive(&mut bytes, self.now) {
            self.end.connection.deliver_wakes();
        }
        assert!(bytes.is_empty(), "whole frames are taken");
        self.end.connection.deliver_wakes();
    }

    /// The frames that it sends now, one a line.
    pub(super) fn said(&mut self) -> Vec<String> {
        frames(&self.said_bytes())
    }

    /// The bytes that it sends now.
    pub(super) fn said_bytes(&mut self) -> Vec<u8> {
        let connection = &mut self.end.connection;
        connection.take_work(self.now);
        let mut bytes = Vec::new();
        while connection.transmit(&mut self.end.batch, self.now) {
            bytes.push(self.end.batch.remaining().concat());
            let n = self.end.batch.len();
            self.end.batch.clear();
            connection.written(n, false, self.now);
        }
        connection.deliver_wakes();
        bytes.concat()
    }

    pub(super) fn elapse(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self
            .end
            .connection
            .next_deadline()
            .filter(|at| *at <= until)
        {
            self.now = self.now.max(at);
            if self.end.connection.looks_at_socket(self.now) {
                self.end.connection.see_socket(None, self.now);
            }
            self.end.connection.on_deadline(self.now);
        }
        self.now = until;
        self.end.connection.deliver_wakes();
    }
}

/// Any frame, about few streams: often an allowed one.
fn any_frame(rng: &mut Rng, bytes: &mut BytesMut) {
    let payload = vec![rng.next() as u8; rng.pick(&[0, 1, 4, 5, 300, 8000, 16_384])];
    let stream = rng.pick(&[1, 1, 2, 2, 3, 4, 5, 7, u32::MAX]);
    let credit = rng.pick(&[1, 1000, 100_000, u32::MAX / 2]);
    let frame = match rng.below(15) {
        0..3 => open(stream, &payload[..payload.len().min(8192)]),
        3..6 => {
            let end = rng.one_in(2);
            let fin = rng.one_in(6) || (payload.is_empty() && !end);
            data(stream, &payload, end, fin)
        }
        6 => cancel(stream, credit, rng.one_in(2)),
        7 => window(
            rng.pick(&[Scope::Session, Scope::Streams, Scope::Stream(id(stream))]),
            credit,
        ),
        8 => Frame::Ping {
            opaque: rng.pick(&[1_u64, 2, 3]).to_le_bytes(),
            ack: rng.one_in(2),
        },
        9 => Frame::Meta {
            stream: id(stream),
            block: &payload[..payload.len().min(8192)],
            fin: rng.one_in(3),
        },
        12 => Frame::Call {
            stream: id(stream),
            payload: &payload[..payload.len().min(16_382)],
            opening: payload.len().min(8192),
        },
        13 => Frame::Reply {
            stream: id(stream),
            answer: &payload,
        },
        14 => Frame::Calls {
            takes: rng.one_in(2),
        },
        10 => Frame::Error {
            stream: id(stream),
            code: credit,
            message: "no",
            details: b"",
        },
        _ if rng.one_in(4) => Frame::GoAway {
            last: rng.one_in(2).then(|| id(stream)),
            code: credit,
            debug: "",
            soon: false,
        },
        _ => Frame::Extension(11),
    };
    bytes.extend_from_slice(&bytes_of(&frame));
}

#[test]
fn no_order_of_frames_and_no_damage_to_them_makes_a_connection_panic_or_forget_memory() {
    let mut protocol_errors = 0;
    for seed in 0..3000 {
        let mut rng = Rng::of(seed, 21);
        let role = rng.pick(&[Role::Dialer, Role::Acceptor]);
        let mut solo = Solo::new(role, &small_config());
        let session = solo.end.session().clone();
        let mut streams: Vec<Stream> = Vec::new();
        for _ in 0..rng.below(40) {
            let mut bytes = BytesMut::new();
            for _ in 0..rng.below(4) {
                any_frame(&mut rng, &mut bytes);
            }
            if rng.one_in(20) && !bytes.is_empty() {
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
            }
            while solo.end.connection.receive(&mut bytes, solo.now) {
                solo.end.connection.deliver_wakes();
            }
            match rng.below(6) {
                0 => streams.extend(session.try_open("")),
                1 => streams.extend(
                    Polled::new(session.accept())
                        .now()
                        .and_then(Result::ok)
                        .flatten(),
                ),
                2 if !streams.is_empty() => drop(streams.swap_remove(rng.below(streams.len()))),
                3 => solo.elapse(rng.micros(3_000_000)),
                _ => {
                    for stream in &mut streams {
                        let _ = stream.try_recv();
                        let _ = stream.try_send(message(rng.pick(&[0, 5000, 60_000])));
                    }
                }
            }
            solo.said();
            invariants::books_of_one_side_balance(&mut solo.end);
            assert_eq!(solo.end.pool.used(), invariants::taken(&mut solo.end));
        }
        let end = session.state().end();
        protocol_errors += u32::from(matches!(end, Some(crate::SessionError::Protocol(_))));
        solo.end.connection.eof();
        assert_eq!(
            solo.end.pool.used(),
            session.stats().bytes_held,
            "seed {seed}"
        );
        drop(streams);
        drop(session);
        solo.end.session = None;
        assert_eq!(solo.end.pool.used(), 0, "seed {seed}");
    }
    assert!((300..2900).contains(&protocol_errors), "{protocol_errors}");
}

/// Bytes as text, a frame a line.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    if bytes.starts_with(b"RINGMUX") {
        bytes = &bytes[preface::PREFACE_LEN..];
    }
    while let Some(head) = bytes.first_chunk::<HEADER_LEN>() {
        let header = Header::decode(*head);
        let len = HEADER_LEN + header.length as usize;
        let frame = Frame::parse(header, &bytes[HEADER_LEN..len]).expect("valid");
        lines.push(line(&frame));
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "a batch ends with a frame");
    lines
}

fn line(frame: &Frame<'_>) -> String {
    match *frame {
        Frame::Data {
            stream,
            payload,
            end,
            fin,
        } => {
            let end = if end { " END" } else { "" };
            let fin = if fin { " FIN" } else { "" };
            format!("DATA {stream} {}{end}{fin}", payload.len())
        }
        Frame::Open { stream, block, .. } => format!("OPEN {stream} {}", block.len()),
        Frame::Error { stream, code, .. } => format!("ERROR {stream} {code}"),
        Frame::Cancel {
            stream,
            code,
            stop: false,
        } => format!("CANCEL {stream} {code:#x}"),
        Frame::Cancel { stream, code, .. } => format!("STOP {stream} {code:#x}"),
        Frame::Window { scope, credit } => match scope {
            Scope::Session => format!("WINDOW session {credit}"),
            Scope::Streams => format!("WINDOW streams {credit}"),
            Scope::Stream(id) => format!("WINDOW {id} {credit}"),
        },
        Frame::Ping { ack: false, .. } => "PING".to_owned(),
        Frame::Ping { .. } => "PONG".to_owned(),
        Frame::GoAway { last, code, .. } => {
            let last = last.map_or(0, StreamId::get);
            format!("GOAWAY {last} {code:#x}")
        }
        Frame::Settings(_) => "SETTINGS".to_owned(),
        Frame::Meta { stream, block, .. } => format!("META {stream} {}", block.len()),
        Frame::Call {
            stream, payload, ..
        } => format!("CALL {stream} {}", payload.len()),
        Frame::Reply { stream, answer } => format!("REPLY {stream} {}", answer.len()),
        Frame::Calls { takes } => format!("CALLS {takes}"),
        Frame::Extension(kind) => format!("EXTENSION {kind}"),
    }
}
