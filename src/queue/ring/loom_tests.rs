//! The ring under loom: every word has a shadow cell, every segment is tracked for leaks.
//!
//! The first segment has four words here, room for one record of a word beside the LINK, so that two records without a
//! commit in between make the ring grow.

use super::*;
use loom::sync::Arc;
use loom::thread;
use std::sync::atomic::AtomicUsize;

#[derive(Debug, Clone)]
struct Owner(Arc<RingPair>);

// SAFETY: the `Arc` keeps one pair at one address.
unsafe impl RingOwner for Owner {
    const CHARGE: u32 = 256;

    fn ring(&self) -> Ring<'_> {
        self.0.forth()
    }
}

fn pair() -> (Writer<Owner>, Reader<Owner>) {
    let owner = Owner(Arc::new(RingPair::new()));
    // SAFETY: the only writer of this ring.
    let writer = unsafe { Writer::new(owner.clone()) };
    // SAFETY: the only reader of this ring.
    (writer, unsafe { Reader::new(owner) })
}

struct Counted(std::sync::Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        b"counted"
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn push(writer: &mut Writer<Owner>, value: u64) {
    writer.push_slice(value as u16, false, &value.to_le_bytes());
}

fn assert_value(record: &Record<'_>, value: u64) {
    assert_eq!(record.tag, value as u16);
    assert_eq!(record.payload.as_slice(), value.to_le_bytes());
}

/// Waits for the record `value`, then advances past it.
fn expect(reader: &mut Reader<Owner>, value: u64) {
    loop {
        if let Some(record) = reader.peek() {
            assert_value(&record, value);
            break;
        }
        thread::yield_now();
    }
    reader.advance();
}

#[test]
fn records_arrive_whole_and_in_order_while_the_ring_wraps_or_grows() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        let producer = thread::spawn(move || {
            for value in 0..3 {
                push(&mut writer, value);
                writer.publish();
            }
            writer
        });
        for value in 0..3 {
            expect(&mut reader, value);
            assert_eq!(reader.commit(), 8 + 256);
        }
        let mut writer = producer.join().unwrap();
        assert_eq!(writer.refresh(), 0);
        assert!(reader.is_empty());
    });
}

#[test]
fn words_given_back_with_weight_can_be_written_again() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        let producer = thread::spawn(move || {
            for value in 0..3 {
                // One record at a time: the ring must not grow, and overwrites words already read.
                while !writer.has_room(264, 264) {
                    thread::yield_now();
                }
                push(&mut writer, value);
                writer.publish();
            }
            assert_eq!(writer.segment_bytes(), FIRST_SEGMENT_BYTES as u64);
        });
        for value in 0..3 {
            expect(&mut reader, value);
            reader.commit();
        }
        producer.join().unwrap();
    });
}

#[test]
fn words_given_back_can_be_written_again_by_a_writer_that_asks_for_no_room() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        // A word each: three fill the segment, except the word reserved for a LINK.
        (0..3).for_each(|tag| writer.push_slice(tag, true, &[]));
        writer.publish();
        let consumer = thread::spawn(move || {
            for tag in 0..3 {
                assert_eq!(reader.peek().unwrap().tag, tag);
                reader.advance();
            }
            reader.commit();
        });
        // Loom knows only the last access to an atomic. The reader loads `head` before it stores it, which would hide from loom
        // that our load can come later.
        thread::yield_now();
        // Overwrites the first word read, if that was released, else goes to a new segment.
        (3..5).for_each(|tag| writer.push_slice(tag, true, &[]));
        consumer.join().unwrap();
    });
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        let producer = thread::spawn(move || {
            push(&mut writer, 0);
            push(&mut writer, 1);
            writer.publish();
        });
        if !reader.is_empty() {
            assert!(reader.advance());
            assert!(reader.advance());
            let passed: Vec<_> = reader.passed().collect();
            assert_value(&passed[0], 0);
            assert_value(&passed[1], 1);
        }
        producer.join().unwrap();
    });
}

#[test]
fn a_lease_over_two_segments_is_untouched_while_the_writer_goes_on() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        push(&mut writer, 0);
        push(&mut writer, 1);
        writer.publish();
        let producer = thread::spawn(move || {
            for value in 2..4 {
                push(&mut writer, value);
                writer.publish();
            }
        });
        expect(&mut reader, 0);
        expect(&mut reader, 1);
        for (record, value) in reader.passed().zip(0..) {
            assert_value(&record, value);
        }
        reader.commit();
        expect(&mut reader, 2);
        reader.rewind();
        expect(&mut reader, 2);
        producer.join().unwrap();
    });
}

#[test]
fn payloads_are_dropped_once_when_both_sides_are_dropped_at_any_time() {
    loom::model(|| {
        let dropped = std::sync::Arc::new(AtomicUsize::new(0));
        let bytes = || Bytes::from_owner(Counted(std::sync::Arc::clone(&dropped)));
        let (mut writer, mut reader) = pair();
        let payloads = [bytes(), bytes(), bytes()];
        let producer = thread::spawn(move || {
            let [first, second, unpublished] = payloads;
            writer.push_bytes(1, false, first);
            writer.publish();
            writer.push_bytes(2, false, second);
            writer.publish();
            writer.push_bytes(3, false, unpublished);
        });
        if let Some(taken) = reader.take() {
            assert_eq!(taken.payload, "counted");
            if reader.advance() {
                reader.commit();
            }
        }
        drop(reader);
        producer.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    });
}

#[test]
fn the_reader_can_be_gone_while_the_writer_grows_the_ring() {
    loom::model(|| {
        let (mut writer, reader) = pair();
        let consumer = thread::spawn(move || {
            let mut reader = reader;
            if reader.advance() {
                reader.commit();
            }
        });
        for value in 0..3 {
            push(&mut writer, value);
            writer.publish();
        }
        drop(writer);
        consumer.join().unwrap();
    });
}

#[test]
fn a_ring_can_shrink_while_the_reader_looks() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        push(&mut writer, 0);
        push(&mut writer, 1);
        writer.publish();
        let producer = thread::spawn(move || {
            writer.shrink_if_idle();
            push(&mut writer, 2);
            writer.publish();
            writer
        });
        expect(&mut reader, 0);
        expect(&mut reader, 1);
        reader.commit();
        expect(&mut reader, 2);
        reader.commit();
        let mut writer = producer.join().unwrap();
        let grown = writer.segment_bytes() > FIRST_SEGMENT_BYTES as u64;
        assert_eq!(writer.shrink_if_idle(), grown);
        assert!(reader.is_empty());
    });
}

#[test]
fn pieces_can_be_taken_back_while_the_reader_looks() {
    loom::model(|| {
        let dropped = std::sync::Arc::new(AtomicUsize::new(0));
        let piece = Bytes::from_owner(Counted(std::sync::Arc::clone(&dropped)));
        let (mut writer, mut reader) = pair();
        push(&mut writer, 0);
        writer.publish();
        let producer = thread::spawn(move || {
            // They need another segment, and one more.
            push(&mut writer, 7);
            writer.push_bytes(7, false, piece);
            assert_eq!(writer.retract(), 8 + 256 + 7 + 256);
            push(&mut writer, 1);
            writer.go_small();
            writer.publish();
            writer
        });
        expect(&mut reader, 0);
        reader.commit();
        expect(&mut reader, 1);
        reader.commit();
        let mut writer = producer.join().unwrap();
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        assert_eq!(writer.refresh(), 0);
        assert!(reader.is_empty());
    });
}

#[test]
fn pieces_of_which_nothing_was_published_leave_a_ring_as_it_was_made() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        let producer = thread::spawn(move || {
            push(&mut writer, 7);
            push(&mut writer, 7);
            writer.retract();
            push(&mut writer, 0);
            writer.publish();
        });
        expect(&mut reader, 0);
        reader.commit();
        producer.join().unwrap();
    });
}

#[test]
fn a_pair_that_was_renewed_is_written_and_read_as_a_new_one_in_the_segment_it_kept() {
    loom::model(|| {
        let mut pair = Arc::new(RingPair::new());
        for round in 0..2 {
            let owner = Owner(Arc::clone(&pair));
            // SAFETY: the only writer of this ring since the pair was made or renewed.
            let mut writer = unsafe { Writer::new(owner.clone()) };
            // SAFETY: as above, the only reader.
            let mut reader = unsafe { Reader::new(owner) };
            let producer = thread::spawn(move || {
                // Taken back, with the segment behind the one that was kept.
                push(&mut writer, 7);
                push(&mut writer, 7);
                writer.retract();
                push(&mut writer, round);
                writer.publish();
                // Left unpublished.
                push(&mut writer, 7);
            });
            expect(&mut reader, round);
            reader.commit();
            drop(reader);
            producer.join().unwrap();
            Arc::get_mut(&mut pair).expect("both have let go").renew();
        }
    });
}

#[test]
fn a_record_written_in_place_is_seen_whole() {
    loom::model(|| {
        let (mut writer, mut reader) = pair();
        let producer = thread::spawn(move || {
            for value in 0..2_u64 {
                writer.reserve(8).payload_mut().fill(0xff);
                let mut place = writer.reserve(8);
                place.payload_mut().copy_from_slice(&value.to_le_bytes());
                place.push(value as u16, false).publish();
            }
        });
        for value in 0..2 {
            expect(&mut reader, value);
            reader.commit();
        }
        producer.join().unwrap();
    });
}
