//! Blocks between messages.

use std::task::{Context, Poll};

use bytes::Bytes;
use smallvec::SmallVec;

use super::RecvStream;
use super::futures::RecvMeta;
use crate::bridge::{RecvEnd, rx_tag};
use crate::error::StreamError;

/// The blocks that a stream has received; none in almost all streams.
pub(super) type Metas = Option<Box<SmallVec<[Bytes; 2]>>>;

/// Drops the blocks of a stream: a look, where the code that the compiler makes for it is a call.
#[inline]
pub(super) fn drop_metas(metas: &mut Metas) {
    if metas.is_some() {
        drop_some(metas);
    }
}

#[cold]
#[inline(never)]
fn drop_some(metas: &mut Metas) {
    *metas = None;
}

impl RecvStream {
    /// Waits for the next block that the peer sent with [`send_meta`](crate::SendStream::send_meta), such as the headers of an
    /// answer before its first message. `None`: a message is next, or the clean end.
    ///
    /// Returns each block once, also one that receiving has passed meanwhile; they stay in [`metas`](Self::metas) too.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Cancel safety
    /// Dropping the future loses no block.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let (a, b) = tokio::io::duplex(64 * 1024);
    /// # let (client, connection) = ringmux::client(a, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// # let (server, connection) = ringmux::server(b, &ringmux::Config::default());
    /// # tokio::spawn(connection);
    /// let (mut call, mut answer) = client.open("").await?;
    /// call.finish()?;
    ///
    /// let (mut send, _recv) = server.accept().await?.expect("the session is open");
    /// send.send_meta("headers").await?;
    /// assert_eq!(answer.meta().await?.unwrap(), "headers"); // before any message
    /// send.send("body").await?;
    /// send.finish()?;
    /// assert_eq!(answer.meta().await?, None); // the message is next
    /// assert_eq!(answer.recv().await?.unwrap(), "body");
    /// # Ok(())
    /// # }
    /// ```
    pub fn meta(&mut self) -> RecvMeta<'_> {
        RecvMeta(self)
    }

    /// The same, as a poll function.
    ///
    /// # Errors
    /// As [`meta`](Self::meta).
    pub fn poll_meta(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        if let Some(ready) = self.meta_or_next() {
            return Poll::Ready(ready);
        }
        self.reader.register(cx.waker());
        self.meta_or_next().map_or(Poll::Pending, Poll::Ready)
    }

    /// Blocks that the peer sent with `send_meta`, in order, up to the position of receiving.
    #[must_use]
    pub fn metas(&self) -> &[Bytes] {
        self.metas.as_deref().map_or(&[], SmallVec::as_slice)
    }

    /// The block in front; blocks are sent between messages, so no piece is passed.
    pub(super) fn take_meta(&mut self) {
        if let Some(taken) = self.reader.take() {
            self.metas.get_or_insert_default().push(taken.payload);
            self.reader.commit();
        }
    }

    /// The next block; `Some(Ok(None))`: a message or the end is next; `None`: no record has arrived.
    fn meta_or_next(&mut self) -> Option<Result<Option<Bytes>, StreamError>> {
        if let Some(block) = self.next_meta() {
            return Some(Ok(Some(block)));
        }
        let ended = match self.lane().recv_end() {
            Some(RecvEnd::Discard(error)) => {
                let error = error.clone();
                self.discard();
                return Some(Err(error));
            }
            end => end.is_some(),
        };
        if self.ended {
            // As in `pass_message`.
            self.discard();
        } else {
            if self.reader.passed_weight() > 0 {
                self.release();
            }
            match self.reader.peek().map(|record| record.tag & rx_tag::META) {
                Some(0) => return Some(Ok(None)),
                Some(_) => {
                    self.take_meta();
                    return self.next_meta().map(|block| Ok(Some(block)));
                }
                None => {}
            }
        }
        let end = ended.then(|| self.end());
        end.or_else(|| self.lane().inherited_end().map(Err))
    }

    /// The first block that `meta` has not returned.
    fn next_meta(&mut self) -> Option<Bytes> {
        let block = self.metas().get(usize::from(self.given_metas))?.clone();
        self.given_metas += 1;
        Some(block)
    }
}
