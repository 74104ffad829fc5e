//! What the core needs of the application's side: traits, so that it knows neither a lane nor a waker.
//!
//! The bridge implements them with lanes and the session's link; the core's own tests with plain queues. Calls are
//! monomorphised: they cost what the call behind them costs.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Limit, SessionError, StreamError};
use crate::queue::Record;

/// What a record of a stream's queue for sending is.
pub(crate) mod tx_tag {
    /// A whole message.
    pub(crate) const MESSAGE: u16 = 0;
    /// The sender is done; the record is empty.
    pub(crate) const FIN: u16 = 1;
    /// Error code, text and details, see `failure`.
    pub(crate) const ERROR: u16 = 2;
    /// An opaque block in order with the messages.
    pub(crate) const META: u16 = 3;
}

/// What a record of a stream's queue for receiving is, as bits.
pub(crate) mod rx_tag {
    /// Completes a message.
    pub(crate) const END: u16 = 1;
    /// An opaque block, not part of a message.
    pub(crate) const META: u16 = 2;
}

/// How the sending direction ended.
#[derive(Clone, Debug)]
pub(crate) enum SendEnd {
    /// The peer asked to stop.
    Stopped { code: u32 },
    /// The stream ended under the sender.
    Error(StreamError),
}

/// How the receiving direction ended.
#[derive(Clone, Debug)]
pub(crate) enum RecvEnd {
    /// The peer finished, after everything that is queued.
    Finished,
    /// The stream ended, after everything that is queued.
    Error(StreamError),
    /// The stream ended now; what is queued is not delivered.
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
    /// What a record weighs beside its length, in bytes. A wire with credit charges a message as much.
    const CHARGE: u32;

    // ---- what the application sends ---------------------------------------------------------

    /// The record in front, which stays.
    fn front(&mut self) -> Option<Record<'_>>;
    /// Passes over the records that `wanted` wants; the tag of the first that it does not, `None` if none is left.
    fn pass_while(&mut self, wanted: impl FnMut(Record<'_>) -> bool) -> Option<u16>;
    /// Passes over the record in front. False if there is none.
    fn pass(&mut self) -> bool;
    /// Gives the room of what was passed back to the sender; its weight.
    fn release(&mut self) -> u64;
    /// Weight released since the start.
    fn released(&self) -> u64;
    /// Weight passed and not released.
    fn passed_weight(&self) -> u64;
    /// Whether nothing is queued.
    fn is_drained(&mut self) -> bool;

    // ---- what the application receives ------------------------------------------------------

    /// Queues a copy, unpublished. A `free` record weighs nothing.
    fn push_slice(&mut self, tag: u16, free: bool, payload: &[u8]);
    /// Queues a reference, unpublished.
    fn push_bytes(&mut self, tag: u16, free: bool, payload: Bytes);
    /// Shows the receiver all that was queued.
    fn publish(&mut self);
    /// Takes back what was not published; its weight.
    fn retract(&mut self) -> u64;
    /// Weight that the application has consumed since the start.
    fn consumed(&self) -> u64;
    /// Weight that lies in the queue now.
    fn unconsumed(&mut self) -> u64;
    /// What the queue's memory can hold, in bytes.
    fn buffer_bytes(&self) -> u64;
    /// Goes on in little memory; what was taken beyond goes when the receiver has read it. False if it had little.
    fn go_small(&mut self) -> bool;
    /// The same, if nothing lies there.
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
    /// The session has ended: the stream itself keeps the charge of so many bytes that lie here.
    fn keep_charge(&self, bytes: u64);
    /// The peer permits the stream.
    fn grant(&self);
    fn wake_sender(&mut self);
    fn wake_receiver(&mut self);

    // ---- what the application has said, and is told ------------------------------------------

    fn opening(&self) -> &Bytes;
    fn urgency(&self) -> u8;
    /// Whether the receiver takes pieces of messages as they come.
    fn takes_chunks(&self) -> bool;
    /// Whether the application has accepted it.
    fn is_accepted(&self) -> bool;
    /// Whether an ERROR is queued, which will end both directions.
    fn is_failing(&self) -> bool;
    /// Whether a handle was permitted to open it before the core heard of it.
    fn is_granted(&self) -> bool;
    fn set_key(&self, key: u64);
    fn set_id(&self, id: u32);
    /// Weight consumed after which the application reports it.
    fn set_credit_mark(&self, bytes: u32);
    /// When the stream is to be cancelled.
    fn deadline(&self) -> Option<Instant>;
    /// Takes the question whether all was written. False if there is none.
    fn take_receipt(&self) -> bool;
    /// Answers it. False if the sender has asked again.
    fn answer_receipt(&self) -> bool;
    /// Weight that the sender may have queued.
    fn send_limit(&self) -> u32;
    /// Raises it, unless it has changed.
    fn lend(&self, seen: u32, by: u32) -> bool;
    /// Lowers it; by how much.
    fn lower_send_limit(&self, to: u32) -> u32;
}

/// The session's application.
pub(crate) trait SessionPort: Debug {
    type Stream: StreamPort;
    type Memory: Memory;
    /// The application's side of a stream that the peer has opened.
    type Offer;

    /// Both sides of a stream that the peer has opened.
    fn incoming(&mut self, block: &[u8], id: u32, credit_mark: u32) -> (Self::Stream, Self::Offer);
    /// Queues it for the application. False if too many wait.
    fn offer(&mut self, offer: Self::Offer) -> bool;
    /// Takes back one that was not accepted; its key.
    fn take_unaccepted(&mut self) -> Option<Option<u64>>;

    /// A stream is gone, which no application holds: its memory may serve another one.
    fn recycle(&mut self, stream: Self::Stream);
    /// Gives the memory back that was kept for streams to come.
    fn drop_spares(&self);

    /// Permissions to open that handles may take without asking.
    fn open_credit(&self) -> u32;
    fn take_open_credit(&self) -> bool;
    fn add_open_credit(&self, streams: u32);
    /// No stream is opened any more, for this reason.
    fn refuse_opens(&self, reason: SessionError);

    /// The handshake is done.
    fn establish(&self, peer_max_message: u32);
    /// Whether the session's window is nearly used up, so that all that is consumed is to be reported.
    fn set_hungry(&self, hungry: bool);
    /// A round trip took so long. Returns after taking the requests for one that were made meanwhile.
    fn record_pong(&mut self, rtt_ns: u64);
    fn wake_acceptors(&self);
    fn wake_state(&self);
    fn wake_pings(&self);

    /// Ends the session for its handles; streams that the core has not heard of are refused.
    fn close(&mut self, reason: &SessionError);
    /// All streams have their ends: wakes whatever waits.
    fn closed(&self);

    /// Whether a shutdown was asked for, of which the core may not have heard.
    fn is_shutdown_asked(&self) -> bool;
    /// How long the streams may still take.
    fn shutdown_grace(&self) -> Duration;

    /// Takes what no stream has of the budget for sending.
    fn take_send_budget(&self) -> u64;
    fn give_send_budget(&self, bytes: u64);

    fn add(&self, count: Count, n: u64);
    fn set(&self, count: Count, n: u64);
    fn get(&self, count: Count) -> u64;
    fn trip(&self, limit: Limit);
}

/// What the core counts for the application.
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
}

/// The process's memory for receiving, shared by its sessions.
pub(crate) trait Memory: Debug {
    /// What no ceiling goes beyond.
    fn size(&self) -> u64;
    /// Sessions that are alive.
    fn sessions(&self) -> u64;
    fn begin_session(&self);
    fn end_session(&self);
    /// Takes `bytes`, or nothing if less than `leave` would be free then below `ceiling`.
    fn take(&self, bytes: u64, leave: u64, ceiling: u64) -> bool;
    fn give(&self, bytes: u64);
    /// Takes what is in use already, whether there is so much or not.
    fn charge(&self, bytes: u64);
}
