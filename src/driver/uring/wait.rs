//! The idle strategy of an engine: park, spin, or adaptive.
//!
//! An adaptive engine spins for as long as recent waits were short. That costs nothing on a processor of its own, but costs
//! more than it gains where another thread needs that very processor, possibly the one whose reply the engine waits for.
//! So it rests, that is, parks at once, when
//! * it has spun in vain several times: the awaited event happens only after it has parked;
//! * the scheduler shows that other threads need the processor: see `pressure`.
//!
//! After a rest it tries again. Each rest is twice as long as the one before, until a period of spinning was undisturbed;
//! and long enough that the cost of a trial is a small share of it.

use std::time::{Duration, Instant};

use super::pressure::{Scheduler, Verdict, Window};
use crate::config::Wait;
use crate::driver::clock;

/// Waits shorter than this are worth spinning for: about the cost of a wake-up.
const SPIN_MAX: Duration = Duration::from_micros(100);
const SPIN_MIN: Duration = Duration::from_micros(5);
/// Spins per reading of the clock; a wait that ends before the first reading is not counted.
const LOOKS: u32 = 16;
/// Lost spins (the engine parked after all) until it rests. A won spin cancels `WON` of them.
const LOST_MAX: u32 = 16;
const WON: u32 = 2;
/// The same limit in a trial after a rest.
const LOST_MAX_IN_TRIAL: u32 = 4;
/// Waits per reading of the scheduler's statistics, which takes some microseconds. Doubled after each reading without
/// contention, up to one wait in a thousand.
const WAITS: u32 = 64;
const WAITS_MAX: u32 = 1024;
/// Minimum length of a rest, not counting the time that the engine works.
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_secs(2);
/// A rest is at least this many times as long as the time lost before it.
const REST_PER_DELAY: u32 = 32;

/// The state behind a [`Wait`].
#[derive(Debug)]
pub(super) struct Waiting {
    policy: Wait,
    /// How long the adaptive engine now spins before it parks.
    spin: Duration,
    idle_since: Option<Instant>,
    looks: u32,
    /// Lost spins not cancelled by won ones.
    lost: u32,
    /// Waits since the last reading of the statistics, and the number until the next.
    waits: u32,
    waits_max: u32,
    /// The remaining rest.
    rest: Duration,
    next_rest: Duration,
    scheduler: Scheduler,
    window: Option<Window>,
}

/// The next action of an idle engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    Spin,
    Park,
}

impl Waiting {
    /// To be used on one thread, whose scheduling statistics it reads.
    pub(super) const fn new(policy: Wait) -> Self {
        Self::over(policy, Scheduler::Unopened)
    }

    /// To be used on the calling thread. Takes its descriptor at once, so that a working engine takes none from the process.
    pub(super) fn of_this_thread(policy: Wait) -> Self {
        match policy {
            Wait::Adaptive => Self::over(policy, Scheduler::open()),
            Wait::Park | Wait::Spin => Self::new(policy),
        }
    }

    /// Without the scheduler's statistics, so that runs are reproducible.
    #[cfg(test)]
    pub(super) const fn blind(policy: Wait) -> Self {
        Self::over(policy, Scheduler::Silent)
    }

    const fn over(policy: Wait, scheduler: Scheduler) -> Self {
        Self {
            policy,
            spin: SPIN_MIN,
            idle_since: None,
            looks: 0,
            lost: 0,
            // The first wait begins a period of observation.
            waits: WAITS,
            waits_max: WAITS,
            rest: Duration::ZERO,
            next_rest: REST_MIN,
            scheduler,
            window: None,
        }
    }

    /// Whether it spins at all while idle.
    pub(super) const fn spins(&self) -> bool {
        match self.policy {
            Wait::Park => false,
            Wait::Spin => true,
            Wait::Adaptive => !self.spin.is_zero(),
        }
    }

    /// The engine had work.
    #[inline]
    pub(super) fn busy(&mut self) {
        if self.idle_since.take().is_some() {
            self.won();
        }
        self.looks = 0;
    }

    /// The engine had no work.
    #[inline]
    pub(super) fn idle(&mut self) -> Idle {
        match self.policy {
            Wait::Park => Idle::Park,
            Wait::Spin => Idle::Spin,
            Wait::Adaptive => self.adapt(),
        }
    }

    fn adapt(&mut self) -> Idle {
        if self.spin.is_zero() {
            return Idle::Park;
        }
        self.looks += 1;
        if self.idle_since.is_some() && !self.looks.is_multiple_of(LOOKS) {
            return Idle::Spin;
        }
        // Not tokio's clock, which may be paused.
        let now = clock::real();
        let since = *self.idle_since.get_or_insert(now);
        if now - since < self.spin {
            Idle::Spin
        } else {
            Idle::Park
        }
    }

    /// A won spin: the awaited event happened while spinning.
    #[inline]
    fn won(&mut self) {
        if self.looks >= LOOKS {
            self.lost = self.lost.saturating_sub(WON);
        }
        self.waits += 1;
        if self.waits >= self.waits_max {
            self.look();
        }
    }

    /// The engine was parked for this long.
    pub(super) fn parked(&mut self, time: Duration) {
        self.idle_since = None;
        self.looks = 0;
        if self.policy != Wait::Adaptive {
            return;
        }
        if !self.rest.is_zero() {
            self.rest = self.rest.saturating_sub(time);
            if self.rest.is_zero() {
                self.begin_trial(time);
            }
        } else if self.spin.is_zero() {
            if time < SPIN_MAX {
                self.spin = SPIN_MIN;
            }
        } else {
            self.lose(time);
        }
    }

    /// A lost spin: it was followed by a park of this length. Either a little more spinning would have been enough, or all of
    /// it was wasted.
    fn lose(&mut self, time: Duration) {
        self.lost += 1;
        if time < SPIN_MAX {
            self.spin = (self.spin * 2).min(SPIN_MAX);
        } else if self.spin > SPIN_MIN {
            self.spin /= 2;
        } else {
            self.spin = Duration::ZERO;
            self.lost = 0;
        }
        self.waits += 1;
        if self.lost >= LOST_MAX {
            self.rest(Duration::ZERO);
        } else if self.waits >= self.waits_max {
            self.look();
        }
    }

    #[cold]
    fn rest(&mut self, delay: Duration) {
        self.waits_max = WAITS;
        self.rest = self
            .next_rest
            .max(delay.saturating_mul(REST_PER_DELAY))
            .min(REST_MAX);
        self.next_rest = (self.next_rest * 2).min(REST_MAX);
        self.spin = Duration::ZERO;
    }

    /// The rest is over, at the end of a sleep of this length.
    #[cold]
    fn begin_trial(&mut self, slept: Duration) {
        if slept < SPIN_MAX {
            self.spin = SPIN_MAX;
            self.lost = LOST_MAX - LOST_MAX_IN_TRIAL;
        } else {
            self.lost = 0;
        }
        self.begin_window();
    }

    fn begin_window(&mut self) {
        self.waits = 0;
        let reading = self.scheduler.read();
        self.window = reading.map(|reading| Window::new(clock::real(), reading));
    }

    #[cold]
    fn look(&mut self) {
        self.waits = 0;
        self.waits_max = (self.waits_max * 2).min(WAITS_MAX);
        let Some(reading) = self.scheduler.read() else {
            // Without statistics, only won spins show that spinning pays.
            self.next_rest = (self.next_rest / 2).max(REST_MIN);
            return;
        };
        let Some(window) = self.window else {
            self.window = Some(Window::new(clock::real(), reading));
            return;
        };
        match window.judge(clock::real(), reading) {
            Verdict::Open => {}
            Verdict::Free => {
                self.next_rest = (self.next_rest / 2).max(REST_MIN);
                self.begin_window();
            }
            Verdict::Wanted(delay) => {
                self.window = None;
                self.rest(delay);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::super::pressure::Reading;
    use super::*;
    use clock::Stopped;

    const US: Duration = Duration::from_micros(1);
    const MS: Duration = Duration::from_millis(1);
    /// The time of one empty turn.
    const TURN: Duration = Duration::from_nanos(500);

    /// When the awaited event happens.
    #[derive(Clone, Copy)]
    enum Comes {
        /// This long after the wait began, whether the engine spins or parks.
        After(Duration),
        /// This long after the engine has given up its processor.
        OnceParked(Duration),
    }

    /// An engine, its simulated thread, and the time it spent in each state.
    struct Thread {
        waiting: Waiting,
        reading: Rc<Cell<Reading>>,
        /// Processor time that another thread takes each time, and running time of this thread before that.
        other: Option<(Duration, Duration)>,
        ran: Duration,
        spun: Duration,
        parked: Duration,
        parks: u32,
        lost_to_others: Duration,
        _clock: Stopped,
    }

    impl Thread {
        fn new() -> Self {
            let clock = Stopped::new();
            let reading = Rc::new(Cell::new(Reading::default()));
            let scheduler = Scheduler::Scripted(Rc::clone(&reading));
            Self {
                waiting: Waiting::over(Wait::Adaptive, scheduler),
                reading,
                other: None,
                ran: Duration::ZERO,
                spun: Duration::ZERO,
                parked: Duration::ZERO,
                parks: 0,
                lost_to_others: Duration::ZERO,
                _clock: clock,
            }
        }

        fn time(&self) -> Duration {
            self.spun + self.parked + self.lost_to_others
        }

        fn change(&self, change: impl FnOnce(&mut Reading)) {
            let mut reading = self.reading.get();
            change(&mut reading);
            self.reading.set(reading);
        }

        fn spin(&mut self) -> Duration {
            Stopped::pass(TURN);
            (self.spun, self.ran) = (self.spun + TURN, self.ran + TURN);
            let Some((takes, slice)) = self.other else {
                return TURN;
            };
            if self.ran < slice {
                return TURN;
            }
            self.ran = Duration::ZERO;
            Stopped::pass(takes);
            self.lost_to_others += takes;
            self.change(|reading| {
                reading.delay += takes;
                reading.runs += 1;
                reading.preempted += 1;
            });
            TURN + takes
        }

        fn wait(&mut self, comes: Comes) {
            let mut waited = Duration::ZERO;
            while self.waiting.idle() == Idle::Spin {
                waited += self.spin();
                if matches!(comes, Comes::After(time) if time <= waited) {
                    return self.waiting.busy();
                }
                assert!(waited < Duration::from_secs(1), "it spins for ever");
            }
            let sleep = match comes {
                Comes::After(time) => time.saturating_sub(waited),
                Comes::OnceParked(time) => time,
            };
            // A wake-up of an idle processor.
            let sleep = sleep + 30 * US;
            Stopped::pass(sleep);
            (self.parked, self.parks) = (self.parked + sleep, self.parks + 1);
            self.change(|reading| {
                reading.delay += 20 * US;
                reading.runs += 1;
            });
            self.waiting.parked(sleep);
            self.waiting.busy();
        }

        fn wait_for(&mut self, time: Duration, comes: Comes) {
            let until = self.time() + time;
            while self.time() < until {
                self.wait(comes);
            }
        }
    }

    #[test]
    fn short_waits_make_an_adaptive_engine_spin_and_long_ones_park_it() {
        let mut thread = Thread::new();
        for _ in 0..10 {
            thread.wait(Comes::After(60 * US));
        }
        let parks = thread.parks;
        thread.wait_for(MS * 1000, Comes::After(60 * US));
        assert_eq!(thread.parks, parks, "it spins now");
        for _ in 0..20 {
            thread.wait(Comes::After(50 * MS));
        }
        let spun = thread.spun;
        thread.wait(Comes::After(50 * MS));
        assert_eq!(thread.spun, spun, "it parks at once");
        thread.waiting.parked(50 * US);
        assert_eq!(thread.waiting.idle(), Idle::Spin);
    }

    #[test]
    fn waits_that_end_only_once_it_has_parked_make_it_park_at_once() {
        let mut thread = Thread::new();
        thread.wait_for(MS * 1000, Comes::OnceParked(20 * US));
        let (spun, parked) = (thread.spun, thread.parked);
        thread.wait_for(MS * 20_000, Comes::OnceParked(20 * US));
        let (spun, parked) = (thread.spun - spun, thread.parked - parked);
        assert!(spun * 100 < parked, "{spun:?} of {parked:?}");
        assert!(spun > 2 * MS, "it tries again: {spun:?}");
    }

    #[test]
    fn a_thread_that_wants_the_processor_all_the_time_makes_it_park_at_once() {
        let mut thread = Thread::new();
        thread.other = Some((3 * MS, 3 * MS));
        thread.wait_for(MS * 1000, Comes::After(10 * US));
        let (lost, time) = (thread.lost_to_others, thread.time());
        thread.wait_for(MS * 20_000, Comes::After(10 * US));
        let (lost, time) = (thread.lost_to_others - lost, thread.time() - time);
        assert!(lost * 50 < time, "{lost:?} of {time:?}");
    }

    #[test]
    fn threads_that_often_want_the_processor_for_a_moment_make_it_park_at_once() {
        let mut thread = Thread::new();
        thread.other = Some((20 * US, 2 * MS));
        thread.wait_for(MS * 1000, Comes::After(10 * US));
        let (spun, parked) = (thread.spun, thread.parked);
        thread.wait_for(MS * 20_000, Comes::After(10 * US));
        let (spun, parked) = (thread.spun - spun, thread.parked - parked);
        assert!(spun * 50 < parked, "{spun:?} of {parked:?}");
    }

    #[test]
    fn a_quota_that_spinning_uses_up_is_left_alone() {
        let mut thread = Thread::new();
        thread.other = Some((50 * MS, 50 * MS));
        thread.wait_for(MS * 1000, Comes::After(10 * US));
        let (lost, time) = (thread.lost_to_others, thread.time());
        thread.wait_for(MS * 60_000, Comes::After(10 * US));
        let (lost, time) = (thread.lost_to_others - lost, thread.time() - time);
        assert!(lost * 10 < time, "{lost:?} of {time:?}");
    }

    #[test]
    fn what_the_kernel_does_now_and_then_leaves_it_spinning() {
        for (takes, slice) in [(30 * US, 20 * MS), (3 * MS, 250 * MS)] {
            let mut thread = Thread::new();
            thread.other = Some((takes, slice));
            for _ in 0..10 {
                thread.wait(Comes::After(10 * US));
            }
            let parks = thread.parks;
            thread.wait_for(MS * 2000, Comes::After(10 * US));
            assert_eq!(thread.parks, parks, "{takes:?} after {slice:?}");
        }
    }

    #[test]
    fn it_spins_again_within_seconds_once_the_processor_is_free() {
        let mut thread = Thread::new();
        thread.other = Some((3 * MS, 3 * MS));
        thread.wait_for(MS * 10_000, Comes::After(10 * US));
        thread.wait_for(MS * 10_000, Comes::OnceParked(10 * US));
        thread.other = None;
        thread.wait_for(REST_MAX * 2, Comes::After(10 * US));
        let parks = thread.parks;
        thread.wait_for(MS * 1000, Comes::After(10 * US));
        assert_eq!(thread.parks, parks, "it spins");
        assert_eq!(thread.waiting.next_rest, REST_MIN);
    }

    #[test]
    fn where_the_kernel_does_not_tell_spins_in_vain_do() {
        let mut thread = Thread::new();
        thread.waiting.scheduler = Scheduler::Silent;
        thread.wait_for(MS * 10_000, Comes::OnceParked(20 * US));
        assert!(thread.spun * 50 < thread.parked);
        thread.wait_for(REST_MAX * 2, Comes::After(10 * US));
        let parks = thread.parks;
        thread.wait_for(MS * 1000, Comes::After(10 * US));
        assert_eq!(thread.parks, parks, "it spins");
        assert_eq!(thread.waiting.next_rest, REST_MIN);
    }

    #[test]
    fn a_thread_opens_its_descriptor_before_it_works_and_only_if_it_will_read_it() {
        let opened = |policy| Waiting::of_this_thread(policy).scheduler;
        // `Silent` where the kernel has no such file.
        assert!(!matches!(opened(Wait::Adaptive), Scheduler::Unopened));
        assert!(matches!(opened(Wait::Spin), Scheduler::Unopened));
        assert!(matches!(opened(Wait::Park), Scheduler::Unopened));
    }

    #[test]
    fn the_other_policies_do_what_they_say() {
        assert_eq!(Waiting::new(Wait::Park).idle(), Idle::Park);
        let mut spinning = Waiting::new(Wait::Spin);
        spinning.parked(Duration::from_secs(1));
        assert_eq!(spinning.idle(), Idle::Spin);
    }
}
