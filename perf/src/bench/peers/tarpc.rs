//! tarpc: calls only, without streams. Each call carries one message each way, encoded by bincode
//! behind a length.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use tarpc::client::Config as ClientConfig;
use tarpc::server::{BaseChannel, Channel, Config as ServerConfig};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::{context, serde_transport};
use tokio::net::TcpStream;
use tokio::task::{self, JoinSet};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::MAX_STREAMS;
use super::client::{Caller, Times, make_calls};
use super::runtime::{accept, block_on, connect, during, waiting};
use ringmux_measure::failure::Failure;
use ringmux_measure::host::Wait;
use ringmux_measure::pair::{Connected, Pair, Received, Sent};
use ringmux_measure::sample::Sample;
use ringmux_measure::window::Window;

/// The service from which the macro makes client and server.
#[tarpc::service]
trait Perf {
    /// Sends a message back.
    async fn echo(message: Bytes) -> Bytes;
}

#[derive(Clone, Debug)]
struct Echo;

impl Perf for Echo {
    async fn echo(self, _: context::Context, message: Bytes) -> Bytes {
        message
    }
}

/// Measures one slice with this many calls at a time.
pub(super) fn measure(at_a_time: usize, wait: Wait, pair: &Pair) -> Result<Sample, Failure> {
    pair.measure(
        move |_, listening| {
            let serving = async { serve(accept(listening).await?).await };
            block_on(waiting(wait, serving))?
        },
        move |window, address, connected| {
            block_on(waiting(wait, call(at_a_time, window, address, connected)))?
        },
    )
}

fn framed(socket: TcpStream) -> Framed<TcpStream, LengthDelimitedCodec> {
    Framed::new(socket, LengthDelimitedCodec::new())
}

async fn serve(socket: TcpStream) -> Result<Received, Failure> {
    let transport = serde_transport::new(framed(socket), Bincode::default());
    let config = ServerConfig {
        pending_response_buffer: MAX_STREAMS as usize,
    };
    let replies = BaseChannel::new(config, transport).execute(Echo.serve());
    replies
        .for_each(async |reply| drop(task::spawn_local(reply)))
        .await;
    Ok(Received::default())
}

async fn call(
    at_a_time: usize,
    window: &Arc<Window>,
    address: &str,
    connected: Connected,
) -> Result<Sent, Failure> {
    let transport = serde_transport::new(framed(connect(address).await?), Bincode::default());
    let mut config = ClientConfig::default();
    config.max_in_flight_requests = MAX_STREAMS as usize;
    config.pending_request_buffer = MAX_STREAMS as usize;
    let client = PerfClient::new(config, transport);
    let dispatch = task::spawn_local(client.dispatch);
    connected.now();
    let times = Times::new(window);
    let mut tasks = JoinSet::new();
    for _ in 0..at_a_time {
        tasks.spawn_local(make_calls(client.client.clone(), times.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(during("a task of the client panicked"))??;
    }
    drop(client.client);
    dispatch
        .await
        .map_err(during("the connection panicked"))?
        .map_err(during("the connection failed"))?;
    Ok(Sent {
        one_way: 0,
        latencies: Some(times.latencies()),
    })
}

impl Caller for PerfClient {
    async fn call(&self, message: Bytes) -> Result<Bytes, Failure> {
        let reply = self.echo(context::current(), message).await;
        reply.map_err(during("a call failed"))
    }
}
