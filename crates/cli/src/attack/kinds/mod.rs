//! The attacks, at least one for each row A1 to A13 of `SAFETY.md`.
//!
//! An attack is asked for one step after the other. A step says a frame or a few and does not wait; one that can say
//! nothing until the server answers says so by saying nothing. Whatever an attack needs of the server beyond that it may
//! ask of its [`Peer`], which knows what was granted.

mod blocks;
mod control;
mod credit;
mod frames;
mod half_open;
mod ids;
mod lengths;
mod resets;
mod stalls;

use clap::ValueEnum;

use super::peer::Peer;

/// What one connection of an attack does.
pub(super) trait Attack: Send {
    /// Says the next thing, or nothing.
    fn step(&mut self, peer: &mut Peer);

    /// Whether it begins with a handshake without flaw.
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
    /// A4: messages a little above what is worth a reference, on streams whose echo is not taken
    SharedSlices,
    /// A5: opening and opaque blocks as long as they may be, then one too many
    Metadata,
    /// A6: asks for round trips and does not read the answers, or says its SETTINGS twice
    PingFlood,
    /// A7: grants credit a byte at a time, or none
    WindowFlood,
    /// A7: says frames of an unknown kind, which are ignored
    IgnoredFrames,
    /// A8: grants more than can be counted, or sends more than was granted
    CreditOverflow,
    /// A9: asks for answers and grants no credit for them, or reads a byte at a time
    ZeroWindow,
    /// A10: hundreds of connections that do not come to the end of their handshake
    Slowloris,
    /// A11: leaps through the stream ids so that they wrap, with late frames for streams of before
    IdWrap,
    /// A12: many sessions, each with messages that are never completed on all its streams
    ManyWindows,
    /// A13: announces frames and messages longer than they may be
    Oversized,
}

impl Kind {
    /// The row of `SAFETY.md`.
    pub(super) fn row(self) -> String {
        let place = self as usize;
        // Row 7 has two attacks.
        let row = place + usize::from(place <= Self::WindowFlood as usize);
        format!("A{row}")
    }

    pub(super) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How many connections play it at once.
    pub(super) const fn connections(self) -> usize {
        match self {
            Self::Slowloris => 300,
            Self::ManyWindows => 16,
            Self::ZeroWindow => 2,
            _ => 1,
        }
    }

    /// Frames a second at which it is played if nothing else is asked for. The processors are shared with the server, the
    /// neighbour and whatever else runs there, so it is less where a frame takes the server longer: one that is full, has an
    /// echo or comes over many connections, or a tenth of a connection.
    pub(super) const fn pace(self) -> u32 {
        match self {
            Self::Slowloris => 5000,
            Self::ManyWindows | Self::SharedSlices | Self::ZeroWindow => 3000,
            _ => 10_000,
        }
    }

    /// What the nth connection does.
    pub(super) fn start(self, n: u64) -> Box<dyn Attack> {
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
        let expected: BTreeSet<String> = (1..=13).map(|n| format!("A{n}")).collect();
        assert_eq!(rows, expected);
        for kind in Kind::value_variants() {
            let help = kind.to_possible_value().unwrap();
            let help = help.get_help().unwrap().to_string();
            assert!(help.starts_with(&format!("{}: ", kind.row())), "{help}");
        }
    }
}
