//! Sessions on tokio-uring runtimes: feature `tokio-uring`.

use std::future::Future;
use std::task::{Context, Waker};

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{AnyEngine, Blocking, EngineError, Home, KeepAlive, Report, Start, run_jobs};
use crate::addr::Driver;
use crate::driver::AnyTurns;
use crate::driver::tokio_uring::{Relayed, Socket, UringIo};
use crate::queue::Owned;

pub(super) fn spawn(connection: AnyEngine, socket: Blocking, keep_alive: KeepAlive) {
    let socket = match socket {
        Blocking::Tcp(socket) => Socket::Tcp(tokio_uring::net::TcpStream::from_std(socket)),
        Blocking::Unix(socket) => Socket::Unix(tokio_uring::net::UnixStream::from_std(socket)),
    };
    let turns = AnyTurns::new(connection, UringIo::new(socket));
    tokio_uring::spawn(Relayed::new(async move {
        let _keep_alive = keep_alive;
        let mut turns = Owned::new(turns);
        (&mut *turns).await
    }));
}

/// The main function of an engine thread.
pub(super) fn host(report: &Report) {
    match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => {
            let (jobs, queue) = mpsc::unbounded_channel();
            runtime.block_on(async {
                let _ = report.send(Ok((Handle::current(), Home::TokioUring(jobs))));
                run_jobs(queue).await;
            });
        }
        Err(error) => drop(report.send(Err(EngineError::unavailable(Driver::TokioUring)(error)))),
    }
}

/// Runs a future on this thread, on a new runtime.
pub(in crate::connect) fn block_on<T>(
    future: impl Future<Output = Result<T, EngineError>>,
) -> Result<T, EngineError> {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder());
    runtime
        .map_err(EngineError::unavailable(Driver::TokioUring))?
        .block_on(future)
}

/// Runs jobs as a task of the current tokio-uring runtime; `None` if there is none.
///
/// The only way to detect it is to try: an operation polled outside of it panics.
pub(super) fn serve() -> Option<KeepAlive> {
    let (jobs, queue) = mpsc::unbounded_channel::<Start>();
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut nop = std::pin::pin!(tokio_uring::no_op());
        let _ = nop.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        tokio_uring::spawn(Relayed::new(run_jobs(queue)));
    }))
    .ok()
    .map(|()| jobs)
}
