//! The states of a stream on the wire: a total table over two halves.
//!
//! ```text
//!  sending half                      receiving half
//!        ┌──────┐ FIN sent ┌──────────┐    ┌──────┐ FIN received ┌──────────┐
//!        │ Open ├─────────►│ Finished │    │ Open ├─────────────►│ Finished │
//!        └──┬───┘          └──────────┘    └─┬──┬─┘              └──────────┘
//!           │ ERROR, CANCEL, STOP            │  │ STOP sent   ┌─────────┐ FIN
//!           ▼                                │  └────────────►│ Stopped ├─────┐
//!        ┌───────┐                           │ ERROR, CANCEL  └────┬────┘     │
//!        │ Ended │                           ▼                     ▼          │
//!        └───────┘                         ┌───────┐◄─────────────────────────┘
//!                                          │ Ended │
//!                                          └───────┘
//! ```
//! `Ended` swallows: frames that cross our own CANCEL are not the peer's fault. `Finished` does not: a peer that sent FIN
//! has promised silence, and breaking it ends the session.
//!
//! A stream's slot in the registry is freed when both halves are over, see
//! [`State::is_over`]. A STOP is answered by a bare FIN, which the stopped side accepts also inside
//! a message, since it discards the rest anyway.

/// The sending half: whether this side may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    Open,
    /// FIN or ERROR was sent.
    Finished,
    /// Cancelled by either side, stopped or failed by the peer.
    Ended,
}

/// The receiving half: whether the peer may still send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiving {
    Open,
    /// STOP was sent: everything up to FIN is discarded.
    Stopped,
    /// FIN was received: anything more is a violation.
    Finished,
    /// Cancelled by either side, or failed: anything more is discarded.
    Ended,
}

/// An event of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    SentFin,
    SentError,
    LocalCancel,
    LocalStop,
    RecvData,
    RecvFin,
    RecvError,
    RecvCancel,
    RecvStop,
}

/// The effect of an event in a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Act on it; the state has changed.
    Act,
    /// It is too late to matter.
    Ignore,
    /// The peer must not do this.
    Violation,
}

/// Both halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) sending: Sending,
    pub(crate) receiving: Receiving,
}

impl State {
    pub(crate) const OPEN: Self = Self {
        sending: Sending::Open,
        receiving: Receiving::Open,
    };

    /// Nothing more is expected on the wire in either direction.
    pub(crate) const fn is_over(self) -> bool {
        matches!(self.sending, Sending::Finished | Sending::Ended)
            && matches!(self.receiving, Receiving::Finished | Receiving::Ended)
    }

    /// This side has sent all, and wants nothing more, but the peer has not ended: for wires without a STOP.
    pub(crate) const fn is_given_up(self) -> bool {
        matches!(
            (self.sending, self.receiving),
            (Sending::Finished, Receiving::Stopped)
        )
    }

    /// Applies an event and returns its effect.
    pub(crate) const fn on(&mut self, event: Event) -> Effect {
        match event {
            Event::SentFin => self.sent(Receiving::Open, false),
            Event::SentError => self.sent(Receiving::Ended, true),
            Event::LocalCancel | Event::RecvCancel => self.cancel(),
            Event::LocalStop => self.stop(),
            Event::RecvData => match self.receiving {
                Receiving::Open => Effect::Act,
                Receiving::Stopped | Receiving::Ended => Effect::Ignore,
                Receiving::Finished => Effect::Violation,
            },
            Event::RecvFin => self.peer_finished(),
            Event::RecvError => self.peer_failed(),
            Event::RecvStop => match self.sending {
                Sending::Open => {
                    self.sending = Sending::Ended;
                    Effect::Act
                }
                Sending::Finished | Sending::Ended => Effect::Ignore,
            },
        }
    }

    const fn sent(&mut self, receiving: Receiving, ends_both: bool) -> Effect {
        match self.sending {
            Sending::Open => {
                self.sending = Sending::Finished;
                if ends_both && !matches!(self.receiving, Receiving::Finished) {
                    self.receiving = receiving;
                }
                Effect::Act
            }
            Sending::Finished | Sending::Ended => Effect::Ignore,
        }
    }

    const fn cancel(&mut self) -> Effect {
        if self.is_over() {
            return Effect::Ignore;
        }
        self.sending = Sending::Ended;
        self.receiving = Receiving::Ended;
        Effect::Act
    }

    const fn stop(&mut self) -> Effect {
        match self.receiving {
            Receiving::Open => {
                self.receiving = Receiving::Stopped;
                Effect::Act
            }
            Receiving::Stopped | Receiving::Finished | Receiving::Ended => Effect::Ignore,
        }
    }

    const fn peer_finished(&mut self) -> Effect {
        match self.receiving {
            Receiving::Open => {
                self.receiving = Receiving::Finished;
                Effect::Act
            }
            Receiving::Stopped => {
                self.receiving = Receiving::Ended;
                Effect::Act
            }
            Receiving::Finished => Effect::Violation,
            Receiving::Ended => Effect::Ignore,
        }
    }

    const fn peer_failed(&mut self) -> Effect {
        match self.receiving {
            Receiving::Open | Receiving::Stopped => {
                self.receiving = Receiving::Ended;
                if matches!(self.sending, Sending::Open) {
                    self.sending = Sending::Ended;
                }
                Effect::Act
            }
            Receiving::Finished => Effect::Violation,
            Receiving::Ended => Effect::Ignore,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 9] = [
        Event::SentFin,
        Event::SentError,
        Event::LocalCancel,
        Event::LocalStop,
        Event::RecvData,
        Event::RecvFin,
        Event::RecvError,
        Event::RecvCancel,
        Event::RecvStop,
    ];

    /// One row a state, one cell an event, in the order of `EVENTS`: `!` violation, `-` ignored,
    /// else the state after it (sending half, receiving half).
    const TABLE: [(&str, [&str; 9]); 12] = [
        ("OO", ["FO", "FE", "EE", "OS", "OO", "OF", "EE", "EE", "EO"]),
        ("OS", ["FS", "FE", "EE", "-", "-", "OE", "EE", "EE", "ES"]),
        ("OF", ["FF", "FF", "EE", "-", "!", "!", "!", "EE", "EF"]),
        ("OE", ["FE", "FE", "EE", "-", "-", "-", "-", "EE", "EE"]),
        ("FO", ["-", "-", "EE", "FS", "FO", "FF", "FE", "EE", "-"]),
        ("FS", ["-", "-", "EE", "-", "-", "FE", "FE", "EE", "-"]),
        ("FF", ["-", "-", "-", "-", "!", "!", "!", "-", "-"]),
        ("FE", ["-", "-", "-", "-", "-", "-", "-", "-", "-"]),
        ("EO", ["-", "-", "EE", "ES", "EO", "EF", "EE", "EE", "-"]),
        ("ES", ["-", "-", "EE", "-", "-", "EE", "EE", "EE", "-"]),
        ("EF", ["-", "-", "-", "-", "!", "!", "!", "-", "-"]),
        ("EE", ["-", "-", "-", "-", "-", "-", "-", "-", "-"]),
    ];

    fn name(state: State) -> String {
        let sending = match state.sending {
            Sending::Open => 'O',
            Sending::Finished => 'F',
            Sending::Ended => 'E',
        };
        let receiving = match state.receiving {
            Receiving::Open => 'O',
            Receiving::Stopped => 'S',
            Receiving::Finished => 'F',
            Receiving::Ended => 'E',
        };
        [sending, receiving].into_iter().collect()
    }

    fn states() -> impl Iterator<Item = State> {
        [Sending::Open, Sending::Finished, Sending::Ended]
            .into_iter()
            .flat_map(|sending| {
                [
                    Receiving::Open,
                    Receiving::Stopped,
                    Receiving::Finished,
                    Receiving::Ended,
                ]
                .into_iter()
                .map(move |receiving| State { sending, receiving })
            })
    }

    #[test]
    fn every_state_and_event_moves_as_the_table_says() {
        for (state, (row, cells)) in states().zip(TABLE) {
            assert_eq!(name(state), row);
            for (event, cell) in EVENTS.into_iter().zip(cells) {
                let mut after = state;
                let got = match after.on(event) {
                    Effect::Act => name(after),
                    Effect::Ignore => "-".to_owned(),
                    Effect::Violation => "!".to_owned(),
                };
                assert_eq!(got, cell, "{row} on {event:?}");
                if got == "-" || got == "!" {
                    assert_eq!(after, state, "{row} on {event:?} must not move");
                }
            }
        }
    }

    #[test]
    fn only_states_with_both_halves_over_are_over() {
        let over: Vec<_> = states().filter(|s| s.is_over()).map(name).collect();
        assert_eq!(over, ["FF", "FE", "EF", "EE"]);
    }
}
