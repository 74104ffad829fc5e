//! The rules of DRPC whose breach ends a connection.

/// A rule of DRPC that the peer broke, beyond which its bytes make no sense. Faults of a single stream end that stream alone.
///
/// # Examples
/// ```
/// use ringmux::drpc::DrpcError;
///
/// assert_eq!(DrpcError::NoisePrefix.rule(), "drpc-noise-prefix");
/// assert!(DrpcError::NoisePrefix.to_string().contains("DRPC!N!1"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DrpcError {
    /// The connection begins with `DRPC!N!1`, storj's prefix for Noise.
    #[error("the connection begins with DRPC!N!1: DRPC over Noise is not spoken here")]
    NoisePrefix,
    /// A number in a frame's header has more than ten bytes.
    #[error("a number in the header of a frame has more than 10 bytes")]
    VarintTooLong,
    /// A frame that no limit of messages could admit: the bytes are hardly DRPC.
    #[error("a frame of {length} bytes: at most {limit} are allowed")]
    FrameTooLong {
        /// Length in the header, in bytes.
        length: u64,
        /// The most that is allowed, in bytes.
        limit: u64,
    },
}

impl DrpcError {
    /// The short name of the rule, for counters and texts: it stays the same in later versions.
    #[must_use]
    pub const fn rule(&self) -> &'static str {
        match self {
            Self::NoisePrefix => "drpc-noise-prefix",
            Self::VarintTooLong => "drpc-varint-too-long",
            Self::FrameTooLong { .. } => "drpc-frame-too-long",
        }
    }
}
