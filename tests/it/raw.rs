//! A raw peer: it sends any bytes that a case needs.
//!
//! Written from the description of the wire, not with the library's codec, so that a mistake in the codec shows.

use ringmux::wire::StreamId;
use ringmux::{Addr, Config, Listener, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::host::{Net, Soon};

pub(crate) const DATA: u8 = 0;
pub(crate) const OPEN: u8 = 1;
pub(crate) const ERROR: u8 = 2;
pub(crate) const CANCEL: u8 = 3;
pub(crate) const WINDOW: u8 = 4;
pub(crate) const PING: u8 = 5;
pub(crate) const GOAWAY: u8 = 6;
pub(crate) const SETTINGS: u8 = 7;
pub(crate) const META: u8 = 8;

pub(crate) const FIN: u8 = 1;
pub(crate) const END: u8 = 2;
pub(crate) const ACK: u8 = 1;
pub(crate) const STREAMS: u8 = 1;

pub(crate) const PREFACE: &[u8; 8] = b"RINGMUX\x01";

/// One frame, valid or not.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, flags, stream, payload.len() as u32);
    bytes.extend_from_slice(payload);
    bytes
}

/// A header that announces so many bytes.
pub(crate) fn header(kind: u8, flags: u8, stream: u32, length: u32) -> Vec<u8> {
    let mut bytes = length.to_le_bytes()[..3].to_vec();
    bytes.push(kind << 4 | flags);
    bytes.extend_from_slice(&stream.to_le_bytes());
    bytes
}

/// SETTINGS with these entries; omitted ones are at their floor.
pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> = entries
        .iter()
        .flat_map(|(id, value)| [&id.to_le_bytes()[..], &value.to_le_bytes()].concat())
        .collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// The first of several pieces: the total, then the content.
pub(crate) fn first_piece(stream: u32, total: u32, content: &[u8]) -> Vec<u8> {
    frame(
        DATA,
        0,
        stream,
        &[&total.to_le_bytes()[..], content].concat(),
    )
}

/// A received frame.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// Which side of the connection the raw peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Dials,
    Accepts,
}

impl Side {
    /// The nth stream that the raw peer opens, from 0.
    pub(crate) const fn own(self, n: u32) -> u32 {
        match self {
            Self::Dials => 2 * n + 1,
            Self::Accepts => 2 * n + 2,
        }
    }

    /// The nth stream that the library opens, from 0.
    pub(crate) const fn theirs(self, n: u32) -> u32 {
        match self {
            Self::Dials => Self::Accepts.own(n),
            Self::Accepts => Self::Dials.own(n),
        }
    }
}

pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
}

impl Raw {
    /// Dials a listener and sends nothing.
    pub(crate) async fn dial(listener: &Listener) -> Self {
        let Addr::Tcp(addr) = listener.local_addr() else {
            panic!("raw peers speak TCP");
        };
        let socket = TcpStream::connect(addr).soon().await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket }
    }

    /// Sends bytes; ignores a peer that has hung up already.
    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes).soon().await;
    }

    /// Closes in order, so that the sent bytes are read.
    pub(crate) async fn finish(&mut self) {
        let _ = self.socket.shutdown().soon().await;
    }

    /// Reads the peer's preface; false if it hung up instead.
    pub(crate) async fn preface(&mut self) -> bool {
        let mut preface = [0; 8];
        match self.socket.read_exact(&mut preface).soon().await {
            Ok(_) => {
                assert_eq!(&preface, PREFACE);
                true
            }
            Err(_) => false,
        }
    }

    /// The next frame; `None` when the peer has hung up.
    pub(crate) async fn frame(&mut self) -> Option<Got> {
        let mut header = [0; 8];
        self.socket.read_exact(&mut header).soon().await.ok()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut payload = vec![0; length as usize];
        self.socket.read_exact(&mut payload).soon().await.ok()?;
        Some(Got {
            kind: header[3] >> 4,
            stream: u32::from_le_bytes([header[4], header[5], header[6], header[7]]),
            payload,
        })
    }

    /// Skips frames up to one of this kind.
    pub(crate) async fn until(&mut self, kind: u8) -> Option<Got> {
        loop {
            let got = self.frame().await?;
            if got.kind == kind {
                return Some(got);
            }
        }
    }

    /// The text of the GOAWAY that must come before the end of the connection.
    pub(crate) async fn goaway(&mut self) -> (u32, String) {
        let got = self.until(GOAWAY).await.expect("GOAWAY before the end");
        let (fixed, text) = got.payload.split_at(8);
        let code = u32::from_le_bytes(fixed[4..].try_into().unwrap());
        (code, String::from_utf8(text.to_vec()).unwrap())
    }

    /// Checks that the connection ends.
    pub(crate) async fn hung_up(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = self.socket.read_to_end(&mut rest).soon().await;
    }
}

/// A session of the library with a raw peer on the given side, after a valid handshake.
pub(crate) async fn with_raw(net: &Net, side: Side, listener: &Listener) -> (Session, Raw) {
    with_raw_settings(net, side, listener, &Config::default(), &settings(&[])).await
}

pub(crate) async fn with_raw_settings(
    net: &Net,
    side: Side,
    listener: &Listener,
    config: &Config,
    settings: &[u8],
) -> (Session, Raw) {
    let hello = [PREFACE, settings].concat();
    match side {
        Side::Dials => {
            let mut raw = Raw::dial(listener).await;
            raw.say(&hello).await;
            let session = listener.accept().soon().await.unwrap();
            assert!(raw.preface().await);
            (session, raw)
        }
        Side::Accepts => {
            let accepting = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let addr = Addr::Tcp(accepting.local_addr().unwrap().to_string());
            let greeting = async {
                let (socket, _) = accepting.accept().soon().await.unwrap();
                let mut raw = Raw { socket };
                assert!(raw.preface().await);
                raw.say(&hello).await;
                raw
            };
            let connecting = net.engine().connect(&addr, config);
            let (raw, session) = tokio::join!(greeting, connecting.soon());
            (session.unwrap(), raw)
        }
    }
}

/// A stream id that is not 0.
pub(crate) fn id(number: u32) -> StreamId {
    StreamId::new(number).unwrap()
}
