//! quinn: QUIC streams over UDP. Encryption is part of QUIC, so quinn pays for TLS where the others
//! do not; the certificate is made for the run and trusted by the client.
//!
//! Datagrams have the usual size. As large as loopback would carry them they make quinn slower: a few
//! of them overflow a UDP socket's buffer, and are lost.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, ServerConfig,
    TransportConfig, VarInt,
};
use rcgen::generate_simple_self_signed;
use tokio::time::timeout;

use super::link::{Client, Closing, Receiver, Role, Sender, Transport};
use super::runtime::{block_on, during};
use super::server::{self, Accepted, Acceptor};
use super::{MAX_STREAMS, Windows};
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;
use ringmux_measure::workload::Shape;

/// The name in the certificate.
const NAME: &str = "localhost";
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Bytes that a connection may hold unacknowledged; more only wait in a longer queue.
const SEND_BUFFER: u64 = 1 << 20;
/// How long the client's end of a closed connection stays to send that it is closed.
const CLOSING: Duration = Duration::from_millis(200);

#[derive(Clone, Debug)]
pub(super) struct Quinn {
    certificate: CertificateDer<'static>,
    key: Arc<[u8]>,
}

impl Quinn {
    pub(super) fn new() -> Result<Self, Failure> {
        let made = generate_simple_self_signed([NAME.to_owned()]);
        let made = made.map_err(during("cannot make a certificate"))?;
        Ok(Self {
            certificate: made.cert.der().clone(),
            key: made.signing_key.serialize_der().into(),
        })
    }

    fn server_config(&self, shape: Shape) -> Result<ServerConfig, Failure> {
        let key = PrivatePkcs8KeyDer::from(self.key.to_vec());
        let mut config = ServerConfig::with_single_cert(vec![self.certificate.clone()], key.into())
            .map_err(during("the certificate was refused"))?;
        config.transport_config(transport(shape));
        Ok(config)
    }

    fn client_config(&self, shape: Shape) -> Result<ClientConfig, Failure> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .map_err(during("the certificate was refused"))?;
        let mut config = ClientConfig::with_root_certificates(Arc::new(roots))
            .map_err(during("the certificate was refused"))?;
        config.transport_config(transport(shape));
        Ok(config)
    }
}

fn transport(shape: Shape) -> Arc<TransportConfig> {
    let windows = Windows::of(shape);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .stream_receive_window(VarInt::from_u32(windows.stream))
        .receive_window(VarInt::from_u32(windows.connection))
        .send_window(SEND_BUFFER.min(u64::from(windows.stream)));
    Arc::new(config)
}

fn no_port(error: std::io::Error) -> Failure {
    Failure::new("cannot open a UDP socket on 127.0.0.1").because(&error)
}

impl Transport for Quinn {
    type Client = QuinnClient;
    type Host = ();

    fn block_on<F, Fut>(&self, end: F) -> Result<Fut::Output, Failure>
    where
        F: FnOnce(()) -> Fut,
        Fut: Future,
    {
        block_on(end(()))
    }

    async fn serve(
        self,
        (): (),
        shape: Shape,
        listening: Listening,
        window: &Arc<Window>,
    ) -> Result<Received, Failure> {
        let endpoint = Endpoint::server(self.server_config(shape)?, ANY_PORT).map_err(no_port)?;
        listening.at(endpoint.local_addr().map_err(no_port)?.to_string());
        let incoming = endpoint.accept().await;
        let incoming = incoming.ok_or_else(|| Failure::new("the UDP socket was closed"))?;
        let connection = incoming
            .await
            .map_err(during("the handshake failed on the server"))?;
        server::serve(QuinnAcceptor { connection, shape }, window).await
    }

    async fn connect(
        self,
        (): (),
        shape: Shape,
        address: &str,
    ) -> Result<(QuinnClient, Closing), Failure> {
        let address: SocketAddr = address
            .parse()
            .map_err(during("the server's address is wrong"))?;
        let endpoint = Endpoint::client(ANY_PORT).map_err(no_port)?;
        let connection = endpoint
            .connect_with(self.client_config(shape)?, address, NAME)
            .map_err(during("cannot connect"))?
            .await
            .map_err(during("the handshake failed"))?;
        // The last handle of a connection closes it; the endpoint has to stay until that was sent.
        let closing = async move {
            // It stays for three probe timeouts; the server reports whether it saw the end.
            let _ = timeout(CLOSING, endpoint.wait_idle()).await;
            Ok(())
        };
        Ok((QuinnClient { connection }, Box::pin(closing)))
    }
}

#[derive(Clone, Debug)]
pub(super) struct QuinnClient {
    connection: Connection,
}

impl Client for QuinnClient {
    type Sender = QuinnSender;
    type Receiver = QuinnReceiver;

    async fn open(&self, _: Role) -> Result<(QuinnSender, QuinnReceiver), Failure> {
        let opened = self.connection.open_bi().await;
        let (send, receive) = opened.map_err(during("cannot open a stream"))?;
        Ok((QuinnSender(send), QuinnReceiver(receive)))
    }
}

struct QuinnAcceptor {
    connection: Connection,
    shape: Shape,
}

impl Acceptor for QuinnAcceptor {
    type Sender = QuinnSender;
    type Receiver = QuinnReceiver;

    async fn accept(&mut self) -> Result<Option<Accepted<QuinnSender, QuinnReceiver>>, Failure> {
        match self.connection.accept_bi().await {
            Ok((send, receive)) => Ok(Some(Accepted {
                role: Role::by_order(self.shape, receive.id().index() == 0),
                sender: QuinnSender(send),
                receiver: QuinnReceiver(receive),
            })),
            Err(ConnectionError::ApplicationClosed(_)) => Ok(None),
            Err(error) => Err(Failure::new("the connection failed").because(&error)),
        }
    }
}

pub(super) struct QuinnSender(SendStream);

impl Sender for QuinnSender {
    async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        let sent = self.0.write_chunk(message).await;
        sent.map_err(during("cannot send"))
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        self.0.finish().map_err(during("cannot finish a stream"))
    }
}

pub(super) struct QuinnReceiver(RecvStream);

impl Receiver for QuinnReceiver {
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let chunk = self.0.read_chunk(usize::MAX, true).await;
        chunk
            .map(|chunk| chunk.map(|chunk| chunk.bytes))
            .map_err(during("cannot receive"))
    }
}
