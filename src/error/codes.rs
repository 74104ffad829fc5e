//! The codes that ringmux itself puts into ERROR, CANCEL and GOAWAY.
//!
//! A code is a `u32`. The last 256, from [`FIRST_RESERVED`] on, belong to ringmux, whether this version gives them a
//! meaning or not; all others, 0 among them, belong to the application, which can number its errors from 0 and never
//! meets a code of ours by accident.
//!
//! No code is refused, on the wire or here: one without a meaning is passed on as it is. An application that sends a
//! reserved one says what is written here, and is taken at its word: a side that cancels with [`REFUSED`] promises that
//! nothing of the stream was looked at.
//!
//! # Examples
//!
//! ```
//! use ringmux::codes;
//!
//! assert!(!codes::is_reserved(0));
//! assert!(codes::is_reserved(codes::CANCELLED));
//! assert_eq!(codes::name(codes::CANCELLED), Some("cancelled"));
//! assert_eq!(codes::name(42), None);
//! ```

/// The first code that is not for applications; the range goes up to `u32::MAX`.
pub const FIRST_RESERVED: u32 = 0xFFFF_FF00;

/// Nothing went wrong.
pub const NO_ERROR: u32 = FIRST_RESERVED;
/// The peer broke a rule of the wire; the text of the GOAWAY names it.
pub const PROTOCOL: u32 = FIRST_RESERVED | 0x01;
/// This side failed for a reason of its own.
pub const INTERNAL: u32 = FIRST_RESERVED | 0x02;
/// The application has lost interest in the stream.
pub const CANCELLED: u32 = FIRST_RESERVED | 0x03;
/// The application did not want the stream, and has done nothing for it. Said by applications alone, except that
/// ringmux 0.1 said it where this version says [`UNAVAILABLE`].
pub const REFUSED: u32 = FIRST_RESERVED | 0x04;
/// A limit was reached; the text names it.
pub const LIMIT_EXCEEDED: u32 = FIRST_RESERVED | 0x05;
/// This side is shutting down.
pub const SHUTDOWN: u32 = FIRST_RESERVED | 0x06;
/// The peer was silent for longer than keepalive allows.
pub const KEEPALIVE: u32 = FIRST_RESERVED | 0x07;
/// The time for the stream has run out.
pub const DEADLINE: u32 = FIRST_RESERVED | 0x08;
/// ringmux turned the stream away before an application could see it: a limit was reached, or nothing accepts streams on
/// that session any more. It can be tried again, after a pause or on another session.
pub const UNAVAILABLE: u32 = FIRST_RESERVED | 0x09;

/// Whether a code is for ringmux itself and not for applications.
#[inline]
#[must_use]
pub const fn is_reserved(code: u32) -> bool {
    code >= FIRST_RESERVED
}

/// The short name of a code that this version gives a meaning.
#[must_use]
pub const fn name(code: u32) -> Option<&'static str> {
    Some(match code {
        NO_ERROR => "no-error",
        PROTOCOL => "protocol",
        INTERNAL => "internal",
        CANCELLED => "cancelled",
        REFUSED => "refused",
        LIMIT_EXCEEDED => "limit-exceeded",
        SHUTDOWN => "shutdown",
        KEEPALIVE => "keepalive",
        DEADLINE => "deadline",
        UNAVAILABLE => "unavailable",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn codes_of_applications_start_at_0_and_never_meet_ours() {
        use super::super::codes;

        assert!(!codes::is_reserved(0));
        assert!(!codes::is_reserved(0xFFFF_FEFF));
        assert!(codes::is_reserved(0xFFFF_FF00));
        assert!(codes::is_reserved(u32::MAX));
        let named = (0..=0xFF).filter(|low| codes::name(codes::FIRST_RESERVED | low).is_some());
        assert_eq!(named.count(), 10);
        assert_eq!(codes::name(0), None);
    }
}
