//! The wire of ringmux, version 1: preface, SETTINGS, and frames of streams with credit.
//!
//! `frame` is the codec: bytes to values and back. `receive` acts on frames, `calls` on those of calls, `transmit` and `sender` fill a batch; this file
//! has their state. `error` translates violations of the core.

mod calls;
mod error;
pub(crate) mod frame;
mod receive;
mod sender;
mod transmit;

use std::time::Instant;

use bytes::BytesMut;

use super::{Batch, Role, Wire};
use crate::config::Config;
use crate::core::{Core, Floors, SessionPort, Terms};
use crate::error::{ProtocolError, SessionError};
use frame::{
    CALL_PREFIX_LEN, HEADER_LEN, MAX_CALL_LEN, MAX_ERROR_DETAILS, MAX_META_BLOCK, MAX_OPEN_BLOCK,
    Settings, StreamId, preface,
};

/// One side of a native connection.
#[derive(Debug)]
pub(crate) struct Native {
    role: Role,
    /// Preface and SETTINGS, until sent.
    hello: BytesMut,
    /// The peer's preface was parsed.
    greeted: bool,
    /// The largest payload of DATA that the peer accepts, in bytes.
    peer_max_frame: usize,
    /// Id of the next stream that this side opens.
    pub(crate) next_id: StreamId,
    pub(crate) last_peer_id: Option<StreamId>,
    /// The ids of this side, or of the peer, have wrapped: the next one may be in use.
    wrapped: bool,
    peer_wrapped: bool,
    /// The latest PING of the peer that was not answered yet.
    pong_owed: Option<[u8; 8]>,
    /// The turn of calls: the next batch has them without answers, if there are any.
    calls_alone: bool,
}

/// Preface and SETTINGS.
fn hello(role: Role, config: &Config, session_window: u32) -> BytesMut {
    let ours = Settings {
        max_frame: config.max_frame(),
        max_message: config.max_message(),
        stream_window: config.stream_window(),
        session_window,
        streams: config.max_streams(),
        role: Some(role),
    };
    let mut hello = BytesMut::with_capacity(64);
    hello.extend_from_slice(&preface::encode(preface::VERSION));
    ours.put(&mut hello);
    hello
}

impl Native {
    /// A frame for a missing stream: fine if the stream has existed, a violation if it never has.
    fn check_ended(&self, id: StreamId) -> Result<(), ProtocolError> {
        let opened = if id.is_opened_by(self.role) {
            self.next_id.is_after(id)
        } else {
            self.last_peer_id
                .is_some_and(|last| last == id || last.is_after(id))
        };
        if opened {
            Ok(())
        } else {
            Err(ProtocolError::NeverOpened { id })
        }
    }
}

impl Wire for Native {
    const TERMS: Terms = Terms {
        credit: true,
        ping: true,
        goaway: true,
        both_open: true,
        max_call: MAX_CALL_LEN - CALL_PREFIX_LEN as u32,
        floors: Floors {
            max_message: Settings::FLOORS.max_message,
            stream_window: Settings::FLOORS.stream_window,
            session_window: Settings::FLOORS.session_window,
            streams: Settings::FLOORS.streams,
        },
        max_opening: MAX_OPEN_BLOCK,
        max_block: MAX_META_BLOCK,
        max_details: MAX_ERROR_DETAILS,
    };

    fn new(role: Role, config: &Config, session_window: u32) -> Self {
        Self {
            role,
            hello: hello(role, config, session_window),
            greeted: false,
            peer_max_frame: Settings::FLOORS.max_frame as usize,
            next_id: StreamId::first(role),
            last_peer_id: None,
            wrapped: false,
            peer_wrapped: false,
            pong_owed: None,
            calls_alone: false,
        }
    }

    /// The accepting side, until it has seen the dialler's preface.
    fn is_silent(role: Role) -> bool {
        role == Role::Acceptor
    }

    /// Two of the largest frames.
    fn least_reception(config: &Config) -> usize {
        2 * (config.max_frame() as usize + HEADER_LEN)
    }

    #[inline]
    fn receive<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        buf: &mut BytesMut,
        backing: usize,
        now: Instant,
    ) -> Result<bool, SessionError> {
        let received = self.take_frames(core, buf, backing, now);
        received.map_err(SessionError::Protocol)
    }

    #[inline]
    fn is_silent_now(&self) -> bool {
        self.pong_owed.is_none() && self.hello.is_empty()
    }

    fn transmit_messages<S: SessionPort>(
        &mut self,
        core: &mut Core<S>,
        batch: &mut Batch,
        now: Instant,
    ) {
        self.fill_with_messages(core, batch, now);
    }

    fn transmit<S: SessionPort>(&mut self, core: &mut Core<S>, batch: &mut Batch, now: Instant) {
        self.fill(core, batch, now);
    }
}
