//! The runtime of the two ends of a peer.

use std::error::Error;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{self, LocalSet};

use ringmux_measure::failure::Failure;
use ringmux_measure::host::Wait;
use ringmux_measure::pair::Listening;

/// Runs a future on this thread; it may spawn tasks, local ones or not.
pub(super) fn block_on<F: Future>(future: F) -> Result<F::Output, Failure> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(during("cannot start a tokio runtime"))?;
    Ok(LocalSet::new().block_on(&runtime, future))
}

/// One end, sleeping while idle; or polling, with `spin`: a task beside it yields for ever, so that the
/// runtime polls for I/O without ever waiting for it. The task ends with the runtime.
pub(super) async fn waiting<F: Future>(wait: Wait, end: F) -> F::Output {
    if wait == Wait::Spin {
        task::spawn(async {
            loop {
                task::yield_now().await;
            }
        });
    }
    end.await
}

/// Listens, reports the address, and accepts one connection.
pub(super) async fn accept(listening: Listening) -> Result<TcpStream, Failure> {
    let no_port = during("cannot listen on 127.0.0.1");
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(&no_port)?;
    listening.at(listener.local_addr().map_err(&no_port)?.to_string());
    let (socket, _) = listener
        .accept()
        .await
        .map_err(during("cannot accept the connection"))?;
    without_delay(socket)
}

pub(super) async fn connect(address: &str) -> Result<TcpStream, Failure> {
    let socket = TcpStream::connect(address)
        .await
        .map_err(during("cannot connect"))?;
    without_delay(socket)
}

pub(super) fn without_delay(socket: TcpStream) -> Result<TcpStream, Failure> {
    socket
        .set_nodelay(true)
        .map_err(during("cannot set TCP_NODELAY"))?;
    Ok(socket)
}

/// Makes a failure of a peer's error: `.map_err(during("cannot open a stream"))`.
pub(super) fn during<E: Error + 'static>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::new(what).because(&error)
}
