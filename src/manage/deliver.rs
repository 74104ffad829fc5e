//! Sending what an outbox holds.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::backoff::{Backoff, seed};
use super::errors::ManageError;
use super::keeper::unless;
use super::manager::Manager;
use super::outbox::{Doubt, Dropped, Letter, Outcome, Post};
use crate::error::{OpenError, Processed, SendError, StreamError};
use crate::handle::{RecvStream, SendStream};
use crate::sync::Arc;

/// How long to wait when too many others wait to open a stream, or for a session, or when the manager is not started.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);

/// The first pause before a message is sent again that the peer's library turned away; see [`Backoff`] for how it grows.
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(10);
/// The longest such pause.
const TURNED_AWAY_PAUSE_MAX: Duration = Duration::from_secs(1);

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
    let mut pauses = None;
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
            // The outbox may be started before its manager.
            Ok(Err(ManageError::TooManyWaiting { .. } | ManageError::NotStarted))
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
            Ok(Said::End(outcome)) => return letter.end(outcome),
            Ok(Said::Unseen { pause }) => {
                letter.under_way = false;
                post.counts.sent_again.add();
                if pause {
                    let pauses = pauses.get_or_insert_with(|| {
                        Backoff::new(TURNED_AWAY_PAUSE, TURNED_AWAY_PAUSE_MAX, seed())
                    });
                    sleep(pauses.next()).await;
                }
            }
        }
    }
}

/// What one way of a message to the peer has shown.
enum Said {
    /// What became of it.
    End(Outcome),
    /// The peer has not seen it. With `pause` that peer has too much to do; else its session is gone.
    Unseen { pause: bool },
}

/// Sends the message, and waits until the peer is done with it.
async fn converse((mut send, mut recv): (SendStream, RecvStream), message: Bytes) -> Said {
    match send.send(message).await {
        Ok(()) => {}
        Err(SendError::TooLong { len, limit }) => {
            return Said::End(Outcome::Dropped(Dropped::TooLong { len, limit }));
        }
        Err(SendError::Stream(error)) => return judge(error),
        // The peer wants no more of it, and says how it ends.
        Err(_) => {}
    }
    // Of a stream that has ended meanwhile, `recv` tells the end.
    let _ = send.finish();
    loop {
        match recv.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => return Said::End(Outcome::Finished),
            Err(error) => return judge(error),
        }
    }
}

/// What the end of a stream says of its message.
fn judge(error: StreamError) -> Said {
    match (error.was_processed(), error) {
        (_, error) if error.was_turned_away() => Said::Unseen { pause: true },
        // The peer's application has decided.
        (Processed::Yes, error) | (Processed::No, error @ StreamError::Cancelled { .. }) => {
            Said::End(Outcome::Refused(error))
        }
        (Processed::No, _) => Said::Unseen { pause: false },
        (Processed::Maybe, error) => Said::End(Outcome::MayHaveSeen(Doubt::Ended(error))),
    }
}
