//! The plan of a run: a function of its seed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Kind;
use super::wired::{Checked, Wired};
use super::workload::{CallMix, Mix, Serving};
use crate::bridge::tests::net::{Cut, Pipe, Rng, Weather};
use crate::bridge::tests::{A, D, Pair, Pool, config};
use crate::config::{Config, ConfigBuilder};
use crate::drpc::{CancelForm, ErrorForm, FlowControl, Profile};
use crate::handle::Session;
use crate::wire::{Drpc, Native};

/// Longer than any run: a freeze until then lasts for ever.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);

/// A client or a server: all its sessions share a pool.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) config: Config,
    pub(super) pool: Arc<Pool>,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) clients: Vec<Process>,
    pub(super) servers: Vec<Process>,
    /// When a server shuts all its sessions down, in microseconds from the start, and its grace.
    pub(super) restarts: Vec<Option<(usize, Duration)>>,
    /// Sessions that each client has at most, one after the other.
    pub(super) rounds: usize,
    /// Memory is short somewhere.
    pub(super) small: bool,
    mix: Mix,
    weather: Weather,
    /// Sessions without a fault, one in this many; the others have a fate.
    calm: usize,
    /// The variant of DRPC that is spoken; processes differ in flow control, and in the form of errors.
    pub(super) drpc: Option<Profile>,
}

/// How a session ends, if not because all is done.
#[derive(Clone, Debug)]
pub(super) enum Fate {
    AllIsDone,
    /// After this long a side calls `close`.
    Close {
        side: usize,
        after: Duration,
    },
    /// After this long these sides shut down.
    Shutdown {
        sides: [bool; 2],
        after: Duration,
        grace: Duration,
    },
    /// After this long a side's process dies.
    Crash {
        side: usize,
        after: Duration,
        how: Cut,
    },
    /// A direction ends after this many bytes.
    Cut {
        side: usize,
        at: u64,
        how: Cut,
    },
    /// After this long nothing arrives in these directions, for this long.
    Freeze {
        sides: [bool; 2],
        after: Duration,
        time: Duration,
    },
}

impl Plan {
    pub(super) fn of(seed: u64, kind: Kind) -> Self {
        let mut rng = Rng::of(seed, 0);
        // A run of one session may do more in it.
        let alone = rng.one_in(3);
        let (clients, servers) = if alone {
            (1, 1)
        } else {
            (rng.range(1, 3), rng.range(1, 2))
        };
        let small = rng.one_in(4);
        let weather = random_weather(&mut rng);
        let drpc = (kind == Kind::Drpc).then(|| Dialect::random(&mut Rng::of(seed, 3)));
        let mut processes = |n: usize| {
            let all = (0..n).map(|_| random_process(&mut rng, small, drpc.as_ref()));
            all.collect()
        };
        let (clients, servers): (Vec<_>, Vec<_>) = (processes(clients), processes(servers));
        let restarts = servers.iter().map(|_| {
            let grace = Duration::from_millis(rng.pick(&[0, 20, 1000, 30_000]));
            rng.one_in(4).then(|| (rng.below(100_000), grace))
        });
        let restarts = restarts.collect();
        let rounds = if alone { 1 } else { rng.range(1, 3) };
        let mut mix = random_mix(&mut rng, alone);
        if kind == Kind::Calls {
            mix.calls = random_calls(&mut Rng::of(seed, 2), alone);
        }
        if drpc.is_some() {
            mix.drpc = true;
            mix.streams = [mix.streams[0] + mix.streams[1], 0];
        }
        Self {
            drpc: drpc.map(|dialect| dialect.profile),
            restarts,
            rounds,
            mix,
            calm: rng.pick(&[1, 2, 4]),
            clients,
            servers,
            small,
            weather,
        }
    }

    /// The behaviour of a session's applications.
    pub(super) fn mix(&self, rng: &mut Rng) -> Mix {
        Mix {
            leave: rng.one_in(8).then(|| (rng.below(2), rng.below(10))),
            ..self.mix.clone()
        }
    }

    pub(super) fn fate(&self, rng: &mut Rng) -> Fate {
        if rng.one_in(self.calm) {
            return Fate::AllIsDone;
        }
        let (side, after) = (rng.below(2), rng.micros(50_000));
        let sides = rng.pick(&[[true, false], [false, true], [true, true]]);
        let how = rng.pick(&[Cut::Eof, Cut::Error]);
        match rng.below(8) {
            0 => Fate::Close { side, after },
            1 | 2 => {
                let grace = Duration::from_millis(rng.pick(&[0, 20, 1000, 30_000]));
                Fate::Shutdown {
                    sides,
                    after,
                    grace,
                }
            }
            3 => Fate::Crash { side, after, how },
            4 | 5 => {
                let most = rng.pick(&[0, 7, 100, 5000, 100_000, 1_000_000]);
                let at = rng.below(most + 1) as u64;
                Fate::Cut { side, at, how }
            }
            _ => {
                // Of a handshake as well.
                let after = if rng.one_in(2) { Duration::ZERO } else { after };
                let time = rng.pick(&[5, 500, 11_000, 24_000]);
                // Over DRPC a peer that is silent for ever, and takes what is sent, is waited for.
                let time = if rng.one_in(2) && self.drpc.is_none() {
                    FOR_EVER
                } else {
                    Duration::from_millis(time)
                };
                Fate::Freeze { sides, after, time }
            }
        }
    }

    /// A connection from a client to a server, and the part of its fate that is the network's.
    pub(super) fn pair(
        &self,
        now: Instant,
        [client, server]: [usize; 2],
        fate: &Fate,
        seed: u64,
    ) -> (Box<dyn Wired>, [Session; 2]) {
        match self.drpc {
            Some(_) => self.connection::<Drpc>(now, [client, server], fate, seed),
            None => self.connection::<Native>(now, [client, server], fate, seed),
        }
    }

    fn connection<W: Checked + 'static>(
        &self,
        now: Instant,
        [client, server]: [usize; 2],
        fate: &Fate,
        seed: u64,
    ) -> (Box<dyn Wired>, [Session; 2]) {
        let (client, server) = (&self.clients[client], &self.servers[server]);
        let pools = [Arc::clone(&client.pool), Arc::clone(&server.pool)];
        let ends = [&client.config, &server.config];
        let mut pair: Pair<W> = Pair::at(now, ends[0], ends[1], &pools, &self.weather, seed);
        let freeze = |pipe: &mut Pipe, frozen: bool, after, time| {
            pipe.frozen = frozen.then(|| (now + after, now + after + time));
        };
        match *fate {
            Fate::Cut { side, at, how } => pair.pipes[side].cut = Some((at, how)),
            Fate::Freeze { sides, after, time } => {
                for (pipe, frozen) in pair.pipes.iter_mut().zip(sides) {
                    freeze(pipe, frozen, after, time);
                }
            }
            _ => {}
        }
        let sessions = [D, A].map(|side| pair.ends[side].session.take().expect("the first"));
        (Box::new(pair), sessions)
    }

    /// So slow that a final GOAWAY may not arrive in time.
    pub(super) const fn is_slow(&self) -> bool {
        self.weather.stall > 0 || self.weather.capacity < 64 * 1024
    }

    /// Bytes of long messages that a run may send: every byte has to be moved in pieces.
    pub(super) fn budget(&self) -> usize {
        match self.weather.piece {
            300 | 5000 => 200_000,
            _ => 1_000_000,
        }
    }
}

/// What all processes of a run over DRPC have in common.
struct Dialect {
    profile: Profile,
    /// Limits that the wire does not tell the peer.
    max_message: u32,
    max_streams: u32,
}

impl Dialect {
    fn random(rng: &mut Rng) -> Self {
        let profile = rng.pick(&[
            Profile::STORJ,
            Profile::COCKROACH_BEFORE_MUX,
            Profile::COCKROACH,
            Profile::COCKROACH,
        ]);
        let hard = rng.one_in(4);
        Self {
            profile: profile
                .cancel(if hard {
                    CancelForm::Hard
                } else {
                    CancelForm::Soft
                })
                .window(rng.pick(&[20_000, 100_000, 2 << 20]))
                .header(rng.one_in(2)),
            max_message: rng.pick(&[64 * 1024, 300 * 1024, 1 << 20]),
            max_streams: rng.range(16, 40) as u32,
        }
    }

    fn configure(&self, rng: &mut Rng, config: ConfigBuilder) -> ConfigBuilder {
        let flow = rng.pick(&[FlowControl::Off, FlowControl::WhenSeen, FlowControl::On]);
        let form = rng.pick(&[ErrorForm::Code, ErrorForm::Status]);
        config
            .drpc(self.profile.flow_control(flow).errors(form))
            .max_message(self.max_message)
            .max_streams(self.max_streams)
    }
}

fn random_process(rng: &mut Rng, small: bool, drpc: Option<&Dialect>) -> Process {
    let size = if small {
        rng.range(0, 900_000) as u64
    } else {
        1 << 30
    };
    Process {
        config: random_config(rng, drpc),
        pool: Pool::new(size),
    }
}

fn random_config(rng: &mut Rng, drpc: Option<&Dialect>) -> Config {
    let stream_window = rng.pick(&[32 * 1024, 32 * 1024 + 1, 40_001, 64 * 1024, 200_000]);
    let session_window = rng.pick(&[256 * 1024, 256 * 1024 + 7, 1 << 20]);
    let send_buffer = rng.pick(&[4 * 1024, 5000, 64 * 1024, 256 * 1024]);
    let config = config()
        .max_frame(rng.pick(&[16 * 1024, 16 * 1024, 20_001, 64 * 1024]))
        .max_message(rng.pick(&[64 * 1024, 300 * 1024, 1 << 20]))
        .stream_window(stream_window)
        .stream_window_max(stream_window * rng.range(1, 4) as u32)
        .session_window(session_window)
        .session_window_max(session_window * rng.range(1, 4) as u32)
        .max_streams(rng.range(16, 40) as u32)
        .send_buffer(send_buffer)
        .session_send_buffer(send_buffer + rng.pick(&[0, 3000, 16 * 1024, 1 << 20]));
    let config = match drpc {
        Some(drpc) => drpc.configure(rng, config),
        None => config,
    };
    config.build().expect("valid")
}

fn random_weather(rng: &mut Rng) -> Weather {
    Weather {
        delay: rng.pick(&[0, 50, 1000, 10_000]),
        capacity: rng.pick(&[3000, 64 * 1024, 1 << 20]),
        piece: rng.pick(&[0, 0, 300, 5000, 70_000]),
        stall: rng.pick(&[0, 0, 50]),
        rate: 0,
    }
}

fn random_mix(rng: &mut Rng, alone: bool) -> Mix {
    let most = if alone {
        rng.pick(&[3, 10, 30])
    } else {
        rng.pick(&[2, 6])
    };
    Mix {
        streams: [rng.below(most + 1), rng.below(most + 1)],
        messages: rng.pick(&[3, 10, if alone { 30 } else { 10 }]),
        long: rng.pick(&[3, 8, 40]),
        rude: rng.pick(&[1, 3, 1000]),
        pause: rng.pick(&[100, 20_000, 300_000]),
        leave: None,
        hold: (rng.pick(&[0, 4]), rng.pick(&[10, 2000, 40_000])),
        calls: CallMix::default(),
        drpc: false,
    }
}

fn random_calls(rng: &mut Rng, alone: bool) -> CallMix {
    let most = rng.pick(if alone { &[5, 20, 60] } else { &[2, 5, 10] });
    let serving = |rng: &mut Rng| match rng.below(6) {
        0 => Serving::Never,
        1 => Serving::Shifts(rng.range(1, 6)),
        _ => Serving::Always,
    };
    CallMix {
        made: [rng.below(most + 1), rng.below(most + 1)],
        taken: [serving(rng), serving(rng)],
    }
}
