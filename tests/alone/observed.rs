//! Events of a `tracing` subscriber: a span for each session and stream, their ends, and no message contents.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, Once};

use ringmux::{Config, Session};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::count::alone;
use crate::host::{Soon, echo, tokio_runtime};

/// Remembers spans and events of this library, up to a level.
#[derive(Clone)]
struct Recorder {
    level: Level,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    spans: Vec<Span>,
    events: Vec<Told>,
}

struct Span {
    name: &'static str,
    parent: Option<u64>,
    fields: Fields,
    handles: u32,
}

#[derive(Debug)]
struct Told {
    level: Level,
    span: Option<u64>,
    fields: Fields,
}

#[derive(Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Recorder {
    fn new(level: Level) -> Self {
        Self {
            level,
            seen: Arc::default(),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("ringmux") && *metadata.level() <= self.level
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let mut seen = self.seen();
        seen.spans.push(Span {
            name: attributes.metadata().name(),
            parent: attributes.parent().map(Id::into_u64),
            fields,
            handles: 1,
        });
        Id::from_u64(seen.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(&mut self.seen().span(span).fields);
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.seen().events.push(Told {
            level: *event.metadata().level(),
            span: event.parent().map(Id::into_u64),
            fields,
        });
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.seen().span(span).handles += 1;
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let mut seen = self.seen();
        let span = seen.span(&span);
        span.handles -= 1;
        span.handles == 0
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Seen {
    fn span(&mut self, id: &Id) -> &mut Span {
        &mut self.spans[id.into_u64() as usize - 1]
    }

    /// The fields of a span, by the number that the subscriber gave it.
    fn field(&self, span: u64, name: &str) -> &str {
        &self.spans[span as usize - 1].fields.0[name]
    }

    /// The events with this message, with the level and the span of each.
    fn told(&self, message: &str) -> Vec<(Level, u64)> {
        let says = |event: &&Told| event.fields.0["message"] == message;
        let told = self.events.iter().filter(says);
        told.map(|event| (event.level, event.span.expect("inside of a span")))
            .collect()
    }
}

/// Runs a case under a subscriber, on one thread with both sessions.
fn recorded<Fut: Future>(level: Level, case: impl FnOnce(Session, Session) -> Fut) -> Recorder {
    let _alone = alone();
    meet_callsites();
    let recorder = Recorder::new(level);
    tracing::subscriber::with_default(recorder.clone(), || run(case));
    recorder
}

/// A callsite that is first reached without a subscriber on its thread is switched off, if ours is the only one. One reached
/// while a subscriber is being installed may stay off for ever. So all are reached before, and no other test runs in the
/// process.
fn meet_callsites() {
    static MET: Once = Once::new();
    MET.call_once(|| {
        run(|client, server| async move {
            let (mut ours_send, mut ours_recv) = client.open("").await.unwrap();
            ours_send.send("hello").await.unwrap();
            server.accept().await.unwrap().unwrap().0.cancel(7);
            ours_recv.recv().await.unwrap_err();
            client.close();
            client.closed().await;
        });
    });
}

fn run<Fut: Future>(case: impl FnOnce(Session, Session) -> Fut) {
    tokio_runtime().block_on(async {
        let (a, b) = tokio::io::duplex(4096);
        let (client, connection) = ringmux::client(a, &Config::default());
        tokio::spawn(connection);
        let (server, connection) = ringmux::server(b, &Config::default());
        tokio::spawn(connection);
        client.established().soon().await.unwrap();
        case(client, server).soon().await;
    });
}

#[test]
fn sessions_and_streams_are_spans_that_end_with_them() {
    let ids = Arc::new(Mutex::new(Vec::new()));
    let recorder = recorded(Level::DEBUG, |client, server| {
        let ids = Arc::clone(&ids);
        async move {
            ids.lock().unwrap().extend([client.id(), server.id()]);
            let (mut ours_send, mut ours_recv) = client.open("").await.unwrap();
            ours_send.set_urgency(1);
            ours_send.send("hello").await.unwrap();
            let (mut theirs_send, mut theirs_recv) = server.accept().await.unwrap().unwrap();
            theirs_recv.recv().await.unwrap();
            assert!(!ours_send.span().is_disabled() && !theirs_send.span().is_disabled());
            theirs_send.cancel(7);
            ours_recv.recv().await.unwrap_err();
            client.close();
            client.closed().await;
            server.closed().await;
        }
    });
    let seen = recorder.seen();
    let spans: Vec<_> = seen
        .spans
        .iter()
        .map(|span| (span.name, span.parent))
        .collect();
    let expected = [
        ("session", None),
        ("session", None),
        ("stream", Some(1)),
        ("stream", Some(2)),
    ];
    assert_eq!(spans, expected);
    for (span, role) in [(1, "dialer"), (2, "acceptor")] {
        assert_eq!(seen.field(span, "role"), role);
        assert_eq!(seen.field(span, "driver"), "tokio");
        let id = ids.lock().unwrap()[span as usize - 1];
        assert_eq!(seen.field(span, "id"), id.to_string());
    }
    for stream in [3, 4] {
        assert_eq!(seen.field(stream, "id"), "1");
    }
    assert_eq!(
        (seen.field(3, "urgency"), seen.field(4, "urgency")),
        ("1", "3")
    );
    let mut failed = seen.told("failed");
    failed.sort_by_key(|(_, span)| *span);
    assert_eq!(failed, [(Level::DEBUG, 3), (Level::DEBUG, 4)]);
    let mut ended = seen.told("ended");
    ended.sort_by_key(|(_, span)| *span);
    assert_eq!(ended, [(Level::DEBUG, 1), (Level::DEBUG, 2)], "in order");
    assert!(
        seen.spans.iter().all(|span| span.handles == 0),
        "all closed"
    );
}

#[test]
fn a_session_that_is_lost_is_told_louder_than_one_that_is_closed() {
    let recorder = recorded(Level::INFO, |client, server| async move {
        // During its handshake, where `established` returns the error.
        let (a, b) = tokio::io::duplex(64);
        let (failed, connection) = ringmux::client(a, &Config::default());
        tokio::spawn(connection);
        drop(b);
        failed.closed().await;
        // The peer disconnects without a GOAWAY.
        let (a, b) = tokio::io::duplex(64);
        let (lost, connection) = ringmux::client(a, &Config::default());
        tokio::spawn(connection);
        let (_peer, connection) = ringmux::server(b, &Config::default());
        let peer = tokio::spawn(connection);
        lost.established().await.unwrap();
        peer.abort();
        lost.closed().await;
        client.close();
        server.closed().await;
    });
    let seen = recorder.seen();
    let mut ended = seen.told("ended");
    ended.sort_by_key(|(_, span)| *span);
    assert_eq!(ended, [(Level::INFO, 4), (Level::WARN, 5)]);
    let mut reasons = seen.events.iter().map(|event| &event.fields.0["reason"]);
    assert!(reasons.any(|reason| reason.contains("without ending the session")));
}

#[test]
fn messages_are_not_seen_and_streams_only_by_who_wants_them() {
    let seen_of = |level, messages| {
        let recorder = recorded(level, |client, server| async move {
            let serving = echo(server);
            let (mut send, mut recv) = client.open("").await.unwrap();
            assert_eq!(send.span().is_disabled(), level < Level::DEBUG);
            for _ in 0..messages {
                send.send("hello").await.unwrap();
                recv.recv().await.unwrap();
            }
            send.finish().unwrap();
            assert_eq!(recv.recv().await.unwrap(), None);
            client.close();
            serving.await.unwrap();
        });
        let seen = recorder.seen();
        (seen.spans.len(), seen.events.len())
    };
    assert_eq!(seen_of(Level::TRACE, 1), seen_of(Level::TRACE, 500));
    assert_eq!(
        seen_of(Level::INFO, 10),
        (2, 0),
        "two sessions, and their ends in order"
    );
}
