//! The server's end: a task for each accepted stream.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use ringmux::{Addr, Config, Engine, RecvStream, SendStream, SessionError, Wire};
use tokio::task;

use super::{Role, during};
use crate::failure::Failure;
use crate::message::Order;
use crate::pair::{Listening, Received};
use crate::window::Window;
use crate::workload::BULK_LEN;

/// State shared by the streams' tasks.
#[derive(Debug, Default)]
struct Tally {
    one_way: Cell<u64>,
    failure: RefCell<Option<Failure>>,
}

/// Listens, accepts one session, and serves its streams until the client closes it.
pub(super) async fn run(
    engine: Engine,
    config: &Config,
    window: &Arc<Window>,
    listening: Listening,
) -> Result<Received, Failure> {
    let anywhere = Addr::Tcp("127.0.0.1:0".to_owned());
    let listener = engine
        .listen(&anywhere, config)
        .await
        .map_err(during("cannot listen"))?;
    match listener.local_addr() {
        Addr::Tcp(address) => listening.at(address),
        other => {
            return Err(Failure::new(format!(
                "listening at {other} instead of a TCP port"
            )));
        }
    }
    let session = listener
        .accept()
        .await
        .map_err(during("cannot accept the session"))?;
    let tally = Rc::new(Tally::default());
    let end = loop {
        match session.accept().await {
            Ok(Some(stream)) => {
                let (session, window, tally) =
                    (session.clone(), Arc::clone(window), Rc::clone(&tally));
                task::spawn_local(async move {
                    if let Err(failure) = serve(stream, &window, &tally).await {
                        // The first failure is the cause, the others follow from it.
                        tally.failure.borrow_mut().get_or_insert(failure);
                        session.close();
                    }
                });
            }
            Ok(None) => break session.closed().await,
            Err(end) => break end,
        }
    };
    if let Some(failure) = tally.failure.take() {
        return Err(failure);
    }
    let received = Received {
        one_way: tally.one_way.get(),
    };
    match end {
        SessionError::PeerClosed {
            code: ringmux::codes::NO_ERROR,
            ..
        } => Ok(received),
        // Other wires have no words for an end in order.
        SessionError::Disconnected if config.wire() != Wire::Native => Ok(received),
        end => Err(Failure::new("the session ended on the server").because(&end)),
    }
}

async fn serve(
    (mut send, mut recv): (SendStream, RecvStream),
    window: &Window,
    tally: &Tally,
) -> Result<(), Failure> {
    let role = Role::of(send.opening())
        .ok_or_else(|| Failure::new("a stream was opened with an unknown block"))?;
    match role {
        Role::Echo => echo(&mut send, &mut recv).await?,
        Role::Count => count(&mut recv, Order::small(), tally, || window.count(1)).await?,
        Role::CountBulk => count(&mut recv, Order::bulk(), tally, || window.count(1)).await?,
        Role::SideBulk => {
            let count_bytes = || window.count_side_bytes(BULK_LEN as u64);
            count(&mut recv, Order::bulk(), tally, count_bytes).await?;
        }
    }
    send.finish()
        .map_err(during("cannot finish a stream on the server"))
}

async fn echo(send: &mut SendStream, recv: &mut RecvStream) -> Result<(), Failure> {
    while let Some(message) = recv
        .lease()
        .await
        .map_err(during("cannot receive on the server"))?
    {
        send.send_slice(&message.to_contiguous())
            .await
            .map_err(during("cannot send an echo"))?;
    }
    Ok(())
}

async fn count(
    recv: &mut RecvStream,
    mut order: Order,
    tally: &Tally,
    counted: impl Fn(),
) -> Result<(), Failure> {
    while let Some(message) = recv
        .lease()
        .await
        .map_err(during("cannot receive on the server"))?
    {
        order.check(message.chunks())?;
        counted();
    }
    tally.one_way.set(tally.one_way.get() + order.received());
    Ok(())
}
