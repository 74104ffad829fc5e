//! Two sessions joined by a pipe, and methods that several cases use.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{
    Bidirectional, Channel, ClientStreaming, Context, Method, Raw, Server, ServerBuilder,
    ServerStreaming, Status,
};
use ringmux::{Addr, Config, ConfigBuilder, Engine, ListenError, Listener, Session};
use tokio::task::JoinHandle;

/// Nothing in a test takes so long, even on a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("test.Test/Echo");
pub(crate) const OTHER: Method<Bytes, Bytes> = Method::unary::<Raw>("test.Test/Other");
pub(crate) const FEED: Method<Bytes, Bytes, ServerStreaming> =
    Method::server_streaming::<Raw>("test.Test/Feed");
pub(crate) const COLLECT: Method<Bytes, Bytes, ClientStreaming> =
    Method::client_streaming::<Raw>("test.Test/Collect");
pub(crate) const CHAT: Method<Bytes, Bytes, Bidirectional> =
    Method::bidirectional::<Raw>("test.Test/Chat");

pub(crate) async fn echo(_: Context, request: Bytes) -> Result<Bytes, Status> {
    Ok(request)
}

/// Set in a process that runs the cases over streams.
pub(crate) const OVER_STREAMS: &str = "RINGMUX_RPC_OVER_STREAMS";

/// Whether unary calls are streams in this process.
pub(crate) fn over_streams() -> bool {
    std::env::var_os(OVER_STREAMS).is_some()
}

/// The defaults, except for how unary calls travel.
pub(crate) fn settings() -> ConfigBuilder {
    Config::builder().calls(!over_streams())
}

/// A server and its client over a pipe.
pub(crate) struct Host {
    pub(crate) channel: Channel,
    pub(crate) client: Session,
    pub(crate) session: Session,
    pub(crate) server: Server,
    pub(crate) serving: JoinHandle<()>,
}

impl Host {
    pub(crate) async fn new(builder: ServerBuilder) -> Self {
        Self::with(builder, &settings().build().unwrap()).await
    }

    pub(crate) async fn with(builder: ServerBuilder, config: &Config) -> Self {
        let (client, session) = pipe(config).await;
        let server = builder.build().unwrap();
        let serving = {
            let (server, session) = (server.clone(), session.clone());
            tokio::spawn(async move { server.serve_session(session).await.unwrap_or_default() })
        };
        Self {
            channel: Channel::new(client.clone()),
            client,
            session,
            server,
            serving,
        }
    }
}

/// Two sessions whose handshake is done.
pub(crate) async fn pipe(config: &Config) -> (Session, Session) {
    let (a, b) = tokio::io::duplex(256 * 1024);
    let (client, connection) = ringmux::client(a, config);
    tokio::spawn(connection);
    let (server, connection) = ringmux::server(b, config);
    tokio::spawn(connection);
    client.established().await.unwrap();
    server.established().await.unwrap();
    (client, server)
}

/// Listens where another listener may have stopped just before. Its address stays in use for a moment longer where another test
/// starts a process: the child has a copy of each socket until it runs its program.
pub(crate) async fn listen(engine: &Engine, addr: &Addr, config: &Config) -> Listener {
    let listening = async {
        loop {
            match engine.listen(addr, config).await {
                Err(ListenError::Io { error, .. }) if error.kind() == ErrorKind::AddrInUse => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                listening => return listening.unwrap(),
            }
        }
    };
    soon(listening).await
}

/// The output of a future, within the limit of every test.
pub(crate) async fn soon<F: IntoFuture>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future)
        .await
        .expect("within the limit")
}

/// Waits for a condition that wakes no task.
pub(crate) async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(LIMIT, wait).await;
    assert!(waited.is_ok(), "never: {what}");
}
