//! One stream of a client, and the connection to its target.

use std::sync::Arc;

use ringmux::{Addr, RecvStream, SendError, SendStream};
use tokio::sync::OwnedSemaphorePermit;

use super::Server;
use crate::tunnel::{Broken, Relay, Side, Socket, code, count_refused};

/// Maximum length of an address, in bytes: a host name of 253 or a socket path, with scheme and port.
const TARGET_MAX: usize = 300;

/// Why a stream gets no connection.
struct Refusal {
    code: u32,
    reason: String,
}

/// Connects a stream to its target and copies both ways.
pub(super) async fn serve(
    (mut send, recv): (SendStream, RecvStream),
    peer: String,
    server: Arc<Server>,
) {
    let target = match send.opening() {
        // The text comes from the client and should not fill the log.
        long if long.len() > TARGET_MAX => format!("({} bytes)", long.len()),
        target => String::from_utf8_lossy(target).into_owned(),
    };
    let admitted = tokio::select! {
        biased;
        admitted = server.admit(&target) => admitted,
        // The client has gone.
        () = given_up(&mut send) => return,
    };
    match admitted {
        Ok((socket, _place)) => relay(socket, send, recv, &peer, &target).await,
        Err(Refusal { code, reason }) => {
            count_refused();
            tracing::warn!(%peer, target, %reason, "connection refused");
            fail(&mut send, code, &reason);
        }
    }
}

/// Waits until the stream or its session has ended.
async fn given_up(send: &mut SendStream) {
    if let SendError::Stopped { .. } = send.stopped().await {
        // The client has only stopped the answer, and may still be sending.
        std::future::pending::<()>().await;
    }
}

impl Server {
    async fn admit(&self, target: &str) -> Result<(Socket, OwnedSemaphorePermit), Refusal> {
        let addr = self.check(target)?;
        let place = self.open.try_enter().ok_or_else(|| Refusal {
            code: code::BUSY,
            reason: format!(
                "{} connections are open already, which is --max-connections of `ringmux serve`",
                self.open.max()
            ),
        })?;
        Ok((self.connect(target, &addr).await?, place))
    }

    async fn connect(&self, target: &str, addr: &Addr) -> Result<Socket, Refusal> {
        tracing::debug!(target, "connecting");
        let socket = Socket::connect(addr, self.connect_timeout).await;
        socket.map_err(|error| Refusal {
            code: code::UNREACHABLE,
            reason: format!("cannot connect to {target}: {error}"),
        })
    }

    fn check(&self, target: &str) -> Result<Addr, Refusal> {
        let refusal = |code, reason| Refusal { code, reason };
        let addr = target
            .parse()
            .map_err(|error| refusal(code::BAD_TARGET, format!("{error}")))?;
        if !self.allow.iter().any(|allow| allow.allows(&addr)) {
            let reason =
                format!("{target} is not allowed: serve was started without it in --allow");
            return Err(refusal(code::NOT_ALLOWED, reason));
        }
        Ok(addr)
    }
}

async fn relay(
    socket: Socket,
    mut send: SendStream,
    mut recv: RecvStream,
    peer: &str,
    target: &str,
) {
    let relay = Relay::new(&socket, Side::Target);
    let result = relay.run(&mut send, &mut recv).await;
    let (received, sent) = (relay.received(), relay.sent());
    match result {
        Ok(()) => {
            tracing::debug!(%peer, target, received, sent, "connection ended");
            socket.close();
        }
        Err(Broken::Socket(error)) => {
            let reason = format!("the connection to {target} broke: {error}");
            tracing::warn!(%peer, target, received, sent, %reason, "connection broken");
            fail(&mut send, code::RESET, &reason);
        }
        Err(broken) => {
            tracing::debug!(%peer, target, received, sent, reason = %broken, "connection cut");
        }
    }
}

/// Fails the stream after the bytes already sent; no effect if it has ended.
fn fail(send: &mut SendStream, code: u32, reason: &str) {
    if send.finish_with_error(code, reason).is_err() {
        send.cancel(code);
    }
}
