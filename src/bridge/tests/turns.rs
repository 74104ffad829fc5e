//! Whose turn it is, and how much goes into a batch.

use super::solo::{Solo, frames};
use super::*;
use crate::wire::native::frame::Settings;
use crate::wire::{BATCH_BYTES, BATCH_COPY_BYTES, BATCH_PARTS, SHARED_BATCH_BYTES};

/// The peer allows all that it can.
fn generous() -> Settings {
    Settings {
        stream_window: 64 << 20,
        session_window: 1 << 30,
        streams: 1000,
        max_message: 1 << 20,
        ..Settings::FLOORS
    }
}

fn solo() -> Solo {
    let config = config()
        .send_buffer(16 << 20)
        .session_send_buffer(1 << 30)
        .build()
        .unwrap();
    Solo::with(Role::Dialer, &config, generous())
}

fn streams(solo: &mut Solo, n: usize) -> Vec<Stream> {
    let session = solo.end.session().clone();
    let streams = (0..n).map(|_| session.try_open("").unwrap()).collect();
    solo.said();
    streams
}

/// The next batch: how long it is and what is in it.
fn batch(solo: &mut Solo) -> (usize, Vec<String>) {
    let end = &mut solo.end;
    end.connection.take_work(solo.now);
    if !end.connection.transmit(&mut end.batch, solo.now) {
        return (0, Vec::new());
    }
    assert!(end.batch.remaining().len() <= BATCH_PARTS);
    let bytes = end.batch.remaining().concat();
    end.batch.clear();
    end.connection.written(bytes.len(), false, solo.now);
    (bytes.len(), frames(&bytes))
}

/// Bytes of DATA by stream id.
fn shares(lines: &[String]) -> std::collections::BTreeMap<u32, usize> {
    let mut shares = std::collections::BTreeMap::new();
    for line in lines {
        let mut words = line.split(' ').skip(1);
        let id = words.next().unwrap().parse().unwrap();
        let len: usize = words.next().unwrap().parse().unwrap();
        *shares.entry(id).or_default() += len;
    }
    shares
}

#[test]
fn the_most_urgent_stream_goes_first_and_equals_take_turns() {
    let mut solo = solo();
    let mut streams = streams(&mut solo, 3);
    streams[2].set_urgency(0);
    for stream in &mut streams {
        for _ in 0..2 {
            now(stream.send(message(16_128))).unwrap();
        }
    }
    let (_, lines) = batch(&mut solo);
    let order: Vec<_> = lines.iter().map(|line| &line[..6]).collect();
    assert_eq!(
        order,
        ["DATA 5", "DATA 5", "DATA 1", "DATA 3", "DATA 1", "DATA 3"]
    );
}

#[test]
fn bulk_streams_get_equal_shares_whatever_the_size_of_their_messages() {
    for lens in [
        [16_000, 16_000, 16_000],
        [6_000, 6_000, 6_000],
        [4_000, 4_000, 4_000],
        [1_000, 1_000, 1_000],
        [100, 100, 100],
        [100, 4_000, 60_000],
        [3_000, 200, 900],
    ] {
        let mut solo = solo();
        let mut streams = streams(&mut solo, 3);
        let mut costs = [0_usize; 3];
        for _ in 0..60 {
            for (stream, len) in streams.iter_mut().zip(lens) {
                let content = message(len);
                // Enough for its share of a batch, whatever that is.
                for _ in 0..(512 * 1024 / len).min(700) {
                    if stream.try_send(content.clone()).is_err() {
                        break;
                    }
                }
            }
            let (_, lines) = batch(&mut solo);
            for (id, share) in shares(&lines) {
                let index = (id as usize - 1) / 2;
                let frames = lines
                    .iter()
                    .filter(|line| line.starts_with(&format!("DATA {id} ")))
                    .count();
                costs[index] += share + 256 * frames;
            }
        }
        let (least, most) = (costs.iter().min().unwrap(), costs.iter().max().unwrap());
        assert!(most - least < 4 * 16_640, "{lens:?}: {costs:?}");
    }
}

#[test]
fn a_batch_copies_and_holds_no_more_than_its_bounds() {
    for len in [
        0,
        1,
        100,
        4000,
        4095,
        4096,
        4097,
        5000,
        16_000,
        100_000,
        1 << 20,
    ] {
        let mut solo = solo();
        let mut streams = streams(&mut solo, 4);
        for stream in &mut streams {
            for _ in 0..2000 {
                if stream.try_send(message(len)).is_err() {
                    break;
                }
            }
        }
        let mut batches = 0;
        loop {
            let (bytes, lines) = batch(&mut solo);
            if lines.is_empty() {
                break;
            }
            batches += 1;
            let shared = len > 4096;
            let most = if shared {
                SHARED_BATCH_BYTES + 16 * 1024 + 16
            } else {
                BATCH_COPY_BYTES
            };
            assert!(bytes <= most, "{bytes} bytes of messages of {len}");
        }
        assert!(batches > 0);
    }
}

#[test]
fn batches_are_large_only_while_one_stream_has_sent_alone_for_long() {
    const SLACK: usize = 16 * 1024 + 16;
    let mut solo = solo();
    let [mut bulk, mut other] = <[Stream; 2]>::try_from(streams(&mut solo, 2)).unwrap();
    // Bulk is always more than a batch: the longest of so many batches.
    let mut longest = |batches: usize, aside: bool| {
        let lens = (0..batches).map(|_| {
            while bulk.try_send(message(16_000)).is_ok() {}
            if aside {
                now(other.send("aside")).unwrap();
            }
            batch(&mut solo).0
        });
        lens.max().unwrap()
    };
    assert!(longest(20, false) <= SHARED_BATCH_BYTES + SLACK);
    let alone = longest(40, false);
    assert!((BATCH_BYTES..BATCH_BYTES + SLACK).contains(&alone));
    longest(1, true);
    assert!(longest(10, false) <= SHARED_BATCH_BYTES + SLACK);
    assert!(longest(100, true) <= SHARED_BATCH_BYTES + SLACK);
}

#[test]
fn opens_and_control_frames_leave_before_messages() {
    let mut solo = solo();
    let mut streams = streams(&mut solo, 2);
    for _ in 0..30 {
        now(streams[0].send(message(16_000))).unwrap();
    }
    let session = solo.end.session().clone();
    let _late = session.try_open("late").unwrap();
    streams[1].stop(5);
    let _ = Polled::new(session.ping()).poll();
    let (_, lines) = batch(&mut solo);
    assert_eq!(lines[..3], ["PING", "STOP 3 0x5", "OPEN 5 4"]);
    assert!(lines[3].starts_with("DATA 1"));
}

#[test]
fn control_frames_leave_while_the_session_has_no_credit() {
    let config = config()
        .send_buffer(16 << 20)
        .session_send_buffer(1 << 30)
        .build()
        .unwrap();
    let settings = Settings {
        session_window: 256 * 1024,
        ..generous()
    };
    let mut solo = Solo::with(Role::Dialer, &config, settings);
    let mut streams = streams(&mut solo, 2);
    for _ in 0..20 {
        now(streams[0].send(message(16_000))).unwrap();
    }
    solo.said();
    let session = solo.end.session().clone();
    let _blocked = session.try_open(message(8192)).unwrap();
    assert!(solo.said().is_empty());
    streams[1].cancel(6);
    let _ = Polled::new(session.ping()).poll();
    assert_eq!(solo.said(), ["PING", "CANCEL 3 0x6"]);
}

#[test]
fn what_is_queued_while_a_batch_is_written_leaves_in_the_next_one() {
    let mut solo = solo();
    let mut streams = streams(&mut solo, 50);
    for stream in &mut streams {
        now(stream.send_slice(&[1; 64])).unwrap();
    }
    let (_, lines) = batch(&mut solo);
    assert_eq!(lines.len(), 50);
    assert_eq!(batch(&mut solo).1.len(), 0);
}

#[test]
fn a_stream_that_is_made_more_urgent_does_not_wait_at_its_old_level() {
    let mut solo = Solo::with(Role::Dialer, &Config::default(), generous());
    let session = solo.end.session().clone();
    let [mut bulk, mut late] = [(); 2].map(|()| session.try_open("").unwrap());
    late.set_urgency(7);
    solo.said();
    late.try_send(message(10)).unwrap();
    let mut said = Vec::new();
    for turn in 0..20 {
        while bulk.try_send(message(60_000)).is_ok() {}
        if turn == 1 {
            late.set_urgency(0);
        }
        let End {
            connection, batch, ..
        } = &mut solo.end;
        connection.take_work(solo.now);
        connection.transmit(batch, solo.now);
        said.extend(frames(&batch.remaining().concat()));
        batch.clear();
        connection.deliver_wakes();
    }
    assert!(said.contains(&"DATA 3 10 END".to_owned()));
}
