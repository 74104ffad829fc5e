//! The ring against a `VecDeque`, then corner cases, then two real threads.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::Arc;
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

/// Counts the drops of payloads made by [`Counter::bytes`].
#[derive(Debug, Clone, Default)]
struct Counter {
    made: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct Counted(Vec<u8>, Arc<AtomicUsize>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

impl Counter {
    fn bytes(&self, content: Vec<u8>) -> Bytes {
        self.made.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Counted(content, Arc::clone(&self.dropped)))
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    fn alive(&self) -> usize {
        self.made.load(Ordering::Relaxed) - self.dropped()
    }
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let byte = |index: u64| (seed.wrapping_mul(31) ^ index.wrapping_mul(7)) as u8;
    let mut cycle: Vec<u8> = (0..len.min(256) as u64).map(byte).collect();
    if len > cycle.len() {
        cycle = cycle.repeat(len.div_ceil(256));
        cycle.truncate(len);
    }
    cycle
}

/// Bytes of all segments that are not freed.
fn segment_bytes(ring: Ring<'_>) -> u64 {
    let mut bytes = 0;
    let mut segment = NonNull::new(ring.reader.oldest.load(Ordering::Relaxed));
    while let Some(current) = segment {
        // SAFETY: the tests call this while no other thread runs.
        let current = unsafe { current.as_ref() };
        bytes += current.len() * words::WORD_BYTES;
        segment = NonNull::new(current.next.load(Ordering::Relaxed));
    }
    bytes
}

#[derive(Debug, Clone)]
enum Operation {
    PushSlice { len: usize, free: bool },
    PushSlices { head: usize, tail: usize },
    PushBytes { len: usize, free: bool },
    Publish,
    Advance,
    Commit,
    Rewind,
    Take,
    Shrink,
    GoSmall,
    Retract,
    DropWriter,
    DropReader,
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 0..40_usize,
        3 => 40..300_usize,
        1 => 300..6000_usize,
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        60 => (len(), prop::bool::weighted(0.1)).prop_map(|(len, free)| Operation::PushSlice { len, free }),
        10 => (len(), len()).prop_map(|(head, tail)| Operation::PushSlices { head, tail }),
        30 => (len(), prop::bool::weighted(0.1)).prop_map(|(len, free)| Operation::PushBytes { len, free }),
        60 => Just(Operation::Publish),
        80 => Just(Operation::Advance),
        40 => Just(Operation::Commit),
        12 => Just(Operation::Rewind),
        25 => Just(Operation::Take),
        10 => Just(Operation::Shrink),
        5 => Just(Operation::GoSmall),
        15 => Just(Operation::Retract),
        1 => Just(Operation::DropWriter),
        1 => Just(Operation::DropReader),
    ]
}

#[derive(Debug, Clone)]
struct Expected {
    tag: u16,
    free: bool,
    content: Vec<u8>,
    shared: bool,
    taken: bool,
}

impl Expected {
    fn weight(&self) -> u64 {
        if self.free {
            0
        } else {
            self.content.len() as u64 + 256
        }
    }
}

/// The oracle: everything not yet released, and the cursors in it.
struct Model {
    ring: Owner,
    writer: Option<Writer<Owner>>,
    reader: Option<Reader<Owner>>,
    counter: Counter,
    records: VecDeque<Expected>,
    position: usize,
    published: usize,
    next: u64,
    limit: u64,
    free_bytes: u64,
    heaviest: u64,
    /// Later pushes may begin a new segment without need.
    retracted: bool,
}

impl Model {
    fn new(limit: u64) -> Self {
        let (writer, reader) = pair();
        Self {
            ring: writer.owner().clone(),
            writer: Some(writer),
            reader: Some(reader),
            counter: Counter::default(),
            records: VecDeque::new(),
            position: 0,
            published: 0,
            next: 0,
            limit,
            free_bytes: 0,
            heaviest: 0,
            retracted: false,
        }
    }

    fn pending(&self) -> u64 {
        self.records.iter().map(Expected::weight).sum()
    }

    fn push(&mut self, free: bool, lens: (usize, usize), shared: bool) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        let len = lens.0 + lens.1;
        let weight = record_weight(Owner::CHARGE, len, free);
        let pending: u64 = self.records.iter().map(Expected::weight).sum();
        let room = pending == 0 || pending + weight <= self.limit;
        assert_eq!(writer.has_room(weight, self.limit), room);
        if !room {
            return;
        }
        self.next += 1;
        let tag = self.next as u16;
        let content = content(self.next, len);
        if shared {
            writer.push_bytes(tag, free, self.counter.bytes(content.clone()));
        } else if lens.1 == 0 {
            writer.push_slice(tag, free, &content);
        } else {
            writer.push_slices(tag, free, &content[..lens.0], &content[lens.0..]);
        }
        if free {
            self.free_bytes += if shared { 40 } else { 16 + len as u64 };
        }
        self.heaviest = self.heaviest.max(weight);
        self.records.push_back(Expected {
            tag,
            free,
            content,
            shared,
            taken: false,
        });
    }

    fn skip_taken(&mut self) {
        while self.position < self.published && self.records[self.position].taken {
            self.position += 1;
        }
    }

    fn check_peek(&mut self) {
        self.skip_taken();
        let Some(reader) = &mut self.reader else {
            return;
        };
        let record = reader.peek();
        assert_eq!(record.is_some(), self.position < self.published);
        if let Some(record) = record {
            let expected = &self.records[self.position];
            assert_record(&record, expected);
        }
        assert_eq!(reader.is_empty(), self.position == self.published);
    }

    fn apply(&mut self, operation: Operation) {
        match operation {
            Operation::PushSlice { len, free } => self.push(free, (len, 0), false),
            Operation::PushSlices { head, tail } => self.push(false, (head, tail), false),
            Operation::PushBytes { len, free } => self.push(free, (len, 0), true),
            Operation::Publish => {
                if let Some(writer) = &mut self.writer {
                    let bytes: u64 = self
                        .records
                        .range(self.published..)
                        .map(|record| {
                            8 + if record.shared {
                                32
                            } else {
                                record.content.len().next_multiple_of(8) as u64
                            }
                        })
                        .sum();
                    assert_eq!(writer.unpublished_bytes(), bytes);
                    writer.publish();
                    assert_eq!(writer.unpublished_bytes(), 0);
                    self.published = self.records.len();
                }
            }
            Operation::Advance => {
                self.check_peek();
                if let Some(reader) = &mut self.reader {
                    // Either way; the second finds what the first does not take.
                    let expected = self.records.get(self.position);
                    let tag = expected.map_or(0, |expected| expected.tag);
                    let slice = reader.advance_slice(tag).map(<[u8]>::to_vec);
                    if let (Some(slice), Some(expected)) = (&slice, expected) {
                        assert_eq!(*slice, expected.content);
                        assert!(!expected.shared && !expected.taken);
                    }
                    let moved = slice.is_some() || reader.advance();
                    assert_eq!(moved, self.position < self.published);
                    self.position += usize::from(moved);
                }
            }
            Operation::Take => {
                self.check_peek();
                if let Some(reader) = &mut self.reader {
                    let taken = reader.take();
                    assert_eq!(taken.is_some(), self.position < self.published);
                    if let Some(taken) = taken {
                        let expected = &mut self.records[self.position];
                        assert_eq!((taken.tag, taken.free), (expected.tag, expected.free));
                        assert_eq!(taken.payload, expected.content);
                        expected.taken = true;
                        self.position += 1;
                    }
                }
            }
            Operation::Commit => self.commit(),
            Operation::Rewind => {
                if let Some(reader) = &mut self.reader {
                    reader.rewind();
                    self.position = 0;
                }
            }
            Operation::Shrink => {
                let idle = self.records.is_empty();
                if let Some(writer) = &mut self.writer {
                    let shrunk = writer.shrink_if_idle();
                    assert!(idle || !shrunk, "only an idle ring shrinks");
                }
            }
            Operation::GoSmall => {
                if let Some(writer) = &mut self.writer
                    && writer.go_small()
                {
                    assert_eq!(writer.segment_bytes(), FIRST_SEGMENT_BYTES as u64);
                    self.published = self.records.len();
                }
            }
            Operation::Retract => {
                if let Some(writer) = &mut self.writer {
                    let unpublished = self.records.range(self.published..);
                    let weight = unpublished.map(Expected::weight).sum::<u64>();
                    assert_eq!(writer.retract(), weight);
                    assert_eq!(writer.retract(), 0);
                    assert_eq!(writer.unpublished_bytes(), 0);
                    self.retracted |= self.records.len() > self.published;
                    self.records.truncate(self.published);
                }
            }
            Operation::DropWriter => self.writer = None,
            Operation::DropReader => self.reader = None,
        }
        self.check();
    }

    fn commit(&mut self) {
        // Taken records behind the position are passed at the reader's next look-up, so do one.
        self.check_peek();
        if let Some(reader) = &mut self.reader {
            let weight: u64 = self
                .records
                .drain(..self.position)
                .map(|record| record.weight())
                .sum();
            self.published -= self.position;
            self.position = 0;
            assert_eq!(reader.passed_weight(), weight);
            assert_eq!(reader.commit(), weight);
            assert_eq!(reader.commit(), 0);
        }
    }

    fn check(&mut self) {
        let pending = self.pending();
        if let Some(writer) = &mut self.writer {
            assert!(writer.pending_weight() >= pending);
            assert_eq!(writer.refresh(), pending);
        }
        if let Some(reader) = &self.reader {
            let expected = self.records.range(..self.position);
            let expected: Vec<_> = expected.filter(|record| !record.taken).collect();
            let passed: Vec<_> = reader.passed().collect();
            assert_eq!(passed.len(), expected.len());
            for (record, expected) in passed.iter().zip(&expected) {
                assert_record(record, expected);
            }
            let only = reader.only_passed();
            assert_eq!(only.is_some(), expected.len() == 1);
            if let Some(only) = only {
                assert_record(&only, expected[0]);
            }
            assert_eq!(reader.released(), self.ring.ring().released());
        }
        let owned = self.records.iter();
        let owned = owned.filter(|record| record.shared && !record.taken);
        assert_eq!(self.counter.alive(), owned.count());
        // Free records are outside the bound: count each with its size.
        let most = self.limit.max(self.heaviest) + self.free_bytes;
        let bound = 20 * most + FIRST_SEGMENT_BYTES as u64;
        assert!(self.retracted || segment_bytes(self.ring.ring()) <= bound);
    }

    fn finish(self) {
        let Self {
            ring,
            writer,
            reader,
            counter,
            ..
        } = self;
        drop((writer, reader));
        drop(ring);
        assert_eq!(counter.alive(), 0, "each owned payload is dropped");
    }
}

fn assert_record(record: &Record<'_>, expected: &Expected) {
    assert_eq!((record.tag, record.free), (expected.tag, expected.free));
    assert_eq!(record.weight(Owner::CHARGE), expected.weight());
    assert_eq!(
        matches!(record.payload, Payload::Shared(_)),
        expected.shared
    );
    assert_eq!(record.payload.len(), expected.content.len());
    assert_eq!(record.payload.as_slice(), expected.content);
}

proptest! {
    // The number of cases is proptest's default, or PROPTEST_CASES.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_operations_does_what_a_deque_does(
        limit in 300..20_000_u64,
        operations in prop::collection::vec(operation(), 0..400),
    ) {
        let mut model = Model::new(limit);
        for operation in operations {
            model.apply(operation);
        }
        model.finish();
    }
}

#[test]
fn a_ring_takes_no_heap_before_the_first_push() {
    let (mut writer, mut reader) = pair();
    writer.publish();
    assert!(!writer.shrink_if_idle());
    assert!(reader.peek().is_none());
    assert_eq!(reader.commit(), 0);
    reader.rewind();
    assert_eq!(reader.passed().count(), 0);
    assert_eq!(segment_bytes(writer.owner().ring()), 0);
    writer.push_slice(0, false, b"x");
    assert_eq!(
        segment_bytes(writer.owner().ring()),
        FIRST_SEGMENT_BYTES as u64
    );
}

#[test]
fn nothing_is_seen_before_it_is_published_and_a_batch_is_seen_whole() {
    let (mut writer, mut reader) = pair();
    for piece in [b"one", b"two"] {
        writer.push_slice(1, false, piece);
        assert!(reader.is_empty());
    }
    writer.publish();
    let mut seen = Vec::new();
    while let Some(record) = reader.peek() {
        seen.push(record.payload.as_slice().to_vec());
        reader.advance();
    }
    assert_eq!(seen, [b"one", b"two"]);
}

#[test]
fn a_record_with_an_unwanted_tag_is_named_and_stays() {
    let (mut writer, mut reader) = pair();
    assert_eq!(reader.advance_unless(1), None);
    writer.push_slice(2, false, b"wanted");
    writer.push_slice(3, false, b"unwanted");
    writer.publish();
    assert_eq!(reader.advance_unless(1), Some(2));
    assert_eq!(reader.advance_unless(1), Some(3));
    assert_eq!(reader.passed().count(), 1);
    assert_eq!(reader.peek().unwrap().tag, 3);
}

#[test]
fn only_a_record_with_the_tag_wanted_that_the_ring_stores_is_lent_as_a_slice() {
    let (mut writer, mut reader) = pair();
    assert_eq!(reader.advance_slice(2), None);
    writer.push_slice(2, false, b"wanted");
    writer.push_slice(3, false, b"another tag");
    writer.push_bytes(2, false, Bytes::from_static(b"shared"));
    writer.publish();
    // The reader has not attached to the ring yet.
    assert!(!reader.is_empty());
    assert_eq!(reader.advance_slice(2), Some(&b"wanted"[..]));
    assert_eq!(reader.advance_slice(2), None);
    assert_eq!(reader.passed().count(), 1);
    assert!(reader.advance());
    assert_eq!(reader.advance_slice(2), None);
    assert_eq!(reader.passed().count(), 2);
    assert!(reader.advance());
    reader.commit();
    assert_eq!(writer.refresh(), 0);
}

#[test]
fn passed_records_stay_readable_while_the_ring_grows_behind_them() {
    let (mut writer, mut reader) = pair();
    writer.push_slice(1, false, b"first");
    writer.push_bytes(2, false, Bytes::from_static(b"second"));
    writer.publish();
    reader.advance();
    reader.advance();
    for round in 0..100 {
        writer.push_slice(3, false, &content(round, 200));
        writer.publish();
    }
    let passed: Vec<_> = reader
        .passed()
        .map(|record| record.payload.to_bytes())
        .collect();
    assert_eq!(passed, ["first", "second"]);
    assert_eq!(reader.passed().payload_len(), 11);
    while reader.advance() {}
    assert_eq!(reader.passed().count(), 102);
    reader.commit();
    assert_eq!(writer.refresh(), 0);
}

#[test]
fn a_walk_over_what_is_held_goes_on_where_it_was_over_padding_and_segments() {
    let (mut writer, mut reader) = pair();
    let lens = [30, 50, 40, 0, 700, 8, 2000];
    for (tag, len) in (0..).zip(lens) {
        writer.push_slice(tag, false, &content(tag.into(), len));
    }
    writer.publish();
    while reader.advance() {}
    let mut held = Held::new(&mut reader);
    for tag in 0..lens.len() {
        let rest: Vec<_> = held.rest().map(|record| usize::from(record.tag)).collect();
        assert_eq!(rest, (tag..lens.len()).collect::<Vec<_>>());
        held.step();
    }
    held.step();
    assert!(held.rest().next().is_none());
    assert_eq!(held.reader().passed().count(), lens.len());
    held.let_go().commit();
    assert_eq!(held.rest().count(), 0);
}

#[test]
fn a_grown_ring_does_not_grow_again_under_the_same_load() {
    let (mut writer, mut reader) = pair();
    let mut sizes = Vec::new();
    for round in 0..5000_u64 {
        for index in 0..1 + round % 7 {
            writer.push_slice(0, false, &content(index, (round * 13 % 600) as usize));
        }
        writer.publish();
        while reader.advance() {}
        reader.commit();
        sizes.push(segment_bytes(writer.owner().ring()));
    }
    assert_eq!(sizes[1000], sizes[4999]);
}

#[test]
fn an_idle_ring_that_shrinks_frees_the_big_segment_when_the_reader_looks() {
    let (mut writer, mut reader) = pair();
    let size = |writer: &Writer<Owner>| segment_bytes(writer.owner().ring());
    writer.push_slice(0, false, &[7; 10_000]);
    writer.publish();
    assert!(!writer.shrink_if_idle(), "not idle");
    reader.advance();
    assert!(!writer.shrink_if_idle(), "not released");
    reader.commit();
    let big = size(&writer);
    assert!(big > 10_000);
    assert!(writer.shrink_if_idle());
    assert!(!writer.shrink_if_idle(), "small already");
    assert_eq!(size(&writer), big + FIRST_SEGMENT_BYTES as u64);
    assert!(reader.is_empty());
    assert_eq!(size(&writer), FIRST_SEGMENT_BYTES as u64);
    writer.push_slice(9, false, b"after");
    writer.publish();
    assert_eq!(reader.take().unwrap().payload, "after");
}

#[test]
fn payloads_are_dropped_once_wherever_they_are_when_the_ring_ends() {
    for writer_first in [false, true] {
        let counter = Counter::default();
        let (mut writer, mut reader) = pair();
        for round in 0..60 {
            writer.push_bytes(0, false, counter.bytes(content(round, 10)));
            writer.push_slice(0, false, &content(round, 30));
        }
        writer.publish();
        for _ in 0..10 {
            reader.advance();
        }
        assert_eq!(counter.dropped(), 0);
        reader.commit();
        assert_eq!(counter.dropped(), 5, "released");
        drop(reader.take());
        assert_eq!(counter.dropped(), 6, "taken");
        reader.rewind();
        reader.advance();
        reader.advance();
        for round in 0..60 {
            writer.push_bytes(0, false, counter.bytes(content(round, 10)));
        }
        if writer_first {
            drop(writer);
            while reader.advance() {}
            drop(reader);
        } else {
            drop(reader);
            writer.push_bytes(0, false, counter.bytes(Vec::new()));
            drop(writer);
        }
        assert_eq!(counter.alive(), 0);
    }
}

#[test]
fn a_leaked_writer_leaks_nothing() {
    let counter = Counter::default();
    let owner = Owner(Arc::new(RingPair::new()));
    // SAFETY: the only writer of this ring.
    let mut writer = unsafe { Writer::new(owner.clone()) };
    writer.push_bytes(0, false, counter.bytes(vec![1]));
    writer.publish();
    writer.push_slice(0, false, &[0; 1000]);
    writer.push_bytes(0, false, counter.bytes(vec![2]));
    // SAFETY: the copy of the handle is dropped instead of the one in the leaked writer.
    let inner = unsafe { std::ptr::read(writer.owner()) };
    std::mem::forget(writer);
    drop(inner);
    drop(owner);
    assert_eq!(counter.alive(), 0);
}

#[test]
fn a_payload_that_panics_in_drop_is_not_dropped_again() {
    struct Bomb(Arc<AtomicUsize>);
    impl AsRef<[u8]> for Bomb {
        fn as_ref(&self) -> &[u8] {
            b"bomb"
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
                panic!("the first one");
            }
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let (mut writer, mut reader) = pair();
    for _ in 0..3 {
        writer.push_bytes(0, false, Bytes::from_owner(Bomb(Arc::clone(&dropped))));
    }
    writer.publish();
    while reader.advance() {}
    let commit = std::panic::AssertUnwindSafe(|| reader.commit());
    assert!(std::panic::catch_unwind(commit).is_err());
    assert_eq!(reader.commit(), 3 * (4 + 256));
    assert_eq!(dropped.load(Ordering::Relaxed), 3);
}

/// A small generator, so that both threads compute the same sequence.
struct Sequence(u64);

impl Sequence {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn record(&mut self, index: u64) -> (bool, Vec<u8>) {
        let len = match self.next(20) {
            0 => self.next(5000),
            1..5 => self.next(600),
            _ => self.next(60),
        };
        (self.next(4) == 0, content(index, len as usize))
    }
}

#[test]
fn two_threads_see_the_same_records_in_the_same_order() {
    const RECORDS: u64 = if cfg!(miri) { 300 } else { 200_000 };
    const LIMIT: u64 = 32 * 1024;
    let counter = Counter::default();
    let (mut writer, mut reader) = pair();
    let producer = std::thread::spawn({
        let counter = counter.clone();
        move || {
            let mut sequence = Sequence(0x9e37_79b9);
            let mut choice = Sequence(77);
            for index in 0..RECORDS {
                let (shared, content) = sequence.record(index);
                while !writer.has_room(record_weight(Owner::CHARGE, content.len(), false), LIMIT) {
                    writer.publish();
                    std::thread::yield_now();
                }
                if shared {
                    writer.push_bytes(index as u16, false, counter.bytes(content));
                } else {
                    writer.push_slice(index as u16, false, &content);
                }
                if choice.next(3) == 0 {
                    writer.publish();
                }
                if choice.next(50) == 0 {
                    writer.shrink_if_idle();
                }
            }
            writer.publish();
        }
    });
    let mut sequence = Sequence(0x9e37_79b9);
    let mut choice = Sequence(99);
    let mut index = 0;
    while index < RECORDS {
        let Some(record) = reader.peek() else {
            reader.commit();
            std::thread::yield_now();
            continue;
        };
        let (shared, content) = sequence.record(index);
        assert_eq!(record.tag, index as u16);
        assert_eq!(matches!(record.payload, Payload::Shared(_)), shared);
        assert_eq!(record.payload.as_slice(), content);
        if choice.next(5) == 0 {
            assert_eq!(reader.take().unwrap().payload, content);
        } else {
            reader.advance();
        }
        if choice.next(4) == 0 {
            reader.commit();
        }
        index += 1;
    }
    producer.join().unwrap();
    reader.commit();
    assert_eq!(counter.alive(), 0);
}

#[test]
fn what_is_taken_back_leaves_no_memory_but_that_of_what_was_published() {
    let counter = Counter::default();
    let (mut writer, mut reader) = pair();
    let ring = writer.owner().clone();
    for published in 0..3_u64 {
        for _ in 0..300 {
            writer.push_slice(1, false, &[1; 1000]);
            writer.push_bytes(2, false, counter.bytes(vec![2; 10_000]));
        }
        assert!(segment_bytes(ring.ring()) > 300_000 && counter.alive() == 300);
        assert_eq!(writer.retract(), 300 * (1256 + 10_256));
        assert!(segment_bytes(ring.ring()) <= 256 && counter.alive() == 0);
        assert_eq!(writer.refresh(), published * 257);
        writer.push_slice(3, false, &[published as u8]);
        writer.publish();
    }
    for published in 0..3 {
        assert_eq!(
            reader.take().expect("it was published").payload[..],
            [published]
        );
    }
    reader.commit();
    assert_eq!(writer.refresh(), 0);
}

#[test]
fn a_record_written_in_place_arrives_as_one_that_was_copied_and_one_given_up_leaves_nothing() {
    let (mut writer, mut reader) = pair();
    for len in [0, 1, 7, 8, 100, 1000, 4096, 64, 3] {
        // All ways of making room: in place, behind padding, in a larger segment.
        for round in 0..20_u8 {
            let before = writer.pushed_weight();
            writer.reserve(len).payload_mut().fill(0xff);
            assert_eq!(writer.pushed_weight(), before);
            writer.publish();
            assert!(reader.peek().is_none(), "{len} {round}");

            let mut place = writer.reserve(len);
            assert!(place.payload().iter().all(|byte| *byte == 0));
            place.payload_mut().fill(round);
            place.push(7, false);
            assert_eq!(
                writer.pushed_weight(),
                before + record_weight(Owner::CHARGE, len, false)
            );
            assert!(reader.peek().is_none(), "not published");
            writer.push_slice(8, false, &[round]);
            writer.publish();
            let record = reader.peek().expect("published");
            assert_eq!(record.tag, 7);
            assert_eq!(record.payload.as_slice(), vec![round; len]);
            assert!(reader.advance());
            assert_eq!(reader.peek().expect("the next").payload.as_slice(), [round]);
            assert!(reader.advance());
            reader.commit();
        }
    }
}

#[test]
fn a_renewed_ring_takes_its_first_records_back_and_is_read_from_the_next() {
    let counter = Counter::default();
    let mut pair = Arc::new(RingPair::new());
    for round in 0..4_u8 {
        let owner = Owner(Arc::clone(&pair));
        // SAFETY: the only writer of this ring since the pair was made or renewed.
        let mut writer = unsafe { Writer::new(owner.clone()) };
        // SAFETY: as above, the only reader.
        let mut reader = unsafe { Reader::new(owner.clone()) };
        assert!(reader.peek().is_none());
        for _ in 0..3 {
            writer.push_slice(1, false, &[1; 100]);
            writer.push_bytes(2, false, counter.bytes(vec![2; 10_000]));
        }
        assert_eq!(writer.retract(), 3 * (356 + 10_256));
        assert!(reader.is_empty() && counter.alive() == 0);
        // The reader of a renewed ring knows its first segment.
        assert_eq!(segment_bytes(owner.ring()), FIRST_SEGMENT_BYTES as u64);
        writer.push_slice(3, false, &[round]);
        writer.push_slice(3, false, &[round; 70]);
        writer.publish();
        assert_eq!(reader.take().expect("published").payload[..], [round]);
        if round % 2 == 0 {
            // In the other rounds the last record is left in the ring.
            assert!(reader.advance());
            reader.commit();
        }
        drop((writer, reader, owner));
        let alone = Arc::get_mut(&mut pair).expect("both have let go");
        alone.renew();
        assert_eq!(segment_bytes(alone.forth()), FIRST_SEGMENT_BYTES as u64);
    }
}
