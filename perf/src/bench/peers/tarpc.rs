//! tarpc: calls only, without streams. Each call carries one message each way, encoded by postcard behind a length; a message
//! of protobuf goes as the bytes that prost makes of it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use prost::Message;
use serde::{Deserialize, Serialize};
use tarpc::client::{Config as ClientConfig, RpcError};
use tarpc::server::{BaseChannel, Channel, Config as ServerConfig};
use tarpc::tokio_serde::{Deserializer, Serializer};
use tarpc::{context, serde_transport};
use tokio::net::TcpStream;
use tokio::task;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::MAX_STREAMS;
use super::link::Closing;
use super::rpc::{Rpc, Stack};
use super::runtime::{accept, connect, during};
use ringmux_measure::calls::Ten;
use ringmux_measure::failure::Failure;
use ringmux_measure::pair::{Listening, Received};
use ringmux_measure::window::Window;

/// Bytes of a message of tarpc that are encoded on the stack.
const SMALL: usize = 512;

/// The service from which the macro makes client and server.
#[tarpc::service]
pub(in crate::bench) trait Perf {
    /// Sends a message back.
    async fn echo(message: Bytes) -> Bytes;
    /// Sends a message of ten fields back; empty if it is none.
    async fn echo_ten(message: Bytes) -> Bytes;
}

#[derive(Clone, Debug)]
struct Echo;

impl Perf for Echo {
    async fn echo(self, _: context::Context, message: Bytes) -> Bytes {
        message
    }

    async fn echo_ten(self, _: context::Context, message: Bytes) -> Bytes {
        Ten::decode(message)
            .map(|message| message.encode_to_vec().into())
            .unwrap_or_default()
    }
}

/// tokio-serde has no postcard, and its bincode is of a crate without maintainers.
#[derive(Clone, Copy, Debug, Default)]
struct Postcard;

impl<T: Serialize> Serializer<T> for Postcard {
    type Error = io::Error;

    fn serialize(self: Pin<&mut Self>, item: &T) -> io::Result<Bytes> {
        let mut small = [0; SMALL];
        match postcard::to_slice(item, &mut small) {
            Ok(bytes) => Ok(Bytes::copy_from_slice(bytes)),
            Err(postcard::Error::SerializeBufferFull) => {
                let bytes = postcard::to_stdvec(item).map_err(io::Error::other)?;
                Ok(bytes.into())
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

impl<T: for<'de> Deserialize<'de>> Deserializer<T> for Postcard {
    type Error = io::Error;

    fn deserialize(self: Pin<&mut Self>, bytes: &BytesMut) -> io::Result<T> {
        postcard::from_bytes(bytes).map_err(io::Error::other)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Tarpc;

impl Stack for Tarpc {
    type Client = PerfClient;

    async fn serve(self, listening: Listening, _: &Arc<Window>) -> Result<Received, Failure> {
        let socket = accept(listening).await?;
        let transport = serde_transport::new(framed(socket), Postcard);
        let config = ServerConfig {
            pending_response_buffer: MAX_STREAMS as usize,
        };
        let replies = BaseChannel::new(config, transport).execute(Echo.serve());
        replies
            .for_each(async |reply| drop(task::spawn_local(reply)))
            .await;
        Ok(Received::default())
    }

    async fn connect(self, address: &str) -> Result<(PerfClient, Closing), Failure> {
        let transport = serde_transport::new(framed(connect(address).await?), Postcard);
        let mut config = ClientConfig::default();
        config.max_in_flight_requests = MAX_STREAMS as usize;
        config.pending_request_buffer = MAX_STREAMS as usize;
        let client = PerfClient::new(config, transport);
        let dispatch = task::spawn_local(client.dispatch);
        let closing = async move {
            dispatch
                .await
                .map_err(during("the connection panicked"))?
                .map_err(during("the connection failed"))
        };
        Ok((client.client, Box::pin(closing)))
    }
}

fn framed(socket: TcpStream) -> Framed<TcpStream, LengthDelimitedCodec> {
    Framed::new(socket, LengthDelimitedCodec::new())
}

/// Listens with the defaults, and serves every connection with them. Returns the address.
pub(in crate::bench) async fn listen_untuned() -> Result<String, Failure> {
    let incoming = serde_transport::tcp::listen("127.0.0.1:0", Postcard::default).await;
    let incoming = incoming.map_err(during("cannot listen"))?;
    let address = incoming.local_addr().to_string();
    let serving = incoming
        .filter_map(async |transport| transport.ok())
        .map(BaseChannel::with_defaults)
        .for_each(async |channel| {
            let replies = channel.execute(Echo.serve());
            task::spawn(replies.for_each(async |reply| drop(task::spawn(reply))));
        });
    task::spawn(serving);
    Ok(address)
}

/// Connects with the defaults.
pub(in crate::bench) async fn connect_untuned(address: &str) -> Result<PerfClient, Failure> {
    let transport = serde_transport::tcp::connect(address, Postcard::default).await;
    let transport = transport.map_err(during("cannot connect"))?;
    Ok(PerfClient::new(ClientConfig::default(), transport).spawn())
}

impl Rpc for PerfClient {
    async fn call(&self, message: Bytes) -> Result<Bytes, Failure> {
        answered(self.echo(context::current(), message).await)
    }

    async fn call_ten(&self, message: &Ten) -> Result<Ten, Failure> {
        let message = message.encode_to_vec().into();
        let reply = answered(self.echo_ten(context::current(), message).await)?;
        Ten::decode(reply).map_err(during("an answer cannot be decoded"))
    }

    async fn feed(
        &self,
        _: impl FnMut(&[u8]) -> Result<bool, Failure> + Send,
    ) -> Result<(), Failure> {
        Err(Failure::new("tarpc has no streams"))
    }
}

fn answered(reply: Result<Bytes, RpcError>) -> Result<Bytes, Failure> {
    reply.map_err(during("a call failed"))
}
