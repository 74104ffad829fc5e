//! Replays every checked-in seed on a stable compiler; and generates the seeds.

use std::fs;
use std::path::PathBuf;

use bytes::BytesMut;

use super::*;
use crate::wire::native::frame::put::put;
use crate::wire::native::frame::tests::golden::golden;
use crate::wire::native::frame::tests::id;
use crate::wire::native::frame::{Frame, Role, Scope, Settings, preface};

/// A target and its body.
type Target = (&'static str, fn(&[u8]));

const TARGETS: &[Target] = &[
    ("codec", codec),
    ("peer", peer),
    ("pair", pair),
    ("drpc", drpc),
    ("drpc_pair", drpc_pair),
    #[cfg(feature = "rpc")]
    ("calls", calls),
];

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target)
}

#[test]
fn every_seed_is_survived() {
    for (target, body) in TARGETS {
        let mut seen = 0;
        for entry in fs::read_dir(folder(target)).expect("the seeds are checked in") {
            let path = entry.expect("an entry").path();
            println!("{}", path.display());
            body(&fs::read(path).expect("a file"));
            seen += 1;
        }
        assert!(seen > 5, "{seen} seeds of {target}");
    }
}

/// Some of what a fuzzer would do, on a stable compiler: `RINGMUX_MUTATIONS` is the number of inputs.
#[test]
fn mutated_seeds_of_drpc_and_of_pairs_are_survived() {
    let number = std::env::var("RINGMUX_MUTATIONS").ok();
    let number = number.map_or(2000, |number| number.parse().expect("a number"));
    let mut seeds = seeds();
    seeds.retain(|(target, ..)| target.starts_with("drpc") || *target == "pair");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as usize % below
    };
    for _ in 0..number {
        let (target, _, mut input) = seeds[random(seeds.len())].clone();
        let (.., other) = &seeds[random(seeds.len())];
        let cut = random(other.len());
        match random(3) {
            0 => input.extend_from_slice(&other[cut..]),
            1 => input.truncate(2 + random(input.len())),
            _ if target.ends_with("pair") => {
                input.truncate(1);
                input.extend((0..random(600)).map(|_| random(256) as u8));
            }
            _ => {}
        }
        for _ in 0..random(8) {
            let at = random(input.len());
            match random(3) {
                0 => input[at] = random(256) as u8,
                1 => input[at] ^= 1 << random(8),
                _ => input.insert(at, [0, 1, 2, 5, 0x7f, 0x80, 0xff][random(7)]),
            }
        }
        let mut targets = TARGETS.iter();
        let body = targets.find(|(name, _)| *name == target);
        let body = body.expect("a target").1;
        let survived = std::panic::catch_unwind(|| body(&input));
        assert!(survived.is_ok(), "{target} {input:?}");
    }
}

/// `RINGMUX_WRITE_SEEDS=1` writes them.
#[test]
fn the_seeds_hold_what_is_written_here() {
    let write = std::env::var_os("RINGMUX_WRITE_SEEDS").is_some();
    for (target, name, bytes) in seeds() {
        let path = folder(target).join(name.replace(' ', "-"));
        if write {
            fs::create_dir_all(folder(target)).expect("a folder");
            fs::write(&path, &bytes).expect("a file");
        }
        let found = fs::read(&path).ok();
        assert!(
            found.as_deref() == Some(&bytes),
            "{} is another",
            path.display()
        );
    }
}

#[test]
fn the_canary_panics_at_its_fault_and_at_no_seed_of_the_codec() {
    for (_, name, bytes) in seeds().iter().filter(|(target, ..)| *target == "codec") {
        println!("{name}");
        canary(bytes);
    }
    let fault = frames(&[Frame::GoAway {
        last: None,
        code: 0,
        debug: "mux!",
        soon: false,
    }]);
    assert!(std::panic::catch_unwind(|| canary(&fault)).is_err());
}

// ---- the seeds ------------------------------------------------------------------------------

fn frames(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    for frame in frames {
        put(&mut bytes, frame);
    }
    bytes.to_vec()
}

fn seeds() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (what, bytes, _) in golden() {
        seeds.push(("codec", what.to_owned(), bytes.to_vec()));
    }
    seeds.push(("codec", "a preface".to_owned(), preface::encode(1).to_vec()));
    for (side, flags, first) in [("dialer", DIALER, 2), ("acceptor", ACCEPTOR, 1)] {
        for (row, greeted, steps, wire) in attacks(first) {
            let flags = if greeted { flags } else { flags & !DIALER };
            let mut bytes = vec![flags, u8::try_from(steps.len()).expect("a short script")];
            bytes.extend_from_slice(&steps);
            bytes.extend_from_slice(&wire);
            seeds.push(("peer", format!("{row} {side}"), bytes));
        }
    }
    for (what, frame) in [
        ("taken", call(1, b"fuzzrequest")),
        ("cut", call(1, b"fuzz")),
    ] {
        // A call that is answered, one that is cancelled, one whose handler is dropped, and what is no call.
        let wire = frames(&[
            frame,
            call(3, b"fuzz"),
            cancel(3, false),
            call(5, b"fuzz"),
            Frame::Calls { takes: true },
            Frame::Reply {
                stream: id(2),
                answer: b"answer",
            },
            Frame::Calls { takes: false },
            data(5, b"x", true, false),
        ]);
        let steps = [ACCEPT, step(5, 5, 1), step(5, 5, 0), OPEN, RECEIVE, ACCEPT];
        let mut bytes = vec![ACCEPTOR | 1 << 2, steps.len() as u8];
        bytes.extend_from_slice(&steps);
        bytes.extend_from_slice(&wire);
        seeds.push(("peer", format!("calls {what}"), bytes));
    }
    for (what, bytes) in PLAYS {
        seeds.push(("pair", what.to_owned(), bytes.to_vec()));
        for variant in [0, 4, 6] {
            let input = [&[variant], bytes].concat();
            seeds.push(("drpc_pair", format!("{what} {variant}"), input));
        }
    }
    for (what, bytes) in call_plays() {
        seeds.push(("pair", what.to_owned(), bytes));
    }
    for (what, bytes) in drpc_attacks() {
        seeds.push(("drpc", what, bytes));
    }
    for (what, bytes) in CALLS {
        seeds.push(("calls", what.to_owned(), bytes.to_vec()));
    }
    seeds
}

/// A call whose opening block is four bytes.
fn call(stream: u32, payload: &[u8]) -> Frame<'_> {
    Frame::Call {
        stream: id(stream),
        payload,
        opening: 4,
    }
}

/// The bytes of `src/rpc/WIRE.md`, and some that are wrong.
const CALLS: [(&str, &[u8]); 8] = [
    ("plain opening", b"\x01\x00\x00\x03a/B"),
    (
        "opening with everything",
        b"\x01\x07\x01\x03\x20\x4e\x00\x00\x00\x00\x00\x00a/B\x01\x02\x00kvv",
    ),
    ("opening of version 2", b"\x02\x00\x00\x01a"),
    (
        "opening with cut metadata",
        b"\x01\x00\x00\x01a\x01\x02\x00kv",
    ),
    ("metadata that follows", b"\x01\x01\x00\x00k"),
    ("headers", b"\x02\x01\x01\x00kv"),
    ("trailers", b"\x03\x01\x01\x00kv"),
    ("status", b"\x05\x02\x00dd\x01\x01\x00kv"),
];

/// Frames of DRPC: control byte, stream, message, data.
fn drpc_frames(frames: &[(u8, u8, u8, &[u8])]) -> Vec<u8> {
    let frame = |(kind, stream, message, data): &(u8, u8, u8, &[u8])| {
        [&[*kind, *stream, *message, data.len() as u8][..], data].concat()
    };
    frames.iter().flat_map(frame).collect()
}

/// Calls, cuts, faults and floods of DRPC, at each side in each variant.
fn drpc_attacks() -> Vec<(String, Vec<u8>)> {
    let metadata = b"\x0a\x06\x0a\x01k\x12\x01v";
    let call: Vec<(u8, u8, u8, &[u8])> = vec![
        (0x0f, 1, 1, metadata),
        (0x03, 1, 2, b"/a/B"),
        (0x04, 1, 3, b"mess"),
        (0x05, 1, 3, b"age"),
        (0x0d, 1, 4, b""),
    ];
    let mut interleaved = call.clone();
    interleaved.insert(3, (0x03, 2, 1, b"/c/D"));
    interleaved.push((0x91, 2, 0, b"\x80\x01"));
    interleaved.push((0x89, 2, 2, b""));
    let flood = vec![(0xd1, 1, 9, &b""[..]); 60];
    let wires: [(&str, Vec<u8>); 9] = [
        ("call", drpc_frames(&call)),
        ("header", [&b"DRPC!!!1"[..], &drpc_frames(&call)].concat()),
        ("noise", b"DRPC!N!1".to_vec()),
        ("interleaved", drpc_frames(&interleaved)),
        (
            "answer",
            drpc_frames(&[(0x05, 1, 1, b"answer"), (0x0d, 1, 2, b"")]),
        ),
        (
            "code",
            drpc_frames(&[(0x07, 1, 1, b"\0\0\0\0\0\0\0\x2ano")]),
        ),
        (
            "status",
            drpc_frames(&[(0x07, 1, 1, b"\x01\x08\x2a\x12\x02no")]),
        ),
        ("flood", drpc_frames(&flood)),
        ("long number", [&[0x05][..], &[0x80; 10]].concat()),
    ];
    let scripts: [(&str, &[u8]); 3] = [
        (
            "whole",
            &[OPEN, ACCEPT, RECEIVE, SEND_LONG, step(5, 5, 1), RECEIVE],
        ),
        (
            "cut",
            &[
                OPEN,
                step(3, 1, 0),
                step(2, 2, 0),
                step(1, 3, 3),
                step(2, 5, 0),
                step(3, 4, 0),
                RECEIVE,
            ],
        ),
        (
            "ends",
            &[
                OPEN,
                ACCEPT,
                SEND_LONG,
                step(5, 5, 2),
                OPEN,
                step(0, 5, 3),
                SHUTDOWN,
            ],
        ),
    ];
    let mut seeds = Vec::new();
    for flags in 0..8 {
        for (at, (wire, bytes)) in wires.iter().enumerate() {
            let (script, steps) = scripts[(usize::from(flags) + at) % scripts.len()];
            let input = [&[flags, steps.len() as u8][..], steps, bytes].concat();
            seeds.push((format!("{wire} {script} {flags}"), input));
        }
    }
    seeds
}

/// Name of a seed, whether the peer's handshake is prepended, the script, and the peer's bytes.
type Attack = (&'static str, bool, Vec<u8>, Vec<u8>);

fn data(stream: u32, payload: &[u8], end: bool, fin: bool) -> Frame<'_> {
    Frame::Data {
        stream: id(stream),
        payload,
        end,
        fin,
    }
}

fn open(stream: u32) -> Frame<'static> {
    Frame::Open {
        stream: id(stream),
        block: b"/call",
        fin: false,
    }
}

fn cancel(stream: u32, stop: bool) -> Frame<'static> {
    Frame::Cancel {
        stream: id(stream),
        code: 7,
        stop,
    }
}

fn window(scope: Scope, credit: u32) -> Frame<'static> {
    Frame::Window {
        scope,
        credit: credit.try_into().expect("not 0"),
    }
}

/// A step of a script: piece to feed, action, parameter. See `peer`.
const fn step(piece: u8, action: u8, how: u8) -> u8 {
    piece | action << 3 | how << 6
}

const ACCEPT: u8 = step(5, 1, 0);
const RECEIVE: u8 = step(5, 2, 0);
const SEND_LONG: u8 = step(5, 3, 3);
const OPEN: u8 = step(0, 4, 0);
const ELAPSE: u8 = step(5, 6, 2);
const SHUTDOWN: u8 = step(5, 7, 2);

/// The attacks of the threat table, A1 to A13, by a peer whose first id is `first`, and an honest call.
fn attacks(first: u32) -> Vec<Attack> {
    let id_of = |n: u32| first + 2 * n;
    let s = first;
    let block = vec![b'm'; 8192];
    let resets: Vec<_> = (0..30)
        .flat_map(|n| [open(id_of(n)), cancel(id_of(n), false)])
        .collect();
    let mut tiny = vec![open(s)];
    tiny.extend((0..150).map(|_| data(s, b".", true, false)));
    let mut slices = vec![open(s), open(id_of(1))];
    slices.extend((0..100).map(|n| data(id_of(n & 1), &[0; 20], true, false)));
    let meta = Frame::Meta {
        stream: id(s),
        block: &block,
        fin: false,
    };
    let ping = Frame::Ping {
        opaque: [1; 8],
        ack: false,
    };
    let credit = vec![window(Scope::Session, 1); 60];
    let zero = [4, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let most = Settings {
        max_frame: 65_536,
        max_message: u32::MAX,
        stream_window: u32::MAX,
        session_window: u32::MAX,
        streams: u32::MAX,
        role: None,
    };
    let hello = [&preface::encode(1)[..], &frames(&[Frame::Settings(most)])].concat();
    // This side's own role, as an echo server would send.
    let role = if s == 1 { Role::Acceptor } else { Role::Dialer };
    let echo = Settings {
        role: Some(role),
        ..Settings::FLOORS
    };
    let echo = [&preface::encode(1)[..], &frames(&[Frame::Settings(echo)])].concat();
    let call = [open(s), data(s, b"question", true, true)];
    vec![
        ("a1 rapid reset", true, vec![ACCEPT; 20], frames(&resets)),
        (
            "a2 made to reset",
            true,
            vec![ACCEPT, step(5, 5, 3)],
            frames(&[
                open(s),
                window(Scope::Stream(id(s)), u32::MAX),
                data(s, b"", true, true),
                data(s, b"x", true, false),
            ]),
        ),
        ("a3 tiny frames", true, vec![ACCEPT, RECEIVE], frames(&tiny)),
        (
            "a3 empty data",
            true,
            vec![ACCEPT],
            [frames(&[open(s)]), vec![0, 0, 0, 0, s as u8, 0, 0, 0]].concat(),
        ),
        (
            "a4 slices",
            true,
            vec![ACCEPT, ELAPSE, ELAPSE],
            frames(&slices),
        ),
        (
            "a5 metadata",
            true,
            vec![ACCEPT],
            frames(&[open(s), meta, meta, meta]),
        ),
        (
            "a6 pings",
            true,
            vec![step(7, 0, 0)],
            frames(&vec![ping; 60]),
        ),
        (
            "a6 settings",
            true,
            vec![],
            frames(&[Frame::Settings(Settings::FLOORS)]),
        ),
        ("a7 credit", true, vec![OPEN, SEND_LONG], frames(&credit)),
        ("a7 no credit", true, vec![OPEN], zero),
        (
            "a8 overflow",
            true,
            vec![OPEN],
            frames(&[window(Scope::Session, u32::MAX), window(Scope::Session, 1)]),
        ),
        (
            "a9 slow reader",
            true,
            vec![OPEN, SEND_LONG, SEND_LONG, ELAPSE, ELAPSE, ELAPSE],
            Vec::new(),
        ),
        (
            "a10 slow preface",
            false,
            vec![step(1, 6, 2), step(1, 6, 2)],
            b"RINGM".to_vec(),
        ),
        (
            "a11 ids",
            true,
            vec![ACCEPT, step(7, 0, 0)],
            frames(&[open(u32::MAX - 2 + s), open(s), open(s)]),
        ),
        ("an echo", false, vec![step(7, 4, 0)], echo),
        ("a12 windows", false, vec![step(7, 4, 0), SEND_LONG], hello),
        (
            "a13 length",
            true,
            vec![],
            vec![0xff, 0xff, 0xff, 0x02, s as u8, 0, 0, 0],
        ),
        (
            "a13 total",
            true,
            vec![ACCEPT],
            frames(&[open(s), data(s, &[0xff, 0xff, 0xff, 0xff, 1], false, false)]),
        ),
        (
            "b5 goaway",
            true,
            vec![OPEN, SEND_LONG, SHUTDOWN],
            frames(&[
                Frame::GoAway {
                    last: None,
                    code: 0,
                    debug: "",
                    soon: true,
                },
                Frame::GoAway {
                    last: Some(id(3 - s)),
                    code: 0,
                    debug: "",
                    soon: false,
                },
            ]),
        ),
        (
            "b11 cancel",
            true,
            vec![OPEN, SEND_LONG, step(0, 5, 2)],
            frames(&[
                cancel(3 - s, true),
                Frame::Error {
                    stream: id(3 - s),
                    code: 9,
                    message: "no",
                    details: b"",
                },
            ]),
        ),
        (
            "a call",
            true,
            vec![step(7, 1, 0), RECEIVE, step(0, 3, 1), step(0, 5, 1)],
            frames(&call),
        ),
    ]
}

/// The flags of `peer`.
const DIALER: u8 = 2;
const ACCEPTOR: u8 = 3;

/// Action, side and parameter; see `pair`.
const fn play(what: u8, side: u8, how: u8) -> u8 {
    what | side << 4 | how << 5
}

const SETTLE: u8 = play(15, 0, 0);

/// Actions of a caller and of a handler; see `pair`.
const fn caller(side: u8, how: u8) -> u8 {
    play(12, side, how)
}
const fn handler(side: u8, how: u8) -> u8 {
    play(13, side, how)
}

/// Plays of unary calls: the accepting side takes them.
fn call_plays() -> Vec<(&'static str, Vec<u8>)> {
    let serving = [caller(1, 5), 0, SETTLE];
    let running = [caller(0, 0), 2, SETTLE, handler(1, 0), 0, 0];
    // A byte for the call, one for the answer; the caller looks.
    let ended = |how: u8, more: u8| [handler(1, how), 0, more, SETTLE, caller(0, 3), 0];
    let play_of = |parts: &[&[u8]]| [&serving[..], &parts.concat()].concat();
    vec![
        ("a unary call", play_of(&[&running, &ended(2, 5)])),
        ("a failed unary call", play_of(&[&running, &ended(4, 0)])),
        ("a dropped unary call", play_of(&[&running, &ended(5, 0)])),
        (
            "an answer that is a stream",
            play_of(&[&running, &ended(6, 0xf5)]),
        ),
        (
            "an answer that is a stream that fails",
            play_of(&[&running, &ended(6, 0x50)]),
        ),
        (
            "an answer that is too long",
            play_of(&[&running, &ended(2, 0xe7)]),
        ),
        (
            "a cancel that crosses an answer",
            play_of(&[
                &running,
                &[handler(1, 2), 0, 4, play(3, 1, 0), caller(0, 4), 0],
                &[play(3, 0, 0), SETTLE],
            ]),
        ),
        (
            "a unary call given up at once",
            play_of(&[&[caller(0, 2), 6], &running]),
        ),
        (
            "a deadline that passes",
            play_of(&[
                &[caller(0, 1), 0x11, SETTLE, handler(1, 0), 0, 0],
                &[play(11, 0, 3), SETTLE, handler(1, 1), 0, 0, caller(0, 3), 0],
            ]),
        ),
        (
            "a unary call to a side that stops",
            play_of(&[
                &[caller(0, 0), 1, play(3, 0, 0), caller(1, 6), 0],
                &[SETTLE, caller(0, 3), 0, caller(1, 5), 0],
                &[SETTLE, caller(0, 0), 1, SETTLE],
            ]),
        ),
        (
            "unary calls that cross a shutdown",
            play_of(&[
                &running,
                &[caller(0, 0), 3, play(3, 0, 0), play(13, 1, 7), 1],
                &[play(3, 1, 0), caller(0, 0), 4, play(2, 1, 0)],
                &ended(2, 3),
            ]),
        ),
        (
            "a unary call given up beyond the window",
            play_of(&[
                // Two messages on each of 14 streams are more than the window.
                &(0..14)
                    .flat_map(|n| [play(4, 0, 7), play(6, 0, 6), n, play(6, 0, 6), n])
                    .collect::<Vec<_>>(),
                &[SETTLE, caller(0, 0), 6, SETTLE, caller(0, 4), 0, SETTLE],
            ]),
        ),
        (
            "unary calls beyond the window",
            play_of(&[
                &[caller(0, 0), 6].repeat(16),
                &[SETTLE, handler(1, 0), 0, 0],
                &(0..16)
                    .flat_map(|n| [handler(1, 2), n, 5])
                    .collect::<Vec<_>>(),
                &[play(4, 0, 3), SETTLE],
            ]),
        ),
    ]
}

const PLAYS: [(&str, &[u8]); 8] = [
    (
        "a call",
        &[
            play(4, 0, 0),
            play(6, 0, 2),
            0,
            play(9, 0, 0),
            0,
            SETTLE,
            play(5, 1, 0),
            play(8, 1, 0),
            0,
            play(6, 1, 2),
            0,
            play(9, 1, 0),
            0,
            SETTLE,
            play(8, 0, 0),
            0,
        ],
    ),
    (
        "a long message in small pieces",
        &[
            play(4, 0, 7),
            play(6, 0, 7),
            0,
            play(3, 0, 0),
            play(0, 0, 0),
            0,
            play(0, 0, 1),
            9,
            play(0, 0, 5),
            200,
            play(3, 1, 0),
            play(0, 1, 0),
            11,
            SETTLE,
            play(5, 1, 0),
            play(8, 1, 0),
            0,
        ],
    ),
    (
        "early messages",
        &[
            play(4, 0, 0),
            play(6, 0, 4),
            0,
            play(9, 0, 0),
            0,
            play(3, 0, 0),
            play(2, 0, 0),
            play(5, 1, 0),
            play(8, 1, 0),
            0,
        ],
    ),
    (
        "a cancel that crosses a message",
        &[
            play(4, 0, 0),
            SETTLE,
            play(5, 1, 0),
            play(6, 1, 6),
            0,
            play(3, 1, 0),
            play(10, 0, 1),
            0,
            play(3, 0, 0),
            SETTLE,
        ],
    ),
    (
        "a stop that crosses a failure",
        &[
            play(4, 0, 0),
            SETTLE,
            play(5, 1, 0),
            play(6, 0, 5),
            0,
            play(10, 1, 2),
            0,
            play(10, 0, 3),
            0,
            SETTLE,
        ],
    ),
    (
        "a shutdown that crosses an opening",
        &[
            SETTLE,
            play(4, 0, 0),
            play(3, 0, 0),
            play(13, 1, 7),
            1,
            play(3, 1, 0),
            play(2, 1, 0),
            play(2, 0, 0),
            SETTLE,
        ],
    ),
    (
        "a close with much queued",
        &[
            play(4, 0, 0),
            play(6, 0, 7),
            0,
            play(6, 0, 7),
            0,
            play(13, 0, 7),
            0,
            play(12, 0, 7),
            4,
            SETTLE,
        ],
    ),
    (
        "a peer that says nothing",
        &[
            SETTLE,
            play(4, 1, 3),
            play(14, 0, 0),
            play(12, 0, 7),
            31,
            play(12, 0, 7),
            31,
        ],
    ),
];
