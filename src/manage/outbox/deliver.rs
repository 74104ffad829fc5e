//! Sends the messages of an outbox.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Doubt, Dropped, Letter, Outcome, Post};
use crate::error::{OpenError, Processed, SendError, StreamError};
use crate::handle::{RecvStream, SendStream};
use crate::manage::backoff::{Backoff, seed};
use crate::manage::errors::ManageError;
use crate::manage::keeper::unless;
use crate::manage::manager::Manager;
use crate::manage::panics::caught;
use crate::sync::Arc;
use crate::timer::has_time;

/// Pause when too many callers wait to open a stream or for a session, or when the manager is not started.
const CROWDED_PAUSE: Duration = Duration::from_millis(100);

/// The first pause before resending a message that the peer's library refused; grows as in [`Backoff`].
const TURNED_AWAY_PAUSE: Duration = Duration::from_millis(10);
/// The longest such pause.
const TURNED_AWAY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// The task of an outbox: spawn it on a tokio runtime with time enabled. From [`Outbox::start`](super::Outbox::start).
///
/// # Errors
/// [`ManageError::NoRuntime`] if it is first polled elsewhere. The outbox is closed then.
///
/// Dropping it ends held messages as [`Dropped`](super::Outcome::Dropped), and those under way as [`MayHaveSeen`](super::Outcome::MayHaveSeen).
#[must_use = "an outbox does nothing unless this is spawned or awaited"]
pub struct Delivering {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    post: Arc<Post>,
    /// It was polled on a runtime with time enabled.
    begun: bool,
}

impl Delivering {
    pub(super) fn new(post: Arc<Post>, manager: Manager) -> Self {
        Self {
            work: Box::pin(deliver(Arc::clone(&post), manager)),
            post,
            begun: false,
        }
    }
}

impl Future for Delivering {
    type Output = Result<(), ManageError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.begun && !has_time() {
            self.post.close();
            return Poll::Ready(Err(ManageError::NoRuntime));
        }
        self.begun = true;
        self.work.as_mut().poll(cx).map(Ok)
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
    // Dropped with this future, which ends the tasks and their messages.
    let mut senders = JoinSet::new();
    for _ in 0..post.limits.at_once {
        let (post, manager) = (Arc::clone(&post), manager.clone());
        senders.spawn(async move {
            let serve = || async {
                while let Some(letter) = post.next().await {
                    send(&post, &manager, letter).await;
                }
            };
            // The drop of a message may panic, if its memory is the application's; its outcome has been reported then.
            while caught(serve).await.is_err() {}
        });
    }
    let all_sent = async { while senders.join_next().await.is_some() {} };
    if unless(manager.closing(), all_sent).await.is_none() {
        // Held messages are dropped. Messages under way end with their session, which closes as well.
        post.close();
        while senders.join_next().await.is_some() {}
    }
}

/// Sends a message, again until the peer may have seen it, and reports its outcome.
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
            // `keep_for` has expired.
            Err(_) => continue,
            // The outbox may be started before its manager.
            Ok(Err(ManageError::TooManyWaiting { .. } | ManageError::NotStarted))
            | Ok(Ok(Err(OpenError::TooManyPending { .. } | OpenError::NoCredit))) => {
                sleep(CROWDED_PAUSE).await;
                continue;
            }
            Ok(Err(_)) => return letter.end(Outcome::Dropped(Dropped::Closed)),
            // The manager no longer hands out that session.
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

/// The result of one attempt to send a message.
enum Said {
    /// The final outcome.
    End(Outcome),
    /// The peer has not seen it. With `pause` the peer is overloaded; else its session has ended.
    Unseen { pause: bool },
}

/// Sends the message, and waits until the peer has finished its half.
async fn converse((mut send, mut recv): (SendStream, RecvStream), message: Bytes) -> Said {
    match send.send(message).await {
        Ok(()) => {}
        Err(SendError::TooLong { len, limit }) => {
            return Said::End(Outcome::Dropped(Dropped::TooLong { len, limit }));
        }
        Err(SendError::Stream(error)) => return judge(error),
        // The peer has stopped the stream; `recv` returns the reason.
        Err(_) => {}
    }
    // If the stream has ended meanwhile, `recv` returns the reason.
    let _ = send.finish();
    loop {
        match recv.recv().await {
            Ok(Some(_)) => {}
            Ok(None) => return Said::End(Outcome::Finished),
            Err(error) => return judge(error),
        }
    }
}

/// Derives the result from the error that ended the stream.
fn judge(error: StreamError) -> Said {
    match (error.was_processed(), error) {
        (_, error) if error.was_turned_away() => Said::Unseen { pause: true },
        // The peer's application has replied or refused.
        (Processed::Yes, error) | (Processed::No, error @ StreamError::Cancelled { .. }) => {
            Said::End(Outcome::Refused(error))
        }
        (Processed::No, _) => Said::Unseen { pause: false },
        (Processed::Maybe, error) => Said::End(Outcome::MayHaveSeen(Doubt::Ended(error))),
    }
}
