//! The interface that the workloads need of a multiplexer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::future::LocalBoxFuture;

use ringmux_measure::failure::Failure;
use ringmux_measure::message::{Numbered, Slab};
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;
use ringmux_measure::workload::{BULK_LEN, MESSAGE_LEN, Shape};

/// The server's task for a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Sends every message back.
    Echo,
    /// Sends its only message back.
    Call,
    /// Counts small messages.
    Count,
    /// Counts bulk messages.
    CountBulk,
    /// Counts the bytes of bulk messages beside the counted ones.
    SideBulk,
}

impl Role {
    pub(super) const ALL: [Self; 5] = [
        Self::Echo,
        Self::Call,
        Self::Count,
        Self::CountBulk,
        Self::SideBulk,
    ];

    /// The role of a stream without an opening: in `mixed` the first one carries bulk.
    pub(super) const fn by_order(shape: Shape, is_first: bool) -> Self {
        match shape {
            Shape::Echo { .. } => Self::Echo,
            Shape::Unary { .. } | Shape::Call { .. } => Self::Call,
            Shape::Oneway { .. } | Shape::Feed { .. } => Self::Count,
            Shape::Bulk => Self::CountBulk,
            Shape::Mixed if is_first => Self::SideBulk,
            Shape::Mixed => Self::Echo,
        }
    }

    /// The role as the path of an HTTP request.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Echo => "/perf.Perf/Echo",
            Self::Call => "/perf.Perf/Call",
            Self::Count => "/perf.Perf/Count",
            Self::CountBulk => "/perf.Perf/CountBulk",
            Self::SideBulk => "/perf.Perf/SideBulk",
        }
    }

    pub(super) fn by_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.path() == path)
    }

    pub(super) const fn message_len(self) -> usize {
        match self {
            Self::Echo | Self::Call | Self::Count => MESSAGE_LEN,
            Self::CountBulk | Self::SideBulk => BULK_LEN,
        }
    }
}

/// One multiplexer with its settings.
pub(super) trait Transport: Clone + Send + 'static {
    type Client: Client;
    /// The engine that an end needs on its thread; `()` on a tokio runtime.
    type Host;

    /// Runs one end on this thread, on which it may use `spawn_local`.
    fn block_on<F, Fut>(&self, end: F) -> Result<Fut::Output, Failure>
    where
        F: FnOnce(Self::Host) -> Fut,
        Fut: Future;

    /// Listens, takes one connection, and serves its streams until the client closes it.
    async fn serve(
        self,
        host: Self::Host,
        shape: Shape,
        listening: Listening,
        window: &Arc<Window>,
    ) -> Result<Received, Failure>;

    /// Connects. The future closes the connection in order, once the client is dropped.
    async fn connect(
        self,
        host: Self::Host,
        shape: Shape,
        address: &str,
    ) -> Result<(Self::Client, Closing), Failure>;
}

/// The remaining work at the end of a connection.
pub(super) type Closing = LocalBoxFuture<'static, Result<(), Failure>>;

/// The client's end of a connection.
pub(super) trait Client: Clone + 'static {
    type Sender: Sender;
    type Receiver: Receiver;

    async fn open(&self, role: Role) -> Result<(Self::Sender, Self::Receiver), Failure>;

    /// A stream for one message each way.
    async fn call(&self, message: Bytes) -> Result<Bytes, Failure> {
        let (mut sender, receiver) = self.open(Role::Call).await?;
        let mut replies = Messages::new(receiver, MESSAGE_LEN);
        sender.send_last(message).await?;
        let reply = match replies.next().await? {
            Some(pieces) => contiguous(pieces),
            None => return Err(Failure::new("a call ended without a reply")),
        };
        replies.expect_end().await?;
        Ok(reply)
    }

    /// A stream for all messages of a source, until the server has taken the last one.
    async fn one_way(&self, role: Role, source: Source) -> Result<(), Failure> {
        let (mut sender, receiver) = self.open(role).await?;
        for message in source {
            sender.send(message).await?;
        }
        sender.finish().await?;
        Messages::new(receiver, MESSAGE_LEN).expect_end().await
    }
}

/// The sending direction of a stream.
pub(super) trait Sender: 'static {
    /// Returns when the peer has room for the message, which may be before it is on its way.
    async fn send(&mut self, message: Bytes) -> Result<(), Failure>;

    /// Ends the direction.
    async fn finish(&mut self) -> Result<(), Failure>;

    async fn send_last(&mut self, message: Bytes) -> Result<(), Failure> {
        self.send(message).await?;
        self.finish().await
    }
}

/// The receiving direction of a stream.
pub(super) trait Receiver: 'static {
    /// The next received bytes; none at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, Failure>;
}

/// Cuts received bytes into messages, without copying them.
#[derive(Debug)]
pub(super) struct Messages<R> {
    receiver: R,
    len: usize,
    rest: Bytes,
    pieces: Vec<Bytes>,
}

impl<R: Receiver> Messages<R> {
    pub(super) const fn new(receiver: R, len: usize) -> Self {
        Self {
            receiver,
            len,
            rest: Bytes::new(),
            pieces: Vec::new(),
        }
    }

    /// The pieces of the next message; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<&[Bytes]>, Failure> {
        self.pieces.clear();
        let mut missing = self.len;
        loop {
            if !self.rest.is_empty() {
                let piece = self.rest.split_to(missing.min(self.rest.len()));
                missing -= piece.len();
                self.pieces.push(piece);
            }
            if missing == 0 {
                return Ok(Some(&self.pieces));
            }
            match self.receiver.chunk().await? {
                Some(chunk) => self.rest = chunk,
                None if self.pieces.is_empty() => return Ok(None),
                None => return Err(Failure::new("a stream ended within a message")),
            }
        }
    }

    pub(super) async fn expect_end(&mut self) -> Result<(), Failure> {
        match self.next().await? {
            None => Ok(()),
            Some(_) => Err(Failure::new(
                "a message came where the end of a stream was expected",
            )),
        }
    }
}

/// The pieces of a message as one; a message that came in one piece is not copied.
pub(super) fn contiguous(pieces: &[Bytes]) -> Bytes {
    match pieces {
        [whole] => whole.clone(),
        pieces => pieces
            .iter()
            .flatten()
            .copied()
            .collect::<BytesMut>()
            .freeze(),
    }
}

/// Numbered messages until the window is done.
#[derive(Debug)]
pub(super) struct Source {
    window: Arc<Window>,
    kind: Kind,
    made: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Kind {
    Small(Numbered),
    Bulk(Slab),
}

impl Source {
    /// The messages of a stream of this role.
    pub(super) fn new(role: Role, window: &Arc<Window>) -> Self {
        let kind = if role.message_len() == BULK_LEN {
            Kind::Bulk(Slab::new())
        } else {
            Kind::Small(Numbered::new())
        };
        Self {
            window: Arc::clone(window),
            kind,
            made: Arc::default(),
        }
    }

    /// How many messages there were so far; stays readable after the source is dropped.
    pub(super) fn counter(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.made)
    }
}

impl Iterator for Source {
    type Item = Bytes;

    #[inline]
    fn next(&mut self) -> Option<Bytes> {
        if self.window.is_done() {
            return None;
        }
        // Only this thread writes it, so the addition needs no lock.
        let number = self.made.load(Ordering::Relaxed) + 1;
        self.made.store(number, Ordering::Relaxed);
        Some(match &mut self.kind {
            Kind::Small(message) => Bytes::copy_from_slice(message.advance()),
            Kind::Bulk(slab) => slab.message(number),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;

    use super::*;

    struct Chunks(VecDeque<Bytes>);

    impl Receiver for Chunks {
        async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
            Ok(self.0.pop_front())
        }
    }

    fn messages(chunks: &[&'static str]) -> Result<Vec<Bytes>, Failure> {
        let chunks = chunks
            .iter()
            .map(|chunk| Bytes::from_static(chunk.as_bytes()));
        let mut messages = Messages::new(Chunks(chunks.collect()), 4);
        let mut all = Vec::new();
        while let Some(pieces) = messages
            .next()
            .now_or_never()
            .expect("nothing to wait for")?
        {
            all.push(contiguous(pieces));
        }
        Ok(all)
    }

    #[test]
    fn messages_are_cut_wherever_their_bytes_were() {
        for chunks in [
            &["abcdefgh"][..],
            &["abcd", "efgh"],
            &["a", "bcdef", "", "gh"],
        ] {
            assert_eq!(messages(chunks).unwrap(), ["abcd", "efgh"], "{chunks:?}");
        }
        assert!(messages(&["abcdef"]).is_err());
    }

    #[test]
    fn a_path_names_one_role() {
        for role in Role::ALL {
            assert_eq!(Role::by_path(role.path()), Some(role));
        }
        assert_eq!(Role::by_path("/perf.Perf/Ech"), None);
    }

    #[test]
    fn a_source_ends_with_its_window_and_its_count_outlives_it() {
        let window = Arc::new(Window::default());
        let mut source = Source::new(Role::Count, &window);
        let counter = source.counter();
        assert_eq!(source.by_ref().take(3).count(), 3);
        window.stop();
        assert_eq!(source.count(), 0);
        assert_eq!(counter.load(Ordering::Relaxed), 3);
    }
}
