//! Spans of calls, and the trace context that they carry.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ringmux::rpc::{Channel, Context, Server, Status, TraceParent};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::host::*;

/// Keeps the fields of the spans of calls, and those of events by the span that they are in.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    spans: Vec<Fields>,
    entered: Vec<u64>,
    events: Vec<(Option<u64>, Fields)>,
}

#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringmux::rpc" || metadata.target().starts_with("rpc::spans")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        fields
            .0
            .insert("name", attributes.metadata().name().to_owned());
        let spans = &mut self.0.lock().unwrap().spans;
        spans.push(fields);
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let index = span.into_u64() as usize - 1;
        values.record(&mut self.0.lock().unwrap().spans[index]);
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut seen = self.0.lock().unwrap();
        let span = seen.entered.last().copied();
        seen.events.push((span, fields));
    }

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap().entered.push(span.into_u64());
    }

    fn exit(&self, _: &Id) {
        self.0.lock().unwrap().entered.pop();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

/// Set in the process of one case.
const ALONE: &str = "RINGMUX_RPC_SPANS";

/// Runs the case with this name in a process of its own; false if this is it.
///
/// A callsite that another thread is the first to reach, or reaches while a subscriber is installed, may stay off for ever: no other
/// test may run in the process.
fn ran_alone(case: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return false;
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .env(ALONE, "1")
        .args(["--exact", &format!("spans::{case}"), "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}");
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{}",
        String::from_utf8_lossy(&child.stderr)
    );
    true
}

/// Runs a case on one thread under a subscriber; the spans of calls that ended, in the order in which they began.
fn recorded<F: Future<Output = ()>>(case: impl FnOnce() -> F) -> Seen {
    let recorder = Recorder::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tracing::subscriber::with_default(recorder.clone(), || runtime.block_on(case()));
    drop(runtime);
    std::mem::take(&mut *recorder.0.lock().unwrap())
}

impl Fields {
    fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("none", String::as_str)
    }

    /// Of these names, in a row.
    fn all(&self, names: &[&str]) -> Vec<&str> {
        names.iter().map(|name| self.get(name)).collect()
    }
}

/// Calls back, as a child of its own call.
async fn outer(cx: Context, request: Bytes) -> Result<Bytes, Status> {
    tokio::task::yield_now().await;
    tracing::info!("in the handler");
    let caller = cx.channel().expect("a call has a caller");
    caller.call(&OTHER, &request).parent(&cx).await
}

async fn seen_parent(cx: Context, _: Bytes) -> Result<Bytes, Status> {
    let received = cx.metadata().get_str("traceparent").unwrap_or("none");
    let state = cx.metadata().get_str("tracestate").unwrap_or("none");
    Ok(format!("{received} {state}").into())
}

async fn hosts() -> Host {
    let host = Host::new(Server::builder().unary(ECHO, outer)).await;
    let back = Server::builder().unary(OTHER, seen_parent).build().unwrap();
    let session = host.client.clone();
    tokio::spawn(async move { back.serve_session(session).await });
    host
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

#[test]
fn each_call_is_a_span_on_both_sides_and_children_are_of_the_same_trace() {
    if ran_alone("each_call_is_a_span_on_both_sides_and_children_are_of_the_same_trace") {
        return;
    }
    let mut innermost = String::new();
    let seen = recorded(async || {
        let host = hosts().await;
        let request = Bytes::new();
        let call = host.channel.call(&ECHO, &request);
        let call = call
            .metadata("traceparent", PARENT)
            .metadata("tracestate", "a=b");
        let answer = soon(call.into_future()).await.unwrap();
        innermost = String::from_utf8(answer.to_vec()).unwrap();
        until("the server is done", || host.server.stats().in_flight == 0).await;
    });
    println!("{:#?}", seen.spans);
    let spans = seen.spans;
    let what: Vec<_> = spans
        .iter()
        .map(|span| span.all(&["otel.kind", "method", "trace_id", "code"]))
        .collect();
    let (echo, other) = ("test.Test/Echo", "test.Test/Other");
    assert_eq!(
        what,
        [
            ["client", echo, TRACE_ID, "ok"],
            ["server", echo, TRACE_ID, "ok"],
            ["client", other, TRACE_ID, "ok"],
            ["server", other, TRACE_ID, "ok"],
        ]
    );
    // The caller's own entry is the parent of both sides of the first call.
    assert_eq!(spans[0].get("parent_id"), "b7ad6b7169203331");
    assert_eq!(spans[1].get("parent_id"), "b7ad6b7169203331");
    for n in 2..4 {
        assert_eq!(spans[n].get("parent_id"), spans[n - 1].get("span_id"));
    }
    let (parent, state) = innermost.split_once(' ').unwrap();
    let parent: TraceParent = parent.parse().unwrap();
    assert_eq!(format!("{:016x}", parent.span_id), spans[2].get("span_id"));
    assert_eq!((parent.flags, state), (0, "a=b"));
    // Handlers run inside of their spans.
    let told = seen.events.iter();
    let told: Vec<_> = told
        .filter(|(_, fields)| fields.get("message") == "in the handler")
        .collect();
    assert_eq!((told.len(), told[0].0), (1, Some(2)));
}

#[test]
fn a_call_without_a_trace_begins_one_and_a_failed_one_has_its_code() {
    if ran_alone("a_call_without_a_trace_begins_one_and_a_failed_one_has_its_code") {
        return;
    }
    let seen = recorded(async || {
        async fn fails(_: Context, _: Bytes) -> Result<Bytes, Status> {
            Err(Status::data_loss("gone"))
        }
        let host = Host::new(Server::builder().unary(ECHO, fails)).await;
        let request = Bytes::new();
        for _ in 0..2 {
            let call = host.channel.call(&ECHO, &request);
            soon(call.into_future()).await.unwrap_err();
        }
        until("the server is done", || host.server.stats().in_flight == 0).await;
    });
    let spans = seen.spans;
    println!("{spans:#?}");
    assert!(spans.iter().all(|span| span.get("code") == "data-loss"));
    let failed = |span: &Fields| span.get("otel.status_code") == "ERROR";
    assert!(spans.iter().all(failed));
    assert_eq!(spans[0].get("parent_id"), "none");
    assert_eq!(spans[1].get("parent_id"), spans[0].get("span_id"));
    assert_eq!(spans[1].get("trace_id"), spans[0].get("trace_id"));
    assert_ne!(spans[2].get("trace_id"), spans[0].get("trace_id"));
}

#[tokio::test]
async fn without_a_subscriber_a_trace_is_carried_on_and_none_is_begun() {
    let host = hosts().await;
    let request = Bytes::new();
    let answer = soon(host.channel.call(&ECHO, &request).into_future()).await;
    assert_eq!(answer.unwrap(), "none none");
    let call = host.channel.call(&ECHO, &request);
    let call = call
        .metadata("traceparent", PARENT)
        .metadata("tracestate", "a=b");
    let answer = soon(call.into_future()).await.unwrap();
    assert_eq!(answer, format!("{PARENT} a=b"));
}

#[test]
fn a_streaming_call_is_one_span_from_its_opening_to_its_end() {
    if ran_alone("a_streaming_call_is_one_span_from_its_opening_to_its_end") {
        return;
    }
    let seen = recorded(async || {
        let host = Host::new(Server::builder().server_streaming(
            FEED,
            |_, request, mut to: ringmux::rpc::Sender<Bytes>| async move { to.send(request).await },
        ))
        .await;
        let channel = Channel::new(host.client.clone());
        let request = Bytes::new();
        let mut answers = soon(channel.server_streaming(&FEED, &request).open())
            .await
            .unwrap();
        while soon(answers.recv()).await.unwrap().is_some() {}
        until("the server is done", || host.server.stats().in_flight == 0).await;
        // The other one is dropped in the middle.
        drop(
            soon(channel.server_streaming(&FEED, &request).open())
                .await
                .unwrap(),
        );
    });
    let of = |kind: &str| {
        let spans = seen.spans.iter();
        spans
            .filter(|span| span.get("otel.kind") == kind)
            .map(|span| span.get("code"))
            .collect::<Vec<_>>()
    };
    assert_eq!(of("client"), ["ok", "cancelled"]);
    assert_eq!(of("server")[0], "ok");
}
