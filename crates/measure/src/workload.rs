//! The workloads: message sizes, streams, and the unit of one row of the result.

use clap::ValueEnum;

/// Bytes of a small message.
pub const MESSAGE_LEN: usize = 64;
/// Bytes of a bulk message.
pub const BULK_LEN: usize = 64 * 1024;

/// The values of `--workload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One stream, one 64-byte message in flight, echoed
    Pingpong,
    /// 64 streams, each with one 64-byte message in flight, echoed
    Conc64,
    /// A stream opened and closed per call, one message each way, 64 calls at a time
    Unary64,
    /// The same with 1024 calls at a time
    Unary1k,
    /// One stream of 64-byte messages as fast as possible, counted where they arrive
    Oneway,
    /// The same over 64 streams
    Oneway64,
    /// One stream of 64 KiB messages
    Bulk,
    /// Round trips of 64 bytes on one stream while another carries bulk
    Mixed,
    /// One unary call at a time, 64 bytes each way as they are
    Call1,
    /// 64 unary calls at a time, 64 bytes each way as they are
    Call64,
    /// The same with 1000 calls at a time
    Call1k,
    /// 64 unary calls at a time, each way a protobuf message of ten fields, 64 bytes long
    Callproto64,
    /// 64 calls whose answers are streams of 64-byte messages as fast as possible, counted where they arrive
    Feed64,
}

/// What the messages of a call are to its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Bytes.
    Raw,
    /// Messages of protobuf, by prost.
    Prost,
}

/// How a workload moves its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Streams that stay open, one message in flight on each, echoed.
    Echo {
        /// How many at once.
        streams: usize,
    },
    /// A stream for each call.
    Unary {
        /// How many at once.
        calls: usize,
    },
    /// Small messages from client to server only.
    Oneway {
        /// How many at once.
        streams: usize,
    },
    /// Large messages from client to server only.
    Bulk,
    /// One echoing stream beside one bulk stream.
    Mixed,
    /// Unary calls of an RPC stack.
    Call {
        /// How many at once.
        calls: usize,
        /// The codec of requests and answers.
        codec: Codec,
    },
    /// Calls of an RPC stack whose answers are streams of small messages.
    Feed {
        /// How many at once.
        calls: usize,
    },
}

impl Shape {
    /// Whether a message is answered, so that there are times to keep.
    pub const fn has_round_trips(self) -> bool {
        !matches!(self, Self::Oneway { .. } | Self::Bulk | Self::Feed { .. })
    }

    /// Whether it is made of calls of an RPC stack.
    pub const fn is_of_calls(self) -> bool {
        matches!(self, Self::Call { .. } | Self::Feed { .. })
    }
}

impl Workload {
    /// The shape of the workload.
    pub const fn shape(self) -> Shape {
        match self {
            Self::Pingpong => Shape::Echo { streams: 1 },
            Self::Conc64 => Shape::Echo { streams: 64 },
            Self::Unary64 => Shape::Unary { calls: 64 },
            Self::Unary1k => Shape::Unary { calls: 1024 },
            Self::Oneway => Shape::Oneway { streams: 1 },
            Self::Oneway64 => Shape::Oneway { streams: 64 },
            Self::Bulk => Shape::Bulk,
            Self::Mixed => Shape::Mixed,
            Self::Call1 => Shape::Call {
                calls: 1,
                codec: Codec::Raw,
            },
            Self::Call64 => Shape::Call {
                calls: 64,
                codec: Codec::Raw,
            },
            Self::Call1k => Shape::Call {
                calls: 1000,
                codec: Codec::Raw,
            },
            Self::Callproto64 => Shape::Call {
                calls: 64,
                codec: Codec::Prost,
            },
            Self::Feed64 => Shape::Feed { calls: 64 },
        }
    }

    /// The name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pingpong => "pingpong",
            Self::Conc64 => "conc64",
            Self::Unary64 => "unary64",
            Self::Unary1k => "unary1k",
            Self::Oneway => "oneway",
            Self::Oneway64 => "oneway64",
            Self::Bulk => "bulk",
            Self::Mixed => "mixed",
            Self::Call1 => "call1",
            Self::Call64 => "call64",
            Self::Call1k => "call1k",
            Self::Callproto64 => "callproto64",
            Self::Feed64 => "feed64",
        }
    }

    /// Bytes of one counted message.
    pub const fn message_len(self) -> usize {
        match self.shape() {
            Shape::Bulk => BULK_LEN,
            _ => MESSAGE_LEN,
        }
    }

    /// Whether the result is the time of a round trip, not the rate.
    pub const fn is_about_latency(self) -> bool {
        matches!(
            self.shape(),
            Shape::Echo { streams: 1 } | Shape::Mixed | Shape::Call { calls: 1, .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for workload in Workload::value_variants() {
            let value = workload.to_possible_value().expect("no workload is hidden");
            assert_eq!(value.get_name(), workload.name());
        }
    }

    #[test]
    fn only_lone_round_trips_are_compared_by_time() {
        let about_latency: Vec<_> = Workload::value_variants()
            .iter()
            .filter(|workload| workload.is_about_latency())
            .map(|workload| workload.name())
            .collect();
        assert_eq!(about_latency, ["pingpong", "mixed", "call1"]);
    }
}
