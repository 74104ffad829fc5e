//! The tables: states and events of a session, the timers of each state, and the stages of its socket.

use crate::core::timers::{Timer, TimerSet};

/// See `life`. In the order in which a session passes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum State {
    Silent,
    Hello,
    Open,
    Announce,
    AwaitPong,
    LastId,
    RunOut,
    Flush,
    Closing,
    Closed,
}

/// The events of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The peer's preface arrived.
    Preface,
    /// The peer's SETTINGS arrived; no drain was requested.
    Settings,
    /// The peer's SETTINGS arrived; a drain was requested before.
    SettingsDraining,
    /// A drain is requested, for the first time.
    Drain,
    Close,
    /// GOAWAY|SOON and its PING are sent.
    Announced,
    /// The PING was answered, or its time limit expired.
    Pong,
    /// The GOAWAY with the last id is sent.
    LastIdSaid,
    /// No running stream is left, or no queued message that `close` waits for.
    Emptied,
    /// The session is to end, with a final GOAWAY.
    End,
    /// The final GOAWAY is sent.
    Said,
    /// The connection is lost, or unusable.
    Lost,
}

/// The session's action after a change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Action {
    /// The event changes nothing.
    Ignore,
    /// Frames owed in the new state go out with the next batch.
    Proceed,
    /// Handles open no more streams.
    RefuseOpens,
    /// The same; and streams that wait for the peer's permission are given up.
    GiveUpOpens,
    /// Every handle gets the reason; the session's resources are returned.
    TearDown,
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    To(State, Action),
    /// The event is too late, or a repetition.
    Ignored,
    /// Only a bug of this side could cause it; no peer can.
    Impossible(&'static str),
}

/// The table.
pub(crate) const fn next(state: State, event: Event) -> Cell {
    use Action::{GiveUpOpens, Proceed, RefuseOpens, TearDown};
    use Cell::{Ignored, Impossible, To};
    use State::{Announce, AwaitPong, Closed, Closing, Flush, Hello, LastId, Open, RunOut, Silent};
    match (state, event) {
        // An end that has begun cannot be stopped.
        (Closed, _) => Ignored,
        (_, Event::Lost) | (Closing, Event::Said) => To(Closed, TearDown),
        (Closing, _) => Ignored,

        (Silent, Event::Preface) => To(Hello, Proceed),
        // The dialler has sent its preface first.
        (Hello, Event::Preface) => Ignored,
        (_, Event::Preface) => Impossible("the preface is parsed once, and SETTINGS follow it"),
        (Hello, Event::Settings) => To(Open, Proceed),
        (Hello, Event::SettingsDraining) => To(LastId, Proceed),
        (_, Event::Settings | Event::SettingsDraining) => {
            Impossible("SETTINGS follow the preface; second ones are a broken rule")
        }

        (Silent, Event::Drain) => To(Silent, GiveUpOpens),
        (Hello, Event::Drain) => To(Hello, GiveUpOpens),
        (Open, Event::Drain) => To(Announce, GiveUpOpens),
        (Announce | AwaitPong | LastId | RunOut | Flush, Event::Drain) => Ignored,
        (Announce, Event::Announced) => To(AwaitPong, Proceed),
        (AwaitPong, Event::Pong) => To(LastId, Proceed),
        // The answer to another PING, or after the wait.
        (_, Event::Pong) => Ignored,
        (LastId, Event::LastIdSaid) => To(RunOut, Proceed),
        (RunOut, Event::Emptied) => To(Closed, TearDown),

        // Nothing was promised yet, and nothing may be sent.
        (Silent, Event::Close | Event::End) => To(Closed, TearDown),
        (Hello, Event::Close) | (Flush, Event::Emptied) => To(Closing, Proceed),
        (Open | Announce | AwaitPong | LastId | RunOut, Event::Close) => To(Flush, RefuseOpens),
        (Flush, Event::Close) => Ignored,
        (_, Event::End) => To(Closing, Proceed),

        (_, Event::Announced | Event::LastIdSaid | Event::Said) => {
            Impossible("a GOAWAY goes out where the state owes it")
        }
        (_, Event::Emptied) => Impossible("it is asked in `RunOut` and `Flush` alone"),
    }
}

/// The timers that run in each state.
pub(crate) const fn timers_of(state: State) -> TimerSet {
    let common = TimerSet::NONE
        .with(Timer::Recheck)
        .with(Timer::Advances)
        .with(Timer::Shrink)
        .with(Timer::Spares)
        .with(Timer::Deadlines)
        .with(Timer::Calls);
    match state {
        State::Silent | State::Hello => common.with(Timer::Handshake).with(Timer::HelloGrace),
        State::Open => common
            .with(Timer::FirstCall)
            .with(Timer::Age)
            .with(Timer::Keepalive)
            .with(Timer::Orphan),
        State::AwaitPong => common
            .with(Timer::Ceiling)
            .with(Timer::Pong)
            .with(Timer::Keepalive)
            .with(Timer::Orphan),
        State::Announce | State::LastId | State::RunOut => common
            .with(Timer::Ceiling)
            .with(Timer::Keepalive)
            .with(Timer::Orphan),
        State::Flush => common.with(Timer::Ceiling).with(Timer::Keepalive),
        State::Closing => common.with(Timer::FinalGoaway),
        State::Closed => TimerSet::NONE,
    }
}

/// The driver's part: the stages of closing the socket. It leaves `Serving` when the session is `Closed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketStage {
    /// The session lives, or its last batch is being written.
    Serving,
    /// The sending direction is being shut down.
    ShuttingDown,
    /// Waits for the peer to close as well, so that no reset overtakes the final GOAWAY.
    Lingering,
    /// Cancels operations under way, until the kernel holds no memory of ours.
    Releasing,
    Released,
}

/// The driver's events; see [`SocketStage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketEvent {
    /// The session is closed, and its last batch was written.
    Written,
    /// The sending direction is shut down.
    ShutDown,
    /// The peer has closed as well, or the socket has failed.
    Gone,
    /// [`linger_until`](super::Life::linger_until) has passed.
    Overdue,
    /// The kernel holds no memory of ours.
    Freed,
    /// The loop that owns the transport ends.
    Abandoned,
}

impl SocketStage {
    /// The stage after the event. An event that does not belong to the stage changes nothing.
    #[must_use]
    pub(crate) const fn on(self, event: SocketEvent) -> Self {
        match (self, event) {
            (_, SocketEvent::Abandoned) | (Self::Releasing, SocketEvent::Freed) => Self::Released,
            (Self::Serving, SocketEvent::Written) => Self::ShuttingDown,
            (Self::ShuttingDown, SocketEvent::ShutDown) => Self::Lingering,
            (Self::Serving, SocketEvent::Overdue)
            | (Self::ShuttingDown | Self::Lingering, SocketEvent::Overdue | SocketEvent::Gone) => {
                Self::Releasing
            }
            _ => self,
        }
    }
}
