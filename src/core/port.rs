//! The core's interface to the application's side: traits, so that it knows neither a lane nor a waker.
//!
//! The bridge implements them with lanes and the session's link; the core's own tests with plain queues. Calls are
//! monomorphised: they cost what the call behind them costs.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Limit, SessionError, StreamError};
use crate::queue::Record;

/// The kinds of record in a stream's queue for sending.
pub(crate) mod tx_tag {
    /// A whole message.
    pub(crate) const MESSAGE: u16 = 0;
    /// The sender has finished; the record is empty.
    pub(crate) const FIN: u16 = 1;
    /// Error code, text and details, see `failure`.
    pub(crate) const ERROR: u16 = 2;
    /// An opaque block in order with the messages.
    pub(crate) const META: u16 = 3;
}

/// The kinds of record in a stream's queue for receiving, as bits.
pub(crate) mod rx_tag {
    /// Completes a message.
    pub(crate) const END: u16 = 1;
    /// An opaque block, not part of a message.
    pub(crate) const META: u16 = 2;
}

/// How the sending direction ended.
#[derive(Clone, Debug)]
pub(crate) enum SendEnd {
    /// The peer sent a STOP.
    Stopped { code: u32 },
    /// The stream ended under the sender.
    Error(StreamError),
}

/// How the receiving direction ended.
#[derive(Clone, Debug)]
pub(crate) enum RecvEnd {
    /// The peer finished, after everything queued.
    Finished,
    /// The stream ended, after everything queued.
    Error(StreamError),
    /// The stream ended now; queued messages are not delivered.
    Discard(StreamError),
}

impl RecvEnd {
    /// The error to report, `None` for a clean end.
    pub(crate) fn result(&self) -> Result<(), StreamError> {
        match self {
            Self::Finished => Ok(()),
            Self::Error(error) | Self::Discard(error) => Err(error.clone()),
        }
    }
}

/// One stream's two queues and its application, as the engine sees them.
pub(crate) trait StreamPort: Debug {
    /// What a record weighs besides its length, in bytes. A wire with credit charges a message as much.
    const CHARGE: u32;

    // ---- sending queue ----------------------------------------------------------------------

    /// The record in front, which stays in the queue.
    fn front(&mut self) -> Option<Record<'_>>;
    /// Passes over the records for which `wanted` is true; the tag of the first other one, `None` if none is left.
    fn pass_while(&mut self, wanted: impl FnMut(Record<'_>) -> bool) -> Option<u16>;
    /// Passes over the record in front. False if there is none.
    fn pass(&mut self) -> bool;
    /// Releases the room of passed records to the sender; its weight.
    fn release(&mut self) -> u64;
    /// Weight released since the start.
    fn released(&self) -> u64;
    /// Weight passed and not released.
    fn passed_weight(&self) -> u64;
    /// Whether nothing is queued.
    fn is_drained(&mut self) -> bool;

    // ---- receiving queue --------------------------------------------------------------------

    /// Queues a copy, unpublished. A `free` record weighs nothing.
    fn push_slice(&mut self, tag: u16, free: bool, payload: &[u8]);
    /// Queues a reference, unpublished.
    fn push_bytes(&mut self, tag: u16, free: bool, payload: Bytes);
    /// Publishes all queued records to the receiver.
    fn publish(&mut self);
    /// Takes back unpublished records; their weight.
    fn retract(&mut self) -> u64;
    /// Weight that the application has consumed since the start.
    fn consumed(&self) -> u64;
    /// Weight in the queue now.
    fn unconsumed(&mut self) -> u64;
    /// The capacity of the queue's memory, in bytes.
    fn buffer_bytes(&mut self) -> u64;
    /// Continues in a small segment; larger ones are freed when the receiver has read them. False if it was small.
    fn go_small(&mut self) -> bool;
    /// The same, if the queue is empty.
    fn shrink_if_idle(&mut self) -> bool;

    // ---- ends -------------------------------------------------------------------------------

    /// Ends the sending direction; the first end stays.
    fn end_send(&self, end: SendEnd);
    /// Ends the receiving direction; the first end stays.
    fn end_recv(&self, end: RecvEnd);
    /// Whether the sending direction has an end.
    fn is_send_ended(&self) -> bool;
    /// Whether both directions have ended, or can only end, without an error. Asked when the stream is over.
    fn ended_in_order(&self) -> bool;
    /// The session has ended: the stream itself keeps the charge of these bytes, which are still queued.
    fn keep_charge(&self, bytes: u64);
    /// The peer permits the stream; false if the application has given it up, and then cancels it.
    fn grant(&self) -> bool;
    fn wake_sender(&mut self);
    fn wake_receiver(&mut self);

    // ---- flags set by the application, and its wakes -----------------------------------------

    fn opening(&self) -> &Bytes;
    fn urgency(&self) -> u8;
    /// Whether the receiver takes pieces of messages as they arrive.
    fn takes_chunks(&self) -> bool;
    /// Whether the application has accepted it.
    fn is_accepted(&self) -> bool;
    /// Whether an ERROR is queued, which will end both directions.
    fn is_failing(&self) -> bool;
    /// Whether a handle had permission to open it before the core heard of it.
    fn is_granted(&self) -> bool;
    fn set_key(&self, key: u64);
    fn set_id(&self, id: u32);
    /// Weight consumed after which the application reports it.
    fn set_credit_mark(&self, bytes: u32);
    /// When the stream is to be cancelled.
    fn deadline(&self) -> Option<Instant>;
    /// Takes the sender's request for a receipt. False if there is none.
    fn take_receipt(&self) -> bool;
    /// Answers it. False if the sender has asked again.
    fn answer_receipt(&self) -> bool;
    /// Weight that the sender may have queued.
    fn send_limit(&self) -> u32;
    /// Raises the limit, unless it has changed.
    fn lend(&self, seen: u32, by: u32) -> bool;
    /// Lowers the limit; returns by how much.
    fn lower_send_limit(&self, to: u32) -> u32;
}

/// The cell of one call, as the engine sees it.
pub(crate) trait CallPort: Debug {
    /// The opening block of a request.
    fn opening(&self) -> &[u8];
    /// The request, or what its handler answers.
    fn message(&self) -> &[u8];
    /// The message was sent.
    fn forget_message(&mut self);
    /// When the call is to be cancelled.
    fn deadline(&self) -> Option<Instant>;
    /// Whether a handler has taken the call.
    fn is_taken(&self) -> bool;
    fn set_key(&self, key: Option<u64>);
    /// The session has ended: unless the handler has read the request, the call itself keeps the charge of these bytes.
    fn keep_charge(&self, bytes: u64);
    /// The call has ended without an answer; the first result stays.
    fn end(&mut self, error: StreamError);
    fn wake(&mut self);
}

/// The session's application.
pub(crate) trait SessionPort: Debug {
    type Stream: StreamPort;
    type Call: CallPort;
    /// The application's side of a call of the peer.
    type CallOffer;
    type Memory: Memory;
    /// The application's side of a stream that the peer has opened.
    type Offer;

    /// Both sides of a stream that the peer has opened.
    fn incoming(
        &mut self,
        block: &[u8],
        id: u32,
        credit_mark: u32,
        now: Instant,
    ) -> (Self::Stream, Self::Offer);
    /// Queues it for the application. False if too many are waiting.
    fn offer(&mut self, offer: Self::Offer) -> bool;
    /// Takes back one that was not accepted; its key.
    fn take_unaccepted(&mut self) -> Option<Option<u64>>;

    /// Both sides of a call of the peer: `payload` is its opening block, of `opening` bytes, and its request,
    /// `received` now.
    fn incoming_call(
        &mut self,
        payload: Bytes,
        opening: usize,
        received: Instant,
    ) -> (Self::Call, Self::CallOffer);
    /// Queues it for the application. False if too many are waiting.
    fn offer_call(&mut self, offer: Self::CallOffer) -> bool;
    /// Takes back one that was not accepted; its key.
    fn take_unaccepted_call(&mut self) -> Option<Option<u64>>;
    /// Whether the application takes calls.
    fn takes_calls(&self) -> bool;
    /// The peer takes calls, or does not any more.
    fn peer_takes_calls(&self, takes: bool);
    /// Bytes of the application's own.
    fn keep(&mut self, bytes: &[u8]) -> Bytes;
    /// The same of a few short ones, each of which keeps all of them.
    fn keep_together(&mut self, bytes: &[u8]) -> Bytes;
    /// The caller's answer, and when it was received; the first result stays.
    fn answer_call(&mut self, call: &mut Self::Call, answer: Bytes, received: Instant);
    /// The session has ended: answers that callers have not read stay charged to the process.
    fn keep_answers(&self);
    /// A stream for a call of this side, whose caller gets the other half.
    fn stream_of_call(&mut self, call: &mut Self::Call, id: u32) -> Self::Stream;
    /// A call is over: its cell may serve another one.
    fn recycle_call(&mut self, call: Self::Call);
    fn wake_call_acceptor(&self);

    /// A stream is gone, and held by no application: its memory may serve another one.
    fn recycle(&mut self, stream: Self::Stream);
    /// Frees the memory that was kept for future streams.
    fn drop_spares(&mut self);

    /// Permissions to open that handles may take without asking.
    fn open_credit(&self) -> u32;
    fn take_open_credit(&self) -> bool;
    fn add_open_credit(&self, streams: u32);
    /// No more streams are opened, for this reason.
    fn refuse_opens(&self, reason: SessionError);

    /// The handshake is done.
    fn establish(&self, peer_max_message: u32);
    /// Whether the session's window is nearly used up, so that all consumption is to be reported.
    fn set_hungry(&self, hungry: bool);
    /// A round trip took this long. Returns after taking the requests for one that were made meanwhile.
    fn record_pong(&mut self, rtt_ns: u64);
    fn wake_acceptors(&self);
    fn wake_state(&self);
    fn wake_pings(&self);

    /// Ends the session for its handles; streams that the core has not heard of are refused.
    fn close(&mut self, reason: &SessionError);
    /// All streams have their ends: wakes all waiting tasks.
    fn closed(&self);

    /// Whether a shutdown was requested that the core may not have read.
    fn is_shutdown_asked(&self) -> bool;
    /// How long the streams may still run.
    fn shutdown_grace(&self) -> Duration;

    /// Takes the part of the send budget that no stream has.
    fn take_send_budget(&self) -> u64;
    fn give_send_budget(&self, bytes: u64);

    fn add(&self, count: Count, n: u64);
    fn set(&self, count: Count, n: u64);
    fn get(&self, count: Count) -> u64;
    fn trip(&self, limit: Limit);
}

/// The core's counters for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Streams,
    Opened,
    Accepted,
    Finished,
    MessagesSent,
    MessagesReceived,
    FramesSent,
    FramesReceived,
    BytesSent,
    BytesReceived,
    Batches,
    Turns,
    Activations,
    Cancelled,
    WindowsGrown,
    Keepalives,
    KeepaliveTimeouts,
    WriteTimeouts,
    BytesHeld,
    ShutdownFinished,
    ShutdownRefused,
    ShutdownCancelled,
    ShutdownForced,
    Calls,
}

/// The process's memory for receiving, shared by its sessions.
pub(crate) trait Memory: Debug {
    /// The size, which no ceiling exceeds.
    fn size(&self) -> u64;
    /// Sessions that are alive.
    fn sessions(&self) -> u64;
    fn begin_session(&self);
    fn end_session(&self);
    /// Takes `bytes`, or nothing if less than `leave` would then be free below `ceiling`.
    fn take(&self, bytes: u64, leave: u64, ceiling: u64) -> bool;
    fn give(&self, bytes: u64);
    /// Takes memory that is in use already, also beyond the size.
    fn charge(&self, bytes: u64);
}
