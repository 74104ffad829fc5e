//! The server's end: what protoc would have generated, by hand.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, Ready};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tonic::body::Body;
use tonic::server::{ClientStreamingService, Grpc, StreamingService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use super::codec::Raw;
use super::{END, MAX_FRAME, MAX_STREAMS, Windows};
use crate::bench::peers::link::Role;
use crate::bench::peers::runtime::{accept, during};
use crate::bench::peers::server::Tally;
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;

/// Listens, takes one connection, and serves it until the client calls [`END`].
pub(super) async fn run(
    windows: Windows,
    listening: Listening,
    window: &Arc<Window>,
) -> Result<Received, Failure> {
    let socket = accept(listening).await?;
    let tally = Arc::new(Tally::new(window));
    let ended = Arc::new(Notify::new());
    let service = Perf {
        tally: Arc::clone(&tally),
        ended: Arc::clone(&ended),
    };
    let connections = tokio_stream::once(Ok::<_, std::io::Error>(socket));
    Server::builder()
        .initial_stream_window_size(windows.stream)
        .initial_connection_window_size(windows.connection)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        // Without the wait for more connections tonic would begin to shut down at once.
        .serve_with_incoming_shutdown(
            service,
            connections.chain(tokio_stream::pending()),
            ended.notified(),
        )
        .await
        .map_err(during("the connection failed"))?;
    tally.result()
}

#[derive(Clone, Debug)]
struct Perf {
    tally: Arc<Tally>,
    ended: Arc<Notify>,
}

impl Service<http::Request<Body>> for Perf {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let Some(role) = Role::by_path(path) else {
            if path == END {
                self.ended.notify_one();
            }
            return async { Ok(Grpc::new(Raw).unary(Echo, request).await) }.boxed();
        };
        match role {
            Role::Echo => async { Ok(Grpc::new(Raw).streaming(Echo, request).await) }.boxed(),
            Role::Call => async { Ok(Grpc::new(Raw).unary(Echo, request).await) }.boxed(),
            Role::Count | Role::CountBulk | Role::SideBulk => {
                let tally = Arc::clone(&self.tally);
                let count = Count { tally, role };
                async { Ok(Grpc::new(Raw).client_streaming(count, request).await) }.boxed()
            }
        }
    }
}

/// Sends back what comes.
struct Echo;

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        future::ok(Response::new(request.into_inner()))
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = Ready<Result<Response<Streaming<Bytes>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        future::ok(Response::new(request.into_inner()))
    }
}

/// Counts what comes, and says when it was all.
struct Count {
    tally: Arc<Tally>,
    role: Role,
}

impl ClientStreamingService<Bytes> for Count {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let (tally, role) = (Arc::clone(&self.tally), self.role);
        async move {
            let result = count(request.into_inner(), &tally, role).await;
            let status = match &result {
                Ok(()) => Ok(Response::new(Bytes::new())),
                Err(failure) => Err(Status::internal(failure.to_string())),
            };
            tally.note(result);
            status
        }
        .boxed()
    }
}

async fn count(mut messages: Streaming<Bytes>, tally: &Tally, role: Role) -> Result<(), Failure> {
    let mut count = tally.count(role);
    while let Some(message) = messages
        .message()
        .await
        .map_err(during("cannot receive on the server"))?
    {
        count.check([&message[..]])?;
    }
    Ok(())
}
