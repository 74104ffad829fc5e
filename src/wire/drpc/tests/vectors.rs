//! The captured conversations of real peers (`tests/drpc/vectors`), with this library in either role: it does what the
//! captured side did, against a peer that sends the other side's bytes, and must send the same bytes.
//!
//! Left out of the comparison: grants of credit, whose number and size depend on the times of the capture; and a Close behind
//! a finished call, which the captured clients send or not, by chance. A Close of a running call is a Cancel here. Frames of
//! different streams are compared in the order of each stream where the capture interleaves them.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::drpc::{Calls, CancelForm, FlowControl};
use crate::error::{Side, StreamError};
use crate::handle::whole::{Stream, Whole as _};
use crate::wire::drpc::failure;

type Frame = (Header, Vec<u8>);

/// One connection of a case.
struct Capture {
    name: String,
    profile: Profile,
    /// Streams are concurrent.
    mux: bool,
    header: Vec<u8>,
    client: Vec<Frame>,
    server: Vec<Frame>,
}

fn bytes(hex: &serde_json::Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap().as_bytes();
    let digit = |n: u8| (n as char).to_digit(16).unwrap() as u8;
    let pairs = hex.as_chunks::<2>().0;
    pairs
        .iter()
        .map(|[high, low]| digit(*high) << 4 | digit(*low))
        .collect()
}

fn profile_of(implementation: &str) -> Profile {
    match implementation {
        "cockroach-mux" => Profile::COCKROACH,
        "cockroach-mux-fc" => Profile::COCKROACH.window(131_072),
        "storj-hardcancel" => Profile::STORJ.cancel(CancelForm::Hard),
        "storj-header" => Profile::STORJ.header(true),
        _ => Profile::STORJ,
    }
}

/// All connections of all cases.
fn captures() -> Vec<Capture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drpc/vectors");
    let mut captures = Vec::new();
    for directory in std::fs::read_dir(root).unwrap() {
        let directory = directory.unwrap().path();
        let implementation = directory.file_name().unwrap().to_str().unwrap();
        for case in std::fs::read_dir(&directory).unwrap() {
            let text = std::fs::read(case.unwrap().path()).unwrap();
            let case: serde_json::Value = serde_json::from_slice(&text).unwrap();
            let name = case["case"].as_str().unwrap();
            for (at, connection) in case["connections"].as_array().unwrap().iter().enumerate() {
                let header = connection["connection_header"].as_str().unwrap();
                let client = bytes(&connection["client_to_server_hex"]);
                let client = client.strip_prefix(header.as_bytes()).unwrap();
                let server = bytes(&connection["server_to_client_hex"]);
                captures.push(Capture {
                    name: format!("{implementation}/{name} {at}"),
                    profile: profile_of(implementation),
                    mux: name.starts_with("mux_"),
                    header: header.as_bytes().to_vec(),
                    client: frames(client),
                    server: frames(&server),
                });
            }
        }
    }
    captures
}

/// Without grants, and without the Close of a finished call.
fn essential(own: &[Frame], others: &[Frame]) -> Vec<Frame> {
    let finished = |stream| {
        let has = |frames: &[Frame], kinds: &[Kind]| {
            frames
                .iter()
                .any(|(it, _)| it.stream == stream && kinds.contains(&it.kind))
        };
        has(others, &[Kind::CloseSend, Kind::Error])
    };
    let mut frames = own.to_vec();
    frames.retain(|(header, _)| match header.kind {
        Kind::WindowUpdate => false,
        Kind::Close => !finished(header.stream),
        _ => true,
    });
    for (header, _) in &mut frames {
        if header.kind == Kind::Close {
            *header = Header::new(Kind::Cancel, header.stream, header.message, 0);
        }
    }
    frames
}

/// The frames of each stream.
fn by_stream(frames: &[Frame]) -> BTreeMap<u64, Vec<Frame>> {
    let mut streams = BTreeMap::<u64, Vec<Frame>>::new();
    for frame in frames {
        streams
            .entry(frame.0.stream)
            .or_default()
            .push(frame.clone());
    }
    streams
}

/// The packets of one stream.
fn packets(frames: &[Frame]) -> Vec<(Kind, Vec<u8>)> {
    let mut packets = Vec::new();
    let mut data = Vec::new();
    for (header, part) in frames {
        data.extend_from_slice(part);
        if header.done {
            packets.push((header.kind, std::mem::take(&mut data)));
        }
    }
    packets
}

/// The steps of one stream, and the events that it must see.
#[derive(Clone)]
struct Script {
    opening: Vec<u8>,
    client: Vec<(Kind, Vec<u8>)>,
    server: Vec<(Kind, Vec<u8>)>,
}

fn scripts(client: &[Frame], server: &[Frame]) -> BTreeMap<u64, Script> {
    let mut servers = by_stream(server);
    let script = |(id, frames): (u64, Vec<Frame>)| {
        let mut client = packets(&frames);
        let opening = client
            .iter()
            .position(|(kind, _)| *kind == Kind::Invoke)
            .unwrap();
        let (_, mut name) = client.remove(opening);
        if opening > 0 {
            name.push(0);
            name.extend(client.remove(0).1);
        }
        let server = packets(&servers.remove(&id).unwrap_or_default());
        let opening = name;
        (
            id,
            Script {
                opening,
                client,
                server,
            },
        )
    };
    by_stream(client).into_iter().map(script).collect()
}

/// Receives one packet of the other side.
async fn receive(stream: &mut Stream, packet: &(Kind, Vec<u8>)) {
    match (packet.0, soon(stream.recv()).await) {
        (Kind::Message, Ok(Some(message))) => assert!(message == packet.1),
        (Kind::CloseSend, Ok(None)) => {}
        (Kind::Error, Err(StreamError::Failed(failure))) => {
            assert_eq!(*failure, failure::decode(&packet.1));
        }
        (Kind::Cancel, end) => {
            let cancelled = matches!(end, Err(StreamError::Cancelled { by: Side::Peer, .. }));
            assert!(cancelled, "{end:?}");
        }
        (kind, other) => panic!("{kind:?}: {other:?}"),
    }
}

/// Sends one packet.
async fn send(stream: &mut Stream, (kind, data): &(Kind, Vec<u8>)) {
    match kind {
        Kind::Message => soon(stream.send(data.clone())).await.unwrap(),
        Kind::CloseSend => stream.finish().unwrap(),
        Kind::Error => {
            let failure = failure::decode(data);
            let (code, text) = (failure.code, &failure.message);
            (stream.0.finish_with_details(code, text, &failure.details)).unwrap();
        }
        Kind::Cancel => stream.cancel(1),
        other => panic!("{other:?}"),
    }
}

/// The side that opens: it cancels when it has seen all that the other sent.
async fn play_client(mut call: Stream, script: Script) -> Stream {
    let cancels = script.client.iter().any(|(kind, _)| *kind == Kind::Cancel);
    for packet in &script.client {
        if packet.0 == Kind::Cancel {
            for seen in &script.server {
                receive(&mut call, seen).await;
            }
        }
        send(&mut call, packet).await;
    }
    if !cancels {
        for seen in &script.server {
            receive(&mut call, seen).await;
        }
    }
    call
}

async fn play_server(mut call: Stream, script: Script) -> Stream {
    assert_eq!(call.opening(), &script.opening[..]);
    let (cancels, others): (Vec<_>, Vec<_>) =
        (script.client.iter()).partition(|(kind, _)| *kind == Kind::Cancel);
    for seen in others {
        receive(&mut call, seen).await;
    }
    for packet in &script.server {
        send(&mut call, packet).await;
    }
    for seen in cancels {
        receive(&mut call, seen).await;
    }
    call
}

/// What a peer has read, and counts of frames of each stream.
struct Reader {
    peer: Peer,
    read: Vec<Frame>,
}

impl Reader {
    fn count(&self, stream: u64) -> usize {
        self.read
            .iter()
            .filter(|(it, _)| it.stream == stream)
            .count()
    }

    async fn until(&mut self, stream: u64, count: usize) {
        while self.count(stream) < count {
            self.one().await;
        }
    }

    async fn one(&mut self) {
        let frame = self.peer.next().await;
        if frame.0.kind != Kind::WindowUpdate {
            self.read.push(frame);
        }
    }

    /// Reads to the end of the connection.
    async fn end(mut self) -> Vec<Frame> {
        let rest = self.peer.rest().await;
        self.read.extend(frames(&rest));
        self.read.retain(|(it, _)| it.kind != Kind::WindowUpdate);
        self.read
    }
}

fn compare(capture: &Capture, sent: &[Frame], captured: &[Frame]) {
    let name = &capture.name;
    if capture.mux {
        assert!(by_stream(sent) == by_stream(captured), "{name}");
    } else {
        assert!(sent == captured, "{name}: {sent:?}");
    }
}

async fn as_client(capture: &Capture) {
    let own = essential(&capture.client, &capture.server);
    let hard = capture.profile.cancel == CancelForm::Hard;
    let ((session, task), mut peer) = Peer::of(Role::Dialer, settings(capture.profile));
    let scripts = scripts(&own, &essential(&capture.server, &[]));
    let theirs = by_stream(&capture.server);
    let (header_len, own_streams) = (capture.header.len(), by_stream(&own));
    let peer = tokio::spawn(async move {
        let mut header = vec![0; header_len];
        soon(peer.io.read_exact(&mut header)).await.unwrap();
        let mut reader = Reader {
            peer,
            read: Vec::new(),
        };
        let mut answered = Vec::new();
        while answered.len() < theirs.len() {
            for (id, frames) in &own_streams {
                // All that the captured client had sent before it gave up.
                let cancel = |(it, _): &Frame| it.kind == Kind::Cancel;
                let before = frames.iter().position(cancel).unwrap_or(frames.len());
                if !answered.contains(id) && reader.count(*id) >= before {
                    answered.push(*id);
                    for (header, data) in theirs.get(id).into_iter().flatten() {
                        reader.peer.send(&frame(header, data)).await;
                    }
                }
            }
            if answered.len() < theirs.len() {
                reader.one().await;
            }
        }
        (header, reader.end().await)
    });
    // Held, as dropping them would cancel those that have no end.
    let (mut calls, mut held) = (Vec::new(), Vec::new());
    for mut script in scripts.into_values() {
        if hard {
            script.client.push((Kind::Cancel, Vec::new()));
        }
        let call = soon(session.open(script.opening.clone())).await.unwrap();
        let play = tokio::spawn(play_client(call, script));
        match capture.mux {
            true => calls.push(play),
            false => held.push(soon(play).await.unwrap()),
        }
    }
    for call in calls {
        held.push(soon(call).await.unwrap());
    }
    session.close();
    soon(task).await.unwrap();
    let (header, sent) = soon(peer).await.unwrap();
    assert_eq!(header, capture.header);
    compare(capture, &sent, &own);
}

async fn as_server(capture: &Capture) {
    let own = essential(&capture.server, &capture.client);
    let theirs = essential(&capture.client, &capture.server);
    let ((session, task), mut peer) = Peer::of(Role::Acceptor, settings(capture.profile));
    let scripts = scripts(&theirs, &own);
    let streams = scripts.len();
    let serve = tokio::spawn(async move {
        let mut calls = Vec::new();
        for _ in 0..streams {
            let call = soon(session.accept()).await.unwrap().unwrap();
            let script = scripts[&call.id().unwrap().as_u64()].clone();
            calls.push(tokio::spawn(play_server(call, script)));
        }
        let mut held = Vec::new();
        for call in calls {
            held.push(soon(call).await.unwrap());
        }
        // What is queued leaves before the end.
        session.close();
        soon(session.closed()).await;
        held
    });
    peer.send(&capture.header).await;
    let mut reader = Reader {
        peer,
        read: Vec::new(),
    };
    let counts: BTreeMap<_, _> = by_stream(&own)
        .into_iter()
        .map(|(id, it)| (id, it.len()))
        .collect();
    let mut last = None;
    for (header, data) in &capture.client {
        let finished = header.kind == Kind::Close
            && !theirs.iter().any(|(it, _)| {
                (it.kind, it.stream, it.message) == (Kind::Cancel, header.stream, header.message)
            });
        if finished {
            continue;
        }
        let gives_up = matches!(header.kind, Kind::Cancel | Kind::Close);
        let next = !capture.mux && last.is_some_and(|last| last < header.stream);
        if let Some(wait) = last.filter(|_| next).or(gives_up.then_some(header.stream)) {
            reader
                .until(wait, counts.get(&wait).copied().unwrap_or(0))
                .await;
        }
        last = Some(header.stream);
        reader.peer.send(&frame(header, data)).await;
    }
    let sent = reader.end().await;
    soon(serve).await.unwrap();
    soon(task).await.unwrap();
    compare(capture, &sent, &own);
}

#[test]
fn the_bytes_of_the_captures_are_the_bytes_that_this_side_would_write() {
    let captures = captures();
    assert_eq!(captures.len(), 46);
    for capture in captures {
        for side in [&capture.client, &capture.server] {
            for (header, data) in side {
                assert_eq!(frames(&frame(header, data)), [(*header, data.clone())]);
            }
        }
    }
}

#[tokio::test]
async fn every_captured_client_is_played_with_the_same_bytes() {
    for capture in captures() {
        println!("{}", capture.name);
        as_client(&capture).await;
    }
}

#[tokio::test]
async fn every_captured_server_is_played_with_the_same_bytes() {
    for capture in captures() {
        println!("{}", capture.name);
        as_server(&capture).await;
    }
}

/// The same conversations at a side of the other variant, where only the form of errors differs.
#[tokio::test]
async fn captured_clients_of_one_call_at_a_time_are_served_by_a_side_of_many() {
    for mut capture in captures() {
        if capture.profile.calls == Calls::OneAtATime && capture.profile.cancel == CancelForm::Soft
        {
            capture.profile.calls = Calls::Many;
            capture.profile.flow_control = FlowControl::WhenSeen;
            println!("{}", capture.name);
            as_server(&capture).await;
        }
    }
}
