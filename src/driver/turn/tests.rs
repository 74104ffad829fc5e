//! The work of one poll, over an in-memory transport.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncReadExt;

use super::*;
use crate::bridge::Info;
use crate::bridge::{Engine, NativeEngine, Pool};
use crate::config::Config;
use crate::config::Rate;
use crate::driver::make_room;
use crate::drpc::{Profile, put_varint};
use crate::handle::Session;
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::Drpc;
use crate::wire::native::frame::{HEADER_LEN, Header, Role, Settings, preface};

/// Bytes not yet received, and bytes sent.
#[derive(Default)]
struct Wire {
    coming: BytesMut,
    sent: BytesMut,
    /// The peer has closed the connection, behind `coming`.
    closed: bool,
    /// Sends that found it closed.
    vain: u32,
}

impl Transport for Wire {
    fn poll_recv(
        &mut self,
        _: &mut Context<'_>,
        buf: &mut BytesMut,
        capacity: usize,
    ) -> Poll<io::Result<usize>> {
        if self.coming.is_empty() {
            return match self.closed {
                true => Poll::Ready(Ok(0)),
                false => Poll::Pending,
            };
        }
        make_room(buf, capacity);
        let room = buf.capacity() - buf.len();
        let bytes = self.coming.split_to(room.min(self.coming.len()));
        buf.extend_from_slice(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn pause_recv(&mut self) {}

    fn poll_send(&mut self, _: &mut Context<'_>, batch: &mut Batch) -> Poll<io::Result<usize>> {
        if self.closed {
            self.vain += 1;
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        for piece in batch.remaining() {
            self.sent.extend_from_slice(piece);
        }
        Poll::Ready(Ok(batch.len()))
    }

    fn hung_up(&mut self) -> HungUp {
        match (self.closed, self.coming.is_empty()) {
            (false, _) => HungUp::No,
            (true, false) => HungUp::BehindBytes,
            (true, true) => HungUp::Now(Ok(())),
        }
    }

    fn poll_timer(&mut self, _: &mut Context<'_>, _: Option<Instant>) -> io::Result<bool> {
        Ok(false)
    }

    fn poll_shutdown(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }
}

fn end(role: Role) -> (Turns<Wire, NativeEngine>, Session) {
    end_with(role, &Config::default())
}

fn end_with(role: Role, config: &Config) -> (Turns<Wire, NativeEngine>, Session) {
    let info = Info::of_a_test(role);
    let pool = Pool::new(1 << 30);
    let (connection, link) = NativeEngine::new(role, config, info, pool, clock::now());
    (Turns::new(connection, Wire::default()), Session::new(link))
}

/// A frame of DRPC: a number for its kind and whether it is done, its stream and message, and its data.
fn drpc(kind: u8, message: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = vec![kind, 1, message];
    put_varint(&mut frame, data.len() as u64);
    frame.extend_from_slice(data);
    frame
}

/// The application has taken what filled the session, and waits for the next message: no request of it follows.
#[test]
fn a_full_session_is_read_again_in_the_turn_that_finds_room() {
    const FIRST: usize = 270 * 1024;
    let _clock = clock::Stopped::new();
    let config = Config::builder()
        .drpc(Profile::STORJ)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .expect("valid");
    let (role, pool) = (Role::Acceptor, Pool::new(1 << 30));
    let (connection, link) =
        Engine::<Drpc>::new(role, &config, Info::of_a_test(role), pool, clock::now());
    let (mut end, session) = (Turns::new(connection, Wire::default()), Session::new(link));
    let mut cx = Context::from_waker(Waker::noop());
    let mut hear = |end: &mut Turns<Wire, Engine<Drpc>>, bytes: &[u8]| {
        end.transport.coming.extend_from_slice(bytes);
        assert!(Pin::new(&mut *end).poll(&mut cx).is_pending());
        end.transport.coming.len()
    };
    assert_eq!(hear(&mut end, &drpc(3, 1, b"/m")), 0);
    let accepted = session.accept().now_or_never().expect("a call");
    let mut call = accepted.unwrap().unwrap();
    let first = drpc(5, 2, &[7; FIRST]);
    let (most, last) = first.split_at(250 * 1024);
    assert_eq!(hear(&mut end, most), 0);
    assert_eq!(hear(&mut end, last), 0);
    assert!(hear(&mut end, &drpc(5, 3, b"next")) > 0, "it is full");
    assert_eq!(call.try_recv().unwrap().len(), FIRST);
    assert_eq!(hear(&mut end, b""), 0);
    assert_eq!(call.try_recv().unwrap(), "next");
}

/// The peer has closed the connection behind bytes that the session does not read, and a send finds that out, or a look.
#[test]
fn bytes_in_front_of_a_known_end_have_the_drain_timeout_to_be_read() {
    const FULL: usize = 300 * 1024;
    let config = Config::builder()
        .drpc(Profile::STORJ)
        .session_window(256 * 1024)
        .session_window_max(256 * 1024)
        .build()
        .expect("valid");
    for (sends, reads) in [(true, true), (true, false), (false, true), (false, false)] {
        let clock = clock::Stopped::new();
        let (role, pool) = (Role::Dialer, Pool::new(1 << 30));
        let (connection, link) =
            Engine::<Drpc>::new(role, &config, Info::of_a_test(role), pool, clock::now());
        let (mut end, session) = (Turns::new(connection, Wire::default()), Session::new(link));
        let mut cx = Context::from_waker(Waker::noop());
        let mut poll = |end: &mut Turns<Wire, Engine<Drpc>>| Pin::new(end).poll(&mut cx);
        let mut call = session.try_open("/m").expect("it is established");
        assert!(poll(&mut end).is_pending());
        for (number, len) in [(1, FULL), (2, 10), (3, 10)] {
            let coming = &mut end.transport.coming;
            coming.extend_from_slice(&drpc(5, number, &vec![7; len]));
            assert!(poll(&mut end).is_pending());
        }
        assert!(!end.transport.coming.is_empty(), "it is full");
        end.transport.closed = true;
        if !sends {
            clock::Stopped::pass(config.write_timeout() / 4);
            assert!(poll(&mut end).is_pending());
        }
        for _ in 0..3 {
            call.try_send("late".into()).expect("room for it");
            assert!(poll(&mut end).is_pending());
        }
        assert_eq!(end.transport.vain, u32::from(sends));
        if reads {
            assert_eq!(call.try_recv().expect("the first").len(), FULL);
            assert!(matches!(
                poll(&mut end),
                Poll::Ready(SessionError::Disconnected)
            ));
            assert_eq!(call.try_recv().expect("the second").len(), 10);
            assert_eq!(call.try_recv().expect("the third").len(), 10);
        } else {
            clock::Stopped::pass(config.drain_timeout() - Duration::from_millis(1));
            assert!(poll(&mut end).is_pending());
            clock::Stopped::pass(Duration::from_millis(1));
            assert!(matches!(
                poll(&mut end),
                Poll::Ready(SessionError::Disconnected)
            ));
        }
        drop(clock);
    }
}

/// Polls both ends until no bytes are in transit.
fn settle(near: &mut Turns<Wire, NativeEngine>, far: &mut Turns<Wire, NativeEngine>) {
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        for end in [&mut *near, &mut *far] {
            assert!(Pin::new(end).poll(&mut cx).is_pending(), "it has ended");
        }
        let said = near.transport.sent.split();
        let answered = far.transport.sent.split();
        if said.is_empty() && answered.is_empty() {
            return;
        }
        far.transport.coming.unsplit(said);
        near.transport.coming.unsplit(answered);
    }
}

#[test]
fn what_was_received_into_is_small_again_when_little_has_come_for_long() {
    const MUCH: usize = 200 * 1024;
    let _clock = clock::Stopped::new();
    let (mut near, session) = end(Role::Dialer);
    let (mut far, _accepting) = end(Role::Acceptor);
    settle(&mut near, &mut far);
    let least = far.connection.recv_capacity();
    let mut stream = session.try_open("").expect("it is established");
    stream.try_send(vec![7; MUCH].into()).expect("room for it");
    settle(&mut near, &mut far);
    assert!(far.recv.capacity() > least, "{}", far.recv.capacity());

    clock::Stopped::pass(Duration::from_secs(11));
    stream.try_send("little".into()).expect("room for it");
    settle(&mut near, &mut far);
    assert_eq!(far.connection.recv_capacity(), least);
    assert!(far.recv.capacity() <= least, "{}", far.recv.capacity());
}

/// An established session, with limits that no flood trips.
fn flooded() -> (Turns<Wire, NativeEngine>, Session) {
    let never = Rate::new(1_000_000, 1_000_000);
    let config = Config::builder()
        .glitch_rate(never)
        .session_window(64 << 20)
        .session_window_max(64 << 20)
        .stream_window(16 << 20)
        .stream_window_max(16 << 20);
    let (mut end, session) = end_with(Role::Acceptor, &config.build().unwrap());
    let wire = &mut end.transport.coming;
    wire.extend_from_slice(&preface::encode(preface::VERSION));
    Settings::FLOORS.put(wire);
    while !end.transport.coming.is_empty() {
        poll_once(&mut end);
    }
    (end, session)
}

fn poll_once(end: &mut Turns<Wire, NativeEngine>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(end).poll(&mut cx).is_pending()
}

fn header(kind: u8, flags: u8, stream: u32, length: u32) -> [u8; HEADER_LEN] {
    Header {
        length,
        kind,
        flags,
        stream,
    }
    .encode()
}

/// The nth frame or two of a flood, on the stream 1 where it needs one.
type Flood = fn(u32, &mut BytesMut);

/// Every frame that a peer may repeat without end.
const FLOODS: [(&str, Flood); 9] = [
    ("unknown", |_, wire| {
        wire.extend_from_slice(&header(9, 0, 0, 0));
    }),
    ("unknown, long", |_, wire| {
        wire.extend_from_slice(&header(15, 0, 1, 16 << 10));
        wire.extend_from_slice(&[0; 16 << 10]);
    }),
    ("ping", |n, wire| {
        wire.extend_from_slice(&header(5, 0, 0, 8));
        wire.extend_from_slice(&u64::from(n).to_le_bytes());
    }),
    ("window", |_, wire| {
        wire.extend_from_slice(&header(4, 0, 0, 4));
        wire.extend_from_slice(&1_u32.to_le_bytes());
    }),
    ("messages", |_, wire| {
        wire.extend_from_slice(&header(0, 2, 1, 0));
    }),
    ("messages of two streams", |n, wire| {
        wire.extend_from_slice(&header(0, 2, 1 + 2 * (n % 2), 1));
        wire.extend_from_slice(b"x");
    }),
    ("late cancels", |_, wire| {
        wire.extend_from_slice(&header(3, 0, 5, 4));
        wire.extend_from_slice(&[0; 4]);
    }),
    ("openings", |n, wire| {
        wire.extend_from_slice(&header(1, 0, 7 + 2 * n, 0));
        wire.extend_from_slice(&header(3, 0, 7 + 2 * n, 4));
        wire.extend_from_slice(&[0; 4]);
    }),
    ("messages of a frame", |_, wire| {
        wire.extend_from_slice(&header(0, 2, 1, 16 << 10));
        wire.extend_from_slice(&[0; 16 << 10]);
    }),
];

/// Two open streams, and one that has ended.
fn open_streams(end: &mut Turns<Wire, NativeEngine>, session: &Session) -> [Stream; 2] {
    let wire = &mut end.transport.coming;
    for id in [1, 3, 5] {
        wire.extend_from_slice(&header(1, 0, id, 0));
    }
    wire.extend_from_slice(&header(3, 0, 5, 4));
    wire.extend_from_slice(&[0; 4]);
    poll_once(end);
    let accepted = [(); 3].map(|()| session.accept().now_or_never().unwrap().unwrap().unwrap());
    let [first, second, cancelled] = accepted;
    drop(cancelled);
    poll_once(end);
    [first, second]
}

#[test]
fn a_poll_takes_so_many_frames_and_bytes_of_any_flood_and_no_more() {
    for beside in [Beside::Nothing, Beside::Host, Beside::Runtime] {
        for (name, flood) in FLOODS {
            let (mut end, session) = flooded();
            let _streams = open_streams(&mut end, &session);
            end.set_beside(beside);
            // Fewer than the allowed streams, and more than several polls process.
            let count = match name {
                "openings" => 250,
                "messages of a frame" => 900,
                _ => 20_000,
            };
            let mut times = Vec::new();
            let mut frames = BytesMut::new();
            (0..count).for_each(|n| flood(n, &mut frames));
            let most = BYTES_MAX + end.connection.recv_capacity().max(256 << 10);
            end.transport.coming = frames;
            while !end.transport.coming.is_empty() || end.unparsed {
                let (work, left) = (end.connection.work_done(), end.transport.coming.len());
                let since = Instant::now();
                assert!(poll_once(&mut end), "{name}: {:?}", session.state().end());
                times.push(since.elapsed());
                let work = end.connection.work_done() - work;
                let bytes = left - end.transport.coming.len();
                assert!(work <= 2 * WORK_MAX + 4, "{name}: {work} frames");
                assert!(bytes <= most, "{name}: {bytes} bytes");
            }
            assert!(
                session.state().end().is_none(),
                "{name}: {:?}",
                session.state().end()
            );
            times.sort_unstable();
            println!("{name}: {:?} of {}", times[times.len() / 2], times.len());
            // A long flood is processed in polls of the maximum length.
            let polls = times.len();
            assert!(
                beside == Beside::Host || name != "messages of a frame" || polls <= 20,
                "{polls}"
            );
        }
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Messages for these streams, whose tasks wait, and what a poll then sends and whether it wakes itself.
fn deliver(end: &mut Turns<Wire, NativeEngine>, streams: &mut [Stream]) -> (usize, bool) {
    let idle = Context::from_waker(Waker::noop());
    for (stream, id) in streams.iter_mut().zip([1, 3]) {
        assert!(stream.1.poll_recv(&idle).is_pending());
        (end.transport.coming).extend_from_slice(&header(0, 2, id, 1));
        end.transport.coming.extend_from_slice(b"x");
    }
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let polled = Pin::new(&mut *end).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let itself = woken.0.load(Ordering::Relaxed);
    for stream in streams {
        assert!(stream.1.poll_recv(&idle).is_ready(), "its task was woken");
        stream.try_send("reply".into()).unwrap();
    }
    (end.transport.sent.split().len(), itself)
}

#[test]
fn on_the_runtime_of_several_woken_tasks_their_replies_are_awaited_and_leave_together() {
    let (mut end, session) = flooded();
    let mut streams = open_streams(&mut end, &session);
    end.set_beside(Beside::Runtime);
    poll_once(&mut end);
    end.transport.sent.clear();

    assert_eq!(deliver(&mut end, &mut streams), (0, true));
    assert!(poll_once(&mut end));
    let both = 2 * (HEADER_LEN + 5);
    assert_eq!(end.transport.sent.split().len(), both);
    // The reply of one task wakes the session as usual.
    assert!(!deliver(&mut end, &mut streams[..1]).1);
    assert!(poll_once(&mut end));
    assert_eq!(end.transport.sent.len(), HEADER_LEN + 5);
}

/// Counts how often the session is polled.
struct Counted<'a> {
    end: Turns<Wire, NativeEngine>,
    polls: &'a Cell<u32>,
}

impl Future for Counted<'_> {
    type Output = SessionError;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionError> {
        let this = self.get_mut();
        this.polls.set(this.polls.get() + 1);
        // Refill: the flood never ends.
        if this.end.transport.coming.is_empty() {
            let wire = &mut this.end.transport.coming;
            (0..10_000).for_each(|_| wire.extend_from_slice(&header(9, 0, 0, 0)));
        }
        this.end.transport.sent.clear();
        Pin::new(&mut this.end).poll(cx)
    }
}

/// Even on a runtime that polls its sockets once in a thousand task polls.
#[test]
fn a_flooded_session_lets_its_runtime_look_at_sockets_and_timers_after_each_poll() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(1000)
        .build()
        .unwrap();
    let polls = Cell::new(0);
    let (end, session) = flooded();
    let flooded = Counted { end, polls: &polls };
    let beside = async {
        let (near, mut far) = tokio::net::UnixStream::pair().unwrap();
        for _ in 0..100 {
            near.try_write(b"x").unwrap();
            let before = polls.get();
            far.read_exact(&mut [0]).await.unwrap();
            let waited = polls.get() - before;
            assert!(waited <= 2, "{waited} polls until a socket was looked at");
        }
        let before = polls.get();
        tokio::time::sleep(Duration::from_millis(2)).await;
        assert!(polls.get() > before, "it goes on");
        assert!(session.state().end().is_none());
    };
    runtime.block_on(async {
        tokio::select! {
            end = flooded => panic!("{end}"),
            () = beside => {}
        }
    });
}
