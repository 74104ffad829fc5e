//! A run: tasks on both sides, polled only when they were woken, in an order that the seed decides.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::net::Rng;
use super::{A, D, Pair, invariants};

/// A task was woken.
#[derive(Debug)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Future0 = Pin<Box<dyn Future<Output = ()>>>;

struct Task {
    name: String,
    future: Future0,
    flag: Arc<Flag>,
    /// The run does not wait for it.
    daemon: bool,
}

/// What tasks share with the run.
pub(super) struct Desk {
    pub(super) seed: u64,
    now: Cell<Instant>,
    timers: RefCell<Vec<(Instant, Waker)>>,
    spawned: RefCell<VecDeque<(String, Future0, bool)>>,
    /// Bytes of long messages that may still be sent.
    pub(super) budget: Cell<usize>,
    pub(super) ledger: RefCell<Ledger>,
}

impl Desk {
    pub(super) fn spawn(&self, name: String, future: impl Future<Output = ()> + 'static) {
        let spawned = (name, Box::pin(future) as Future0, false);
        self.spawned.borrow_mut().push_back(spawned);
    }

    /// A task that need not come to an end by itself.
    pub(super) fn daemon(&self, name: String, future: impl Future<Output = ()> + 'static) {
        let spawned = (name, Box::pin(future) as Future0, true);
        self.spawned.borrow_mut().push_back(spawned);
    }

    pub(super) const fn now(&self) -> Instant {
        self.now.get()
    }

    /// Completes at a time of the virtual clock.
    pub(super) async fn sleep(&self, time: Duration) {
        let until = self.now.get() + time;
        poll_fn(|cx| {
            if self.now.get() >= until {
                return Poll::Ready(());
            }
            let timer = (until, cx.waker().clone());
            self.timers.borrow_mut().push(timer);
            Poll::Pending
        })
        .await;
    }
}

/// How a run damages what it should not survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sabotage {
    None,
    /// A byte on the wire changes.
    Flip,
    /// A side believes that it may send a byte more on the session than was granted.
    Credit,
}

pub(super) struct World {
    pub(super) pair: Pair,
    pub(super) desk: Rc<Desk>,
    tasks: Vec<Task>,
    rng: Rng,
    sabotage: Sabotage,
    pub(super) steps: u64,
    /// What the run is like, for whoever reads of its failure.
    pub(super) notes: String,
    last_progress: Instant,
}

/// Virtual time without any task being woken after which a run counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Steps after which a run counts as going round in circles.
const MOST_STEPS: u64 = 2_000_000;

impl World {
    pub(super) fn new(pair: Pair, seed: u64, sabotage: Sabotage) -> Self {
        let now = pair.now;
        Self {
            pair,
            desk: Rc::new(Desk {
                seed,
                now: Cell::new(now),
                timers: RefCell::default(),
                spawned: RefCell::default(),
                budget: Cell::new(usize::MAX),
                ledger: RefCell::default(),
            }),
            tasks: Vec::new(),
            rng: Rng::of(seed, 1),
            sabotage,
            steps: 0,
            notes: String::new(),
            last_progress: now,
        }
    }

    /// Until all tasks are done and nothing moves, or something is wrong.
    pub(super) fn run(&mut self) -> Result<(), String> {
        loop {
            self.adopt();
            let idle = !self.step();
            if let Some(failure) = self.desk.ledger.borrow().failure.clone() {
                return Err(failure);
            }
            if self.steps > MOST_STEPS {
                return Err(format!(
                    "{MOST_STEPS} steps are not enough: {}",
                    self.names()
                ));
            }
            if self.rng.one_in(4) {
                invariants::check(&mut self.pair);
            }
            if !idle {
                continue;
            }
            invariants::check(&mut self.pair);
            if self.only_daemons() {
                return Ok(());
            }
            let stuck = self.pair.now - self.last_progress > STUCK;
            if stuck || !self.pass_time() {
                return Err(format!("stuck: {}", self.names()));
            }
        }
    }

    fn only_daemons(&self) -> bool {
        self.tasks.iter().all(|task| task.daemon)
    }

    /// Ends the tasks that are left, and with them the handles that they hold.
    pub(super) fn dismiss(&mut self) {
        self.tasks.clear();
    }

    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.tasks.iter().map(|task| &task.name).collect();
        let ends = self.pair.ends.iter().map(super::End::dump);
        let ends: Vec<_> = ends.collect();
        format!("{names:?}\n  {}", ends.join("\n  "))
    }

    /// Lets both drivers go on without tasks until `done` or the time is over.
    pub(super) fn settle(&mut self, time: Duration, done: impl Fn(&Pair) -> bool) -> bool {
        let until = self.pair.now + time;
        while self.pair.now < until {
            self.adopt();
            if !self.step() {
                invariants::check(&mut self.pair);
                if self.only_daemons() && done(&self.pair) {
                    return true;
                }
                if !self.pass_time() {
                    return false;
                }
            }
        }
        false
    }

    fn adopt(&mut self) {
        for (name, future, daemon) in self.desk.spawned.borrow_mut().drain(..) {
            let flag = Arc::new(Flag(AtomicBool::new(true)));
            self.tasks.push(Task {
                name,
                future,
                flag,
                daemon,
            });
        }
    }

    /// One thing that can happen now; false if there is none.
    fn step(&mut self) -> bool {
        self.steps += 1;
        let woken = |task: &Task| task.flag.0.load(Ordering::Relaxed);
        let runnable = self.tasks.iter().filter(|task| woken(task)).count();
        let drivers = [D, A].map(|side| self.pair.has_cause(side));
        let causes = drivers.iter().filter(|cause| **cause).count();
        if runnable + causes == 0 {
            return false;
        }
        // Drivers run as often as all tasks together, else most of a run is polling.
        let driver = causes > 0 && (runnable == 0 || self.rng.one_in(2));
        if driver {
            let side = if drivers == [true, true] {
                self.rng.below(2)
            } else {
                usize::from(drivers[A])
            };
            self.damage();
            if self.rng.one_in(2) {
                self.pair.run(side);
            } else {
                // As if the driver's task had used up its budget: it stays awake by what it has.
                self.pair.turn(side);
            }
        } else {
            let mut left = self.rng.below(runnable);
            let index = self.tasks.iter().position(|task| {
                let hit = woken(task) && left == 0;
                left = left.wrapping_sub(usize::from(woken(task)));
                hit
            });
            self.poll(index.expect("one of those counted"));
            self.last_progress = self.pair.now;
        }
        true
    }

    fn poll(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        task.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.flag));
        let done = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if done.is_ready() {
            drop(self.tasks.swap_remove(index));
        }
    }

    fn damage(&mut self) {
        let established = self
            .pair
            .ends
            .iter()
            .all(|end| end.connection.is_established());
        if self.sabotage == Sabotage::None || !established || !self.rng.one_in(8) {
            return;
        }
        let side = self.rng.below(2);
        match self.sabotage {
            Sabotage::None => {}
            Sabotage::Credit => {
                let credit = &mut self.pair.ends[side].connection.credit;
                if credit.add(1).is_some() {
                    self.sabotage = Sabotage::None;
                }
            }
            Sabotage::Flip => {
                if self.pair.pipes[side].flip(self.rng.below(3)) {
                    self.sabotage = Sabotage::None;
                }
            }
        }
    }

    /// To the next thing that happens by itself; false if nothing ever will.
    fn pass_time(&mut self) -> bool {
        let timers = self.desk.timers.borrow();
        let timer = timers.iter().map(|(at, _)| *at).min();
        drop(timers);
        let Some(at) = timer.into_iter().chain(self.pair.next_event()).min() else {
            return false;
        };
        self.pair.now = self.pair.now.max(at);
        self.desk.now.set(self.pair.now);
        let now = self.pair.now;
        self.desk.timers.borrow_mut().retain(|(at, waker)| {
            if *at <= now {
                waker.wake_by_ref();
            }
            *at > now
        });
        true
    }
}
