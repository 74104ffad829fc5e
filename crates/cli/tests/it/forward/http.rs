//! A plain HTTP/1.1 file server and its client. The file `/N` has N bytes, which both sides know.

use std::convert::Infallible;
use std::sync::OnceLock;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::tunnel::target;

pub(crate) const MIB: usize = 1 << 20;
pub(crate) const LARGEST: usize = 64 * MIB;

/// The file of this size: a prefix of a sequence without period.
pub(crate) fn file(len: usize) -> Bytes {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    let all = BYTES.get_or_init(|| {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let words = (0..LARGEST / 8).flat_map(|_| {
            // xorshift64, Marsaglia 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        });
        words.collect::<Vec<u8>>().into()
    });
    all.slice(..len)
}

/// Serves files until the test ends; returns the address.
pub(crate) async fn serve_files() -> String {
    let (listener, addr) = target().await;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            serve_connection(socket);
        }
    });
    addr
}

pub(crate) fn serve_connection(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let serving = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service_fn(answer));
    // A client that disconnects is no error of the server.
    tokio::spawn(async move { serving.await.ok() });
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let len = request.uri().path()[1..].parse().ok();
    Ok(match len.filter(|len| *len <= LARGEST) {
        Some(len) => Response::new(Full::new(file(len))),
        None => Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body(Full::default())
            .expect("a response without surprises"),
    })
}

/// One connection of a client.
pub(crate) struct Client(SendRequest<Empty<Bytes>>);

impl Client {
    pub(crate) async fn connect(addr: &str) -> Self {
        let socket = TcpStream::connect(addr).await.expect("the server listens");
        Self::over(socket).await
    }

    pub(crate) async fn over(socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (client, connection) = handshake(TokioIo::new(socket)).await.expect("a connection");
        tokio::spawn(async move { connection.await.ok() });
        Self(client)
    }

    /// Gets a file and compares it as it arrives.
    pub(crate) async fn get(&mut self, len: usize) -> Result<(), String> {
        let request = Request::get(format!("/{len}"))
            .header("host", "files")
            .body(Empty::new())
            .expect("a request without surprises");
        self.0.ready().await.map_err(|error| error.to_string())?;
        let response = self.0.send_request(request).await;
        let mut body = response.map_err(|error| error.to_string())?.into_body();
        let expected = file(len);
        let mut at = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| format!("after {at} of {len}: {error}"))?;
            let data = frame.into_data().expect("no trailers were sent");
            if expected.get(at..at + data.len()) != Some(&data[..]) {
                return Err(format!("wrong bytes from {at} of {len}"));
            }
            at += data.len();
        }
        if at == len {
            Ok(())
        } else {
            Err(format!("{at} of {len} bytes"))
        }
    }
}
