//! The attacks, at least one for each row A1 to A13 of `SAFETY.md`, and one for each of the rows C1 to C15 of calls and D1 to D7
//! of DRPC.
//!
//! An attack is called step by step. A step sends one or a few frames and does not wait; a step that depends on the server's
//! answer sends nothing. An attack gets the server's state, such as granted credit, from its [`Peer`].

mod blocks;
mod calls;
mod control;
mod credit;
mod drpc;
mod frames;
mod half_open;
mod ids;
mod lengths;
mod resets;
mod stalls;
mod unary;

use clap::ValueEnum;

use super::peer::Peer;

/// The behaviour of one connection of an attack.
pub(super) trait Attack: Send {
    /// Sends the next frames, or none.
    fn step(&mut self, peer: &mut Peer);

    /// Whether it begins with a valid handshake.
    fn greets(&self) -> bool {
        true
    }
}

/// The attacks by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// A1: opens streams and cancels them at once, as fast as the server has places
    RapidReset,
    /// A2: sends messages in crumbs, so that the server has to reset their streams
    MadeYouReset,
    /// A3: messages of no and of one byte, then a frame that holds nothing
    TinyFrames,
    /// A4: messages just above the size kept by reference, on streams whose echo is not read
    SharedSlices,
    /// A5: opening and opaque blocks as long as they may be, then one too many
    Metadata,
    /// A6: sends PINGs and does not read the answers, or sends its SETTINGS twice
    PingFlood,
    /// A7: grants credit a byte at a time, or none
    WindowFlood,
    /// A7: sends frames of an unknown kind, which are ignored
    IgnoredFrames,
    /// A8: grants more than can be counted, or sends more than was granted
    CreditOverflow,
    /// A9: requests answers and grants no credit for them, or reads a byte at a time
    ZeroWindow,
    /// A10: hundreds of connections that never complete their handshake
    Slowloris,
    /// A11: leaps through the stream ids so that they wrap, with late frames for earlier streams
    IdWrap,
    /// A12: many sessions, each with messages that are never completed on all its streams
    ManyWindows,
    /// A13: announces frames and messages longer than they may be
    Oversized,
    /// C1: calls without end, within the places that are granted or beyond them
    CallFlood,
    /// C2: calls whose opening cannot be read, or asks for what there is not
    CallMalformed,
    /// C3: calls that are cancelled as soon as they are made
    CallReset,
    /// C4: calls whose request comes a byte at a time and never ends
    CallUnfinished,
    /// C5: calls with as much metadata as a call may have
    CallMetadata,
    /// C6: calls of methods that the server does not have
    CallUnknown,
    /// C7: calls whose time is over when they begin
    CallLate,
    /// C8: calls in frames whose answers are not read, or given no credit
    UnaryUnread,
    /// C9: calls in frames that are cancelled as soon as they are made
    UnaryReset,
    /// C10: calls in frames whose requests are to be held for ever, on all places and beyond them
    UnaryHeld,
    /// C11: the same with requests as long as they may be, cancelled and made again
    UnaryLargest,
    /// C12: calls in frames that break the protocol, each on a connection of its own
    UnaryBroken,
    /// C13: half a call in a frame, and silence, on many connections
    UnaryHalf,
    /// C14: calls in frames of methods that the server does not have
    UnaryUnknown,
    /// C15: announcements without end, then answers to calls that the server did not make
    UnaryReplies,
    /// D1: over DRPC, calls that are cancelled at once
    DrpcReset,
    /// D2: over DRPC, calls without end, half of them with half a name
    DrpcInvokes,
    /// D3: over DRPC, metadata of calls that are never made
    DrpcSetups,
    /// D4: over DRPC, messages that are never completed, on many streams
    DrpcUnfinished,
    /// D5: over DRPC, messages whose echoes are not read
    DrpcUnread,
    /// D6: over DRPC, frames of unknown kinds, and credit a byte at a time
    DrpcIgnored,
    /// D7: over DRPC, frames longer than any message, numbers that do not end, and Noise
    DrpcOversized,
}

impl Kind {
    /// The row of `SAFETY.md`.
    pub(super) fn row(self) -> String {
        let (place, first_call) = (self as usize, Self::CallFlood as usize);
        if let Some(place) = place.checked_sub(Self::DrpcReset as usize) {
            return format!("D{}", place + 1);
        }
        if let Some(place) = place.checked_sub(first_call) {
            return format!("C{}", place + 1);
        }
        // Row 7 has two attacks.
        let row = place + usize::from(place <= Self::WindowFlood as usize);
        format!("A{row}")
    }

    /// Whether it is over DRPC.
    pub(super) const fn is_drpc(self) -> bool {
        self as usize >= Self::DrpcReset as usize
    }

    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it is nothing in particular to a server without calls.
    pub(super) const fn is_for_calls(self) -> bool {
        matches!(self, Self::CallFlood | Self::CallUnknown | Self::CallLate) || self.is_in_frames()
    }

    /// Whether it waits until the server takes calls in frames.
    pub(super) const fn is_in_frames(self) -> bool {
        let place = self as usize;
        place >= Self::UnaryUnread as usize && place <= Self::UnaryReplies as usize
    }

    /// How many connections play it at once.
    pub(super) const fn connections(self) -> usize {
        match self {
            Self::Slowloris => 300,
            Self::ManyWindows => 16,
            Self::CallUnfinished => 17,
            Self::UnaryHalf => 64,
            Self::UnaryBroken => unary::BROKEN,
            Self::UnaryReplies => unary::REPLIES,
            Self::ZeroWindow | Self::UnaryUnread | Self::UnaryHeld | Self::UnaryUnknown => 2,
            _ => 1,
        }
    }

    /// The default pace, in frames a second. The processors are shared with the server, the neighbour and all other processes,
    /// so it is lower where a frame costs the server more: a full one, one with an echo or on many connections, or a tenth of
    /// a connection.
    pub(super) const fn pace(self) -> u32 {
        match self {
            Self::Slowloris => 5000,
            Self::ManyWindows
            | Self::SharedSlices
            | Self::ZeroWindow
            | Self::DrpcSetups
            | Self::DrpcUnfinished
            | Self::DrpcUnread => 3000,
            Self::CallMetadata => 1000,
            Self::UnaryUnread | Self::UnaryLargest => 3000,
            Self::CallFlood | Self::CallReset | Self::CallUnfinished => 5000,
            _ => 10_000,
        }
    }

    /// Makes the behaviour of the nth connection, which calls this method.
    pub(super) fn start(self, n: u64, method: &str) -> Box<dyn Attack> {
        match self {
            Self::RapidReset => Box::new(resets::Rapid),
            Self::MadeYouReset => Box::new(resets::MadeYou::default()),
            Self::TinyFrames => Box::new(frames::Tiny::default()),
            Self::SharedSlices => Box::new(stalls::Stall::shared_slices()),
            Self::Metadata => Box::new(blocks::Blocks::default()),
            Self::PingFlood => Box::new(control::Pings::new(n)),
            Self::WindowFlood => Box::new(control::Windows::new(n)),
            Self::CreditOverflow => Box::new(credit::Overflow::new(n)),
            Self::ZeroWindow => Box::new(stalls::Stall::zero_window(n)),
            Self::Slowloris => Box::new(half_open::Slow::new(n)),
            Self::IdWrap => Box::new(ids::Leaps::default()),
            Self::ManyWindows => Box::new(stalls::Unfinished::default()),
            Self::Oversized => Box::new(lengths::Oversized::new(n)),
            Self::IgnoredFrames => Box::new(control::Unknown::new(n)),
            Self::CallFlood => Box::new(calls::Flood::new(n, method)),
            Self::CallMalformed => Box::new(calls::Malformed::new(method)),
            Self::CallReset => Box::new(calls::Reset::new(method)),
            Self::CallUnfinished => Box::new(calls::Unfinished::new(method)),
            Self::CallMetadata => Box::new(calls::Metadata::new(method)),
            Self::CallUnknown => Box::new(calls::Unknown::new()),
            Self::CallLate => Box::new(calls::Late::new(method)),
            Self::UnaryUnread => Box::new(unary::Unread::new(n, method)),
            Self::UnaryReset => Box::new(unary::Reset::new(method)),
            Self::UnaryHeld => Box::new(unary::Held::new(n, method)),
            Self::UnaryLargest => Box::new(unary::Largest::new(method)),
            Self::UnaryBroken => Box::new(unary::Broken::new(n, method)),
            Self::UnaryHalf => Box::new(unary::Half::new(method)),
            Self::UnaryUnknown => Box::new(unary::Unknown::new(n)),
            Self::UnaryReplies => Box::new(unary::Replies::new(n, method)),
            Self::DrpcReset => Box::new(drpc::Reset::default()),
            Self::DrpcInvokes => Box::new(drpc::Invokes::default()),
            Self::DrpcSetups => Box::new(drpc::Setups::default()),
            Self::DrpcUnfinished => Box::new(drpc::Unfinished::default()),
            Self::DrpcUnread => Box::new(drpc::Unread::default()),
            Self::DrpcIgnored => Box::new(drpc::Ignored::default()),
            Self::DrpcOversized => Box::new(drpc::Oversized::new(n % 3)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_row_has_its_attack() {
        let rows: BTreeSet<String> = Kind::value_variants()
            .iter()
            .map(|kind| kind.row())
            .collect();
        let of_streams = (1..=13).map(|n| format!("A{n}"));
        let of_calls = (1..=15).map(|n| format!("C{n}"));
        let of_drpc = (1..=7).map(|n| format!("D{n}"));
        let expected: BTreeSet<String> = of_streams.chain(of_calls).chain(of_drpc).collect();
        assert_eq!(rows, expected);
        for kind in Kind::value_variants() {
            let help = kind.to_possible_value().unwrap();
            let help = help.get_help().unwrap().to_string();
            assert!(help.starts_with(&format!("{}: ", kind.row())), "{help}");
        }
    }
}
