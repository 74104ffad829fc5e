//! SETTINGS: the limits of one side for the other, and its role, sent once and first.
//!
//! Ids 1 to 5 are limits, see [`Settings`]. Id 6 is the sender's role, 1 where it dialled and 2 where it accepted, so that
//! a side connected to itself, as behind an echo server, can tell. A peer of version 0.1 omits it.
//!
//! There may be as many entries as fit into the smallest frame. An unknown id is ignored, with any value and any number of
//! times, so that later versions may have settings of their own. A known one may occur once.

use bytes::BufMut;

use super::error::FrameError;
use super::header::Header;
use super::id::Role;
use super::kind::Kind;
use super::lengths::{ENTRY_LEN, HEADER_LEN, MAX_FRAME_FLOOR, MAX_SETTINGS_LEN, saturate};
use super::read;

/// The largest frame payload that may be agreed on, in bytes. It bounds how long one stream holds the connection.
pub(crate) const MAX_FRAME_CEILING: u32 = 64 * 1024;

/// Maximum of entries that [`Settings::put`] writes: one for each known id, from 1.
const ENTRIES: u32 = 6;

/// Id of the sender's role.
const ROLE_ID: u16 = 6;

/// Bytes that [`Settings::put`] appends at most.
pub(crate) const SETTINGS_FRAME_LEN: usize = HEADER_LEN + (ENTRIES * ENTRY_LEN) as usize;

const _: () = {
    assert!(ENTRIES * ENTRY_LEN <= MAX_SETTINGS_LEN);
    // For each known id a bit of one byte records its occurrence.
    assert!(ENTRIES < u8::BITS);
    assert!(Settings::FLOORS.max_frame <= MAX_FRAME_CEILING);
    assert!(Settings::FLOORS.stream_window <= Settings::FLOORS.session_window);
    // A frame of the smallest size fits the smallest window, its fixed cost included.
    assert!(super::cost(Settings::FLOORS.max_frame) <= Settings::FLOORS.stream_window as u64);
};

/// The limits of the sender of a SETTINGS frame for its peer. An omitted value is at its floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Largest payload of a DATA frame, in bytes (id 1).
    pub(crate) max_frame: u32,
    /// Largest message, in bytes (id 2).
    pub(crate) max_message: u32,
    /// Credit that a new stream starts with, in bytes (id 3).
    pub(crate) stream_window: u32,
    /// Credit that the session starts with, in bytes (id 4).
    pub(crate) session_window: u32,
    /// Number of streams that the peer may open at first (id 5).
    pub(crate) streams: u32,
    /// The sender's role (id 6), if present.
    pub(crate) role: Option<Role>,
}

impl Settings {
    /// The values in force before the SETTINGS of the peer arrive. A frame may only raise them.
    pub(crate) const FLOORS: Self = Self {
        max_frame: MAX_FRAME_FLOOR,
        max_message: 64 * 1024,
        stream_window: 32 * 1024,
        session_window: 256 * 1024,
        streams: 16,
        role: None,
    };

    /// Checks every value against its floor and its ceiling.
    ///
    /// # Errors
    ///
    /// [`FrameError::SettingBelowFloor`] or [`FrameError::SettingAboveCeiling`] for the first value out of bounds.
    pub(crate) fn validate(&self) -> Result<(), FrameError> {
        // Setting a value checks it.
        let mut judged = Self::FLOORS;
        for (id, value) in self.entries() {
            judged.set(id, value)?;
        }
        Ok(())
    }

    /// Appends a SETTINGS frame with all values, which [`validate`](Self::validate) accepts.
    pub(crate) fn put(&self, dst: &mut impl BufMut) {
        debug_assert_eq!(self.validate(), Ok(()));
        let entries = saturate(self.entries().count());
        let header = Header {
            length: entries.saturating_mul(ENTRY_LEN),
            kind: Kind::Settings.bits(),
            flags: 0,
            stream: 0,
        };
        dst.put_slice(&header.encode());
        for (id, value) in self.entries() {
            dst.put_u16_le(id);
            dst.put_u32_le(value);
        }
    }

    /// Reads the payload of a SETTINGS frame. Unknown ids are ignored, known ones may occur once.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, FrameError> {
        let length = saturate(payload.len());
        let (entries, rest) = payload.as_chunks::<{ ENTRY_LEN as usize }>();
        if !rest.is_empty() {
            return Err(FrameError::SettingsLength { length });
        }
        if length > MAX_SETTINGS_LEN {
            return Err(FrameError::TooLong {
                kind: Kind::Settings,
                length,
                limit: MAX_SETTINGS_LEN,
            });
        }
        let mut settings = Self::FLOORS;
        let mut seen = 0_u8;
        for (id, value) in entries.iter().map(|entry| split(*entry)) {
            if !(1..=ENTRIES).contains(&u32::from(id)) {
                continue;
            }
            let bit = 1_u8.wrapping_shl(id.into());
            if seen & bit != 0 {
                return Err(FrameError::SettingTwice { id });
            }
            seen |= bit;
            settings.set(id, value)?;
        }
        Ok(settings)
    }

    fn entries(&self) -> impl Iterator<Item = (u16, u32)> {
        let limits = [
            (1, self.max_frame),
            (2, self.max_message),
            (3, self.stream_window),
            (4, self.session_window),
            (5, self.streams),
        ];
        let role = self.role.map(|role| (ROLE_ID, number_of(role)));
        limits.into_iter().chain(role)
    }

    /// Sets the value of an id, if the id is known and the value is within its bounds.
    fn set(&mut self, id: u16, value: u32) -> Result<(), FrameError> {
        const FLOORS: Settings = Settings::FLOORS;
        if id == ROLE_ID {
            self.role = Some(role_of(value)?);
            return Ok(());
        }
        let (place, floor, ceiling) = match id {
            1 => (&mut self.max_frame, FLOORS.max_frame, MAX_FRAME_CEILING),
            2 => (&mut self.max_message, FLOORS.max_message, u32::MAX),
            3 => (&mut self.stream_window, FLOORS.stream_window, u32::MAX),
            4 => (&mut self.session_window, FLOORS.session_window, u32::MAX),
            5 => (&mut self.streams, FLOORS.streams, u32::MAX),
            _ => return Ok(()),
        };
        if value < floor {
            return Err(FrameError::SettingBelowFloor { id, value, floor });
        }
        if value > ceiling {
            return Err(FrameError::SettingAboveCeiling { id, value, ceiling });
        }
        *place = value;
        Ok(())
    }
}

const fn number_of(role: Role) -> u32 {
    match role {
        Role::Dialer => 1,
        Role::Acceptor => 2,
    }
}

const fn role_of(value: u32) -> Result<Role, FrameError> {
    let (id, floor, ceiling) = (ROLE_ID, 1, 2);
    match value {
        0 => Err(FrameError::SettingBelowFloor { id, value, floor }),
        1 => Ok(Role::Dialer),
        2 => Ok(Role::Acceptor),
        _ => Err(FrameError::SettingAboveCeiling { id, value, ceiling }),
    }
}

#[inline]
fn split([i0, i1, v0, v1, v2, v3]: [u8; ENTRY_LEN as usize]) -> (u16, u32) {
    (
        u16::from_le_bytes([i0, i1]),
        u32::from_le_bytes([v0, v1, v2, v3]),
    )
}
