//! Counts and times of the calls of each method: fixed memory for each row, and no lock.
//!
//! A call costs three Relaxed additions (begun; its bucket and its time when it ends), and one more if it fails. A caller looks at the
//! clock once, for the deadline; a call in one frame ends when its answer was received, which the session has noted. A server looks
//! once for up to four calls that are ready at once.

use std::array::from_fn;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::code::Code;
use super::span::CallSpan;

/// Methods of a channel that have rows of their own; calls of more methods share one row.
const CHANNEL_ROWS: usize = 256;
/// Places in which a method of a channel looks for its row.
const PROBES: usize = 16;
/// The codes of gRPC, and one for all of the application's.
const CODES: usize = 18;
/// Bits of a time in nanoseconds below which all are alike: about 1 µs.
const LOW_BITS: u32 = 10;
/// Bits of a time above which all are alike: about 137 s.
const HIGH_BITS: u32 = 37;
/// Buckets for each doubling, as bits.
const PART_BITS: u32 = 2;
const PARTS: usize = 1 << PART_BITS;
/// One for times below all others, and one for times above.
const BUCKETS: usize = 2 + (HIGH_BITS - LOW_BITS) as usize * PARTS;
/// The name of the row of calls whose method has none.
const OTHERS: &str = "";

// ---- snapshots ------------------------------------------------------------------------------------

/// The calls of one method: from [`Server::metrics`](super::Server::metrics) and [`Channel::metrics`](super::Channel::metrics).
///
/// # Examples
/// ```
/// # use bytes::Bytes;
/// # use ringmux::rpc::{Channel, Code, Context, Method, Raw, Server, Status};
/// # const GET: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Store/Get");
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # async fn get(_: Context, key: Bytes) -> Result<Bytes, Status> { Err(Status::not_found("no such key")) }
/// # let (a, b) = tokio::io::duplex(4096);
/// # let (session, connection) = ringmux::client(a, &ringmux::Config::default());
/// # tokio::spawn(connection);
/// # let (peer, connection) = ringmux::server(b, &ringmux::Config::default());
/// # tokio::spawn(connection);
/// # let server = Server::builder().unary(GET, get).build()?;
/// # tokio::spawn(async move { server.serve_session(peer).await });
/// let channel = Channel::new(session);
/// channel.call(&GET, &"key".into()).await.unwrap_err();
///
/// let metrics = channel.metrics();
/// assert_eq!(metrics[0].method, "example.v1.Store/Get");
/// assert_eq!((metrics[0].started, metrics[0].in_flight()), (1, 0));
/// assert_eq!(metrics[0].ended_with(Code::NOT_FOUND), 1);
/// println!("99 of 100 within {:?}", metrics[0].latency.quantile(0.99));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MethodMetrics {
    /// `service/method`. Empty for calls of methods that have no row: of a server, those that it does not serve; of a channel, those beyond
    /// the first 256 or so.
    pub method: &'static str,
    /// Calls that have begun.
    pub started: u64,
    /// Times from the beginning to the end of calls. Of a channel, the end of a call that is answered in one frame is when the answer was
    /// received, and calls that begin within 4 us may be timed from the first of them; of a server, the beginning is when the opening was received, and unary calls that are ready at once are
    /// timed together, up to four of them.
    pub latency: Latency,
    failed: [u64; CODES],
}

impl MethodMetrics {
    /// Calls that have ended, with or without success.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.latency.count()
    }

    /// Calls that go on.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.started.saturating_sub(self.ended())
    }

    /// Calls that ended with this code, [`Code::OK`] included. The codes of the application are counted together:
    /// each gives all of them.
    #[must_use]
    pub fn ended_with(&self, code: Code) -> u64 {
        match code {
            Code::OK => self.ended() - self.failed.iter().sum::<u64>().min(self.ended()),
            code => self.failed[code_index(code)],
        }
    }

    /// The codes with which calls have ended, and how many did; `None` stands for all codes of the application.
    pub fn codes(&self) -> impl Iterator<Item = (Option<Code>, u64)> {
        (0..CODES).filter_map(|index| {
            let code = Code::new(index as u32);
            let count = self.ended_with(code);
            (count > 0).then_some((code.name().map(|_| code), count))
        })
    }

    fn add(&mut self, other: &Self) {
        self.started += other.started;
        self.latency.sum_ns += other.latency.sum_ns;
        let failed = self.failed.iter_mut().zip(other.failed);
        failed.for_each(|(sum, count)| *sum += count);
        let buckets = self.latency.buckets.iter_mut();
        let buckets = buckets.zip(other.latency.buckets);
        buckets.for_each(|(sum, count)| *sum += count);
    }
}

impl fmt::Debug for MethodMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codes: Vec<_> = self.codes().collect();
        f.debug_struct("MethodMetrics")
            .field("method", &self.method)
            .field("started", &self.started)
            .field("in_flight", &self.in_flight())
            .field("codes", &codes)
            .field("latency", &self.latency)
            .finish()
    }
}

/// A distribution of times, in four buckets for each doubling from 1 µs to 137 s: a value read from it is at most a quarter too high.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    sum_ns: u64,
}

impl Latency {
    /// How many times it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_ns)
    }

    /// The time that this part of the calls did not exceed, `0.5` for the median; `None` without a call.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        let count = self.count();
        let wanted = ((count as f64 * part.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets().find_map(|(until, count)| {
            seen += count;
            (seen >= wanted).then_some(until)
        })
    }

    /// The buckets that have calls: the time that they did not exceed, and how many. Longer ones than 137 s are counted as
    /// [`Duration::MAX`].
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let buckets = self.buckets.iter().enumerate();
        let taken = buckets.filter(|(_, count)| **count > 0);
        taken.map(|(index, &count)| (bound(index), count))
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("count", &self.count())
            .field("sum", &self.sum())
            .field("median", &self.quantile(0.5))
            .finish_non_exhaustive()
    }
}

// ---- rows -----------------------------------------------------------------------------------------

/// The counters of one method.
pub(super) struct Row {
    name: &'static str,
    started: AtomicU64,
    sum_ns: AtomicU64,
    failed: [AtomicU64; CODES],
    buckets: [AtomicU64; BUCKETS],
}

impl Row {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            started: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
            failed: from_fn(|_| AtomicU64::new(0)),
            buckets: from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(super) fn begin(&self) {
        // ORDERING: sums, which publish nothing; so are all others here.
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self, code: Code, took: Duration) {
        let nanos = nanos(took);
        if code != Code::OK {
            self.failed[code_index(code)].fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(nanos, Ordering::Relaxed);
        self.buckets[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    /// Adds calls that have begun and were answered, with the sum of their times and how many are in which buckets.
    pub(super) fn add(&self, calls: u64, sum_ns: u64, buckets: impl Iterator<Item = (usize, u64)>) {
        self.started.fetch_add(calls, Ordering::Relaxed);
        self.sum_ns.fetch_add(sum_ns, Ordering::Relaxed);
        for (bucket, count) in buckets {
            self.buckets[bucket].fetch_add(count, Ordering::Relaxed);
        }
    }

    fn snapshot(&self) -> MethodMetrics {
        // Ends first, so that no more calls have ended than have begun.
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let latency = Latency {
            buckets: from_fn(|index| get(&self.buckets[index])),
            sum_ns: get(&self.sum_ns),
        };
        MethodMetrics {
            method: self.name,
            failed: from_fn(|index| get(&self.failed[index])),
            latency,
            started: get(&self.started),
        }
    }
}

fn code_index(code: Code) -> usize {
    (code.number() as usize).min(CODES - 1)
}

/// Wraps after five centuries.
pub(super) const fn nanos(took: Duration) -> u64 {
    let seconds = took.as_secs().wrapping_mul(1_000_000_000);
    seconds.wrapping_add(took.subsec_nanos() as u64)
}

/// The place of a time in a [`Latency`].
pub(super) fn bucket(nanos: u64) -> usize {
    let top = 63 - (nanos | 1).leading_zeros();
    if top < LOW_BITS {
        return 0;
    }
    if top >= HIGH_BITS {
        return BUCKETS - 1;
    }
    let part = (nanos >> (top - PART_BITS)) as usize & (PARTS - 1);
    1 + (top - LOW_BITS) as usize * PARTS + part
}

/// The time that is below no other one of the bucket.
fn bound(bucket: usize) -> Duration {
    match bucket {
        0 => Duration::from_nanos((1 << LOW_BITS) - 1),
        _ if bucket == BUCKETS - 1 => Duration::MAX,
        _ => {
            let (double, part) = ((bucket - 1) / PARTS, (bucket - 1) % PARTS);
            let top = LOW_BITS + double as u32;
            Duration::from_nanos(((PARTS + part + 1) as u64) << (top - PART_BITS))
                - Duration::from_nanos(1)
        }
    }
}

/// The rows of a server: one for each method, by number, and one for calls of all others.
pub(super) struct ServerRows(Box<[Row]>);

impl ServerRows {
    pub(super) fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Self(std::iter::once(OTHERS).chain(names).map(Row::new).collect())
    }

    /// The row of the method with this number; 0: of no method.
    pub(super) fn row(&self, number: usize) -> &Row {
        &self.0[number]
    }

    /// Calls that were taken.
    pub(super) fn started(&self) -> u64 {
        let rows = self.0.iter();
        rows.map(|row| row.started.load(Ordering::Relaxed)).sum()
    }

    pub(super) fn snapshot(&self) -> Vec<MethodMetrics> {
        snapshot(self.0.iter())
    }
}

/// The rows of a channel: each method has one from its first call on.
#[derive(Default)]
pub(super) struct ChannelRows(OnceLock<Box<Table>>);

struct Table {
    rows: [OnceLock<Arc<Row>>; CHANNEL_ROWS],
    others: Arc<Row>,
}

impl ChannelRows {
    pub(super) fn row(&self, name: &'static str) -> &Arc<Row> {
        let table = self.0.get_or_init(|| {
            Box::new(Table {
                rows: from_fn(|_| OnceLock::new()),
                others: Arc::new(Row::new(OTHERS)),
            })
        });
        // A constant's name is at one address mostly; where it is at several, the rows are added up when they are read.
        let address = name.as_ptr().addr();
        let first = (address >> 3) ^ (address >> 11);
        for probe in 0..PROBES {
            let place = &table.rows[(first + probe) % CHANNEL_ROWS];
            let row = place.get_or_init(|| Arc::new(Row::new(name)));
            if std::ptr::eq(row.name, name) {
                return row;
            }
        }
        &table.others
    }

    pub(super) fn snapshot(&self) -> Vec<MethodMetrics> {
        let Some(table) = self.0.get() else {
            return Vec::new();
        };
        let rows = table.rows.iter().filter_map(OnceLock::get);
        snapshot(rows.chain([&table.others]).map(|row| &**row))
    }
}

/// The rows that have calls, by name.
fn snapshot<'a>(rows: impl Iterator<Item = &'a Row>) -> Vec<MethodMetrics> {
    let mut all: Vec<MethodMetrics> = rows.map(Row::snapshot).collect();
    all.retain(|row| row.started > 0);
    all.sort_by_key(|row| row.method);
    all.dedup_by(|row, kept| {
        let same = row.method == kept.method;
        if same {
            kept.add(row);
        }
        same
    });
    all
}

// ---- a call ---------------------------------------------------------------------------------------

/// A call that is counted, from its caller's side: once, when it has begun. Dropped before its end, it was cancelled.
pub(super) struct Seen<'a> {
    row: RowOf<'a>,
    span: CallSpan,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    New,
    Begun(Instant),
    Ended,
}

enum RowOf<'a> {
    Borrowed(&'a Row),
    Own(Arc<Row>),
}

impl<'a> Seen<'a> {
    pub(super) fn borrowed(row: &'a Arc<Row>, span: CallSpan) -> Self {
        Self::new(RowOf::Borrowed(row), span)
    }

    pub(super) fn owned(row: &Arc<Row>, span: CallSpan) -> Seen<'static> {
        Seen::new(RowOf::Own(Arc::clone(row)), span)
    }

    const fn new(row: RowOf<'a>, span: CallSpan) -> Self {
        Self {
            row,
            span,
            state: State::New,
        }
    }

    fn row(&self) -> &Row {
        match &self.row {
            RowOf::Borrowed(row) => row,
            RowOf::Own(row) => row,
        }
    }

    pub(super) fn begin(&mut self, now: Instant) {
        self.row().begin();
        self.state = State::Begun(now);
    }

    pub(super) const fn has_begun(&self) -> bool {
        !matches!(self.state, State::New)
    }

    pub(super) fn end(&mut self, code: Code) {
        if let State::Begun(_) = self.state {
            self.end_at(code, Instant::now());
        }
    }

    /// The same with the time, which saves a look at the clock.
    pub(super) fn end_at(&mut self, code: Code, now: Instant) {
        if let State::Begun(since) = self.state {
            self.state = State::Ended;
            self.row().end(code, now.saturating_duration_since(since));
            self.span.end(code);
        }
    }

    /// The end, if this is one.
    pub(super) fn end_of<T>(&mut self, result: &Result<T, super::Status>) {
        self.end(match result {
            Ok(_) => Code::OK,
            Err(status) => status.code(),
        });
    }
}

impl Drop for Seen<'_> {
    fn drop(&mut self) {
        self.end(Code::CANCELLED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        for nanos in (0..40).flat_map(|bit| {
            let at = 1_u64 << bit;
            [at - 1, at, at + 1, at + at / 3, at + at / 2]
        }) {
            let index = bucket(nanos);
            let time = Duration::from_nanos(nanos);
            assert!(bound(index) >= time, "{nanos}");
            assert!(index == 0 || bound(index - 1) < time, "{nanos}");
            if index > 0 && index < BUCKETS - 1 {
                assert!(
                    bound(index).as_nanos() * 4 <= u128::from(nanos) * 5,
                    "{nanos}"
                );
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let row = Row::new("a/B");
        assert_eq!(row.snapshot().latency.quantile(0.5), None);
        for ms in 1..=100 {
            row.begin();
            row.end(Code::OK, Duration::from_millis(ms));
        }
        let metrics = row.snapshot();
        assert_eq!(metrics.latency.sum(), Duration::from_millis(5050));
        for (part, ms) in [(0.0, 1), (0.5, 50), (0.99, 99), (1.0, 100)] {
            let read = metrics.latency.quantile(part).unwrap();
            let exact = Duration::from_millis(ms);
            assert!(read >= exact && read <= exact * 5 / 4, "{part}: {read:?}");
        }
    }

    #[test]
    fn methods_beyond_the_rows_share_one_and_a_name_at_two_places_is_one_method() {
        let names: Vec<&'static str> = (0..CHANNEL_ROWS * 2)
            .map(|n| &*Box::leak(format!("test.Test/Method{n}").into_boxed_str()))
            .collect();
        let rows = ChannelRows::default();
        for name in &names {
            rows.row(name).begin();
        }
        let again: &'static str = Box::leak(names[0].to_owned().into_boxed_str());
        let rows_of_two = ChannelRows::default();
        rows_of_two.row(names[0]).begin();
        rows_of_two.row(again).begin();
        let metrics = rows.snapshot();
        assert!(metrics.len() <= CHANNEL_ROWS + 1, "{}", metrics.len());
        assert_eq!(metrics[0].method, OTHERS);
        let started: u64 = metrics.iter().map(|row| row.started).sum();
        assert_eq!(started, names.len() as u64);
        let metrics = rows_of_two.snapshot();
        assert_eq!((metrics.len(), metrics[0].started), (1, 2));
    }

    #[test]
    fn the_codes_of_the_application_are_counted_together() {
        let row = Row::new("a/B");
        for code in [0, 0, 5, 17, 1000, u32::MAX] {
            row.begin();
            row.end(Code::new(code), Duration::ZERO);
        }
        row.begin();
        let metrics = row.snapshot();
        assert_eq!((metrics.ended(), metrics.in_flight()), (6, 1));
        let codes: Vec<_> = metrics.codes().collect();
        let expected = [(Some(Code::OK), 2), (Some(Code::NOT_FOUND), 1), (None, 3)];
        assert_eq!(codes, expected);
        assert_eq!(metrics.ended_with(Code::new(99)), 3);
    }
}
