//! A server that is attacked, by the program `ringmux attack`, in each of the ways A1 to A13, on each driver.
//!
//! The server is this process and nothing else is, so the allocator sees its memory alone; the attacker and the
//! well-behaved neighbour are a process of their own, which tells how the neighbour fared. One test at a time.
//!
//! What is claimed of each: the memory stays within what the server's [`Config`] allows, does not grow in the last
//! third, and all of it is given back; no session has more handlers than it may have streams; all calls of the neighbour
//! and one of a newcomer are answered; and the 99th percentile of the neighbour's calls, and their average, stay below
//! twice what they are without the attack, which is played at its usual pace. Of what can be said without end it is also
//! claimed, at full pace, that the neighbour goes on being served at once.

mod attacker;
mod memory;
mod server;

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringmux::{Config, Driver};

use attacker::Pace;
use memory::{SLACK_BYTES, Seen, Watch};
use server::Server;

/// How long an attack is played at first, and paused as long again.
const TIME: Duration = Duration::from_millis(150);
/// Looks at what depends on when things happen: the neighbour's times, and whether an attack has reached its limits before
/// the last third. The machine does other things as well, so each look takes twice the time of the one before: what
/// the attack does to the neighbour is there in all of it, what else the machine does is not. The other claims hold in
/// each.
const LOOKS: u32 = 7;
/// What the neighbour's p99 and its average may be of what they are without the attack.
const RATIO_MAX: f64 = 2.0;
/// What the neighbour's p99 may be beside as much of an attack as the server takes. It is below 10 ms where a processor is
/// left for the neighbour; here two are shared by an attacker, a server, a neighbour and whatever else the machine does,
/// each of which has some milliseconds at a time.
const FLOODED_P99_MAX: Duration = Duration::from_millis(100);
/// Until when what the attack took must be given back.
const SETTLE: Duration = Duration::from_secs(20);

/// The read buffer of a session or of a handshake: two of the largest frames, and what is beside it.
const READ_BUFFER: u64 = 2 * (16 << 10) + (16 << 10);
/// The batch that is written, and a session's own tables.
const SESSION: u64 = 512 << 10;
/// A stream's tables, its rings at their smallest, and the task of its handler.
const STREAM: u64 = 8 << 10;
/// The receive window of a session that has nothing out of the pool.
const FLOOR: u64 = 256 << 10;
/// What each stream may queue for sending beside the session's buffer.
const FLOOR_QUEUED: u64 = 4 << 10;
/// The longest message that an attack has answered, and what it weighs beside its length.
const ANSWER: u64 = (16 << 10) + 256;
/// What a handler has in hand while it waits to send it: a message of an attack, and the buffer that it pins.
const IN_HAND: u64 = 32 << 10;
/// What stays in the tables of the server, which double when they are full, for each connection that was there at once.
const TABLES: u64 = 2 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Mesh,
    Edge,
    /// The edge, with limits so small that an attack reaches them at once and shows that it stays there.
    Small,
}

impl Profile {
    fn config(self) -> Config {
        let builder = match self {
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
        };
        builder.build().unwrap()
    }
}

/// What is known of an attack beside its name.
struct Attack {
    name: &'static str,
    /// As `ringmux attack` makes them.
    connections: u64,
    holds: Holds,
}

/// What an attack can make the server hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// Connections without a session.
    HalfOpen,
    /// Streams that come and go, each with so many bytes in it.
    Streams(u64),
    /// Messages that are never completed.
    Unfinished,
    /// Its receive windows, and what is to be sent.
    Both,
}

impl Attack {
    /// What the configuration lets the attack hold, in bytes. What is received takes at most twice its credit; that of
    /// messages that are never completed is the pool's, whatever the sessions' windows are. Handlers go on for a moment
    /// when their session has ended, beside those of the next one.
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

    /// How much more the last third may hold than what was before, without anything that grows: where streams or connections
    /// come and go, there are now few and now as many as there may be.
    fn turnover(&self, config: &Config) -> u64 {
        match self.holds {
            Holds::Streams(bytes) => u64::from(config.max_streams()) * bytes,
            Holds::HalfOpen => u64::from(config.max_half_open()) * READ_BUFFER,
            Holds::Unfinished | Holds::Both => 0,
        }
    }

    fn is_plateau(&self, server: &Server, seen: &Seen) -> bool {
        seen.growth <= SLACK_BYTES + self.turnover(&server.config)
    }

    /// Whether it reaches its limits at this pace in the time of a test. What others hold is looked at by `filled`.
    fn reaches(&self) -> bool {
        matches!(self.holds, Holds::Streams(_))
    }
}

macro_rules! attacks {
    ($($attack:ident: $connections:literal $holds:expr, $profiles:ident;)+) => {
        $(mod $attack {
            #[allow(unused_imports)]
            use super::Holds::{Both, HalfOpen, Streams, Unfinished};
            use super::{Attack, Driver, Profile};

            const ATTACK: Attack = Attack {
                name: stringify!($attack),
                connections: $connections,
                holds: $holds,
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

/// Where both profiles have the same rule.
macro_rules! same {
    () => {
        withstood! {
            uring: Uring Mesh;
            tokio_uring: TokioUring Mesh;
            tokio: Tokio Mesh;
        }
    };
}

/// Where that may be said without end.
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

/// Where the edge has limits that the mesh has not.
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

/// Where the profiles differ by how much is held.
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

attacks! {
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

/// Attacks a server of its own at the attack's pace, and looks at everything that is claimed.
fn withstood(attack: &Attack, driver: Driver, profile: Profile) {
    looked_at(attack, driver, profile, |server, time| {
        let (seen, result) = attacked(attack, server, Pace::Usual, time);
        let plateau = !attack.reaches() || attack.is_plateau(server, &seen);
        let (p99, average) = (result.ratio, result.slowdown);
        let noticed = p99.max(average) >= RATIO_MAX;
        let seen = format!("p99 x {p99:.2}, average x {average:.2}, {seen}");
        (plateau && !noticed).then_some(()).ok_or(seen)
    });
}

/// Attacks a server as fast as it takes it, which shows where its memory stays: the limits are reached early in each look.
/// A neighbour's times are those of a busy machine then.
fn filled(attack: &Attack, driver: Driver, profile: Profile) {
    looked_at(attack, driver, profile, |server, time| {
        let (seen, _) = attacked(attack, server, Pace::Full, 2 * time);
        let plateau = attack.is_plateau(server, &seen);
        plateau.then_some(()).ok_or(seen.to_string())
    });
}

/// Attacks a server as fast as it takes it: what comes is bounded by what it does for one session at a time.
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

/// Looks at an attack on a server until it is as it should be, each time for longer.
fn looked_at(
    attack: &Attack,
    driver: Driver,
    profile: Profile,
    look: impl Fn(&Server, Duration) -> Result<(), String>,
) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{} {driver} {profile:?}:", attack.name);
    let server = Server::start(driver, profile.config());
    let mut missed = Vec::new();
    for n in 0..LOOKS {
        match look(&server, TIME * (1 << n)) {
            Ok(()) => return,
            Err(seen) => missed.push(seen),
        }
    }
    panic!("{missed:#?}");
}

/// One attack, and what is claimed of each.
fn attacked(
    attack: &Attack,
    server: &Server,
    pace: Pace,
    time: Duration,
) -> (Seen, attacker::Result) {
    let bound = attack.bound(&server.config);
    let streams = u64::from(server.config.max_streams());
    let watch = Watch::start();
    let result = attacker::play(&server.addr, attack.name, pace, time);
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
