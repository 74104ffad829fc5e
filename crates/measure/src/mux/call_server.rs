//! The server's end of calls.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringmux::rpc::{Context, Local, Sender, Server, Status};
use ringmux::{Addr, Config, Engine};

use super::{MAX_STREAMS, during};
use crate::calls::{ECHO, ECHO_TEN, FEED, Ten};
use crate::failure::Failure;
use crate::message::Numbered;
use crate::pair::{Listening, Received};
use crate::window::Window;

/// Listens, accepts one session, and serves its calls until the client closes it.
pub(super) async fn run(
    engine: Engine,
    config: &Config,
    window: &Arc<Window>,
    listening: Listening,
) -> Result<Received, Failure> {
    let anywhere = Addr::Tcp("127.0.0.1:0".to_owned());
    let listener = engine.listen(&anywhere, config).await;
    let listener = listener.map_err(during("cannot listen"))?;
    match listener.local_addr() {
        Addr::Tcp(address) => listening.at(address),
        other => {
            return Err(Failure::new(format!(
                "listening at {other} instead of a TCP port"
            )));
        }
    }
    let session = listener.accept().await;
    let session = session.map_err(during("cannot accept the session"))?;
    let fed = Rc::new(Cell::new(0));
    let server = server(window, &fed)?;
    let served = server.serve_session(session).await;
    served.map_err(during("the session ended on the server"))?;
    Ok(Received { one_way: fed.get() })
}

/// Handlers stay on this thread: over a ring of its own there is no runtime that would run tasks of another kind.
fn server(window: &Arc<Window>, fed: &Rc<Cell<u64>>) -> Result<Server<Local>, Failure> {
    let (window, fed) = (Arc::clone(window), Rc::clone(fed));
    let feed = move |_: Context, _: Bytes, mut out: Sender<Bytes>| {
        let (window, fed) = (Arc::clone(&window), Rc::clone(&fed));
        async move {
            let mut message = Numbered::new();
            while !window.is_done() {
                out.send(Bytes::copy_from_slice(message.advance())).await?;
            }
            fed.set(fed.get() + message.number());
            Ok(())
        }
    };
    Server::local()
        .unary(ECHO, async |_, message: Bytes| Ok(message))
        .unary(ECHO_TEN, async |_, message: Ten| Ok::<_, Status>(message))
        .server_streaming(FEED, feed)
        .max_session_calls(MAX_STREAMS as usize)
        .build()
        .map_err(during("cannot make the server"))
}
