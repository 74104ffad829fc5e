//! DRPC with `storj-rpc`, an independent implementation of the storj profile: its client calls a server of this library, and a
//! server made of its packets is called by a client of this library.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use ringmux::drpc::{CancelForm, Invocation, Profile};
use ringmux::rpc::{
    Bidirectional, Channel, ClientStreaming, Code, Context, Method, Prost, Raw, Receiver, Sender,
    Server, ServerStreaming, Status,
};
use ringmux::{Config, Engine, Session};
use storj_rpc::{Conn, Error, Kind, Packet, marshal_error};
use tokio::net::{TcpListener, TcpStream};

/// Calls in a row on one connection.
const CALLS: u64 = 10_000;
/// Nothing here takes so long, even on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(120);
/// The longest message of the profile, in bytes.
const LARGEST: usize = 4 << 20;

/// A message of protobuf.
#[derive(Clone, PartialEq, prost::Message)]
struct Sum {
    #[prost(uint64, tag = "1")]
    left: u64,
    #[prost(uint64, tag = "2")]
    right: u64,
}

const ADD: Method<Sum, Sum> = Method::unary::<Prost>("interop.Test/Add");
const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("interop.Test/Echo");
const FAIL: Method<Bytes, Bytes> = Method::unary::<Raw>("interop.Test/Fail");
const METADATA: Method<Bytes, Bytes> = Method::unary::<Raw>("interop.Test/Metadata");
const NEVER: Method<Bytes, Bytes> = Method::unary::<Raw>("interop.Test/Never");
const MISSING: Method<Bytes, Bytes> = Method::unary::<Raw>("interop.Test/Missing");
const FEED: Method<Bytes, Bytes, ServerStreaming> =
    Method::server_streaming::<Raw>("interop.Test/Feed");
const COLLECT: Method<Bytes, Bytes, ClientStreaming> =
    Method::client_streaming::<Raw>("interop.Test/Collect");
const CHAT: Method<Bytes, Bytes, Bidirectional> = Method::bidirectional::<Raw>("interop.Test/Chat");

async fn soon<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("within the limit")
}

fn config(profile: Profile) -> Config {
    Config::builder().drpc(profile).build().unwrap()
}

fn large(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

// ---- a server of this library -----------------------------------------------------------------------

async fn add(_: Context, sum: Sum) -> Result<Sum, Status> {
    Ok(Sum {
        left: sum.left + sum.right,
        right: 0,
    })
}

async fn echo(_: Context, request: Bytes) -> Result<Bytes, Status> {
    Ok(request)
}

async fn fail(_: Context, _: Bytes) -> Result<Bytes, Status> {
    Err(Status::new(Code::new(42), "deliberate failure"))
}

async fn metadata(cx: Context, _: Bytes) -> Result<Bytes, Status> {
    let value = cx.metadata().get("trace-id").unwrap_or(b"none");
    Ok(Bytes::copy_from_slice(value))
}

async fn feed(_: Context, count: Bytes, mut out: Sender<Bytes>) -> Result<(), Status> {
    for n in 0..count.len() {
        out.send(Bytes::from(n.to_string())).await?;
    }
    Ok(())
}

async fn collect(_: Context, mut requests: Receiver<Bytes>) -> Result<Bytes, Status> {
    let mut all = Vec::new();
    while let Some(request) = requests.recv().await? {
        all.extend_from_slice(&request);
    }
    Ok(all.into())
}

async fn chat(
    _: Context,
    mut requests: Receiver<Bytes>,
    mut out: Sender<Bytes>,
) -> Result<(), Status> {
    while let Some(request) = requests.recv().await? {
        out.send(request).await?;
    }
    Ok(())
}

/// Counts the handlers that were dropped before their end.
struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A server of this library, the other implementation's connection to it, and how many handlers of NEVER have begun and were dropped.
async fn other_client() -> (Conn<TcpStream>, Arc<AtomicU64>) {
    let cancelled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&cancelled);
    let never = move |_: Context, _: Bytes| {
        count.fetch_add(1, Ordering::Relaxed);
        let counted = Counted(Arc::clone(&count));
        async move {
            let _counted = counted;
            std::future::pending().await
        }
    };
    let server = Server::builder()
        .unary(ADD, add)
        .unary(ECHO, echo)
        .unary(FAIL, fail)
        .unary(METADATA, metadata)
        .unary(NEVER, never)
        .server_streaming(FEED, feed)
        .client_streaming(COLLECT, collect)
        .bidirectional(CHAT, chat)
        .build()
        .unwrap();
    let engine = Engine::auto().unwrap();
    let addr = "127.0.0.1:0".parse().unwrap();
    let listener = engine.listen(&addr, &config(Profile::STORJ)).await.unwrap();
    let addr = listener.local_addr().to_string();
    tokio::spawn(async move { server.serve(listener).await });
    let socket = TcpStream::connect(addr.trim_start_matches("tcp://")).await;
    let socket = socket.unwrap();
    socket.set_nodelay(true).unwrap();
    (Conn::new(socket).with_timeout(LIMIT), cancelled)
}

#[tokio::test]
async fn its_client_makes_ten_thousand_calls_of_this_server_on_one_connection() {
    use prost::Message;

    let (mut client, _) = other_client().await;
    for n in 0..CALLS {
        let request = Sum { left: n, right: 1 }.encode_to_vec();
        let answer = soon(client.invoke("/interop.Test/Add", &request)).await;
        let answer = Sum::decode(&*answer.unwrap()).unwrap();
        assert_eq!(answer.left, n + 1);
    }
}

#[tokio::test]
async fn its_client_gets_messages_of_every_size_from_this_server() {
    let (mut client, _) = other_client().await;
    for len in [0, 1, 65_535, 65_536, 65_537, 70_000, LARGEST] {
        let request = large(len);
        let answer = soon(client.invoke("/interop.Test/Echo", &request)).await;
        assert!(answer.unwrap() == request, "{len} bytes");
    }
}

#[tokio::test]
async fn its_client_gets_the_errors_of_this_server_and_goes_on() {
    let (mut client, _) = other_client().await;
    let failed = soon(client.invoke("/interop.Test/Fail", b"")).await;
    let Err(Error::Remote { code, message }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!((code, &*message), (42, "deliberate failure"));
    let failed = soon(client.invoke("/interop.Test/Missing", b"")).await;
    let Err(Error::Remote { code, message }) = failed else {
        panic!("{failed:?}");
    };
    assert_eq!(code, Code::UNIMPLEMENTED.number().into());
    assert!(message.contains("Missing"), "{message}");
    let answer = soon(client.invoke("/interop.Test/Echo", b"on")).await;
    assert_eq!(answer.unwrap(), b"on");
}

/// A packet with a number of its own.
fn packet(stream_id: u64, message_id: u64, kind: Kind, data: &[u8]) -> Packet {
    Packet {
        stream_id,
        message_id,
        kind,
        control: false,
        data: data.to_vec(),
    }
}

#[tokio::test]
async fn its_metadata_reaches_this_handler() {
    let (mut client, _) = other_client().await;
    let body = b"\x0a\x12\x0a\x08trace-id\x12\x06abc123";
    for (message, kind, data) in [
        (1, Kind::INVOKE_METADATA, &body[..]),
        (2, Kind::INVOKE, b"/interop.Test/Metadata"),
        (3, Kind::MESSAGE, b""),
        (4, Kind::CLOSE_SEND, b""),
    ] {
        let packet = packet(1, message, kind, data);
        soon(client.write_packet(&packet)).await.unwrap();
    }
    let answer = soon(client.read_packet()).await.unwrap();
    assert_eq!(
        (answer.kind, &*answer.data),
        (Kind::MESSAGE, &b"abc123"[..])
    );
    let end = soon(client.read_packet()).await.unwrap();
    assert_eq!(end.kind, Kind::CLOSE_SEND);
}

#[tokio::test]
async fn its_streams_half_close_end_early_and_are_cancelled() {
    let (mut client, begun_and_dropped) = other_client().await;
    let reaches = async |steps| {
        while begun_and_dropped.load(Ordering::Relaxed) < steps {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // Answers after the half-close.
    let mut stream = client.open_stream("/interop.Test/Collect").await.unwrap();
    for part in [&b"a"[..], b"", b"bc"] {
        client.send_msg(&mut stream, part).await.unwrap();
    }
    client.close_send(&mut stream).await.unwrap();
    assert_eq!(soon(client.recv_msg(&stream)).await.unwrap(), b"abc");
    let end = soon(client.recv_msg_opt(&stream)).await;
    assert!(end.unwrap().is_none());
    // Both ways at once.
    let mut stream = client.open_stream("/interop.Test/Chat").await.unwrap();
    for word in [&b"one"[..], b"two"] {
        client.send_msg(&mut stream, word).await.unwrap();
        assert_eq!(soon(client.recv_msg(&stream)).await.unwrap(), word);
    }
    client.close_stream(&mut stream).await.unwrap();
    // Many answers.
    let mut stream = client.open_stream("/interop.Test/Feed").await.unwrap();
    client.send_msg(&mut stream, &[0; 100]).await.unwrap();
    client.close_send(&mut stream).await.unwrap();
    for n in 0..100 {
        let answer = soon(client.recv_msg(&stream)).await.unwrap();
        assert_eq!(answer, n.to_string().into_bytes());
    }
    assert!(soon(client.recv_msg_opt(&stream)).await.unwrap().is_none());
    // Given up.
    let mut stream = client.open_stream("/interop.Test/Never").await.unwrap();
    client.send_msg(&mut stream, b"").await.unwrap();
    client.close_send(&mut stream).await.unwrap();
    // Else it might be cancelled before it runs.
    soon(reaches(1)).await;
    let cancel = packet(stream.stream_id(), 4, Kind::CANCEL, b"");
    client.write_packet(&cancel).await.unwrap();
    let answer = soon(client.invoke("/interop.Test/Echo", b"on")).await;
    assert_eq!(answer.unwrap(), b"on");
    soon(reaches(2)).await;
}

// ---- a client of this library -----------------------------------------------------------------------

/// What a call of the other server has sent, besides its name.
#[derive(Default)]
struct Called {
    name: String,
    metadata: Vec<u8>,
    messages: Vec<Vec<u8>>,
}

/// Serves one call after the other with the packets of the other implementation, until the connection ends. Counts the Cancels.
async fn serve(mut conn: Conn<TcpStream>, cancels: Arc<AtomicU64>) {
    let mut call = Called::default();
    while let Ok(packet) = conn.read_packet().await {
        let stream = packet.stream_id;
        match packet.kind {
            Kind::INVOKE_METADATA => call.metadata = packet.data,
            Kind::INVOKE => call.name = String::from_utf8(packet.data).unwrap(),
            Kind::MESSAGE if call.name == "/interop.Test/Chat" => {
                let number = call.messages.len() as u64 + 1;
                let answer = self::packet(stream, number, Kind::MESSAGE, &packet.data);
                conn.write_packet(&answer).await.unwrap();
                call.messages.push(packet.data);
            }
            Kind::MESSAGE => call.messages.push(packet.data),
            Kind::CLOSE_SEND => answer(&mut conn, stream, std::mem::take(&mut call)).await,
            Kind::CANCEL => {
                cancels.fetch_add(1, Ordering::Relaxed);
                call = Called::default();
            }
            // A client may close a call that was answered.
            Kind::CLOSE => {}
            other => panic!("{other}"),
        }
    }
}

async fn answer(conn: &mut Conn<TcpStream>, stream: u64, call: Called) {
    let first = call.messages.first().cloned().unwrap_or_default();
    let answers = match &*call.name {
        "/interop.Test/Echo" | "/interop.Test/Add" => vec![first],
        "/interop.Test/Metadata" => vec![call.metadata],
        "/interop.Test/Collect" => vec![call.messages.concat()],
        "/interop.Test/Feed" => (0..first.len())
            .map(|n| n.to_string().into_bytes())
            .collect(),
        "/interop.Test/Never" => return,
        "/interop.Test/Chat" => vec![],
        name => {
            let (code, text) = match name {
                "/interop.Test/Fail" => (42, "deliberate failure".to_owned()),
                _ => (0, format!("protocol error: unknown rpc: {name:?}")),
            };
            let error = packet(stream, 1, Kind::ERROR, &marshal_error(code, &text));
            return conn.write_packet(&error).await.unwrap();
        }
    };
    let sent = match &*call.name {
        "/interop.Test/Chat" => call.messages.len(),
        _ => 0,
    } as u64;
    for (message, data) in (sent + 1..).zip(&answers) {
        let message = packet(stream, message, Kind::MESSAGE, data);
        conn.write_packet(&message).await.unwrap();
    }
    let end = sent + answers.len() as u64 + 1;
    let end = packet(stream, end, Kind::CLOSE_SEND, b"");
    conn.write_packet(&end).await.unwrap();
}

/// A session of this library with the other implementation's server, which counts Cancels.
async fn other_server(profile: Profile) -> (Session, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let cancels = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&cancels);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            socket.set_nodelay(true).unwrap();
            let mut conn = Conn::new(socket).with_timeout(LIMIT);
            if profile.header {
                conn.read_tls_mux_prefix().await.unwrap();
            }
            tokio::spawn(serve(conn, Arc::clone(&count)));
        }
    });
    let engine = Engine::auto().unwrap();
    let addr = addr.parse().unwrap();
    let session = engine.connect(&addr, &config(profile)).await.unwrap();
    (session, cancels)
}

#[tokio::test]
async fn its_server_answers_ten_thousand_calls_of_this_client_on_one_connection() {
    let (session, _) = other_server(Profile::STORJ.header(true)).await;
    let channel = Channel::new(session);
    for n in 0..CALLS {
        let request = Sum { left: n, right: 1 };
        let answer = soon(channel.call(&ADD, &request).into_future()).await;
        assert_eq!(answer.unwrap(), request);
    }
}

#[tokio::test]
async fn its_server_gets_messages_of_every_size_from_this_client() {
    let (session, _) = other_server(Profile::STORJ).await;
    let channel = Channel::new(session);
    for len in [0, 1, 65_535, 65_536, 65_537, 70_000, LARGEST] {
        let request = Bytes::from(large(len));
        let answer = soon(channel.call(&ECHO, &request).into_future()).await;
        assert!(answer.unwrap() == request, "{len} bytes");
    }
}

#[tokio::test]
async fn its_server_gets_the_metadata_of_this_client_and_its_errors_come_back() {
    let (session, _) = other_server(Profile::STORJ).await;
    let channel = Channel::new(session);
    let request = Bytes::new();
    let call = channel.call(&METADATA, &request);
    let call = call.metadata("trace-id", "abc123").metadata("sampled", "1");
    let body = soon(call.into_future()).await.unwrap();
    let block = Invocation::encode("/", [("trace-id", "abc123"), ("sampled", "1")]);
    assert_eq!(body, &block.unwrap()[2..]);

    let status = soon(channel.call(&FAIL, &request).into_future()).await;
    let status = status.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::new(42), "deliberate failure")
    );
    let status = soon(channel.call(&MISSING, &request).into_future()).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::UNKNOWN);
    assert!(status.message().contains("unknown rpc"), "{status}");
    let answer = soon(channel.call(&ECHO, &"on".into()).into_future()).await;
    assert_eq!(answer.unwrap(), "on");
}

#[tokio::test]
async fn streams_of_this_client_half_close_and_are_cancelled() {
    let (session, cancels) = other_server(Profile::STORJ).await;
    let channel = Channel::new(session.clone());
    let (mut requests, reply) = soon(channel.client_streaming(&COLLECT).open())
        .await
        .unwrap();
    for part in ["a", "", "bc"] {
        requests.send(Bytes::from(part)).await.unwrap();
    }
    requests.finish().unwrap();
    assert_eq!(soon(reply).await.unwrap(), "abc");

    let count = Bytes::from(vec![0; 100]);
    let mut answers = soon(channel.server_streaming(&FEED, &count).open())
        .await
        .unwrap();
    for n in 0..100 {
        assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), n.to_string());
    }
    assert!(soon(answers.recv()).await.unwrap().is_none());

    let (mut requests, mut answers) = soon(channel.bidirectional(&CHAT).open()).await.unwrap();
    for word in ["one", "two"] {
        requests.send(Bytes::from(word)).await.unwrap();
        assert_eq!(soon(answers.recv()).await.unwrap().unwrap(), word);
    }
    requests.finish().unwrap();
    assert!(soon(answers.recv()).await.unwrap().is_none());

    let call = channel
        .call(&NEVER, &count)
        .timeout(Duration::from_millis(50));
    let late = soon(call.into_future()).await.unwrap_err();
    assert_eq!(late.code(), Code::DEADLINE_EXCEEDED);
    let answer = soon(channel.call(&ECHO, &"on".into()).into_future()).await;
    assert_eq!(answer.unwrap(), "on");
    assert_eq!(cancels.load(Ordering::Relaxed), 1);
    assert!(session.state().is_open());
}

#[tokio::test]
async fn a_cancel_that_hangs_up_ends_the_session_and_the_next_one_works() {
    let hard = Profile::STORJ.cancel(CancelForm::Hard);
    for _ in 0..2 {
        let (session, cancels) = other_server(hard).await;
        let channel = Channel::new(session.clone());
        let answer = soon(channel.call(&ECHO, &"on".into()).into_future()).await;
        assert_eq!(answer.unwrap(), "on");
        let request = Bytes::new();
        let call = channel.call(&NEVER, &request);
        let late = soon(call.timeout(Duration::from_millis(50)).into_future()).await;
        assert_eq!(late.unwrap_err().code(), Code::DEADLINE_EXCEEDED);
        soon(session.closed()).await;
        assert_eq!(cancels.load(Ordering::Relaxed), 0);
    }
}
