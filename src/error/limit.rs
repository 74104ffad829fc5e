//! The limits that can be tripped, and the error that names them.

use std::fmt;

/// A limit of this side that a peer or a stream has tripped.
///
/// # Examples
/// ```
/// use ringmux::Limit;
///
/// assert_eq!(Limit::ResetRate.name(), "reset-rate");
/// assert_eq!(Limit::ResetRate.setting(), "reset_rate");
/// assert!(Limit::ALL.contains(&Limit::ResetRate));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum Limit {
    /// A message larger than its window found no memory in
    /// [`message_timeout`](crate::ConfigBuilder::message_timeout). Ends its stream.
    MessageMemory,
    /// A message was given memory, and is [`message_timeout`](crate::ConfigBuilder::message_timeout) behind
    /// [`min_message_rate`](crate::ConfigBuilder::min_message_rate). Ends its stream.
    MessageStalled,
    /// A message came in pieces so small that they cost more than [`max_message`](crate::ConfigBuilder::max_message)
    /// allows for its size: twice that size and 64 KiB. Ends its stream.
    MessagePieces,
    /// A message is longer than [`max_message`](crate::ConfigBuilder::max_message), over a wire where that ends its stream
    /// alone.
    MessageSize,
    /// The stream held the session's memory longest while other streams waited for memory. Ends the stream; a call that waited
    /// longest for a handler, where such calls hold most of the memory, is refused.
    StalledStream,
    /// [`max_unaccepted`](crate::ConfigBuilder::max_unaccepted) streams were waiting for the application. The stream
    /// was refused with [`UNAVAILABLE`](crate::codes::UNAVAILABLE), which is safe to try again.
    Unaccepted,
    /// More than [`max_unaccepted_resets`](crate::ConfigBuilder::max_unaccepted_resets) of the streams that were
    /// waiting for the application had been reset by the peer. Ends the session.
    UnacceptedResets,
    /// More than [`max_faulty_streams`](crate::ConfigBuilder::max_faulty_streams) streams were ended because of
    /// the peer's faults. Ends the session.
    FaultyStreams,
    /// More streams of the peer were reset than [`reset_rate`](crate::ConfigBuilder::reset_rate) allows. Ends the
    /// session.
    ResetRate,
    /// More unsolicited control frames, or frames of unknown kinds, arrived than
    /// [`glitch_rate`](crate::ConfigBuilder::glitch_rate) allows. Ends the session.
    GlitchRate,
    /// More PINGs arrived than [`ping_rate`](crate::ConfigBuilder::ping_rate) allows. Ends the session.
    PingRate,
    /// [`max_half_open`](crate::ConfigBuilder::max_half_open) connections of a listener had no session yet; this one had the
    /// oldest handshake, and was evicted for a new one after [`min_half_open_time`](crate::ConfigBuilder::min_half_open_time).
    HalfOpen,
}

impl Limit {
    /// The number of limits.
    pub(crate) const COUNT: usize = 12;

    /// Every limit, in order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::MessageMemory,
        Self::MessageStalled,
        Self::MessagePieces,
        Self::MessageSize,
        Self::StalledStream,
        Self::Unaccepted,
        Self::UnacceptedResets,
        Self::FaultyStreams,
        Self::ResetRate,
        Self::GlitchRate,
        Self::PingRate,
        Self::HalfOpen,
    ];

    /// A short, stable name for logs and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MessageMemory => "message-memory",
            Self::MessageStalled => "message-stalled",
            Self::MessagePieces => "message-pieces",
            Self::MessageSize => "message-size",
            Self::StalledStream => "stalled-stream",
            Self::Unaccepted => "unaccepted",
            Self::UnacceptedResets => "unaccepted-resets",
            Self::FaultyStreams => "faulty-streams",
            Self::ResetRate => "reset-rate",
            Self::GlitchRate => "glitch-rate",
            Self::PingRate => "ping-rate",
            Self::HalfOpen => "half-open",
        }
    }

    /// The method of [`ConfigBuilder`](crate::ConfigBuilder) that sets it.
    #[must_use]
    pub const fn setting(self) -> &'static str {
        match self {
            Self::MessageMemory => "receive_pool",
            Self::MessageStalled => "message_timeout",
            Self::MessagePieces | Self::MessageSize => "max_message",
            Self::StalledStream => "session_window_max",
            Self::Unaccepted => "max_unaccepted",
            Self::UnacceptedResets => "max_unaccepted_resets",
            Self::FaultyStreams => "max_faulty_streams",
            Self::ResetRate => "reset_rate",
            Self::GlitchRate => "glitch_rate",
            Self::PingRate => "ping_rate",
            Self::HalfOpen => "max_half_open",
        }
    }

    /// The unit of the value of a [`LimitExceeded`].
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::MessageMemory
            | Self::MessageStalled
            | Self::MessagePieces
            | Self::MessageSize
            | Self::StalledStream => "bytes",
            Self::Unaccepted | Self::UnacceptedResets | Self::FaultyStreams => "streams",
            Self::ResetRate => "resets",
            Self::GlitchRate => "frames",
            Self::PingRate => "PINGs",
            Self::HalfOpen => "connections",
        }
    }

    /// Its place in [`ALL`](Self::ALL).
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

/// A tripped limit, and the value that tripped it.
///
/// The same text goes to the peer, in the GOAWAY with the code [`LIMIT_EXCEEDED`](crate::codes::LIMIT_EXCEEDED),
/// if it ends the session.
///
/// # Examples
/// ```
/// use ringmux::{Limit, LimitExceeded};
///
/// let error = LimitExceeded { limit: Limit::ResetRate, value: 1001 };
/// assert_eq!(error.to_string(), "limit reset-rate exceeded at 1001 resets: see the setting reset_rate");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitExceeded {
    /// Which limit.
    pub limit: Limit,
    /// The value that tripped it, in the limit's [`unit`](Limit::unit). For a rate: the count over the life of the session,
    /// the excess one included.
    pub value: u64,
}

impl fmt::Display for LimitExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (limit, value) = (self.limit, self.value);
        let (name, unit, setting) = (limit.name(), limit.unit(), limit.setting());
        write!(
            f,
            "limit {name} exceeded at {value} {unit}: see the setting {setting}"
        )
    }
}

impl std::error::Error for LimitExceeded {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_a_place_a_name_and_a_text_that_fits_a_goaway() {
        let mut names = std::collections::HashSet::new();
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit.index(), place);
            assert!(names.insert(limit.name()), "{limit:?}");
            let value = u64::MAX;
            let text = LimitExceeded { limit, value }.to_string();
            assert!(text.len() <= 256, "{text}");
            assert!(text.contains(limit.setting()), "{text}");
        }
    }
}
