//! One local connection, carried over a stream.

use std::time::Duration;

use ringmux::{RecvStream, SendStream, StreamError};

use super::uplink::UplinkHandle;
use crate::tunnel::{Broken, Relay, Side, Socket, code, count_refused};

/// Where the connections of a listener go.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) target: String,
    pub(super) uplink: UplinkHandle,
    pub(super) wait: Duration,
}

/// Carries a connection to its target and back until both directions have ended.
pub(super) async fn forward(socket: Socket, route: &Route) {
    let client = socket.peer();
    match route.uplink.open(&route.target, route.wait).await {
        Ok(stream) => relay(socket, stream, &client, &route.target).await,
        Err(error) => {
            count_refused();
            tracing::warn!(%client, target = route.target, reason = %error, "connection closed");
        }
    }
}

async fn relay(
    socket: Socket,
    (mut send, mut recv): (SendStream, RecvStream),
    client: &str,
    target: &str,
) {
    let relay = Relay::new(&socket, Side::Client);
    let result = relay.run(&mut send, &mut recv).await;
    let (sent, received) = (relay.sent(), relay.received());
    match result {
        Ok(()) => {
            tracing::debug!(%client, target, sent, received, "connection ended");
            socket.close();
        }
        Err(Broken::Socket(error)) => {
            tracing::debug!(%client, target, sent, received, reason = %error, "client is gone");
            send.cancel(code::RESET);
        }
        Err(Broken::Stream(error)) => {
            let reason = Broken::Stream(error.clone());
            match error {
                // The lost session is logged once for all its connections.
                StreamError::Session(_) | StreamError::NotProcessed(_) => {
                    tracing::debug!(%client, target, sent, received, %reason, "connection cut");
                }
                _ => tracing::warn!(%client, target, sent, received, %reason, "connection closed"),
            }
        }
    }
}
