//! The wire under handles and a driver: two ends of it, or one and a peer that is written by hand.

mod bounds;
mod calls;
mod memory;
mod peer;
mod vectors;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Drpc;
use super::frame::{Front, HEADER_MAX, Header, Kind};
use crate::bridge::{Engine, Info, Pool};
use crate::config::{Config, ConfigBuilder};
use crate::driver::tokio::TokioIo;
use crate::driver::{Turns, clock};
use crate::drpc::Profile;
use crate::error::SessionError;
use crate::handle::Session;
use crate::wire::Role;

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that a pipe holds.
const PIPE: usize = 64 * 1024;

type End = (Session, JoinHandle<SessionError>);

fn settings(profile: Profile) -> ConfigBuilder {
    Config::builder().drpc(profile)
}

fn end(role: Role, config: &Config, io: DuplexStream) -> End {
    end_with(Pool::new(1 << 30), role, config, io)
}

fn end_with(pool: Arc<Pool>, role: Role, config: &Config, io: DuplexStream) -> End {
    let info = Info::of_a_test(role);
    let (engine, link) = Engine::<Drpc>::new(role, config, info, pool, clock::now());
    let turns = Turns::new(engine, TokioIo::new(io, |_| None));
    (Session::new(link), tokio::spawn(turns))
}

/// A client and a server.
fn ends(builder: ConfigBuilder) -> [End; 2] {
    let config = builder.build().unwrap();
    let (near, far) = duplex(PIPE);
    [
        end(Role::Dialer, &config, near),
        end(Role::Acceptor, &config, far),
    ]
}

fn message(len: usize) -> Bytes {
    ringmux_testing::message(len).into()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("in time")
}

/// A frame.
fn frame(header: &Header, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_MAX];
    let mut rest = &mut bytes[..];
    let header = Header {
        length: data.len() as u64,
        ..*header
    };
    header.put(&mut rest);
    let left = rest.len();
    bytes.truncate(HEADER_MAX - left);
    bytes.extend_from_slice(data);
    bytes
}

/// A packet of one frame.
fn packet(kind: Kind, stream: u64, message: u64, data: &[u8]) -> Vec<u8> {
    frame(&Header::new(kind, stream, message, 0), data)
}

/// A frame that does not complete its packet.
fn part(kind: Kind, stream: u64, message: u64, data: &[u8]) -> Vec<u8> {
    let header = Header {
        done: false,
        ..Header::new(kind, stream, message, 0)
    };
    frame(&header, data)
}

/// All frames in these bytes.
fn frames(mut bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Front::Header(header, len) = Header::read(bytes) {
        let end = len + header.length as usize;
        frames.push((header, bytes[len..end].to_vec()));
        bytes.advance(end);
    }
    assert!(bytes.is_empty(), "whole frames");
    frames
}

/// A peer that writes and reads bytes.
struct Peer {
    io: DuplexStream,
    got: Vec<u8>,
}

impl Peer {
    /// A session of this role, and its peer.
    fn of(role: Role, builder: ConfigBuilder) -> (End, Self) {
        let (near, far) = duplex(PIPE);
        let peer = Self {
            io: far,
            got: Vec::new(),
        };
        (end(role, &builder.build().unwrap(), near), peer)
    }

    async fn send(&mut self, bytes: &[u8]) {
        soon(self.io.write_all(bytes)).await.unwrap();
    }

    /// The next frame.
    async fn next(&mut self) -> (Header, Vec<u8>) {
        loop {
            if let Front::Header(header, len) = Header::read(&self.got) {
                let end = len + header.length as usize;
                if self.got.len() >= end {
                    let data = self.got[len..end].to_vec();
                    self.got.drain(..end);
                    return (header, data);
                }
            }
            let read = soon(self.io.read_buf(&mut self.got)).await.unwrap();
            assert!(read > 0, "the connection ended");
        }
    }

    /// The next frame is a packet.
    async fn expect(&mut self, kind: Kind, stream: u64, message: u64, data: &[u8]) {
        let (header, got) = self.next().await;
        assert_eq!(
            (header, &got[..]),
            (Header::new(kind, stream, message, data.len()), data)
        );
    }

    /// The next frame is an Error of this code.
    async fn expect_error(&mut self, stream: u64, code: u32) {
        let (header, data) = self.next().await;
        assert_eq!((header.kind, header.stream), (Kind::Error, stream));
        assert_eq!(super::failure::decode(&data).code, code);
    }

    /// Reads to the end of the connection.
    async fn rest(&mut self) -> Vec<u8> {
        let _ = soon(self.io.read_to_end(&mut self.got)).await;
        std::mem::take(&mut self.got)
    }
}
