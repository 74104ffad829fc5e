//! Credit, on both ends of it.
//!
//! A message, or a piece of one, costs its length and a fixed charge, on its stream and on the session. For whoever
//! receives, the window is split three ways at all times:
//!
//! ```text
//!   target + advance  =  outstanding   +   held        +   returnable
//!                        peer may send     not consumed    consumed, not yet told to the peer
//! ```
//! *Advance* is credit beyond the window for one message that would not fit into it; it comes out
//! of the process's pool, is returned to the session at once and retired as the message is consumed.
//!
//! Nothing is reserved: the sender debits when a frame is encoded. Arithmetic is checked where a
//! peer's number enters; the invariant is asserted after each step in debug builds.

/// Consumed bytes of a stream's window that its handle reports to the engine together: half.
///
/// The engine returns from a quarter on. Two halves could hold a whole window back between them.
pub(crate) const fn report_mark(window: u64) -> u32 {
    (window / 2) as u32
}

/// What the peer may send and we must be able to hold.
///
/// Windows are at most 1 GiB (`config`), and what is held of a message, or promised for it, is at most twice its size and
/// a little (`credit`), which is 1 GiB too: no sum here exceeds 32 bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecvWindow {
    target: u32,
    outstanding: u32,
    held: u32,
    /// Credit granted beyond `target`; of it, `unused` was not received yet.
    advance: u32,
    unused: u32,
}

impl RecvWindow {
    /// A window whose initial credit the peer learns from SETTINGS.
    pub(crate) const fn new(target: u32) -> Self {
        Self {
            target,
            outstanding: target,
            held: 0,
            advance: 0,
            unused: 0,
        }
    }

    pub(crate) const fn target(&self) -> u64 {
        self.target as u64
    }

    pub(crate) const fn outstanding(&self) -> u64 {
        self.outstanding as u64
    }

    pub(crate) const fn held(&self) -> u64 {
        self.held as u64
    }

    /// Credit beyond the window that is not yet retired.
    pub(crate) const fn advanced(&self) -> u64 {
        self.advance as u64
    }

    /// Debits a frame. `Err` is the credit that was left: the peer overran it.
    ///
    /// Returns the part that an advance covers; the session gets it back at once.
    pub(crate) fn receive(&mut self, cost: u64) -> Result<u64, u64> {
        if cost > self.outstanding() {
            return Err(self.outstanding());
        }
        let cost = cost as u32;
        self.outstanding -= cost;
        self.held += cost;
        let covered = cost.min(self.unused);
        self.unused -= covered;
        self.check();
        Ok(covered.into())
    }

    /// The application consumed; returns the part that retires an advance, which is neither
    /// returned to the peer nor to the session but to the pool.
    pub(crate) fn consume(&mut self, cost: u64) -> u64 {
        debug_assert!(cost <= self.held(), "consumed {cost} of {} held", self.held);
        let cost = cost.min(self.held()) as u32;
        self.held -= cost;
        // Only what was received against the advance can be consumed against it.
        let retired = cost.min(self.advance - self.unused);
        self.advance -= retired;
        self.check();
        retired.into()
    }

    /// Credit that can be given back to the peer now.
    pub(crate) const fn returnable(&self) -> u64 {
        (self.target() + self.advanced()).saturating_sub(self.outstanding() + self.held())
    }

    /// Gives back all that can be; the amount goes into a WINDOW frame.
    pub(crate) fn give_back(&mut self) -> u64 {
        let credit = self.returnable();
        self.outstanding += credit as u32;
        self.check();
        credit
    }

    /// Raises the window for good.
    pub(crate) fn grow(&mut self, target: u64) {
        self.target = self.target.max(target as u32);
    }

    /// Grants credit beyond the window for one message.
    pub(crate) fn advance(&mut self, credit: u64) {
        self.advance += credit as u32;
        self.unused += credit as u32;
    }

    /// Of what is held, the part that the session holds too.
    pub(crate) const fn uncovered(&self) -> u64 {
        (self.held - (self.advance - self.unused)) as u64
    }

    /// An advance takes over some of what is held; the session gets that back.
    pub(crate) fn cover(&mut self, cost: u64) {
        debug_assert!(cost <= self.uncovered());
        self.advance += cost as u32;
        self.check();
    }

    /// The message for which credit was granted goes no further. Returns what goes back to the pool.
    pub(crate) fn retire_unused(&mut self) -> u64 {
        let unused = std::mem::take(&mut self.unused);
        self.advance -= unused;
        // It stays promised, as in `discard`.
        self.target = self.target.max(self.outstanding + self.held - self.advance);
        self.check();
        unused.into()
    }

    /// The stream is over: what it held counts as consumed. Returns what goes back to the session
    /// and what to the pool.
    pub(crate) fn discard(&mut self) -> (u64, u64) {
        let to_session = self.uncovered();
        let to_pool = self.advanced();
        self.held = 0;
        // What the peer was promised for its message stays promised; it is thrown away on arrival.
        self.target = self.target.max(self.outstanding);
        self.advance = 0;
        self.unused = 0;
        self.check();
        (to_session, to_pool)
    }

    /// All five numbers.
    #[cfg(test)]
    pub(crate) const fn parts(&self) -> Parts {
        Parts {
            target: self.target(),
            outstanding: self.outstanding(),
            held: self.held(),
            advance: self.advanced(),
            unused: self.unused as u64,
        }
    }

    fn check(&self) {
        debug_assert!(
            self.outstanding() + self.held() <= self.target() + self.advanced(),
            "credit is conserved: {self:?}"
        );
        debug_assert!(self.unused <= self.advance);
    }
}

/// The numbers of a window, for tests.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) target: u64,
    pub(crate) outstanding: u64,
    pub(crate) held: u64,
    pub(crate) advance: u64,
    pub(crate) unused: u64,
}

/// What we may send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendCredit(u32);

impl SendCredit {
    pub(crate) const fn new(credit: u32) -> Self {
        Self(credit)
    }

    /// `None`: the sum would not fit the wire's u32.
    pub(crate) const fn add(&mut self, credit: u32) -> Option<()> {
        match self.0.checked_add(credit) {
            Some(sum) => {
                self.0 = sum;
                Some(())
            }
            None => None,
        }
    }

    pub(crate) fn debit(&mut self, cost: u64) {
        debug_assert!(
            cost <= self.left(),
            "a frame is only encoded within its credit"
        );
        self.0 = self.left().saturating_sub(cost) as u32;
    }

    /// What frames may cost now, together.
    pub(crate) const fn left(&self) -> u64 {
        self.0 as u64
    }
}

/// What we may send of all streams together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionCredit {
    credit: SendCredit,
    /// What the peer has given in all.
    given: u64,
}

impl SessionCredit {
    pub(crate) const fn new(credit: u32) -> Self {
        Self {
            credit: SendCredit::new(credit),
            given: credit as u64,
        }
    }

    /// See [`SendCredit::add`].
    pub(crate) const fn add(&mut self, credit: u32) -> Option<()> {
        self.given += credit as u64;
        self.credit.add(credit)
    }

    /// See [`SendCredit::debit`].
    #[inline]
    pub(crate) fn debit(&mut self, cost: u64) {
        self.credit.debit(cost);
    }

    /// See [`SendCredit::left`].
    #[inline]
    pub(crate) const fn left(&self) -> u64 {
        self.credit.left()
    }

    /// What was sent in all, with its charges.
    pub(crate) const fn used(&self) -> u64 {
        self.given - self.credit.left()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_peer_that_overruns_its_credit_is_told_what_was_left() {
        let mut window = RecvWindow::new(1000);
        assert_eq!(window.receive(600), Ok(0));
        assert_eq!(window.receive(401), Err(400));
        assert_eq!(window.receive(400), Ok(0));
    }

    #[test]
    fn credit_returns_only_as_the_application_consumes() {
        let mut window = RecvWindow::new(1000);
        window.receive(800).unwrap();
        assert_eq!(window.returnable(), 0);
        assert_eq!(window.consume(500), 0);
        assert_eq!(window.give_back(), 500);
        assert_eq!(window.give_back(), 0);
        assert_eq!(window.outstanding(), 700);
    }

    #[test]
    fn an_advance_is_covered_when_received_and_retired_when_consumed() {
        let mut window = RecvWindow::new(1000);
        window.receive(900).unwrap();
        window.advance(5000);
        assert_eq!(window.give_back(), 5000);
        assert_eq!(window.receive(4000), Ok(4000));
        assert_eq!(window.receive(1100), Ok(1000));
        assert_eq!(window.consume(5500), 5000);
        assert_eq!(window.give_back(), 500);
        assert_eq!(window.discard(), (500, 0));
    }

    #[test]
    fn the_largest_window_and_message_that_can_be_configured_fit() {
        let (window_max, promised) = (64 << 20, 2 * (1024_u64 << 20) + (64 << 10));
        let mut window = RecvWindow::new(window_max);
        let window_max = u64::from(window_max);
        window.receive(window_max).unwrap();
        window.advance(promised);
        assert_eq!(window.give_back(), promised);
        assert_eq!(window.receive(promised), Ok(promised));
        assert_eq!(window.held(), window_max + promised);
        assert_eq!(window.consume(window_max + promised), promised);
        assert_eq!(window.give_back(), window_max);
    }

    #[test]
    fn an_advance_may_still_be_used_after_the_stream_has_ended() {
        let mut window = RecvWindow::new(1000);
        window.receive(900).unwrap();
        window.advance(5000);
        window.give_back();
        assert_eq!(window.discard(), (900, 5000));
        assert_eq!(window.receive(4000), Ok(0));
        assert_eq!(window.consume(4000), 0);
    }

    #[test]
    fn a_sum_of_credit_above_32_bits_is_refused() {
        let mut credit = SendCredit::new(u32::MAX - 1);
        assert_eq!(credit.add(1), Some(()));
        assert_eq!(credit.add(1), None);
        assert_eq!(credit.left(), u64::from(u32::MAX));
    }

    proptest! {
        #[test]
        fn no_sequence_of_steps_creates_or_loses_credit(
            steps in prop::collection::vec((0_u8..6, 0_u64..3000), 0..200)
        ) {
            let mut window = RecvWindow::new(4096);
            let (mut session_held, mut pool) = (0_u64, 0_u64);
            for (step, n) in steps {
                match step {
                    0 => if let Ok(covered) = window.receive(n) { session_held += n - covered; },
                    1 => {
                        let n = n.min(window.held());
                        let retired = window.consume(n);
                        session_held -= n - retired;
                        pool -= retired;
                    }
                    2 => { window.give_back(); }
                    3 => { window.advance(n); pool += n; }
                    4 => {
                        let n = n.min(window.uncovered());
                        window.cover(n);
                        session_held -= n;
                        pool += n;
                    }
                    _ => window.grow(n * 2),
                }
                let split = window.outstanding() + window.held() + window.returnable();
                prop_assert!(split >= window.target());
                prop_assert!(window.held <= window.target + window.advance);
            }
            let (to_session, to_pool) = window.discard();
            prop_assert_eq!(to_session, session_held);
            prop_assert_eq!(to_pool, pool);
        }
    }
}
