//! The service of the workloads of calls, the same over every stack.

use bytes::Bytes;
use ringmux::rpc::{Method, Prost, Raw, ServerStreaming};

/// Sends a message back.
pub const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("measure.v1.Measure/Echo");
/// Sends a message of ten fields back.
pub const ECHO_TEN: Method<Ten, Ten> = Method::unary::<Prost>("measure.v1.Measure/EchoTen");
/// Numbered messages until the window is done.
pub const FEED: Method<Bytes, Bytes, ServerStreaming> =
    Method::server_streaming::<Raw>("measure.v1.Measure/Feed");

/// A message of ten fields, of the types that messages have. It takes [`MESSAGE_LEN`](crate::workload::MESSAGE_LEN) bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ten {
    /// Of the call.
    #[prost(fixed64, tag = "1")]
    pub number: u64,
    /// 8 bytes.
    #[prost(string, tag = "2")]
    pub name: String,
    /// 6 bytes.
    #[prost(string, tag = "3")]
    pub city: String,
    /// 8 bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub token: Bytes,
    /// A varint of 1 byte.
    #[prost(uint32, tag = "5")]
    pub kind: u32,
    /// A varint of 2 bytes.
    #[prost(sint32, tag = "6")]
    pub offset: i32,
    /// True.
    #[prost(bool, tag = "7")]
    pub active: bool,
    /// 8 bytes.
    #[prost(double, tag = "8")]
    pub price: f64,
    /// 4 bytes.
    #[prost(float, tag = "9")]
    pub weight: f32,
    /// A varint of 5 bytes.
    #[prost(uint64, tag = "10")]
    pub time: u64,
}

impl Ten {
    /// With this number, which is not 0.
    #[must_use]
    pub fn with_number(number: u64) -> Self {
        Self {
            number,
            name: "customer".to_owned(),
            city: "Bergen".to_owned(),
            token: Bytes::from_static(b"01234567"),
            kind: 7,
            offset: -1000,
            active: true,
            price: 12.5,
            weight: 0.25,
            time: 1 << 30,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::workload::MESSAGE_LEN;

    #[test]
    fn a_message_of_ten_fields_is_as_long_as_the_others() {
        for number in [1, u64::MAX] {
            let message = Ten::with_number(number).encode_to_vec();
            assert_eq!(message.len(), MESSAGE_LEN);
            assert_eq!(Ten::decode(&message[..]), Ok(Ten::with_number(number)));
        }
    }
}
