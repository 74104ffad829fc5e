//! Both halves of a stream in one, for tests that follow a stream and not its halves.

use bytes::Bytes;

use super::{Lease, RecvStream, SendStream};
use crate::bridge::Lane;
use crate::error::{SendError, StreamError, TrySendError};
use crate::sync::Arc;

/// As [`Session::open`](super::Session::open) gives it.
pub(crate) type Stream = (SendStream, RecvStream);

/// The methods of both halves.
#[allow(dead_code, reason = "fuzzing needs fewer than tests do")]
pub(crate) trait Whole {
    fn lane(&self) -> &Arc<Lane>;
    fn opening(&self) -> &Bytes;
    fn id(&self) -> Option<super::StreamId>;
    fn send(
        &mut self,
        message: impl Into<Bytes>,
    ) -> impl Future<Output = Result<(), SendError>> + Send;
    fn send_slice<'a>(
        &'a mut self,
        message: &'a [u8],
    ) -> impl Future<Output = Result<(), SendError>> + Send;
    fn send_all(
        &mut self,
        messages: impl IntoIterator<Item = Bytes>,
    ) -> impl Future<Output = Result<(), SendError>>;
    fn send_meta(&mut self, block: impl Into<Bytes>)
    -> impl Future<Output = Result<(), SendError>>;
    fn try_send(&mut self, message: Bytes) -> Result<(), TrySendError>;
    fn finish(&mut self) -> Result<(), SendError>;
    fn finish_with_error(&mut self, code: u32, message: &str) -> Result<(), SendError>;
    fn cancel(&mut self, code: u32);
    fn written(&mut self) -> impl Future<Output = Result<(), SendError>> + Send;
    fn stopped(&mut self) -> impl Future<Output = SendError> + Send;
    fn set_urgency(&self, urgency: u8);
    fn recv(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> + Send;
    fn try_recv(&mut self) -> Option<Bytes>;
    fn lease(&mut self) -> impl Future<Output = Result<Option<Lease<'_>>, StreamError>> + Send;
    fn metas(&self) -> &[Bytes];
    fn stop(&mut self, code: u32);
    fn split(self) -> Stream;
}

impl Whole for Stream {
    fn lane(&self) -> &Arc<Lane> {
        self.0.lane()
    }

    fn opening(&self) -> &Bytes {
        self.0.opening()
    }

    fn id(&self) -> Option<super::StreamId> {
        self.0.id()
    }

    fn send(
        &mut self,
        message: impl Into<Bytes>,
    ) -> impl Future<Output = Result<(), SendError>> + Send {
        self.0.send(message)
    }

    fn send_slice<'a>(
        &'a mut self,
        message: &'a [u8],
    ) -> impl Future<Output = Result<(), SendError>> + Send {
        self.0.send_slice(message)
    }

    fn send_all(
        &mut self,
        messages: impl IntoIterator<Item = Bytes>,
    ) -> impl Future<Output = Result<(), SendError>> {
        self.0.send_all(messages)
    }

    fn send_meta(
        &mut self,
        block: impl Into<Bytes>,
    ) -> impl Future<Output = Result<(), SendError>> {
        self.0.send_meta(block)
    }

    fn try_send(&mut self, message: Bytes) -> Result<(), TrySendError> {
        self.0.try_send(message)
    }

    fn finish(&mut self) -> Result<(), SendError> {
        self.0.finish()
    }

    fn finish_with_error(&mut self, code: u32, message: &str) -> Result<(), SendError> {
        self.0.finish_with_error(code, message)
    }

    fn cancel(&mut self, code: u32) {
        self.0.cancel(code);
    }

    fn written(&mut self) -> impl Future<Output = Result<(), SendError>> + Send {
        self.0.written()
    }

    fn stopped(&mut self) -> impl Future<Output = SendError> + Send {
        self.0.stopped()
    }

    fn set_urgency(&self, urgency: u8) {
        self.0.set_urgency(urgency);
    }

    fn recv(&mut self) -> impl Future<Output = Result<Option<Bytes>, StreamError>> + Send {
        self.1.recv()
    }

    fn try_recv(&mut self) -> Option<Bytes> {
        self.1.try_recv()
    }

    fn lease(&mut self) -> impl Future<Output = Result<Option<Lease<'_>>, StreamError>> + Send {
        self.1.lease()
    }

    fn metas(&self) -> &[Bytes] {
        self.1.metas()
    }

    fn stop(&mut self, code: u32) {
        self.1.stop(code);
    }

    fn split(self) -> Stream {
        self
    }
}
