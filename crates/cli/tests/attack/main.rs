//! A server under attack by the program `ringmux attack`, by each attack A1 to A13, on each driver; and a server of calls, by each
//! attack C1 to C7, which calls in streams, and C8 to C15, which calls in frames.
//!
//! This process runs the server and nothing else, so the allocator counts its memory alone; the attacker and the
//! well-behaved neighbour run in another process, which reports the neighbour's times. One test at a time.
//!
//! Claims for each attack: the memory stays within the bounds of the server's [`Config`], does not grow in the last
//! third, and is released completely; no session has more handlers than allowed streams; all calls of the neighbour
//! and one of a newcomer are answered; and the 99th percentile of the neighbour's calls, and their average, stay below
//! twice their values without the attack, at the default pace. For attacks that can go on without end also:
//! at full pace the neighbour is still served at once.

mod attacker;
mod memory;
mod server;

use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringmux::drpc::Profile as Drpc;
use ringmux::{Config, ConfigBuilder, Driver};

use attacker::Pace;
use memory::{SLACK_BYTES, Seen, Watch};
use server::{Server, Serves};

/// Length of an attack in the first measurement, and of its pause.
const TIME: Duration = Duration::from_millis(150);
/// Measurements of timing-dependent claims: the neighbour's times, and whether an attack has reached its limits before the
/// last third. The machine has other load, so each measurement takes twice the time of the one before: the effect of the
/// attack is present in all of it, that of other load is not. The other claims are asserted in each.
const LOOKS: u32 = 7;
/// Maximum ratio of the neighbour's p99 and average to their values without the attack.
const RATIO_MAX: f64 = 2.0;
/// A neighbour's p99 below this passes whatever the ratio, where its round trips are calls: they take so little, 0.3 to 0.6 ms in a build
/// like this, that one turn of an attacker's session doubles them, and the end of one with 256 calls takes 1.2 ms.
const SHORT_CALL: Duration = Duration::from_millis(2);
/// Maximum p99 of the neighbour beside an attack at full pace. It is below 10 ms where a processor is left for the neighbour;
/// here an attacker, a server, a neighbour and all other processes share two, each with time slices of some milliseconds.
const FLOODED_P99_MAX: Duration = Duration::from_millis(100);
/// Time limit for the release of the attack's memory.
const SETTLE: Duration = Duration::from_secs(20);

/// The grace of a shutdown under attack, and what the machine may add to it, which has other load.
const GRACE: Duration = Duration::from_millis(200);
const SHUTDOWN_SLACK: Duration = Duration::from_secs(10);

/// The read buffer of a session or of a handshake: two of the largest frames, and overhead.
const READ_BUFFER: u64 = 2 * (16 << 10) + (16 << 10);
/// The batch being written, and a session's own tables.
const SESSION: u64 = 512 << 10;
/// A stream's tables, its rings at their smallest, and the task of its handler.
const STREAM: u64 = 8 << 10;
/// The receive window of a session without a share of the pool.
const FLOOR: u64 = 256 << 10;
/// Bytes that each stream may queue besides the session's send budget.
const FLOOR_QUEUED: u64 = 4 << 10;
/// The longest message that is answered, with its cost.
const ANSWER: u64 = (16 << 10) + 256;
/// Memory of a handler that waits to send: a message of an attack, and the buffer that it pins.
const IN_HAND: u64 = 32 << 10;
/// Memory of the server's tables, which double when full, per simultaneous connection.
const TABLES: u64 = 2 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Mesh,
    Edge,
    /// The edge, with limits so small that an attack reaches them at once and the test can show that memory stays there.
    Small,
}

impl Profile {
    fn config(self) -> Config {
        self.builder().build().unwrap()
    }

    fn builder(self) -> ConfigBuilder {
        match self {
            Self::Mesh => Config::builder(),
            Self::Edge => Config::edge(),
            Self::Small => Config::edge()
                .max_streams(16)
                .max_unaccepted(Some(16))
                .max_half_open(32)
                .stream_window(32 << 10)
                .stream_window_max(32 << 10)
                .session_window_max(256 << 10)
                .receive_pool(2 << 20)
                .send_buffer(64 << 10)
                .session_send_buffer(64 << 10),
        }
    }
}

/// Properties of an attack besides its name.
struct Attack {
    name: &'static str,
    /// As many as `ringmux attack` opens.
    connections: u64,
    holds: Holds,
    serves: Serves,
}

/// An attack whose connections the server is to end, and what it says then.
const ENDED: [(&str, &[&str]); 2] = [
    (
        "unary_broken",
        &[
            "id-not-increasing",
            "wrong-parity",
            "frame-truncated",
            "frame-too-long",
            "call-not-taken",
        ],
    ),
    ("unary_replies", &["never-opened", "after-end"]),
];

/// The memory that an attack can make the server hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// Connections without a session.
    HalfOpen,
    /// Short-lived streams, each with this many bytes.
    Streams(u64),
    /// Messages that are never completed.
    Unfinished,
    /// Receive windows and send queues.
    Both,
}

impl Attack {
    /// The bytes that the configuration lets the attack hold. Received bytes take at most twice their credit; incomplete
    /// messages are bounded by the pool, not by the sessions' windows. Handlers of an ended session run on for a moment, beside
    /// those of the next one.
    fn bound(&self, config: &Config) -> u64 {
        let streams = u64::from(config.max_streams());
        let windows = u64::from(config.session_window_max());
        let queued =
            u64::from(config.session_send_buffer()) + streams * (FLOOR_QUEUED + ANSWER + IN_HAND);
        let sessions = self.connections * (READ_BUFFER + SESSION + streams * STREAM);
        match self.holds {
            Holds::HalfOpen => self.connections * READ_BUFFER,
            Holds::Streams(_) => sessions + 2 * self.turnover(config),
            Holds::Both => sessions + self.connections * (2 * windows + queued),
            Holds::Unfinished => sessions + 2 * (config.receive_pool() + self.connections * FLOOR),
        }
    }

    /// The allowed excess of the last third over the time before, without any growth: where streams or connections are
    /// short-lived, their number varies between few and the maximum.
    fn turnover(&self, config: &Config) -> u64 {
        match self.holds {
            Holds::Streams(bytes) => u64::from(config.max_streams()) * bytes,
            Holds::HalfOpen => u64::from(config.max_half_open()) * READ_BUFFER,
            Holds::Unfinished | Holds::Both => 0,
        }
    }

    /// Memory that leaks makes a third of its growth in the last third of the time, and this is a tenth of that.
    fn is_plateau(&self, server: &Server, seen: &Seen) -> bool {
        let slack = SLACK_BYTES + self.turnover(&server.config);
        seen.growth <= slack.max(seen.peak / 32)
    }

    /// The reasons that the server is to give and has not given.
    fn missing(&self, result: &attacker::Result) -> Vec<&'static str> {
        let mut missing = Vec::new();
        for (_, reasons) in ENDED.iter().filter(|(name, _)| *name == self.name) {
            missing.extend(
                reasons
                    .iter()
                    .filter(|it| !result.answers.contains_key(**it)),
            );
        }
        missing
    }

    /// Whether it reaches its limits at this pace in the time of a test. The others' memory is checked by `filled`.
    fn reaches(&self) -> bool {
        matches!(self.holds, Holds::Streams(_))
    }
}

macro_rules! attacks {
    ($serves:ident: $($attack:ident: $connections:literal $holds:expr, $profiles:ident;)+) => {
        $(mod $attack {
            #[allow(unused_imports)]
            use super::Holds::{Both, HalfOpen, Streams, Unfinished};
            use super::{Attack, Driver, Profile, Serves};

            const ATTACK: Attack = Attack {
                name: stringify!($attack),
                connections: $connections,
                holds: $holds,
                serves: Serves::$serves,
            };
            $profiles!();
        })+
    };
}

macro_rules! withstood {
    ($($name:ident: $driver:ident $profile:ident;)+) => {
        $(#[test]
        fn $name() {
            super::withstood(&ATTACK, Driver::$driver, Profile::$profile);
        })+
    };
}

macro_rules! filled {
    ($($name:ident: $driver:ident $profile:ident;)+) => {
        $(#[test]
        fn $name() {
            super::filled(&ATTACK, Driver::$driver, Profile::$profile);
        })+
    };
}

macro_rules! flooded {
    ($($name:ident: $driver:ident $profile:ident;)+) => {
        $(#[test]
        fn $name() {
            super::flooded(&ATTACK, Driver::$driver, Profile::$profile);
        })+
    };
}

/// For rules that both profiles have.
macro_rules! same {
    () => {
        withstood! {
            uring: Uring Mesh;
            tokio_uring: TokioUring Mesh;
            tokio: Tokio Mesh;
        }
    };
}

/// For attacks that can go on without end.
macro_rules! endless {
    () => {
        same!();
        flooded! {
            uring_at_full_pace: Uring Mesh;
            tokio_uring_at_full_pace: TokioUring Mesh;
            tokio_at_full_pace: Tokio Mesh;
        }
    };
}

/// For limits that only the edge has.
macro_rules! differ {
    () => {
        endless!();
        flooded! {
            tokio_edge_at_full_pace: Tokio Edge;
        }
        withstood! {
            uring_edge: Uring Edge;
            tokio_uring_edge: TokioUring Edge;
            tokio_edge: Tokio Edge;
        }
    };
}

/// For attacks whose held memory differs between the profiles.
macro_rules! fill {
    () => {
        withstood! {
            uring_small: Uring Small;
            tokio_uring_small: TokioUring Small;
            tokio_small: Tokio Small;
            uring: Uring Mesh;
            uring_edge: Uring Edge;
            tokio_uring_edge: TokioUring Edge;
            tokio_edge: Tokio Edge;
        }
        filled! {
            uring_small_at_full_pace: Uring Small;
            tokio_uring_small_at_full_pace: TokioUring Small;
            tokio_small_at_full_pace: Tokio Small;
            uring_edge_at_full_pace: Uring Edge;
            tokio_uring_edge_at_full_pace: TokioUring Edge;
            tokio_edge_at_full_pace: Tokio Edge;
        }
    };
}

/// For calls, which the library's drivers do not see.
macro_rules! calls {
    () => {
        withstood! {
            uring: Uring Mesh;
            tokio: Tokio Mesh;
        }
        flooded! {
            tokio_edge_at_full_pace: Tokio Edge;
        }
    };
}

/// For calls in frames, whose buffers the drivers read.
macro_rules! frames {
    () => {
        same!();
    };
}

/// The same for attacks that can go on without end, or are ended by limits that only the edge has.
macro_rules! endless_frames {
    () => {
        frames!();
        flooded! {
            tokio_edge_at_full_pace: Tokio Edge;
        }
    };
}

/// For calls on so many sessions that they could take all places of the server.
macro_rules! fill_calls {
    () => {
        calls!();
        flooded! {
            tokio_at_full_pace: Tokio Mesh;
        }
    };
}

attacks! { Streams:
    rapid_reset: 1 Streams(1 << 10), differ;
    made_you_reset: 1 Unfinished, same;
    tiny_frames: 1 Streams(0), endless;
    shared_slices: 1 Both, fill;
    metadata: 1 Streams(24 << 10), endless;
    ping_flood: 1 Streams(0), differ;
    window_flood: 1 Streams(0), differ;
    ignored_frames: 1 Streams(0), differ;
    credit_overflow: 1 Streams(0), same;
    zero_window: 2 Both, fill;
    slowloris: 300 HalfOpen, fill;
    id_wrap: 1 Streams(1 << 10), same;
    many_windows: 16 Unfinished, fill;
    oversized: 1 Streams(0), same;
}

attacks! { Calls:
    call_flood: 1 Streams(4 << 10), calls;
    call_malformed: 1 Streams(0), calls;
    call_reset: 1 Streams(4 << 10), calls;
    call_unfinished: 17 Streams(8 << 10), fill_calls;
    call_metadata: 1 Streams(24 << 10), calls;
    call_unknown: 1 Streams(0), calls;
    call_late: 1 Streams(0), calls;
}

attacks! { Calls:
    unary_unread: 2 Both, endless_frames;
    unary_reset: 1 Streams(4 << 10), endless_frames;
    unary_held: 2 Streams(4 << 10), frames;
    unary_largest: 1 Streams(24 << 10), endless_frames;
    unary_broken: 6 Streams(24 << 10), frames;
    unary_half: 64 Streams(0), frames;
    unary_unknown: 2 Streams(4 << 10), endless_frames;
    unary_replies: 2 Streams(4 << 10), frames;
}

/// Attacks that hold calls, all at once, and a server that is shut down under them.
mod shut_down_under_calls_in_frames {
    use super::{Driver, shut_down};

    #[test]
    fn uring() {
        shut_down(Driver::Uring);
    }

    #[test]
    fn tokio_uring() {
        shut_down(Driver::TokioUring);
    }

    #[test]
    fn tokio() {
        shut_down(Driver::Tokio);
    }
}

/// The attacks over DRPC, with what each can make the server hold.
const OVER_DRPC: [(&str, Holds); 7] = [
    ("drpc-reset", Holds::Streams(1 << 10)),
    ("drpc-invokes", Holds::Both),
    ("drpc-setups", Holds::Both),
    ("drpc-unfinished", Holds::Unfinished),
    ("drpc-unread", Holds::Both),
    ("drpc-ignored", Holds::Streams(0)),
    ("drpc-oversized", Holds::Streams(0)),
];

/// On one driver, as the wire is the same on all, and with the limits of the edge, made small. Times are those of a busy machine.
#[test]
fn over_drpc_each_attack_is_bounded_and_the_neighbour_is_served() {
    alone(|| {
        let config = Profile::Small.builder().detect_drpc(Some(Drpc::COCKROACH));
        let server = Server::start(Driver::Uring, config.build().unwrap(), Serves::Streams);
        for (name, holds) in OVER_DRPC {
            let attack = Attack {
                name,
                connections: 1,
                holds,
                serves: Serves::Streams,
            };
            println!("{name}:");
            bounded(&attack, &server, || {
                let at = (&server.addr, Serves::Streams);
                attacker::play_over("drpc-cockroach", at, name, Pace::Usual, TIME)
            });
        }
    });
}

/// An attack that could send nothing does not count as withstood.
#[test]
fn calls_in_frames_are_no_attack_on_a_server_that_takes_none() {
    alone(|| {
        for takes in [true, false] {
            let config = Profile::Small.builder().calls(takes).build().unwrap();
            let server = Server::start(Driver::Uring, config, Serves::Calls);
            let names = "unary-reset,unary-half,call-reset";
            let played = attacker::applicable((&server.addr, Serves::Calls), names);
            assert_eq!(played, [takes, takes, true]);
        }
    });
}

/// Attacks a new server at the attack's pace, and checks all claims. Other work on the machine changes between the halves of a
/// measurement, and makes either figure greater now and then; an attack that is noticed makes the same one greater in each.
fn withstood(attack: &Attack, driver: Driver, profile: Profile) {
    let least = Cell::new((f64::INFINITY, f64::INFINITY));
    looked_at(attack, driver, profile, |server, time| {
        let (seen, result) = attacked(attack, server, Pace::Usual, time);
        let plateau = !attack.reaches() || attack.is_plateau(server, &seen);
        let (p99, average) = (result.ratio, result.slowdown);
        let longest = Duration::from_nanos(result.p99_ns[1]);
        let is_short = attack.serves == Serves::Calls && longest < SHORT_CALL;
        let (least_p99, least_average) = least.get();
        least.set((least_p99.min(p99), least_average.min(average)));
        let noticed = least.get().0.max(least.get().1) >= RATIO_MAX && !is_short;
        let missing = attack.missing(&result);
        let seen = format!(
            "{missing:?} missing, p99 x {p99:.2} ({longest:?}), average x {average:.2}, {seen}"
        );
        (plateau && !noticed && missing.is_empty())
            .then_some(())
            .ok_or(seen)
    });
}

/// Shuts a server down while calls in frames are held, half received, cancelled and not read.
fn shut_down(driver: Driver) {
    alone(|| {
        let server = Server::start(driver, Profile::Mesh.config(), Serves::Calls);
        let at = (&server.addr, Serves::Calls);
        let attacks = ["unary_held", "unary_half", "unary_unread", "unary_largest"];
        let attacks = attacks.map(|name| attacker::Endless::start(at, name));
        // The first holds all places of one session, the last those of another one.
        let enough = u64::from(server.config.max_streams()) * 3 / 2;
        let since = Instant::now();
        while server.in_flight() < enough {
            let calls = server.in_flight();
            assert!(since.elapsed() < SETTLE, "{calls} calls, of {enough}");
            thread::sleep(Duration::from_millis(2));
        }
        attacks.iter().for_each(attacker::Endless::stand_still);
        let took = server.shutdown(GRACE);
        println!("{driver}: {took:?} of {GRACE:?}");
        assert!((GRACE..GRACE + SHUTDOWN_SLACK).contains(&took), "{took:?}");
        drop(attacks);
    });
}

/// Attacks a server at full pace, which shows where its memory stays: the limits are reached early in each measurement.
/// The neighbour's times are then those of a busy machine.
fn filled(attack: &Attack, driver: Driver, profile: Profile) {
    looked_at(attack, driver, profile, |server, time| {
        let (seen, _) = attacked(attack, server, Pace::Full, 2 * time);
        let plateau = attack.is_plateau(server, &seen);
        plateau.then_some(()).ok_or(seen.to_string())
    });
}

/// Attacks a server at full pace, which is bounded by its work per session and turn.
fn flooded(attack: &Attack, driver: Driver, profile: Profile) {
    looked_at(attack, driver, profile, |server, time| {
        let (seen, result) = attacked(attack, server, Pace::Full, 2 * time);
        let p99 = Duration::from_nanos(result.p99_ns[1]);
        let unnoticed = p99 < FLOODED_P99_MAX;
        unnoticed
            .then_some(())
            .ok_or(format!("p99 {p99:?}, {seen}"))
    });
}

/// Measures an attack on a server until the claims hold, each time for longer.
fn looked_at(
    attack: &Attack,
    driver: Driver,
    profile: Profile,
    look: impl Fn(&Server, Duration) -> Result<(), String>,
) {
    alone(|| {
        println!("{} {driver} {profile:?}:", attack.name);
        let server = Server::start(driver, profile.config(), attack.serves);
        let mut missed = Vec::new();
        for n in 0..LOOKS {
            match look(&server, TIME * (1 << n)) {
                Ok(()) => return,
                Err(seen) => missed.push(seen),
            }
        }
        panic!("{missed:#?}");
    });
}

/// One test at a time.
fn alone(test: impl FnOnce()) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    test();
}

/// One attack, and the claims for each measurement.
fn attacked(
    attack: &Attack,
    server: &Server,
    pace: Pace,
    time: Duration,
) -> (Seen, attacker::Result) {
    bounded(attack, server, || {
        attacker::play((&server.addr, attack.serves), attack.name, pace, time)
    })
}

/// The claims for an attack that `play` plays.
fn bounded(
    attack: &Attack,
    server: &Server,
    play: impl FnOnce() -> attacker::Result,
) -> (Seen, attacker::Result) {
    let bound = attack.bound(&server.config);
    let streams = u64::from(server.config.max_streams());
    let watch = Watch::start();
    let result = play();
    let seen = watch.stop();
    let handlers = server.most_handlers();
    println!("{seen} (bound {bound}), {handlers} handlers, {result:?}");
    assert_eq!(result.failure, None);
    let served = result.round_trips.iter().all(|&calls| calls > 0);
    assert!(served && result.connections > 0, "{result:?}");
    assert!(seen.peak <= bound, "{seen}, of {bound}");
    assert!(handlers <= streams, "{handlers} of {streams}");
    given_back(seen.before + TABLES * attack.connections.next_power_of_two());
    (seen, result)
}

fn given_back(most: u64) {
    let since = Instant::now();
    while memory::live() > most + SLACK_BYTES {
        let now = memory::live();
        assert!(since.elapsed() < SETTLE, "{now} bytes are left, of {most}");
        thread::sleep(Duration::from_millis(2));
    }
}
