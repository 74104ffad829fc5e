//! Limits of a session: validated numbers, each with a unit and a default.
//!
//! A [`Config`] is built once and shared by any number of sessions. It has no behaviour of its own. `profile` has the
//! default numbers, `build` checks them.

mod build;
mod profile;
mod rate;

use std::time::Duration;

use crate::addr::Wire;
pub use build::ConfigError;
pub use rate::Rate;

use crate::drpc::{FlowControl, Profile};

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
/// | bytes received at a time, at least two frames | `receive_buffer` | 256 KiB | 32 KiB | received later |
/// | message | `max_message` | 4 MiB | 4 MiB | protocol error |
/// | unconsumed bytes of a stream | `stream_window`, up to `stream_window_max` | 64 KiB, 1 MiB | 64 KiB, 64 KiB | protocol error |
/// | unconsumed bytes of all streams together | `session_window`, up to `session_window_max` | 1 MiB, 16 MiB | 256 KiB, 1 MiB | protocol error; the longest stalled stream ends, if it stays full: [`Limit::StalledStream`](crate::Limit::StalledStream) |
/// | receive memory of the process | `receive_pool` | 256 MiB | 128 MiB | windows stay at their floors, [`Limit::MessageMemory`](crate::Limit::MessageMemory) |
/// | a message: wait for memory, lag behind a minimum rate | `message_timeout`, `min_message_rate` | 10 s, 1 KiB/s | 10 s, 1.5 KiB/s | the stream ends: [`Limit::MessageMemory`](crate::Limit::MessageMemory), [`Limit::MessageStalled`](crate::Limit::MessageStalled) |
/// | streams of the peer at once | `max_streams` | 256 | 100 | protocol error |
/// | of them, not accepted by the application | `max_unaccepted` | `max_streams`, up to 65,536 | 64 | refused, safe to retry: [`Limit::Unaccepted`](crate::Limit::Unaccepted) |
/// | of them, reset by the peer | `max_unaccepted_resets` | `max_streams` | 20 | the session ends: [`Limit::UnacceptedResets`](crate::Limit::UnacceptedResets) |
/// | streams ended because of the peer's faults, per session | `max_faulty_streams` | 1024 | 256 | the session ends: [`Limit::FaultyStreams`](crate::Limit::FaultyStreams) |
/// | resets of the peer's streams, by either side | `reset_rate` | off | 1000, 33/s | the session ends: [`Limit::ResetRate`](crate::Limit::ResetRate) |
/// | unsolicited control frames, and frames of unknown kinds | `glitch_rate` | 10,000, 330/s | 1000, 33/s | the session ends: [`Limit::GlitchRate`](crate::Limit::GlitchRate) |
/// | PINGs of the peer | `ping_rate` | off | 10, 1/s | the session ends: [`Limit::PingRate`](crate::Limit::PingRate) |
/// | bytes queued for sending on a stream, besides one message | `send_buffer` | 256 KiB | 32 KiB | `send` waits |
/// | bytes queued on all streams together, besides 4 KiB per stream | `session_send_buffer` | 4 MiB | 256 KiB | `send` waits |
/// | calls of `open` that wait | `max_pending_opens` | 1024 | 1024 | [`OpenError::TooManyPending`](crate::OpenError::TooManyPending) |
/// | connections of a listener without a session yet | `max_half_open` | 256 | 128 | they wait in the kernel's backlog |
/// | a pause of accepting at that limit | `min_half_open_time` | 1 s | 250 ms | the oldest handshake is evicted: [`Limit::HalfOpen`](crate::Limit::HalfOpen) |
/// | name lookup and connecting | `connect_timeout` | 10 s | 10 s | [`ConnectError::TimedOut`](crate::ConnectError::TimedOut) |
/// | handshake | `handshake_timeout` | 10 s | 5 s | [`SessionError::HandshakeTimeout`](crate::SessionError::HandshakeTimeout) |
/// | silence until a PING, and until its answer | `keepalive_idle`, `keepalive_timeout` | 15 s, 10 s | 15 s, 10 s | [`SessionError::KeepaliveTimeout`](crate::SessionError::KeepaliveTimeout) |
/// | a socket that neither sends nor receives while bytes are queued | `write_timeout` | 10 s | 5 s | [`SessionError::WriteTimeout`](crate::SessionError::WriteTimeout) |
/// | age, and the drain that ends it | `max_age`, `drain_timeout` | none, 30 s | 1 h, 30 s | the session shuts down |
/// | no handle left, and no progress by the peer | `drain_timeout` | 30 s | 30 s | the session closes |
/// | the peer has closed the connection in order, and none of the bytes before that are read | `drain_timeout` | 30 s | 30 s | the session ends: [`SessionError::Disconnected`](crate::SessionError::Disconnected) |
///
/// Resources that the wire format bounds by itself have no setting. An opening block or an opaque block is one frame of at
/// most 8 KiB, so there are no continuations to count, and a direction of a stream has at most two opaque blocks. An empty
/// DATA frame that ends nothing and a WINDOW of 0 are protocol errors. A frame costs 256 bytes of credit besides its payload,
/// so the number of queued messages is bounded by the same window as their bytes. Replies are slots, not queues: one PONG and
/// one WINDOW per session, one of each control frame per stream, one refusal for each granted stream; so a peer that sends
/// requests and does not read makes no memory grow. Stream ids wrap and skip those in use. Frames of unknown kinds are skipped
/// without a trace, and count as glitches beyond four for each message and each frame sent. Unknown settings are ignored in
/// any number (one frame holds at most 2730) and repetition; a known one that occurs twice is a protocol error.
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
    min_half_open_time: Duration,
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
    wire: Wire,
    detect_drpc: Option<Profile>,
    calls: bool,
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
    /// The most bytes that a session receives at a time, at least two of the largest frames. The buffer begins at two frames,
    /// doubles whenever half of it was filled at once, and shrinks to two frames at the first arrival after 10 s without
    /// that; with `keepalive_idle` off on both sides an idle session keeps its size. This memory belongs to the session,
    /// besides `receive_pool` and the kernel's socket buffers. Default 256 KiB, at most 16 MiB; 0 fixes it at two frames.
    receive_buffer: u32,
    /// Largest message that the peer may send, in bytes. Default 4 MiB, at least 64 KiB.
    max_message: u32,
    /// Credit of a new stream: bytes that the peer may send before the application consumes. A message that has begun is
    /// completed beyond it, from the process's memory. Default 64 KiB, at least 32 KiB; above 1 MiB raise `stream_window_max`
    /// with it.
    stream_window: u32,
    /// Maximum of a stream's window, which grows while the application drains it fast, in bytes. All
    /// streams of a session together grow by a quarter of `session_window_max`. Default 1 MiB.
    stream_window_max: u32,
    /// Credit of all streams of a session together, in bytes, if `receive_pool` has room for it. Default 1 MiB, at
    /// least 256 KiB; above 16 MiB raise `session_window_max` with it. Over DRPC, the most that a session without flow control
    /// holds.
    session_window: u32,
    /// Maximum of the session's window, which grows with use, in bytes. Default 16 MiB.
    session_window_max: u32,
    /// Size of the process-wide pool of receive memory, as seen by sessions with this configuration: bytes that all sessions
    /// together may hold when this one takes more. There is one pool: sessions with a smaller number leave the rest to the
    /// others. A session takes memory for a message only if as much stays free as its messages hold already. Initial windows
    /// (`session_window`) may use at most 1/4 of the pool, grown windows at most 1/2, so that idle sessions leave the rest to
    /// messages and to windows full of unconsumed bytes. A session that gets no memory has its floor of 256 KiB, which is
    /// not part of the pool. Unread messages of ended streams count until the application consumes or drops them, also after the
    /// session's end and beyond the pool's size: then there is no memory for new messages. Default 256 MiB, at most 1 TiB:
    /// with more than 85 sessions of the default window, further ones begin at their floors. Sessions over DRPC begin at their
    /// floors, take from the pool as they fill, and give it back.
    receive_pool: u64,
    /// Streams that the peer may have open at once. Default 256, at least 16. A cancelled stream counts until the application
    /// drops it.
    max_streams: u32,
    /// Of them, streams that the application has not accepted; further ones are refused with
    /// [`UNAVAILABLE`](crate::codes::UNAVAILABLE), which is safe to retry
    /// ([`Limit::Unaccepted`](crate::Limit::Unaccepted)). At least 1. Default `None`: `max_streams`, 65,536 at most. A session has
    /// 16 bytes for each from its start, and 80 more once calls are served.
    max_unaccepted: Option<u32>,
    /// Of those, streams that the peer has reset: more end the session with
    /// [`Limit::UnacceptedResets`](crate::Limit::UnacceptedResets). At least 1. Default `None`: `max_streams`, since a client
    /// may rightly cancel its calls while an application is slow to accept them.
    max_unaccepted_resets: Option<u32>,
    /// Streams that may end because the peer sent a message in needlessly small pieces, or stalled in one that was given
    /// memory, over the life of a session; more end the session with
    /// [`Limit::FaultyStreams`](crate::Limit::FaultyStreams). Default 1024, at least 1.
    max_faulty_streams: u32,
    /// Rate limit of unsolicited frames: a WINDOW beyond four for each frame that this side has sent, a frame without cost for
    /// an ended stream, beyond the same four, a fourth GOAWAY, and a frame of an unknown kind, beyond the same four and four
    /// for each received message. More end the session with [`Limit::GlitchRate`](crate::Limit::GlitchRate). Default 10,000 and
    /// 330 a second.
    glitch_rate: Rate,
    /// Rate limit of resets of the peer's unfinished streams, by either side. More end the session with
    /// [`Limit::ResetRate`](crate::Limit::ResetRate). Default `None`: no limit.
    reset_rate: Option<Rate>,
    /// Rate limit of the peer's PINGs; more end the session with
    /// [`Limit::PingRate`](crate::Limit::PingRate). A peer of this library sends one when a session begins, for
    /// [`ping`](crate::Session::ping), when it shuts down, and after silence. Default `None`: no limit; only the answer to the
    /// latest PING is kept.
    ping_rate: Option<Rate>,
    /// Bytes that one stream may have queued for sending before `send` waits; one message of any
    /// legal size is always admitted to an empty queue. Bytes above 4 KiB count against `session_send_buffer`.
    /// Default 256 KiB, at least 4 KiB; above 4 MiB raise `session_send_buffer` with it.
    send_buffer: u32,
    /// Send budget: bytes that all streams of a session together may have queued, besides 4 KiB and one message for each
    /// stream. Streams take from it as needed while there is plenty. When it runs short, streams with an empty queue give back
    /// their part, and each of the others keeps an equal share, once it has sent the bytes above that; meanwhile `send`
    /// waits. A stream always has its 4 KiB, so no stream can block another for ever. Default 4 MiB, at least `send_buffer`.
    session_send_buffer: u32,
    /// Calls of `open` that may wait for the peer's grant at once. Default 1024.
    max_pending_opens: u32,
    /// Connections of a listener that are in their handshake or wait for [`accept`](crate::Listener::accept). At the limit
    /// accepting pauses: new connections wait in the kernel's backlog until a handshake ends, or the oldest one is evicted
    /// after `min_half_open_time`. The backlog has four times as many, from 128 to 4096; the system's `net.core.somaxconn`
    /// limits it as well. Default 256, from 1 to 65,536.
    max_half_open: u32,
    /// How long accepting pauses at `max_half_open` before a handshake that has not ended since is evicted for a new
    /// connection ([`Limit::HalfOpen`](crate::Limit::HalfOpen)), the oldest first: the time that an honest peer has, also one
    /// of many that connect at once. A newcomer waits at most five times as long, be the places and the backlog full of silent
    /// peers; with less than 32 places longer, by the backlog's least length. Time in which the accepting thread did not run
    /// does not count. Default 1 s.
    min_half_open_time: Duration,
    /// How long [`connect`](crate::Engine::connect) may resolve a name and try its addresses, 250 ms apart, or wait for a
    /// place in the backlog of a Unix socket. Default 10 s.
    connect_timeout: Duration,
    /// How long the handshake may take. Default 10 s.
    handshake_timeout: Duration,
    /// How long a message larger than its stream's window may wait for memory, or lag behind
    /// `min_message_rate`, before the stream ends with a limit error. Default 10 s.
    message_timeout: Duration,
    /// Minimum rate of the peer, in bytes a second, for a message that was given memory beyond its stream's window. A message of
    /// `n` bytes must be complete after `message_timeout` + `n / min_message_rate`, or its stream ends with
    /// [`Limit::MessageStalled`](crate::Limit::MessageStalled). Default 1 KiB, from 1 to 1 GiB.
    min_message_rate: u32,
    /// How long `close` keeps sending bytes queued before it. Default 1 s.
    close_linger: Duration,
    /// Keepalive: after this much silence of the peer a PING is sent, also without streams; any byte from the peer restarts the
    /// time. Each session shortens it by up to a tenth, so that many do not send at once. Default 15 s, at least 10 ms; `None`
    /// disables keepalive.
    ///
    /// DRPC has no PING. There the system probes the peer's over TCP (`SO_KEEPALIVE`) after this much silence, in whole seconds,
    /// rounded up, and the session ends with [`SessionError::Io`](crate::SessionError::Io) of
    /// [`TimedOut`](std::io::ErrorKind::TimedOut) once nothing has answered for `keepalive_timeout`: a vanished machine is
    /// noticed, and a process that is stopped is not.
    keepalive_idle: Option<Duration>,
    /// How long the peer may take to answer a keepalive PING, by any byte, before the session ends with
    /// [`SessionError::KeepaliveTimeout`](crate::SessionError::KeepaliveTimeout). While the PING waits in the socket behind other
    /// bytes, and those keep leaving for the peer's system, the time does not run; this is checked four times in it. So a
    /// connection of 2 kB/s is kept, and a vanished peer is detected 25 s after its last byte, or 12.5 s after the last byte
    /// that left for it, whichever is later. Over the application's own transports only bytes from the peer are visible. A
    /// side that receives a frame slowly sends a PING every half of this time, for peers behind a proxy with large
    /// buffers. Default 10 s, at least 10 ms.
    keepalive_timeout: Duration,
    /// How long the socket may take none of the bytes to be sent, while none of the bytes taken leave for the peer's system and
    /// none arrive from the peer, before the session ends with
    /// [`SessionError::WriteTimeout`](crate::SessionError::WriteTimeout). The send queue is checked four times in it, so the
    /// end comes up to a quarter later. Messages that wait for the peer's credit do not count. Of a Unix socket the queue
    /// is visible in steps of up to 48 KiB. Default 10 s, at least 10 ms.
    ///
    /// Over DRPC and TCP, bytes that the socket has taken count as well while the peer's system leaves them unanswered: a few
    /// bytes to a vanished machine end the session. A system that answers that it takes nothing at present is no reason.
    write_timeout: Duration,
    /// The age at which the session shuts down by itself, within `drain_timeout`, so that connections spread again over new or
    /// changed peers. Each session varies it randomly by up to a tenth. Default `None`: no limit. At least 10 ms, at most 30
    /// days.
    max_age: Option<Duration>,
    /// How long streams may continue once the session has reached `max_age`; and how long an orphaned session, without handles of
    /// its own or of its streams, waits for a peer that takes none of the queued bytes and ends no stream; and how long bytes of a peer
    /// that has closed the connection in order wait for an application that makes room for none of them. Default 30 s.
    drain_timeout: Duration,
    /// Whether unary calls of `rpc` may be one frame each way with peers that do so too, which is several times cheaper. If not,
    /// they are streams, in both directions, and nothing else changes. Default true.
    calls: bool,
    /// What the session speaks: ringmux's own wire, or DRPC. Nothing is negotiated, and a dialling and an accepting side with
    /// different wires do not understand each other: see `DRPC.md`. Default [`Wire::Native`].
    wire: Wire,
    /// A listener with this tells wires apart by a connection's first bytes: one that begins as DRPC does, with its connection
    /// header or with the first frame of a call, gets that wire; every other one gets `wire`. Listeners, and
    /// [`server_over`](crate::Engine::server_over); dialled connections, and [`server`](crate::server), have no use for it. A
    /// connection that sends nothing has no session until the handshake's limit. Default `None`.
    detect_drpc: Option<Profile>,
}

impl Config {
    /// The same over another wire.
    pub(crate) fn over(&self, wire: Wire) -> Self {
        Self {
            wire,
            ..self.clone()
        }
    }

    /// The variant of DRPC that the peer speaks; [`Profile::STORJ`] if the wire is another.
    #[must_use]
    pub fn drpc(&self) -> Profile {
        self.wire.drpc().unwrap_or_default()
    }

    /// The window of a new stream, by which its handle reports what it has consumed. A peer with flow control of DRPC has a
    /// window of its own: with a quarter of it all steps together keep less than half of it back.
    pub(crate) fn reported_window(&self) -> u32 {
        match self.wire.drpc() {
            Some(profile) if profile.flow_control != FlowControl::Off => {
                self.stream_window.min(profile.window / 4)
            }
            _ => self.stream_window,
        }
    }
}

impl ConfigBuilder {
    /// The session speaks DRPC, with a peer of this profile: short for [`wire`](Self::wire) with [`Wire::Drpc`].
    pub const fn drpc(self, profile: Profile) -> Self {
        self.wire(Wire::Drpc(profile))
    }
}

/// Builds a [`Config`]; [`build`](Self::build) checks it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConfigBuilder {
    config: Config,
}

/// The idle strategy of an engine with a ring of its own.
///
/// On an otherwise idle machine a wake-up is the largest cost: tens of microseconds, against less than one for an event found
/// while spinning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Sleeps at once.
    Park,
    /// Never sleeps: the lowest latency, for a processor without other work. On io_uring, sockets with small arrivals are received
    /// from by plain calls, also when these find nothing.
    Spin,
    /// Spins for as long as recent waits were short, at most 100 µs, then sleeps.
    ///
    /// It sleeps at once, as [`Park`](Self::Park) does, while other threads need its processor: if spins are lost repeatedly, as
    /// with both ends on one processor, or if the kernel reports (`/proc/thread-self/schedstat`, opened once per engine) that
    /// the thread had to wait for its processor or is often preempted, as on a busy machine or beyond a quota. It tries again
    /// after 1 ms, and after each failed trial twice as long, up to 2 s.
    #[default]
    Adaptive,
}
