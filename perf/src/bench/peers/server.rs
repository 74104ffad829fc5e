//! The server's end: a task for each accepted stream.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task;

use super::link::{Messages, Receiver, Role, Sender, contiguous};
use ringmux_measure::failure::Failure;
use ringmux_measure::message::Order;
use ringmux_measure::pair::Received;
use ringmux_measure::window::Window;
use ringmux_measure::workload::BULK_LEN;

/// The source of streams.
pub(super) trait Acceptor {
    type Sender: Sender;
    type Receiver: Receiver;

    /// The next stream and its role; none when the client has closed the connection.
    async fn accept(&mut self) -> Result<Option<Accepted<Self::Sender, Self::Receiver>>, Failure>;
}

/// A stream, and its role.
pub(super) struct Accepted<S, R> {
    pub(super) role: Role,
    pub(super) sender: S,
    pub(super) receiver: R,
}

/// Serves streams until there are no more.
pub(super) async fn serve(
    mut acceptor: impl Acceptor,
    window: &Arc<Window>,
) -> Result<Received, Failure> {
    let tally = Arc::new(Tally::new(window));
    let end = loop {
        match acceptor.accept().await {
            Ok(Some(accepted)) => {
                let tally = Arc::clone(&tally);
                // A stream that fails is dropped, which the client notices and ends the session.
                task::spawn_local(async move { tally.note(serve_stream(accepted, &tally).await) });
            }
            Ok(None) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    let received = tally.result()?;
    end.map(|()| received)
}

async fn serve_stream<S: Sender, R: Receiver>(
    accepted: Accepted<S, R>,
    tally: &Tally,
) -> Result<(), Failure> {
    let Accepted {
        role,
        mut sender,
        receiver,
    } = accepted;
    let mut messages = Messages::new(receiver, role.message_len());
    match role {
        Role::Echo => {
            while let Some(pieces) = messages.next().await? {
                let echo = contiguous(pieces);
                sender.send(echo).await?;
            }
        }
        Role::Call => {
            let Some(pieces) = messages.next().await? else {
                return Err(Failure::new("a call came without a message"));
            };
            let reply = contiguous(pieces);
            messages.expect_end().await?;
            return sender.send_last(reply).await;
        }
        Role::Count | Role::CountBulk | Role::SideBulk => {
            let mut count = tally.count(role);
            while let Some(pieces) = messages.next().await? {
                count.check(pieces.iter().map(|piece| &piece[..]))?;
            }
        }
    }
    sender.finish().await
}

/// State shared by the streams' tasks.
#[derive(Debug)]
pub(super) struct Tally {
    window: Arc<Window>,
    one_way: AtomicU64,
    failure: Mutex<Option<Failure>>,
}

impl Tally {
    pub(super) fn new(window: &Arc<Window>) -> Self {
        Self {
            window: Arc::clone(window),
            one_way: AtomicU64::new(0),
            failure: Mutex::new(None),
        }
    }

    /// Counts messages that were sent one way.
    pub(super) fn add_sent(&self, messages: u64) {
        self.one_way.fetch_add(messages, Ordering::Relaxed);
    }

    /// Counts the messages of one stream.
    pub(super) fn count(&self, role: Role) -> Count<'_> {
        let order = if role.message_len() == BULK_LEN {
            Order::bulk()
        } else {
            Order::small()
        };
        Count {
            tally: self,
            order,
            is_beside: role == Role::SideBulk,
        }
    }

    /// Keeps the first failure: it is the cause, the others follow from it.
    pub(super) fn note(&self, result: Result<(), Failure>) {
        if let Err(failure) = result {
            let mut first = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(failure);
        }
    }

    /// The server's result.
    pub(super) fn result(&self) -> Result<Received, Failure> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.take() {
            Some(failure) => Err(failure),
            None => Ok(Received {
                one_way: self.one_way.load(Ordering::Relaxed),
            }),
        }
    }
}

/// Messages of one stream without echoes.
#[derive(Debug)]
pub(super) struct Count<'a> {
    tally: &'a Tally,
    order: Order,
    is_beside: bool,
}

impl Count<'_> {
    #[inline]
    pub(super) fn check<'a>(
        &mut self,
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<(), Failure> {
        self.order.check(pieces)?;
        if self.is_beside {
            self.tally.window.count_side_bytes(BULK_LEN as u64);
        } else {
            self.tally.window.count(1);
        }
        Ok(())
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let received = self.order.received();
        self.tally.one_way.fetch_add(received, Ordering::Relaxed);
    }
}
