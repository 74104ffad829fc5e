//! What a session is allowed to use: validated numbers, each with a unit and a default.
//!
//! A [`Config`] is built once and shared by any number of sessions. It has no behaviour of its own. `profile` has the
//! numbers to start from, `build` checks them.

mod build;
mod profile;
mod rate;

use std::time::Duration;

pub use build::ConfigError;
pub use rate::Rate;

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;

/// Limits and sizes of a session.
///
/// Sizes are bytes of payload plus 256 bytes for each frame, so that small messages are bounded as
/// well as large ones.
///
/// | limit | setting | default | [`edge`](Self::edge) | above it |
/// |---|---|---|---|---|
/// | payload of a frame | `max_frame` | 16 KiB | 16 KiB | protocol error |
/// | received at a time, or two frames if that is more | `receive_buffer` | 256 KiB | 32 KiB | the next time |
/// | message | `max_message` | 4 MiB | 4 MiB | protocol error |
/// | what a peer may send on a stream, unconsumed | `stream_window`, up to `stream_window_max` | 64 KiB, 1 MiB | 64 KiB, 64 KiB | protocol error |
/// | the same on all streams together | `session_window`, up to `session_window_max` | 1 MiB, 16 MiB | 256 KiB, 1 MiB | protocol error; what stalls while it is full ends with [`Limit::StalledStream`](crate::Limit::StalledStream) |
/// | receive memory of the process | `receive_pool` | 256 MiB | 128 MiB | windows stay at their floors, [`Limit::MessageMemory`](crate::Limit::MessageMemory) |
/// | a message that has begun: wait for memory, or behind a least rate | `message_timeout`, `min_message_rate` | 10 s, 1 KiB/s | 10 s, 4 KiB/s | the stream ends: [`Limit::MessageMemory`](crate::Limit::MessageMemory), [`Limit::MessageStalled`](crate::Limit::MessageStalled) |
/// | streams of the peer at once | `max_streams` | 256 | 100 | protocol error |
/// | of them, not accepted by the application | `max_unaccepted` | as many as there may be | 64 | turned away, safe to try again: [`Limit::Unaccepted`](crate::Limit::Unaccepted) |
/// | of them, reset by the peer | `max_unaccepted_resets` | as many as there may be | 20 | the session ends: [`Limit::UnacceptedResets`](crate::Limit::UnacceptedResets) |
/// | streams that the peer made this side end, in all | `max_faulty_streams` | 1024 | 256 | the session ends: [`Limit::FaultyStreams`](crate::Limit::FaultyStreams) |
/// | resets of the peer's streams, by either side | `reset_rate` | off | 1000, 33/s | the session ends: [`Limit::ResetRate`](crate::Limit::ResetRate) |
/// | control frames without a cause, and frames of unknown kinds | `glitch_rate` | 10,000, 330/s | 1000, 33/s | the session ends: [`Limit::GlitchRate`](crate::Limit::GlitchRate) |
/// | PINGs of the peer | `ping_rate` | off | 10, 1/s | the session ends: [`Limit::PingRate`](crate::Limit::PingRate) |
/// | queued for sending on a stream, beside one message | `send_buffer` | 256 KiB | 32 KiB | `send` waits |
/// | the same on all streams together, beside 4 KiB a stream | `session_send_buffer` | 4 MiB | 256 KiB | `send` waits |
/// | calls of `open` that wait | `max_pending_opens` | 1024 | 1024 | [`OpenError::TooManyPending`](crate::OpenError::TooManyPending) |
/// | connections of a listener without a session yet | `max_half_open` | 256 | 128 | the one that has been in its handshake longest ends: [`Limit::HalfOpen`](crate::Limit::HalfOpen) |
/// | the lookup of a name, and connecting | `connect_timeout` | 10 s | 10 s | [`ConnectError::TimedOut`](crate::ConnectError::TimedOut) |
/// | handshake | `handshake_timeout` | 10 s | 5 s | [`SessionError::HandshakeTimeout`](crate::SessionError::HandshakeTimeout) |
/// | silence, and then no sign of life | `keepalive_idle`, `keepalive_timeout` | 15 s, 10 s | 15 s, 10 s | [`SessionError::KeepaliveTimeout`](crate::SessionError::KeepaliveTimeout) |
/// | a socket that takes nothing, from which nothing leaves and nothing comes | `write_timeout` | 10 s | 5 s | [`SessionError::WriteTimeout`](crate::SessionError::WriteTimeout) |
/// | age, and the drain that ends it | `max_age`, `drain_timeout` | none, 30 s | 1 h, 30 s | the session shuts down |
/// | no handle is left, and the peer moves nothing | `drain_timeout` | 30 s | 30 s | the session closes |
///
/// What the wire makes impossible has no setting. An opening block or an opaque block is one frame of at most 8 KiB,
/// so there are no continuations to count, and a direction of a stream has at most two. An empty DATA frame that ends
/// nothing and a WINDOW of 0 are protocol errors at once. A frame costs 256 bytes of credit besides its payload, so
/// the number of queued messages is bounded by the same window as their bytes. What is to be answered is a slot and
/// not a queue: one PONG and one WINDOW a session, one of each control frame a stream, one refusal for each stream
/// that was granted; so a peer that asks and does not read makes nothing grow. Stream ids wrap and pass over those in
/// use. Kinds of frames that are not known are skipped and leave nothing behind, and beyond four for each message and each
/// frame sent they are glitches. Settings that are not known are ignored, however many (one frame holds 2730 at most) and
/// however often; one that is known, and comes twice, is a protocol error.
///
/// # Examples
/// ```
/// use ringmux::Config;
///
/// let config = Config::builder().max_streams(1_000).max_message(64 * 1024).build()?;
/// assert_eq!(config.max_streams(), 1_000);
///
/// let error = Config::builder().max_message(1).build().unwrap_err();
/// assert!(error.to_string().contains("max_message"));
/// # Ok::<(), ringmux::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    max_frame: u32,
    receive_buffer: u32,
    max_message: u32,
    stream_window: u32,
    stream_window_max: u32,
    session_window: u32,
    session_window_max: u32,
    receive_pool: u64,
    max_streams: u32,
    max_unaccepted: Option<u32>,
    max_unaccepted_resets: Option<u32>,
    max_faulty_streams: u32,
    glitch_rate: Rate,
    reset_rate: Option<Rate>,
    ping_rate: Option<Rate>,
    send_buffer: u32,
    session_send_buffer: u32,
    max_pending_opens: u32,
    max_half_open: u32,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    message_timeout: Duration,
    min_message_rate: u32,
    close_linger: Duration,
    keepalive_idle: Option<Duration>,
    keepalive_timeout: Duration,
    write_timeout: Duration,
    max_age: Option<Duration>,
    drain_timeout: Duration,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty),+ $(,)?) => {
        impl Config {
            /// A builder that starts from the defaults.
            pub fn builder() -> ConfigBuilder {
                ConfigBuilder { config: Self::default() }
            }

            $($(#[$doc])* #[must_use] pub const fn $name(&self) -> $type { self.$name })+
        }

        impl ConfigBuilder {
            $($(#[$doc])* pub const fn $name(mut self, value: $type) -> Self {
                self.config.$name = value;
                self
            })+
        }
    };
}

settings! {
    /// Largest payload of one frame that the peer may send, in bytes. 16 KiB (default) to 64 KiB.
    max_frame: u32,
    /// Bytes that a session receives at a time at most; two of the largest frames if that is more. It begins with room for
    /// those, has twice as much whenever half of it was filled at once, and begins again at the first arrival after
    /// 10 s in which that has not happened; with `keepalive_idle` off on both sides an idle session keeps what it has. This is
    /// memory of the session's own, beside `receive_pool` and what the kernel has for its socket. Default 256 KiB, at
    /// most 16 MiB; 0 leaves it at two frames.
    receive_buffer: u32,
    /// Largest message that the peer may send, in bytes. Default 4 MiB, at least 64 KiB.
    max_message: u32,
    /// Credit of a new stream: bytes that the peer may send before the application consumes. A message
    /// that has begun is completed beyond it, from the process's memory. Default 64 KiB, at least
    /// 32 KiB; above 1 MiB raise `stream_window_max` with it.
    stream_window: u32,
    /// Up to what a stream's window grows while the application drains it fast, in bytes. All
    /// streams of a session together grow by a quarter of `session_window_max`. Default 1 MiB.
    stream_window_max: u32,
    /// Credit of all streams of a session together, in bytes, if `receive_pool` has it. Default 1 MiB, at
    /// least 256 KiB; above 16 MiB raise `session_window_max` with it.
    session_window: u32,
    /// Up to what the session's window grows, in bytes. Default 16 MiB.
    session_window_max: u32,
    /// Bytes of receive memory that the process may have given to sessions when one with this
    /// configuration takes more. There is one pool for the process: sessions with a smaller number leave the
    /// rest of it to the others, and none takes memory for a message unless that leaves as much free as it
    /// has for messages already. `session_window` is taken out of the first quarter, and what windows
    /// grow to because they are in use out of the first half, so that idle sessions leave the rest to
    /// messages and to windows that are full of what is not consumed. A session that gets none has its
    /// floor of 256 KiB, which is beside the pool. What lies in streams that are over, for an application that holds them and
    /// has not looked, counts until it has or they are dropped, also after the session's end and beyond the pool's size:
    /// then there is none for new messages. Default 256 MiB, at most 1 TiB: with more than 85
    /// sessions of the default window, the others begin at their floors.
    receive_pool: u64,
    /// Streams that the peer may have open at once. Default 256, at least 16. A stream that it cancels counts until the
    /// application has let go of it.
    max_streams: u32,
    /// Of them, those that the application has not accepted; what the peer opens beyond is turned away with
    /// [`UNAVAILABLE`](crate::codes::UNAVAILABLE) and safe to try again
    /// ([`Limit::Unaccepted`](crate::Limit::Unaccepted)). At least 1. Default `None`: as many as it may have open.
    max_unaccepted: Option<u32>,
    /// Of those, the ones that the peer has reset: more end the session with
    /// [`Limit::UnacceptedResets`](crate::Limit::UnacceptedResets). At least 1. Default `None`: as many as it may
    /// have open, since a client that gives its calls up while an application is slow to accept them has done nothing
    /// wrong.
    max_unaccepted_resets: Option<u32>,
    /// Streams that may end because the peer sent a message in needlessly small pieces, or did not go on with one
    /// that was given memory, over the life of a session; more end the session with
    /// [`Limit::FaultyStreams`](crate::Limit::FaultyStreams). Default 1024, at least 1.
    max_faulty_streams: u32,
    /// How often the peer may send what has no cause: a WINDOW beyond four for each frame that this side has sent, a
    /// frame that costs no credit for a stream that has ended, beyond the same four, a fourth GOAWAY, a frame of a kind
    /// that this version does not know, beyond the same four and four for each message that came. More end the session with [`Limit::GlitchRate`](crate::Limit::GlitchRate). Default 10,000 and 330 a second.
    glitch_rate: Rate,
    /// How often streams of the peer may be reset, by it or by this side, before they have come to their end. More
    /// end the session with [`Limit::ResetRate`](crate::Limit::ResetRate). Default `None`: as often as they are
    /// opened.
    reset_rate: Option<Rate>,
    /// How often the peer may ask for a round trip; more end the session with
    /// [`Limit::PingRate`](crate::Limit::PingRate). A peer of this library asks when a session begins, for
    /// [`ping`](crate::Session::ping), when it shuts down, and after silence. Default `None`: as often as it likes; the
    /// answer to the latest is the only one kept.
    ping_rate: Option<Rate>,
    /// Bytes that one stream may have queued for sending before `send` waits; one message of any
    /// legal size is always admitted to an empty queue. What is above 4 KiB comes out of `session_send_buffer`.
    /// Default 256 KiB, at least 4 KiB; above 4 MiB raise `session_send_buffer` with it.
    send_buffer: u32,
    /// Bytes that all streams of a session together may have queued for sending, beside 4 KiB and one message for each
    /// of them. Streams take of it what they need while there is plenty. When there is not, those that have
    /// nothing queued give back what they took, and each of the others keeps an equal share, once it has sent
    /// what it has above; meanwhile `send` waits. A stream always has its 4 KiB, so none waits for ever because of the
    /// others. Default 4 MiB, at least `send_buffer`.
    session_send_buffer: u32,
    /// Calls of `open` that may wait for the peer's permission at once. Default 1024.
    max_pending_opens: u32,
    /// Connections of a listener that are in their handshake or wait for [`accept`](crate::Listener::accept). When
    /// there are so many, one that comes takes the place of the one that has been in its handshake longest
    /// ([`Limit::HalfOpen`](crate::Limit::HalfOpen)), or waits if all are done with theirs. Default 256, from 1 to
    /// 65,536.
    max_half_open: u32,
    /// How long [`connect`](crate::Engine::connect) may look a name up and try its addresses, 250 ms apart. Default
    /// 10 s.
    connect_timeout: Duration,
    /// How long the peer may take to answer the opening of the connection. Default 10 s.
    handshake_timeout: Duration,
    /// How long a message larger than its stream's window may wait for memory, or be behind
    /// `min_message_rate`, before the stream ends with a limit error. Default 10 s.
    message_timeout: Duration,
    /// Bytes a second that the peer sends at least of a message that was given memory beyond its
    /// stream's window. One of `n` bytes is complete after `message_timeout` and
    /// `n / min_message_rate` at the latest, or its stream ends with
    /// [`Limit::MessageStalled`](crate::Limit::MessageStalled). Default 1 KiB, from 1 to 1 GiB.
    min_message_rate: u32,
    /// How long `close` keeps sending what was queued before it. Default 1 s.
    close_linger: Duration,
    /// After how much silence the peer is asked for a sign of life, also while no stream is open; any
    /// byte from it is one. Each session shortens it by up to a tenth, so that many do not ask at
    /// once. Default 15 s, at least 10 ms; `None` never asks.
    keepalive_idle: Option<Duration>,
    /// How long a peer that was asked for a sign of life may take before the session ends with
    /// [`SessionError::KeepaliveTimeout`](crate::SessionError::KeepaliveTimeout). Any byte from it is a sign of life. While
    /// the question waits in the socket behind other bytes, and those go on leaving it for the peer's system, the time
    /// does not run; that is looked at four times in it. So a connection of 2 kB/s is kept, and a peer that is gone is known
    /// 25 s after the last byte from it, or 12.5 s after the last that left for it, whichever is later. Over a
    /// transport of the application's own only bytes that the peer sends are seen. Who receives a frame slowly sends a
    /// PING every half of this time, for peers that a proxy with large buffers separates from it. Default 10 s, at least
    /// 10 ms.
    keepalive_timeout: Duration,
    /// How long the socket may take nothing of what is to be sent, while nothing that it took leaves for the peer's system and
    /// nothing comes from the peer, before the session ends with
    /// [`SessionError::WriteTimeout`](crate::SessionError::WriteTimeout). What leaves is looked at four times in it, so the
    /// end comes up to a quarter later. Messages that wait for the peer's credit do not count. Of a Unix socket
    /// it is seen in steps of up to 48 KiB. Default 10 s, at least 10 ms.
    write_timeout: Duration,
    /// At which age the session shuts down by itself, within `drain_timeout`, so that connections
    /// spread again over peers that have come or changed. Each session draws its own, up to a tenth
    /// more or less. Default `None`: at none. At least 10 ms, at most 30 days.
    max_age: Option<Duration>,
    /// How long streams may go on when the session has reached `max_age`; and how long a session of which no handle is left, nor
    /// any of its streams', waits for a peer that takes nothing of what is queued and ends no stream. Default 30 s.
    drain_timeout: Duration,
}

/// Builds a [`Config`]; [`build`](Self::build) checks it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConfigBuilder {
    config: Config,
}

/// What an engine with a ring of its own does when there is nothing to do.
///
/// On a machine that is otherwise idle a wake-up costs more than everything else together: tens of
/// microseconds, against less than one for what is noticed while spinning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Sleeps at once.
    Park,
    /// Never sleeps: the lowest latency, for a processor that has nothing else to do. On io_uring, a socket at which a few
    /// short messages arrive at a time is received from by plain calls, also by calls that find nothing.
    Spin,
    /// Spins for as long as waits have been short lately, 100 µs at most, then sleeps.
    ///
    /// It sleeps at once, as [`Park`](Self::Park) does, while its processor is wanted by others: where spins are lost time
    /// and again, as on one processor for both ends, and where the kernel says (`/proc/thread-self/schedstat`, which is
    /// opened once for each engine) that the thread had to wait for its processor or is often taken off it, as on a busy
    /// machine or beyond a quota. It tries again after 1 ms, and each time that it was wrong twice as long after, up to 2 s.
    #[default]
    Adaptive,
}
