//! Sending what an outbox holds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::errors::ManageError;
use super::keeper::unless;
use super::manager::Manager;
use super::outbox::{Doubt, Dropped, Letter, Outcome, Post};
use crate::error::{OpenError, Processed, SendError, StreamError};
use crate::handle::Stream;
use crate::sync::Arc;

/// How long to wait when too many others wait to open a stream, or for a session.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);

/// The work of an outbox, to be spawned on a tokio runtime. From [`Outbox::start`](super::Outbox::start).
///
/// Dropping it ends every message that is held as dropped, and every one under way as in doubt.
#[must_use = "an outbox does nothing unless this is spawned or awaited"]
pub struct Delivering {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    post: Arc<Post>,
}

impl Delivering {
    pub(super) fn new(post: Arc<Post>, manager: Manager) -> Self {
        Self {
            work: Box::pin(deliver(Arc::clone(&post), manager)),
            post,
        }
    }
}

impl Future for Delivering {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.work.as_mut().poll(cx)
    }
}

impl Drop for Delivering {
    fn drop(&mut self) {
        self.post.close();
    }
}

impl fmt::Debug for Delivering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivering").finish_non_exhaustive()
    }
}

async fn deliver(post: Arc<Post>, manager: Manager) {
    // Dropped with this future, and with it what the tasks have under way.
    let mut senders = JoinSet::new();
    for _ in 0..post.limits.at_once {
        let (post, manager) = (Arc::clone(&post), manager.clone());
        senders.spawn(async move {
            while let Some(letter) = post.next().await {
                send(&post, &manager, letter).await;
            }
        });
    }
    let all_sent = async { while senders.join_next().await.is_some() {} };
    if unless(manager.closing(), all_sent).await.is_none() {
        // What is held is dropped. What is under way ends with its session, which closes as well.
        post.close();
        while senders.join_next().await.is_some() {}
    }
}

/// Sends a message until the peer may have seen it, and tells what became of it.
async fn send(post: &Post, manager: &Manager, mut letter: Letter) {
    let limits = &post.limits;
    let deadline = letter.since + limits.keep_for;
    loop {
        if Instant::now() >= deadline {
            let late = Dropped::TooOld(limits.keep_for);
            return letter.end(Outcome::Dropped(late));
        }
        let opening = letter.opening.clone();
        let open = manager.with_session(|session| async move { session.open(opening).await });
        let stream = match timeout_at(deadline, open).await {
            // The time is over.
            Err(_) => continue,
            Ok(Err(ManageError::TooManyWaiting { .. }))
            | Ok(Ok(Err(OpenError::TooManyPending { .. } | OpenError::NoCredit))) => {
                sleep(CROWDED_PAUSE).await;
                continue;
            }
            Ok(Err(_)) => return letter.end(Outcome::Dropped(Dropped::Closed)),
            // That session is not handed out any more.
            Ok(Ok(Err(OpenError::Session(_)))) => continue,
            Ok(Ok(Err(error))) => return letter.end(Outcome::Dropped(Dropped::Opening(error))),
            Ok(Ok(Ok(stream))) => stream,
        };
        letter.under_way = true;
        let said = timeout(
            limits.finish_timeout,
            converse(stream, letter.message.clone()),
        )
        .await;
        match said {
            Err(_) => {
                let late = Doubt::Late(limits.finish_timeout);
                return letter.end(Outcome::MayHaveSeen(late));
            }
            Ok(Some(outcome)) => return letter.end(outcome),
            Ok(None) => {
                letter.under_way = false;
                post.counts.sent_again.add();
            }
        }
    }
}

/// Sends the message, and waits until the peer is done with it. `None` if the peer has not seen it.
async fn converse(mut stream: Stream, message: Bytes) -> Option<Outcome> {
    match stream.send(message).await {
        Ok(()) => {}
        Err(SendError::TooLong { len, limit }) => {
            return Some(Outcome::Dropped(Dropped::TooLong { len, limit }));
        }
        Err(SendError::Stream(error)) => return judge(error),
        // The peer wants no more of it, and says how it ends.
        Err(_) => {}
    }
    // Of a stream that has ended meanwhile, `recv` tells the end.
    let _ = stream.finish();
    loop {
        match stream.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => return Some(Outcome::Finished),
            Err(error) => return judge(error),
        }
    }
}

/// What the end of a stream says of its message.
fn judge(error: StreamError) -> Option<Outcome> {
    match (error.was_processed(), error) {
        // The peer's application has decided.
        (Processed::Yes, error) | (Processed::No, error @ StreamError::Cancelled { .. }) => {
            Some(Outcome::Refused(error))
        }
        (Processed::No, _) => None,
        (Processed::Maybe, error) => Some(Outcome::MayHaveSeen(Doubt::Ended(error))),
    }
}
