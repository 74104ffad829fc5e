//! Shutting down, and peers that do not help: silent, stalled, endless, deaf.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::poll;
use ringmux::{Addr, Config, Drained, ListenError, Session, SessionError, StreamError, codes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::host::{Net, Soon, echo_stream, eventually, pattern};
use crate::raw::{
    ACK, DATA, END, OPEN, PING, PREFACE, Raw, STREAMS, Side, WINDOW, frame, settings, with_raw,
    with_raw_settings,
};

everywhere!(
    a_session_without_streams_shuts_down_at_once,
    streams_that_run_go_on_to_their_end,
    both_sides_may_shut_down_at_once,
);
on_each_driver!(
    peers_that_do_not_help_do_not_delay_the_end,
    peers_that_do_not_help_do_not_delay_a_dialler_either,
    a_peer_that_stands_still_for_five_seconds_loses_nothing,
    a_peer_that_gives_no_sign_of_life_is_given_up,
);
on_sockets!(
    under_load_no_call_that_was_taken_is_lost_and_no_other_is_in_doubt,
    a_listener_shuts_down_with_all_its_sessions,
    a_listener_with_nothing_to_shut_down_stops_at_once,
    an_endless_stream_ends_at_the_ceiling,
    a_socket_that_takes_nothing_is_given_up,
);

const PATIENT: Duration = Duration::from_secs(15);
/// Beyond the ceiling, at most, on a machine whose processors are busy. Far below any other limit here.
const SLACK: Duration = Duration::from_secs(8);

fn counts(report: Drained) -> [u64; 4] {
    [
        report.finished,
        report.refused,
        report.cancelled,
        report.forced,
    ]
}

async fn a_session_without_streams_shuts_down_at_once(net: Net) {
    for server_first in [true, false] {
        let (client, server) = net.pair().await;
        let (first, other) = if server_first {
            (server, client)
        } else {
            (client, server)
        };
        assert!(first.state().reason().is_none() && other.state().reason().is_none());
        let report = first.shutdown(PATIENT).soon().await;
        assert_eq!(counts(report), [0; 4]);
        other.draining().soon().await;
        let end = other.closed().soon().await;
        let code = codes::SHUTDOWN;
        assert!(
            matches!(end, SessionError::PeerClosed { code: c, .. } if c == code),
            "{end}"
        );
        // A repeated, late call has no effect.
        assert_eq!(first.shutdown(PATIENT).soon().await, report);
        assert_eq!(counts(other.shutdown(PATIENT).soon().await), [0; 4]);
    }
}

async fn streams_that_run_go_on_to_their_end(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, mut ours_recv), theirs) = net.stream(&client, &server).await;
    let mut shutdown = std::pin::pin!(server.shutdown(PATIENT));
    assert!(poll!(shutdown.as_mut()).is_pending());
    client.draining().soon().await;
    assert!(client.open("late").soon().await.is_err());
    assert!(server.open("late").soon().await.is_err());
    let echo = tokio::spawn(echo_stream(theirs));
    for n in 0..20 {
        let message = pattern(1000, n);
        ours_send.send(message.clone()).soon().await.unwrap();
        assert_eq!(ours_recv.recv().soon().await.unwrap(), Some(message));
        assert!(poll!(shutdown.as_mut()).is_pending());
    }
    ours_send.finish().unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap(), None);
    assert_eq!(counts(shutdown.soon().await), [1, 0, 0, 0]);
    echo.soon().await.unwrap();
}

async fn both_sides_may_shut_down_at_once(net: Net) {
    let (client, server) = net.pair().await;
    let ((mut ours_send, _ours_recv), (mut theirs_send, _theirs_recv)) =
        net.stream(&client, &server).await;
    let ending = async {
        client.draining().soon().await;
        server.draining().soon().await;
        ours_send.finish().unwrap();
        theirs_send.finish().unwrap();
    };
    let (one, other, ()) = tokio::join!(
        client.shutdown(PATIENT).soon(),
        server.shutdown(PATIENT).soon(),
        ending
    );
    assert_eq!((one.cancelled, other.cancelled), (0, 0));
    assert_eq!((one.forced, other.forced), (0, 0));
}

/// The results of all callers.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicU64,
    not_run: AtomicU64,
}

/// Calls until the session refuses calls.
async fn call_again_and_again(session: Session, seen: Arc<Seen>) {
    loop {
        let Ok((mut send, mut recv)) = session.open("call").soon().await else {
            return;
        };
        let sent = async {
            send.send(pattern(300, 1)).await.map_err(drop)?;
            send.finish().map_err(drop)
        };
        // The reason of the refusal is checked below.
        let _ = sent.soon().await;
        match recv.recv().soon().await {
            Ok(answer) => {
                assert_eq!(answer, Some(pattern(300, 1)));
                assert_eq!(recv.recv().soon().await.unwrap(), None);
                seen.answered.fetch_add(1, Ordering::Relaxed);
            }
            Err(StreamError::NotProcessed(_)) => {
                seen.not_run.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("in doubt: {error}"),
        }
    }
}

/// Serves streams until the session ends; counts those that it takes.
async fn serve_counting(session: Session, taken: Arc<AtomicU64>) {
    while let Ok(Some(stream)) = session.accept().await {
        taken.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(echo_stream(stream));
    }
}

async fn under_load_no_call_that_was_taken_is_lost_and_no_other_is_in_doubt(net: Net) {
    let (seen, taken) = (Arc::new(Seen::default()), Arc::new(AtomicU64::new(0)));
    let listener = net.listen(&Config::default()).await;
    let mut callers = Vec::new();
    let mut serving = Vec::new();
    for _ in 0..3 {
        let client = net.connect(&listener, &Config::default()).await;
        let server = listener.accept().soon().await.unwrap();
        serving.push(tokio::spawn(serve_counting(server, Arc::clone(&taken))));
        for _ in 0..8 {
            let calling = call_again_and_again(client.clone(), Arc::clone(&seen));
            callers.push(tokio::spawn(calling));
        }
    }
    while seen.answered.load(Ordering::Relaxed) < 200 {
        crate::host::pause().await;
    }
    let report = listener.shutdown(PATIENT).soon().await;
    for caller in join_all(callers).soon().await {
        caller.unwrap();
    }
    for server in join_all(serving).soon().await {
        server.unwrap();
    }
    assert_eq!((report.cancelled, report.forced), (0, 0), "{report:?}");
    let answered = seen.answered.load(Ordering::Relaxed);
    assert_eq!(answered, taken.load(Ordering::Relaxed), "{seen:?}");
    assert!(report.finished <= answered);
}

async fn a_listener_shuts_down_with_all_its_sessions(net: Net) {
    // Other tests listen on 127.0.0.1: none of them gets the port that this one gives back.
    let addr = Addr::Tcp("127.0.0.2:0".to_owned());
    let listener = net.listen_on(&addr, &Config::default()).await;
    let mut sessions = Vec::new();
    for _ in 0..3 {
        let client = net.connect(&listener, &Config::default()).await;
        let server = listener.accept().soon().await.unwrap();
        sessions.push((client, server));
    }
    // An unaccepted session, with a stream.
    let unaccepted = net.connect(&listener, &Config::default()).await;
    let (_stranded_send, mut stranded_recv) = unaccepted.open("").soon().await.unwrap();
    unaccepted.ping().soon().await.unwrap();
    // An ended session, and one whose handle was dropped.
    let (gone, kept) = (sessions.pop().unwrap(), sessions.pop().unwrap());
    gone.1.close();
    gone.1.closed().soon().await;
    let ((mut ours_send, mut ours_recv), theirs) = net.stream(&kept.0, &kept.1).await;
    drop(kept.1);
    let waiting = listener.accept();

    let mut shutdown = std::pin::pin!(listener.shutdown(PATIENT));
    assert!(poll!(shutdown.as_mut()).is_pending());
    assert!(matches!(waiting.soon().await, Err(ListenError::ShutDown)));
    for client in [&sessions[0].0, &kept.0, &unaccepted] {
        client.draining().soon().await;
    }
    let error = stranded_recv.recv().soon().await.unwrap_err();
    assert!(matches!(error, StreamError::NotProcessed(_)), "{error}");
    tokio::spawn(echo_stream(theirs));
    ours_send.send("still").soon().await.unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap().unwrap(), "still");
    assert!(poll!(shutdown.as_mut()).is_pending(), "a stream is left");
    ours_send.finish().unwrap();
    assert_eq!(ours_recv.recv().soon().await.unwrap(), None);
    drop((ours_send, ours_recv));
    let report = shutdown.soon().await;
    assert_eq!(counts(report), [1, 1, 0, 0]);
    assert_eq!(listener.shutdown(PATIENT).soon().await, report);
    let config = Config::default();
    let late = net.engine().connect(listener.local_addr(), &config);
    assert!(late.soon().await.is_err(), "no listener");
}

async fn a_listener_with_nothing_to_shut_down_stops_at_once(net: Net) {
    let listener = net.listen(&Config::default()).await;
    let report = listener.shutdown(Duration::ZERO).soon().await;
    assert_eq!(counts(report), [0; 4]);
    assert!(matches!(
        listener.accept().soon().await,
        Err(ListenError::ShutDown)
    ));
}

async fn an_endless_stream_ends_at_the_ceiling(net: Net) {
    let (client, server) = net.pair().await;
    let ((_ours_send, mut ours_recv), (_theirs_send, mut theirs_recv)) =
        net.stream(&client, &server).await;
    let began = Instant::now();
    let grace = Duration::from_millis(300);
    let report = server.shutdown(grace).soon().await;
    let took = began.elapsed();
    assert!(took >= grace && took < grace + SLACK, "{took:?}");
    assert_eq!(counts(report), [0, 0, 1, 1]);
    let error = theirs_recv.recv().soon().await.unwrap_err();
    assert!(
        matches!(error, StreamError::Session(SessionError::Closed)),
        "{error}"
    );
    let error = ours_recv.recv().soon().await.unwrap_err();
    let code = codes::SHUTDOWN;
    assert!(
        matches!(&error, StreamError::Session(SessionError::PeerClosed { code: c, .. }) if *c == code),
        "{error}"
    );
}

/// A session whose peer has stopped reading, with more bytes sent than the buffers hold.
async fn stalled(
    net: &Net,
    side: Side,
    listener: &ringmux::Listener,
    config: &Config,
) -> (Session, Raw) {
    let (session, raw) = generous(net, side, listener, config).await;
    fill(&session).await;
    (session, raw)
}

/// A session whose peer has credit for more than a socket takes.
async fn generous(
    net: &Net,
    side: Side,
    listener: &ringmux::Listener,
    config: &Config,
) -> (Session, Raw) {
    let generous = settings(&[(2, 64 << 20), (3, 1 << 30), (4, 1 << 30)]);
    with_raw_settings(net, side, listener, config, &generous).await
}

async fn fill(session: &Session) {
    let (mut send, _recv) = session.open("").soon().await.unwrap();
    let message = Bytes::from(vec![1; 1 << 20]);
    tokio::spawn(async move { while send.send(message.clone()).await.is_ok() {} });
}

/// Never ends its stream and opens others all the time, within its grant and its credit; answers PINGs, and ignores the GOAWAY.
struct Chatter(tokio::task::JoinHandle<()>);

impl Chatter {
    /// It is at it when this returns.
    async fn start(raw: Raw, side: Side) -> Self {
        let opened = Arc::new(AtomicU32::new(1));
        let chatter = tokio::spawn(chatter(raw, side, Arc::clone(&opened)));
        let begun = || opened.load(Ordering::Relaxed) > 10;
        eventually("it has opened some streams", begun).await;
        Self(chatter)
    }

    /// It is disconnected.
    async fn ends(self) {
        self.0.soon().await.unwrap();
    }
}

async fn chatter(raw: Raw, side: Side, opened: Arc<AtomicU32>) {
    let (mut read, write) = raw.socket.into_split();
    let write = Arc::new(tokio::sync::Mutex::new(write));
    let answering = Arc::clone(&write);
    let granted = Arc::new(AtomicU32::new(Config::default().max_streams()));
    let grants = Arc::clone(&granted);
    let reading = tokio::spawn(async move {
        loop {
            let mut header = [0; 8];
            read.read_exact(&mut header).await?;
            let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
            let mut payload = vec![0; length as usize];
            read.read_exact(&mut payload).await?;
            if header[3] >> 4 == PING {
                let answer = frame(PING, ACK, 0, &payload);
                answering.lock().await.write_all(&answer).await?;
            }
            if header[3] == WINDOW << 4 | STREAMS {
                let more = u32::from_le_bytes(payload[..4].try_into().unwrap());
                grants.fetch_add(more, Ordering::Relaxed);
            }
        }
        #[allow(unreachable_code)] // Fixes the type of the errors.
        std::io::Result::Ok(())
    });
    while !reading.is_finished() {
        let n = opened.load(Ordering::Relaxed);
        let mut bytes = Vec::new();
        if n < granted.load(Ordering::Relaxed) {
            bytes = frame(OPEN, 0, side.own(n), b"");
            opened.store(n + 1, Ordering::Relaxed);
        }
        if n < 100 {
            bytes.extend(frame(DATA, END, side.own(0), b"and another thing"));
        }
        if write.lock().await.write_all(&bytes).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let _ = reading.soon().await.unwrap();
}

/// All of them at once, on one listener: its ceiling holds for all together.
async fn peers_that_do_not_help_do_not_delay_the_end(net: Net) {
    // This limit must not be the one that bounds the end.
    let slow = Config::builder()
        .close_linger(Duration::from_secs(60))
        .build()
        .unwrap();
    let listener = net.listen(&slow).await;
    // Silent from the beginning, after half of the handshake, and after all of it.
    let mut silent = Raw::dial(&listener).await;
    let mut half = Raw::dial(&listener).await;
    half.say(&PREFACE[..5]).await;
    let mut unsettled = Raw::dial(&listener).await;
    unsettled.say(PREFACE).await;
    let (_mute, mut mute) = with_raw(&net, Side::Dials, &listener).await;
    // Reads nothing.
    let (_stalled, mut full) = stalled(&net, Side::Dials, &listener, &Config::default()).await;
    let (endless, mut deaf) = with_raw(&net, Side::Dials, &listener).await;
    deaf.say(&frame(OPEN, 0, 1, b"")).await;
    let _taken = endless.accept().soon().await.unwrap().unwrap();
    let chatter = Chatter::start(deaf, Side::Dials).await;

    let began = Instant::now();
    let grace = Duration::from_millis(1500);
    let report = listener.shutdown(grace).soon().await;
    let took = began.elapsed();
    assert!(took >= grace && took < grace + SLACK, "{took:?}");
    assert!(
        matches!(endless.state().end(), Some(SessionError::Closed)),
        "{endless:?}"
    );
    assert!(report.cancelled >= 2, "{report:?}");
    assert!(report.forced >= 6, "{report:?}");
    for raw in [&mut silent, &mut half, &mut unsettled, &mut mute, &mut full] {
        raw.hung_up().await;
    }
    chatter.ends().await;
}

/// The same from the side that has dialled, each session by itself.
async fn peers_that_do_not_help_do_not_delay_a_dialler_either(net: Net) {
    let slow = Config::builder()
        .close_linger(Duration::from_secs(60))
        .build()
        .unwrap();
    let listener = net.listen(&slow).await;
    let side = Side::Accepts;
    let hello = settings(&[]);
    let (mute, _silent) = with_raw_settings(&net, side, &listener, &slow, &hello).await;
    let kept = mute.open("never answered").soon().await.unwrap();
    let (stalled, _full) = stalled(&net, side, &listener, &slow).await;
    let (endless, mut deaf) = with_raw_settings(&net, side, &listener, &slow, &hello).await;
    deaf.say(&frame(OPEN, 0, side.own(0), b"")).await;
    let _taken = endless.accept().soon().await.unwrap().unwrap();
    let chatter = Chatter::start(deaf, side).await;

    let grace = Duration::from_millis(500);
    let shut_down = |session: Session| async move {
        let began = Instant::now();
        let report = session.shutdown(grace).soon().await;
        let took = began.elapsed();
        assert!(took >= grace && took < grace + SLACK, "{took:?}");
        assert!(
            matches!(session.state().end(), Some(SessionError::Closed)),
            "{session:?}"
        );
        assert!(report.cancelled >= 1 && report.forced == 1, "{report:?}");
    };
    tokio::join!(shut_down(mute), shut_down(stalled), shut_down(endless));
    chatter.ends().await;
    drop(kept);
}

/// A transport whose shutdown never completes, as TLS to a peer that reads nothing.
struct Unfinished(tokio::io::DuplexStream);

impl tokio::io::AsyncRead for Unfinished {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for Unfinished {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

#[test]
fn a_transport_that_never_shuts_down_is_given_up() {
    crate::host::run_with(|| {
        crate::host::tokio_runtime().block_on(async {
            let (near, far) = tokio::io::duplex(4096);
            let slow = Config::builder()
                .close_linger(Duration::from_secs(60))
                .build()
                .unwrap();
            let (session, connection) = ringmux::client(Unfinished(near), &slow);
            tokio::spawn(connection);
            let (peer, connection) = ringmux::server(far, &Config::default());
            tokio::spawn(connection);
            peer.established().soon().await.unwrap();
            let began = Instant::now();
            let grace = Duration::from_millis(200);
            session.shutdown(grace).soon().await;
            assert!(began.elapsed() < grace + SLACK, "{:?}", began.elapsed());
        });
    });
}

/// Carries bytes between two sockets, both ways, until the switch is thrown, and again after.
async fn proxy(
    listening: TcpListener,
    to: std::net::SocketAddr,
    open: tokio::sync::watch::Receiver<bool>,
) {
    let (near, _) = listening.accept().await.unwrap();
    let far = TcpStream::connect(to).await.unwrap();
    let (near, far) = (near.into_split(), far.into_split());
    let carry = |mut from: tokio::net::tcp::OwnedReadHalf,
                 mut to: tokio::net::tcp::OwnedWriteHalf,
                 mut open: tokio::sync::watch::Receiver<bool>| async move {
        let mut bytes = vec![0; 16 * 1024];
        loop {
            let n = from.read(&mut bytes).await.unwrap_or(0);
            if open.wait_for(|open| *open).await.is_err() || n == 0 {
                return;
            }
            if to.write_all(&bytes[..n]).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(
        carry(near.0, far.1, open.clone()),
        carry(far.0, near.1, open)
    );
}

/// A client and a server with a proxy between them, which carries while the switch says so.
async fn through_a_proxy(
    net: &Net,
    config: &Config,
) -> (Session, Session, tokio::sync::watch::Sender<bool>) {
    let listener = net.listen(&Config::default()).await;
    let Addr::Tcp(to) = listener.local_addr() else {
        panic!("a proxy speaks TCP");
    };
    let to = to.parse().unwrap();
    let between = TcpListener::bind("127.0.0.1:0").soon().await.unwrap();
    let addr = Addr::Tcp(between.local_addr().unwrap().to_string());
    let (switch, open) = tokio::sync::watch::channel(true);
    tokio::spawn(proxy(between, to, open));
    let client = net.engine().connect(&addr, config).soon().await.unwrap();
    let server = listener.accept().soon().await.unwrap();
    (client, server, switch)
}

async fn a_peer_that_stands_still_for_five_seconds_loses_nothing(net: Net) {
    let (client, server, switch) = through_a_proxy(&net, &Config::default()).await;
    let ((mut ours_send, mut ours_recv), theirs) = net.stream(&client, &server).await;
    tokio::spawn(echo_stream(theirs));
    let (mut sender, mut receiver) = {
        ours_send.send("before").soon().await.unwrap();
        assert_eq!(ours_recv.recv().soon().await.unwrap().unwrap(), "before");
        (ours_send, ours_recv)
    };
    switch.send_replace(false);
    let messages = 400;
    let sending = tokio::spawn(async move {
        for n in 0..messages {
            sender.send(pattern(20_000, n)).soon().await.unwrap();
        }
        sender.finish().unwrap();
        sender
    });
    // The time for which the peer is stopped.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(client.state().end().is_none() && server.state().end().is_none());
    switch.send_replace(true);
    for n in 0..messages {
        let message = receiver.recv().soon().await.unwrap();
        assert!(message == Some(pattern(20_000, n)), "message {n}");
    }
    assert_eq!(receiver.recv().soon().await.unwrap(), None);
    drop(sending.soon().await.unwrap());
}

async fn a_peer_that_gives_no_sign_of_life_is_given_up(net: Net) {
    // The timeout is long enough for the peer's answer on a busy machine.
    let (idle, timeout) = (Duration::from_millis(200), Duration::from_secs(3));
    let config = Config::builder()
        .keepalive_idle(Some(idle))
        .keepalive_timeout(timeout)
        .build()
        .unwrap();
    let (client, server, switch) = through_a_proxy(&net, &config).await;
    let ((_ours_send, mut ours_recv), _theirs) = net.stream(&client, &server).await;
    // While it answers PINGs, silence does not end the session.
    eventually("it was asked", || client.stats().keepalives >= 3).await;
    assert!(client.state().end().is_none());
    switch.send_replace(false);
    let error = ours_recv.recv().soon().await.unwrap_err();
    assert!(
        matches!(&error, StreamError::Session(SessionError::KeepaliveTimeout(t)) if *t == timeout),
        "{error}"
    );
    let end = client.closed().soon().await;
    assert!(matches!(end, SessionError::KeepaliveTimeout(_)), "{end}");
    assert_eq!(client.stats().keepalive_timeouts, 1);
}

async fn a_socket_that_takes_nothing_is_given_up(net: Net) {
    let timeout = Duration::from_millis(400);
    let config = Config::builder().write_timeout(timeout).build().unwrap();
    let listener = net.listen(&config).await;
    let (session, mut raw) = generous(&net, Side::Dials, &listener, &config).await;
    let sent = session.stats().frames_sent;
    let (_idle_send, mut idle_recv) = session.open("idle").soon().await.unwrap();
    eventually("it is open", || session.stats().frames_sent > sent).await;
    fill(&session).await;
    let error = idle_recv.recv().soon().await.unwrap_err();
    assert!(
        matches!(&error, StreamError::Session(SessionError::WriteTimeout(t)) if *t == timeout),
        "{error}"
    );
    assert_eq!(session.stats().write_timeouts, 1);
    session.closed().soon().await;
    raw.hung_up().await;
}
