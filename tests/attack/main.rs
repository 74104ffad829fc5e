//! A server that is attacked, by the program `ringmux attack`, in each of the ways A1 to A13, on each driver.
//!
//! The server is this process and nothing else is, so the allocator sees its memory alone; the attacker and the
//! well-behaved neighbour are a process of their own, which tells how the neighbour fared. One test at a time.
//!
//! What is claimed of each: the memory stays within what the server's [`Config`] allows, does not grow in the second
//! half, and all of it is given back; no session has more handlers than it may have streams; all calls of the neighbour
//! and one of a newcomer are answered; and the 99th percentile of the neighbour's calls stays below twice what it is
//! without the attack.

mod attacker;
mod memory;
mod server;

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringmux::{Config, Driver};

use memory::Watch;
use server::Server;

/// Attempts at the neighbour's times, on a machine that does other things as well. The other claims hold in each.
const ATTEMPTS: usize = 6;
/// Until when what the attack took must be given back.
const SETTLE: Duration = Duration::from_secs(20);

/// What an attack can make a session hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// Streams, and what lies in them when it comes.
    Streams,
    /// Its receive window.
    Received,
    /// Its receive window, and what is to be sent.
    Both,
}

#[derive(Clone, Copy, Debug)]
enum Profile {
    Mesh,
    Edge,
}

impl Profile {
    fn config(self) -> Config {
        let builder = match self {
            Self::Mesh => Config::builder(),
            Self::Edge => Config::edge(),
        };
        builder.build().unwrap()
    }
}

macro_rules! attacks {
    ($($attack:ident: $connections:literal $holds:ident $profiles:ident;)+) => {
        $(mod $attack {
            use super::{Attack, Driver, Holds, Profile, withstood};
            const ATTACK: Attack = Attack {
                name: stringify!($attack),
                connections: $connections,
                holds: Holds::$holds,
            };
            on_drivers!($profiles);
        })+
    };
}

macro_rules! on_drivers {
    (mesh) => {
        #[test]
        fn uring() {
            withstood(ATTACK, Driver::Uring, Profile::Mesh);
        }
        #[test]
        fn tokio_uring() {
            withstood(ATTACK, Driver::TokioUring, Profile::Mesh);
        }
        #[test]
        fn tokio() {
            withstood(ATTACK, Driver::Tokio, Profile::Mesh);
        }
    };
    (both) => {
        on_drivers!(mesh);
        #[test]
        fn uring_edge() {
            withstood(ATTACK, Driver::Uring, Profile::Edge);
        }
        #[test]
        fn tokio_uring_edge() {
            withstood(ATTACK, Driver::TokioUring, Profile::Edge);
        }
        #[test]
        fn tokio_edge() {
            withstood(ATTACK, Driver::Tokio, Profile::Edge);
        }
    };
}

// Connections as `ringmux attack` makes them. `mesh` only: where both profiles have the same rule.
attacks! {
    rapid_reset: 1 Streams both;
    made_you_reset: 1 Received both;
    tiny_frames: 1 Received mesh;
    shared_slices: 1 Both both;
    metadata: 1 Received mesh;
    ping_flood: 1 Streams both;
    window_flood: 1 Streams both;
    credit_overflow: 1 Received mesh;
    zero_window: 2 Both both;
    slowloris: 300 Streams both;
    id_wrap: 1 Streams mesh;
    many_windows: 32 Received both;
    oversized: 1 Streams mesh;
}

struct Attack {
    name: &'static str,
    connections: u64,
    holds: Holds,
}

impl Attack {
    /// What the configuration lets the attack hold, in bytes.
    ///
    /// A session has a read buffer and a batch; a stream its tables, its rings at their smallest, and the task of its
    /// handler. A stalled stream holds at most twice its window. What is to be sent is bounded for each stream.
    fn bound(&self, config: &Config) -> u64 {
        const SESSION: u64 = 512 << 10;
        const STREAM: u64 = 8 << 10;
        const HANDSHAKE: u64 = 8 << 10;
        let streams = u64::from(config.max_streams());
        let received = 2 * u64::from(config.session_window_max());
        let queued = streams * u64::from(config.send_buffer());
        let held = match self.holds {
            Holds::Streams if self.name == "slowloris" => return self.connections * HANDSHAKE,
            Holds::Streams => 0,
            Holds::Received => received,
            Holds::Both => received + queued,
        };
        self.connections * (SESSION + streams * STREAM + held)
    }
}

/// Attacks a server of its own, and looks at everything that is claimed.
fn withstood(attack: Attack, driver: Driver, profile: Profile) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let config = profile.config();
    let bound = attack.bound(&config);
    let server = Server::start(driver, config);
    let mut ratios = Vec::new();
    while ratios.len() < ATTEMPTS {
        let watch = Watch::start();
        let result = attacker::play(&server.addr, &attack.name.replace('_', "-"));
        let seen = watch.stop();
        println!(
            "{} {driver} {profile:?}: {seen:?} of {bound}; {result:?}; handlers {}",
            attack.name,
            server.most_handlers()
        );
        assert_eq!(result.failure, None);
        assert!(
            result.connections > 0 && result.round_trips.iter().all(|&n| n > 0),
            "{result:?}"
        );
        assert!(seen.peak <= bound, "{seen:?}, of {bound}");
        assert!(seen.growth <= memory::SLACK_BYTES, "{seen:?}");
        let streams = u64::from(server.config.max_streams());
        assert!(
            server.most_handlers() <= streams,
            "{} of {streams}",
            server.most_handlers()
        );
        given_back(seen.before);
        ratios.push(result.ratio);
        if result.ratio < 2.0 {
            return;
        }
    }
    panic!("the neighbour's p99 was {ratios:?} times what it was without the attack");
}

fn given_back(before: u64) {
    let since = Instant::now();
    while memory::live() > before + memory::SLACK_BYTES {
        let now = memory::live();
        assert!(since.elapsed() < SETTLE, "{now} bytes, {before} before");
        thread::sleep(Duration::from_millis(2));
    }
}
