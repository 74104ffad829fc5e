//! A run: connections, their drivers, and tasks that are polled only when they were woken, in an order that the seed
//! determines. Time passes when nothing else can happen.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use super::ledger::Ledger;
use super::wired::Wired;
use super::{Sabotage, promises};
use crate::bridge::tests::net::{Cut, Rng};
use crate::bridge::tests::{A, D, Pool};

/// Virtual time without any task being woken after which a run counts as stuck.
const STUCK: Duration = Duration::from_secs(60);
/// Steps after which a run counts as an endless loop.
const MOST_STEPS: u64 = 2_000_000;
/// A check of the pools visits every stream, so it is made in one of this many steps.
const POOLS_EVERY: usize = 16;

/// A task was woken.
#[derive(Debug)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Future0 = Pin<Box<dyn Future<Output = ()>>>;

/// The owner of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The run itself.
    Run,
    /// An application on a connection, which is busy while the task runs.
    Busy(usize),
    /// An application that waits for events; it ends when it is dismissed.
    Waits(usize),
}

struct Task {
    name: String,
    owner: Owner,
    future: Future0,
    flag: Arc<Flag>,
}

/// A task's request to the run.
enum Wish {
    Spawn(String, Owner, Future0),
    Connect(Box<dyn Wired>),
    /// The applications that still wait on a connection end.
    Dismiss(usize),
    /// The process of one side dies.
    Crash(usize, usize, Cut),
    /// The connection is idle: everything must be as at the start.
    Inspect(usize),
}

/// What tasks share with the run.
pub(super) struct Desk {
    pub(super) seed: u64,
    start: Instant,
    now: Cell<Instant>,
    timers: RefCell<Vec<(Instant, Waker)>>,
    wishes: RefCell<VecDeque<Wish>>,
    pub(super) connections: Cell<usize>,
    /// Number of tasks that keep a connection busy, and the tasks that wait until there are none.
    busy: RefCell<HashMap<usize, usize>>,
    idlers: RefCell<Vec<(usize, Waker)>>,
    /// Time limits for the end of sides of connections.
    pub(super) ceilings: RefCell<Vec<(usize, usize, Instant)>>,
    /// Bytes of long messages that may still be sent.
    pub(super) budget: Cell<usize>,
    pub(super) ledger: RefCell<Ledger>,
}

impl Desk {
    fn wish(&self, wish: Wish) {
        self.wishes.borrow_mut().push_back(wish);
    }

    pub(super) fn spawn(
        &self,
        name: String,
        owner: Owner,
        future: impl Future<Output = ()> + 'static,
    ) {
        if let Owner::Busy(pair) = owner {
            *self.busy.borrow_mut().entry(pair).or_default() += 1;
        }
        self.wish(Wish::Spawn(name, owner, Box::pin(future)));
    }

    /// Adds a connection and names it.
    pub(super) fn connect(&self, pair: Box<dyn Wired>) -> usize {
        let index = self.connections.get();
        self.connections.set(index + 1);
        self.wish(Wish::Connect(pair));
        index
    }

    pub(super) fn dismiss(&self, pair: usize) {
        self.wish(Wish::Dismiss(pair));
    }

    pub(super) fn crash(&self, pair: usize, side: usize, how: Cut) {
        self.wish(Wish::Crash(pair, side, how));
    }

    pub(super) fn inspect(&self, pair: usize) {
        self.wish(Wish::Inspect(pair));
    }

    /// A side must be closed by then.
    pub(super) fn must_close(&self, pair: usize, side: usize, within: Duration) {
        let at = self.now() + within;
        self.ceilings.borrow_mut().push((pair, side, at));
    }

    pub(super) fn fail(&self, what: String) {
        self.ledger.borrow_mut().fail(what);
    }

    /// When the run began.
    pub(super) const fn start(&self) -> Instant {
        self.start
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

    /// The value of the future within this time; `None` after it.
    pub(super) async fn within<T>(
        &self,
        time: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let (mut future, mut sleep) = (Box::pin(future), Box::pin(self.sleep(time)));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    /// Completes when no task keeps a connection busy.
    pub(super) async fn idle(&self, pair: usize) {
        poll_fn(|cx| {
            if self.is_idle(pair) {
                return Poll::Ready(());
            }
            self.idlers.borrow_mut().push((pair, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    pub(super) fn is_idle(&self, pair: usize) -> bool {
        let busy = self.busy.borrow();
        busy.get(&pair).is_none_or(|busy| *busy == 0)
    }

    fn task_ended(&self, owner: Owner) {
        let Owner::Busy(pair) = owner else { return };
        let mut busy = self.busy.borrow_mut();
        let left = busy.get_mut(&pair).expect("it was counted");
        *left -= 1;
        if *left == 0 {
            let mut idlers = self.idlers.borrow_mut();
            for (_, waker) in idlers.extract_if(.., |(waits_for, _)| *waits_for == pair) {
                waker.wake();
            }
        }
    }
}

pub(super) struct World {
    pub(super) desk: Rc<Desk>,
    /// In the order of their creation; those closed at both ends are gone.
    pairs: Vec<Option<Box<dyn Wired>>>,
    live: Vec<usize>,
    /// Sessions that have ended and whose handles may still hold bytes, and their pools.
    over: Vec<(Arc<Pool>, Arc<crate::bridge::SessionLink>)>,
    pools: Vec<Arc<Pool>>,
    tasks: Vec<Task>,
    now: Instant,
    rng: Rng,
    pub(super) sabotage: Sabotage,
    pub(super) steps: u64,
    /// The accounts of a connection are checked after this many steps, besides whenever nothing more can happen at a moment.
    pub(super) check_every: u64,
    last_progress: Instant,
}

impl World {
    pub(super) fn new(seed: u64, pools: Vec<Arc<Pool>>, sabotage: Sabotage) -> Self {
        let now = Instant::now();
        Self {
            desk: Rc::new(Desk {
                seed,
                start: now,
                now: Cell::new(now),
                timers: RefCell::default(),
                wishes: RefCell::default(),
                connections: Cell::new(0),
                busy: RefCell::default(),
                idlers: RefCell::default(),
                ceilings: RefCell::default(),
                budget: Cell::new(usize::MAX),
                ledger: RefCell::default(),
            }),
            pairs: Vec::new(),
            live: Vec::new(),
            over: Vec::new(),
            pools,
            tasks: Vec::new(),
            now,
            rng: Rng::of(seed, 1),
            sabotage,
            steps: 0,
            check_every: 1,
            last_progress: now,
        }
    }

    /// Until all tasks are done and all connections are closed, or a check fails.
    pub(super) fn run(&mut self) -> Result<(), String> {
        loop {
            self.grant_wishes()?;
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
            if !self.desk.wishes.borrow().is_empty() {
                continue;
            }
            if idle || self.rng.one_in(POOLS_EVERY) {
                self.check_pools();
            }
            if !idle {
                continue;
            }
            for index in self.live.clone() {
                self.check(index)?;
            }
            if self.tasks.is_empty() && self.live.is_empty() {
                return Ok(());
            }
            if self.now - self.last_progress > STUCK {
                return Err(format!("stuck: {}", self.names()));
            }
            if !self.pass_time() {
                return Err(format!("nothing will ever happen: {}", self.names()));
            }
            promises::ceilings(&self.desk, |pair, side| self.is_closed(pair, side))?;
        }
    }

    fn is_closed(&self, pair: usize, side: usize) -> bool {
        let pair = self.pairs[pair].as_ref();
        pair.is_none_or(|pair| pair.is_closed(side))
    }

    fn names(&mut self) -> String {
        let names: Vec<_> = self.tasks.iter().map(|task| &task.name).collect();
        let mut text = format!("{names:?}");
        for index in &self.live {
            let pair = self.pairs[*index].as_mut().expect("it lives");
            text = format!("{text}\n  {index}: {}", pair.dump());
        }
        text
    }

    fn grant_wishes(&mut self) -> Result<(), String> {
        loop {
            let wish = self.desk.wishes.borrow_mut().pop_front();
            match wish {
                None => return Ok(()),
                Some(Wish::Spawn(name, owner, future)) => {
                    let flag = Arc::new(Flag(AtomicBool::new(true)));
                    self.tasks.push(Task {
                        name,
                        owner,
                        future,
                        flag,
                    });
                }
                Some(Wish::Connect(pair)) => {
                    self.live.push(self.pairs.len());
                    self.pairs.push(Some(pair));
                }
                Some(Wish::Dismiss(pair)) => {
                    self.tasks.retain(|task| task.owner != Owner::Waits(pair));
                }
                Some(Wish::Crash(pair, side, how)) => {
                    if let Some(pair) = &mut self.pairs[pair] {
                        pair.crash(side, how);
                    }
                    self.retire(pair);
                }
                Some(Wish::Inspect(index)) => {
                    let Some(pair) = &mut self.pairs[index] else {
                        return Err(format!("connection {index} ended without a cause"));
                    };
                    pair.inspect();
                }
            }
        }
    }

    /// One possible event now; false if there is none.
    fn step(&mut self) -> bool {
        self.steps += 1;
        let woken = |task: &Task| task.flag.0.load(Ordering::Relaxed);
        let runnable = self.tasks.iter().filter(|task| woken(task)).count();
        let mut drivers = Vec::new();
        for index in &self.live {
            let pair = self.pairs[*index].as_ref().expect("it lives");
            let sides = [D, A].into_iter().filter(|side| pair.has_cause(*side));
            drivers.extend(sides.map(|side| (*index, side)));
        }
        if runnable + drivers.len() == 0 {
            return false;
        }
        // Drivers run as often as all tasks together, else most of a run is polling.
        if !drivers.is_empty() && (runnable == 0 || self.rng.one_in(2)) {
            let (index, side) = self.rng.pick(&drivers);
            self.drive(index, side);
        } else {
            let mut left = self.rng.below(runnable);
            let index = self.tasks.iter().position(|task| {
                let hit = woken(task) && left == 0;
                left = left.wrapping_sub(usize::from(woken(task)));
                hit
            });
            self.poll(index.expect("one of those counted"));
            self.last_progress = self.now;
        }
        true
    }

    fn drive(&mut self, index: usize, side: usize) {
        self.damage(index);
        let to_its_end = self.rng.one_in(2);
        // Without it as if the driver's task had used up its budget: it stays awake for its pending work.
        let looked = !to_its_end && self.rng.one_in(2);
        let pair = self.pairs[index].as_mut().expect("it lives");
        pair.drive(side, to_its_end, looked);
        if self.steps.is_multiple_of(self.check_every) {
            pair.check();
        }
        if pair.is_held_back() {
            self.desk.ledger.borrow_mut().licence(index).unread = true;
        }
        self.retire(index);
    }

    /// Removes a connection that is closed at both ends.
    fn retire(&mut self, index: usize) {
        let Some(pair) = &mut self.pairs[index] else {
            return;
        };
        if ![D, A].iter().all(|side| pair.is_closed(*side)) {
            return;
        }
        pair.check_end();
        for side in [D, A] {
            let (pool, link) = (Arc::clone(pair.pool(side)), pair.link(side).clone());
            let reason = link.end().cloned().expect("a reason");
            self.over.push((pool, link));
            self.desk.ledger.borrow_mut().over(index, side, &reason);
        }
        self.pairs[index] = None;
        self.live.retain(|live| *live != index);
    }

    fn poll(&mut self, index: usize) {
        let task = &mut self.tasks[index];
        task.flag.0.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&task.flag));
        let done = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if done.is_ready() {
            let owner = task.owner;
            drop(self.tasks.swap_remove(index));
            self.desk.task_ended(owner);
        }
    }

    fn check(&mut self, index: usize) -> Result<(), String> {
        let Some(pair) = &mut self.pairs[index] else {
            return Ok(());
        };
        pair.check();
        let silence = pair.check_silence(self.now);
        silence.map_err(|what| format!("{index}/{what}"))
    }

    /// Several sessions share a pool: each one's part is known.
    fn check_pools(&mut self) {
        let mut taken = vec![0; self.pools.len()];
        for index in &self.live {
            let pair = self.pairs[*index].as_mut().expect("it lives");
            for side in [D, A] {
                let of = pair.pool(side);
                let pool = self.pools.iter().position(|pool| Arc::ptr_eq(pool, of));
                taken[pool.expect("of the run")] += pair.taken(side);
            }
        }
        self.over.retain(|(_, link)| link.stats().bytes_held > 0);
        for (of, link) in &self.over {
            let pool = self.pools.iter().position(|pool| Arc::ptr_eq(pool, of));
            taken[pool.expect("of the run")] += link.stats().bytes_held;
        }
        let used: Vec<u64> = self.pools.iter().map(|pool| pool.used()).collect();
        assert_eq!(used, taken, "the pools know who took");
    }

    fn damage(&mut self, index: usize) {
        let pair = self.pairs[index].as_mut().expect("it lives");
        if pair.damage(self.sabotage, &mut self.rng) {
            self.sabotage = Sabotage::None;
        }
    }

    /// To the next event; false if there never will be one.
    fn pass_time(&mut self) -> bool {
        let timers = self.desk.timers.borrow();
        let timer = timers.iter().map(|(at, _)| *at).min();
        drop(timers);
        let live = self
            .live
            .iter()
            .filter_map(|index| self.pairs[*index].as_ref());
        let events = live.filter_map(|pair| pair.next_event());
        let Some(at) = events.chain(timer).min() else {
            return false;
        };
        let now = self.now.max(at);
        self.now = now;
        self.desk.now.set(now);
        for index in &self.live {
            self.pairs[*index].as_mut().expect("it lives").set_now(now);
        }
        self.desk.timers.borrow_mut().retain(|(at, waker)| {
            if *at <= now {
                waker.wake_by_ref();
            }
            *at > now
        });
        true
    }
}
