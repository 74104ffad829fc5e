//! Tells the wire of an accepted connection by its first bytes, which stay in the socket.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::{Interest, Ready};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::Level;

use super::half_open::Since;
use super::socket::Connected;
use crate::addr::Wire;
use crate::config::Config;
use crate::pace::paced;

/// The bytes that decide: the length of the connection header of DRPC.
const FIRST_BYTES: usize = 8;
/// What its connection headers have in common; the wire itself tells one from another.
const DRPC_HEADERS: &[u8] = b"DRPC!";

/// What a connection is, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    AsDrpc,
    Otherwise,
    /// Fewer bytes have arrived than tell.
    Undecided,
}

/// A connection of DRPC begins with a header, or with the first frame of a call: kind Invoke or InvokeMetadata.
fn judge(first: &[u8]) -> Begins {
    const INVOKE: u8 = 1;
    const INVOKE_METADATA: u8 = 7;
    let Some(&control) = first.first() else {
        return Begins::Undecided;
    };
    if matches!((control & 0x7e) >> 1, INVOKE | INVOKE_METADATA) {
        return Begins::AsDrpc;
    }
    let shared = first.len().min(DRPC_HEADERS.len());
    match first[..shared] == DRPC_HEADERS[..shared] {
        true if shared == DRPC_HEADERS.len() => Begins::AsDrpc,
        true => Begins::Undecided,
        false => Begins::Otherwise,
    }
}

fn peek(fd: BorrowedFd<'_>) -> io::Result<Begins> {
    let mut first = [0; FIRST_BYTES];
    let (len, _) = recv(fd, &mut first, RecvFlags::PEEK)?;
    Ok(judge(&first[..len]))
}

impl Connected {
    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }

    async fn readable(&self) -> io::Result<Ready> {
        match self {
            Self::Tcp(socket) => socket.ready(Interest::READABLE).await,
            Self::Unix(socket) => socket.ready(Interest::READABLE).await,
        }
    }

    fn try_peek(&self, closed: bool) -> io::Result<bool> {
        let look = || match peek(self.fd())? {
            // Nothing else will arrive: the session ends by it, whatever its wire.
            Begins::Undecided if closed => Ok(false),
            // As if nothing had arrived, so that the next bytes are waited for.
            Begins::Undecided => Err(io::ErrorKind::WouldBlock.into()),
            begins => Ok(begins == Begins::AsDrpc),
        };
        match self {
            Self::Tcp(socket) => socket.try_io(Interest::READABLE, look),
            Self::Unix(socket) => socket.try_io(Interest::READABLE, look),
        }
    }

    /// Waits for enough bytes to know whether it is DRPC. Errors are left to the session.
    pub(super) async fn is_drpc(&self) -> bool {
        loop {
            let Ok(ready) = self.readable().await else {
                return false;
            };
            match self.try_peek(ready.is_read_closed()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                begins => return begins.unwrap_or(false),
            }
        }
    }

    /// The same with the bytes that have arrived.
    fn is_drpc_now(&self) -> bool {
        peek(self.fd()).is_ok_and(|begins| begins == Begins::AsDrpc)
    }
}

/// A connection whose wire is known, with its place among the half-open ones.
pub(super) struct Known {
    pub(super) socket: Connected,
    pub(super) drpc: bool,
    pub(super) place: Place,
}

/// The place of a connection among the half-open ones, and since when it has it.
pub(super) struct Place {
    pub(super) permit: OwnedSemaphorePermit,
    pub(super) since: Since,
}

/// The connections of a listener whose wire is not known yet: each has a place of [`HalfOpen`](super::half_open::HalfOpen).
pub(super) struct Detecting {
    /// `None`: not detected at all.
    settings: Option<Settings>,
    tasks: JoinSet<Option<Known>>,
    /// True once they are to be told by what has arrived.
    hurry: watch::Sender<bool>,
}

struct Settings {
    drpc: Config,
    limit: Duration,
}

impl Detecting {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            settings: config.detect_drpc().map(|drpc| Settings {
                drpc: config.over(Wire::Drpc(drpc)),
                limit: config.handshake_timeout(),
            }),
            tasks: JoinSet::new(),
            hurry: watch::Sender::new(false),
        }
    }

    /// Whether connections are to be told apart at all.
    pub(super) const fn is_on(&self) -> bool {
        self.settings.is_some()
    }

    /// The settings of a session over DRPC, if `drpc`.
    pub(super) fn config<'a>(&'a self, drpc: bool, native: &'a Config) -> &'a Config {
        match &self.settings {
            Some(settings) if drpc => &settings.drpc,
            _ => native,
        }
    }

    /// Waits for a connection's first bytes beside the others. Aborting it closes the connection.
    pub(super) fn begin(&mut self, socket: Connected, place: Place) -> AbortHandle {
        let limit = self.settings.as_ref().map_or(Duration::ZERO, |s| s.limit);
        let mut hurry = self.hurry.subscribe();
        self.tasks.spawn(async move {
            let begins = async {
                match either(socket.is_drpc(), hurry.wait_for(|hurry| *hurry)).await {
                    Either::One(drpc) => drpc,
                    Either::Other(_) => socket.is_drpc_now(),
                }
            };
            let Ok(drpc) = timeout(limit, begins).await else {
                let (peer, _) = socket.addrs();
                let peer = peer.map_or_else(|| "unix".to_owned(), |peer| peer.to_string());
                paced!(Level::INFO, %peer, "a connection has sent too little to know its wire");
                return None;
            };
            Some(Known {
                socket,
                drpc,
                place,
            })
        })
    }

    /// The next connection whose wire is known; waits for ever if there is none.
    pub(super) async fn next(&mut self) -> Known {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Some(known))) => return known,
                // Aborted, or silent for too long.
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Stops waiting: all of them, told by the bytes that have arrived.
    pub(super) async fn hurry(&mut self) -> Vec<Known> {
        self.hurry.send_replace(true);
        let mut all = Vec::new();
        while let Some(known) = self.tasks.join_next().await {
            all.extend(known.ok().flatten());
        }
        all
    }
}

/// The output of one of two futures.
pub(super) enum Either<A, B> {
    One(A),
    Other(B),
}

/// Waits for the first of two futures, and drops the other.
pub(super) async fn either<A: Future, B: Future>(one: A, other: B) -> Either<A::Output, B::Output> {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| {
        if let Poll::Ready(output) = one.as_mut().poll(cx) {
            return Poll::Ready(Either::One(output));
        }
        other.as_mut().poll(cx).map(Either::Other)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_as_soon_as_they_can() {
        for (first, begins) in [
            (&b""[..], Begins::Undecided),
            (b"RINGMUX\x01", Begins::Otherwise),
            (b"R", Begins::Otherwise),
            (b"D", Begins::Undecided),
            (b"DRPC", Begins::Undecided),
            (b"DRPC!", Begins::AsDrpc),
            (b"DRPC!!!1", Begins::AsDrpc),
            (b"DRPC!N!1", Begins::AsDrpc),
            (b"DELETE /", Begins::Otherwise),
            (b"GET / HT", Begins::Otherwise),
            // A ClientHello of TLS.
            (b"\x16\x03\x01", Begins::Otherwise),
            // Invoke and InvokeMetadata, whole or cut, with the control bit and without.
            (b"\x03\x01\x01", Begins::AsDrpc),
            (b"\x02", Begins::AsDrpc),
            (b"\x0f\x01", Begins::AsDrpc),
            (b"\x8f", Begins::AsDrpc),
            // A message before any call.
            (b"\x05\x01\x01\x00", Begins::Otherwise),
        ] {
            assert_eq!(judge(first), begins, "{first:?}");
        }
    }
}
