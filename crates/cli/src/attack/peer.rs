//! One connection of the attacker: the server's grants, and its answers.
//!
//! It never blocks: bytes that the socket does not take stay in `out`, which an attack fills only while it is short.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringmux::Addr;

use super::wire::{self, Got};

const CONNECT_TIME: Duration = Duration::from_secs(2);
/// Unsent bytes from which on no frames are added.
const OUT_MAX: usize = 64 * 1024;
/// Bytes that are read in a turn.
const READ_BYTES: usize = 64 * 1024;
/// Credit returned in one WINDOW.
const RETURN_BYTES: u32 = 8 * 1024;
/// Stream credit before the server's SETTINGS.
const STREAM_FLOOR: i64 = 32 * 1024;
const SESSION_FLOOR: i64 = 256 * 1024;
const STREAMS_FLOOR: i64 = 16;

trait Socket: Read + Write + Send {}
impl<T: Read + Write + Send> Socket for T {}

/// How the attacker reads the server's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Reads everything, and returns the credit.
    Honest,
    /// Reads everything, and returns no credit.
    NoCredit,
    /// Reads a byte each time.
    Slow,
    Nothing,
}

/// See the module.
pub(super) struct Peer {
    socket: Box<dyn Socket>,
    out: Vec<u8>,
    received: Vec<u8>,
    preface_seen: bool,
    /// The server has said that it takes calls in frames.
    takes_calls: bool,
    /// The server speaks another wire: its answers are read and not understood.
    pub(super) is_foreign: bool,
    pub(super) reading: Reading,
    /// Frames and bytes sent by the attack.
    pub(super) frames: u64,
    pub(super) bytes: u64,
    next_id: u32,
    /// Streams that may still be opened.
    places: i64,
    session_credit: i64,
    /// Credit of each stream that is open. Signed: SETTINGS apply as a difference.
    streams: HashMap<u32, i64>,
    initial_credit: i64,
    /// Credit to return for the session, and for streams.
    owed: u32,
    owed_streams: HashMap<u32, u32>,
    /// Streams reset by the server.
    pub(super) resets: u64,
    /// The text of its GOAWAY.
    pub(super) goaway: Option<String>,
}

impl Peer {
    /// Connects, and sends nothing.
    ///
    /// # Errors
    /// Connecting failed.
    pub(super) fn connect(addr: &Addr) -> io::Result<Self> {
        let socket: Box<dyn Socket> = match addr {
            Addr::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_nonblocking(true)?;
                Box::new(socket)
            }
            addr => {
                let text = addr.to_string();
                let name = text.trim_start_matches("tcp://");
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                let connected = name.to_socket_addrs()?.find_map(|to| {
                    let socket = TcpStream::connect_timeout(&to, CONNECT_TIME);
                    socket.map_err(|error| last = error).ok()
                });
                let socket = connected.ok_or(last)?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                Box::new(socket)
            }
        };
        Ok(Self {
            socket,
            out: Vec::new(),
            received: Vec::new(),
            preface_seen: false,
            takes_calls: false,
            is_foreign: false,
            reading: Reading::Honest,
            frames: 0,
            bytes: 0,
            next_id: 1,
            places: STREAMS_FLOOR,
            session_credit: SESSION_FLOOR,
            streams: HashMap::new(),
            initial_credit: STREAM_FLOOR,
            owed: 0,
            owed_streams: HashMap::new(),
            resets: 0,
            goaway: None,
        })
    }

    /// Sends a valid preface and SETTINGS, with the floor for each setting.
    pub(super) fn greet(&mut self) {
        self.say(wire::PREFACE);
        self.raw(wire::SETTINGS, 0, 0, &[]);
    }

    /// Sends raw bytes.
    pub(super) fn say(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// Sends a frame, regardless of the server's grants.
    pub(super) fn raw(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        wire::frame(&mut self.out, kind, flags, stream, payload);
        self.frames += 1;
        self.bytes += (wire::HEADER_LEN + payload.len()) as u64;
    }

    /// Sends the header of a frame of this length, without its payload.
    pub(super) fn announce(&mut self, kind: u8, flags: u8, stream: u32, length: u32) {
        wire::header(&mut self.out, kind, flags, stream, length);
        self.frames += 1;
        self.bytes += wire::HEADER_LEN as u64;
    }

    /// Opens a stream, if the server has a place for it.
    pub(super) fn open(&mut self, flags: u8, block: &[u8]) -> Option<u32> {
        let id = self.next_id;
        self.open_as(id, flags, block).then_some(id)
    }

    /// The same with an id of the attack's choice.
    pub(super) fn open_as(&mut self, id: u32, flags: u8, block: &[u8]) -> bool {
        if self.places <= 0 || self.session_credit < cost(block) {
            return false;
        }
        self.places -= 1;
        self.session_credit -= cost(block);
        self.next_id = id.wrapping_add(2);
        self.streams.insert(id, self.initial_credit);
        self.raw(wire::OPEN, flags, id, block);
        true
    }

    /// Opens a stream, whether the server has a place for it or not.
    pub(super) fn open_beyond(&mut self, flags: u8, block: &[u8]) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(2);
        self.streams.insert(id, self.initial_credit);
        self.raw(wire::OPEN, flags, id, block);
        id
    }

    /// Makes a call in a frame, if the server has a place and credit for it.
    pub(super) fn call(&mut self, payload: &[u8]) -> Option<u32> {
        if self.places <= 0 || self.session_credit < cost(payload) {
            return None;
        }
        self.places -= 1;
        self.session_credit -= cost(payload);
        Some(self.call_beyond(payload))
    }

    /// The same, whether the server has a place and credit for it or not.
    pub(super) fn call_beyond(&mut self, payload: &[u8]) -> u32 {
        let id = self.next_id;
        self.next_id = id.wrapping_add(2);
        self.streams.insert(id, self.initial_credit);
        self.raw(wire::CALL, 0, id, payload);
        id
    }

    /// Sends an opaque block, if the session has credit for it.
    pub(super) fn meta(&mut self, stream: u32, flags: u8, block: &[u8]) -> bool {
        if self.session_credit < cost(block) {
            return false;
        }
        self.session_credit -= cost(block);
        self.raw(wire::META, flags, stream, block);
        true
    }

    /// Sends a piece of a message, if there is credit for it.
    pub(super) fn data(&mut self, stream: u32, flags: u8, payload: &[u8]) -> bool {
        let cost = cost(payload);
        let Some(credit) = self.streams.get_mut(&stream) else {
            return false;
        };
        if *credit < cost || self.session_credit < cost {
            return false;
        }
        *credit -= cost;
        self.session_credit -= cost;
        self.raw(wire::DATA, flags, stream, payload);
        true
    }

    /// Whether the stream is open as far as the server's frames show.
    pub(super) fn is_open(&self, stream: u32) -> bool {
        self.streams.contains_key(&stream)
    }

    /// The attack is done with a stream.
    pub(super) fn forget(&mut self, stream: u32) {
        self.streams.remove(&stream);
        self.owed_streams.remove(&stream);
    }

    /// Whether the server has sent its SETTINGS.
    pub(super) const fn is_greeted(&self) -> bool {
        self.preface_seen
    }

    /// Whether the server takes calls in frames.
    pub(super) const fn may_call(&self) -> bool {
        self.takes_calls
    }

    /// The server does not keep up: too many unsent bytes.
    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= OUT_MAX
    }

    /// Writes and reads as much as possible without waiting.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        // Read even if writing failed: the server may have sent its reason before the end.
        let written = self.write();
        self.read()?;
        written
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => drop(self.out.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        let mut room = [0; READ_BYTES];
        let most = match self.reading {
            Reading::Honest | Reading::NoCredit => READ_BYTES,
            Reading::Slow => 1,
            Reading::Nothing => return Ok(()),
        };
        match self.socket.read(&mut room[..most]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => self.received.extend_from_slice(&room[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        self.hear();
        Ok(())
    }

    fn hear(&mut self) {
        if self.is_foreign {
            return self.received.clear();
        }
        let received = std::mem::take(&mut self.received);
        let mut rest = &received[..];
        if !self.preface_seen && rest.len() >= wire::PREFACE.len() {
            self.preface_seen = true;
            rest = &rest[wire::PREFACE.len()..];
        }
        if self.preface_seen {
            while let Some((got, length)) = wire::first(rest) {
                self.on(&got);
                rest = &rest[length..];
            }
        }
        self.received = rest.to_vec();
    }

    fn on(&mut self, got: &Got<'_>) {
        match got.kind {
            wire::SETTINGS => self.on_settings(got),
            wire::WINDOW => {
                let credit = i64::from(got.number(0).unwrap_or(0));
                match (got.stream, got.flags & wire::STREAMS) {
                    (0, 0) => self.session_credit += credit,
                    (0, _) => self.places += credit,
                    (stream, _) => {
                        if let Some(left) = self.streams.get_mut(&stream) {
                            *left += credit;
                        }
                    }
                }
            }
            wire::DATA => self.give_back(got),
            wire::CALL if got.stream == 0 => self.takes_calls = got.flags & wire::NONE == 0,
            wire::REPLY => {
                // It has no credit of its own.
                self.forget(got.stream);
                self.give_back(got);
            }
            wire::CANCEL | wire::ERROR if self.is_open(got.stream) => {
                self.resets += 1;
                self.forget(got.stream);
            }
            wire::PING if got.flags & wire::ACK == 0 && self.reading == Reading::Honest => {
                wire::frame(&mut self.out, wire::PING, wire::ACK, 0, got.payload);
            }
            wire::GOAWAY => {
                let text = got.payload.get(8..).unwrap_or_default();
                self.goaway = Some(String::from_utf8_lossy(text).into_owned());
            }
            _ => {}
        }
    }

    fn on_settings(&mut self, got: &Got<'_>) {
        for entry in got.payload.chunks_exact(6) {
            let id = u16::from_le_bytes([entry[0], entry[1]]);
            let value = u32::from_le_bytes([entry[2], entry[3], entry[4], entry[5]]);
            let value = i64::from(value);
            match id {
                3 => {
                    let more = value - self.initial_credit;
                    self.initial_credit = value;
                    for credit in self.streams.values_mut() {
                        *credit += more;
                    }
                }
                4 => self.session_credit += value - SESSION_FLOOR,
                5 => self.places += value - STREAMS_FLOOR,
                _ => {}
            }
        }
    }

    /// Returns credit, so that the server can continue to send.
    fn give_back(&mut self, got: &Got<'_>) {
        if self.reading != Reading::Honest {
            return;
        }
        let cost = cost(got.payload) as u32;
        self.owed += cost;
        if self.owed >= RETURN_BYTES {
            let credit = std::mem::take(&mut self.owed).to_le_bytes();
            wire::frame(&mut self.out, wire::WINDOW, 0, 0, &credit);
        }
        if !self.is_open(got.stream) {
            return;
        }
        let owed = self.owed_streams.entry(got.stream).or_default();
        *owed += cost;
        if *owed >= RETURN_BYTES {
            let credit = std::mem::take(owed).to_le_bytes();
            wire::frame(&mut self.out, wire::WINDOW, 0, got.stream, &credit);
        }
    }
}

fn cost(payload: &[u8]) -> i64 {
    payload.len() as i64 + wire::FRAME_COST
}
