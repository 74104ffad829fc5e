//! What a session is allowed to use: validated numbers, each with a unit and a default.
//!
//! A [`Config`] is built once and shared by any number of sessions. It has no behaviour of its own.

use std::time::Duration;

const KIB: u32 = 1024;
const MIB: u32 = 1024 * KIB;
/// A peer is not asked for signs of life, or given up, faster than this.
const LIFE_MIN: Duration = Duration::from_millis(10);
/// A session that may live longer may as well have no age.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Limits and sizes of a session.
///
/// Sizes are bytes of payload plus 256 bytes for each frame, so that small messages are bounded as
/// well as large ones.
///
/// # Examples
/// ```
/// use ringmux::Config;
///
/// let config = Config::builder().max_streams(1_000).max_message(64 * 1024).build()?;
/// assert_eq!(config.max_streams(), 1_000);
///
/// let error = Config::builder().max_message(1).build().unwrap_err();
/// assert!(error.to_string().contains("max_message"));
/// # Ok::<(), ringmux::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    max_frame: u32,
    max_message: u32,
    stream_window: u32,
    stream_window_max: u32,
    session_window: u32,
    session_window_max: u32,
    max_streams: u32,
    send_buffer: u32,
    max_pending_opens: u32,
    handshake_timeout: Duration,
    message_timeout: Duration,
    close_linger: Duration,
    keepalive_idle: Option<Duration>,
    keepalive_timeout: Duration,
    write_timeout: Duration,
    max_age: Option<Duration>,
    drain_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_frame: 16 * KIB,
            max_message: 4 * MIB,
            stream_window: 64 * KIB,
            stream_window_max: MIB,
            session_window: MIB,
            session_window_max: 16 * MIB,
            max_streams: 256,
            send_buffer: 256 * KIB,
            max_pending_opens: 1024,
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(10),
            close_linger: Duration::from_secs(1),
            keepalive_idle: Some(Duration::from_secs(15)),
            keepalive_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            max_age: None,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty),+ $(,)?) => {
        impl Config {
            /// A builder that starts from the defaults.
            pub fn builder() -> ConfigBuilder {
                ConfigBuilder { config: Self::default() }
            }

            $($(#[$doc])* #[must_use] pub const fn $name(&self) -> $type { self.$name })+
        }

        impl ConfigBuilder {
            $($(#[$doc])* pub const fn $name(mut self, value: $type) -> Self {
                self.config.$name = value;
                self
            })+
        }
    };
}

settings! {
    /// Largest payload of one frame that the peer may send, in bytes. 16 KiB (default) to 64 KiB.
    max_frame: u32,
    /// Largest message that the peer may send, in bytes. Default 4 MiB, at least 64 KiB.
    max_message: u32,
    /// Credit of a new stream: bytes that the peer may send before the application consumes. A message
    /// that has begun is completed beyond it, from the process's memory. Default 64 KiB, at least
    /// 32 KiB; above 1 MiB raise `stream_window_max` with it.
    stream_window: u32,
    /// Up to what a stream's window grows while the application drains it fast, in bytes. All
    /// streams of a session together grow by a quarter of `session_window_max`. Default 1 MiB.
    stream_window_max: u32,
    /// Credit of all streams of a session together, in bytes. Default 1 MiB, at least 256 KiB; above
    /// 16 MiB raise `session_window_max` with it.
    session_window: u32,
    /// Up to what the session's window grows, in bytes. Default 16 MiB.
    session_window_max: u32,
    /// Streams that the peer may have open at once. Default 256, at least 16.
    max_streams: u32,
    /// Bytes that one stream may have queued for sending before `send` waits; one message of any
    /// legal size is always admitted to an empty queue. Default 256 KiB, at least 4 KiB.
    send_buffer: u32,
    /// Calls of `open` that may wait for the peer's permission at once. Default 1024.
    max_pending_opens: u32,
    /// How long the peer may take to answer the opening of the connection. Default 10 s.
    handshake_timeout: Duration,
    /// How long a message larger than its stream's window may wait for memory or for its next
    /// piece before the stream ends with a limit error. Default 10 s.
    message_timeout: Duration,
    /// How long `close` keeps sending what was queued before it. Default 1 s.
    close_linger: Duration,
    /// After how much silence the peer is asked for a sign of life, also while no stream is open; any
    /// byte from it is one. Each session shortens it by up to a tenth, so that many do not ask at
    /// once. Default 15 s, at least 10 ms; `None` never asks.
    keepalive_idle: Option<Duration>,
    /// How long a peer that was asked for a sign of life may take before the session ends with
    /// [`SessionError::KeepaliveTimeout`](crate::SessionError::KeepaliveTimeout). Default 10 s, at
    /// least 10 ms.
    keepalive_timeout: Duration,
    /// How long the socket may take nothing of what is to be sent before the session ends with
    /// [`SessionError::WriteTimeout`](crate::SessionError::WriteTimeout). Messages that wait for the
    /// peer's credit do not count. Default 10 s, at least 10 ms.
    write_timeout: Duration,
    /// At which age the session shuts down by itself, within `drain_timeout`, so that connections
    /// spread again over peers that have come or changed. Each session draws its own, up to a tenth
    /// more or less. Default `None`: at none. At least 10 ms, at most 30 days.
    max_age: Option<Duration>,
    /// How long streams may go on when the session has reached `max_age`. Default 30 s.
    drain_timeout: Duration,
}

/// What an engine with a ring of its own does when there is nothing to do.
///
/// On a machine that is otherwise idle a wake-up costs more than everything else together: tens of
/// microseconds, against less than one for what is noticed while spinning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wait {
    /// Sleeps at once.
    Park,
    /// Never sleeps: the lowest latency, for a processor that has nothing else to do.
    Spin,
    /// Spins for as long as waits have been short lately, 100 µs at most, then sleeps.
    #[default]
    Adaptive,
}

/// Builds a [`Config`]; [`build`](Self::build) checks it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConfigBuilder {
    config: Config,
}

impl ConfigBuilder {
    /// Checks the numbers and their relations.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is out of range, and the range.
    pub fn build(self) -> Result<Config, ConfigError> {
        let c = &self.config;
        let ranges = [
            ("max_frame", c.max_frame, 16 * KIB, 64 * KIB),
            ("max_message", c.max_message, 64 * KIB, 1024 * MIB),
            ("stream_window", c.stream_window, 32 * KIB, 64 * MIB),
            (
                "stream_window_max",
                c.stream_window_max,
                c.stream_window,
                64 * MIB,
            ),
            ("session_window", c.session_window, 256 * KIB, 1024 * MIB),
            (
                "session_window_max",
                c.session_window_max,
                c.session_window,
                1024 * MIB,
            ),
            ("max_streams", c.max_streams, 16, 1 << 24),
            ("send_buffer", c.send_buffer, 4 * KIB, 64 * MIB),
            ("max_pending_opens", c.max_pending_opens, 1, 1 << 24),
        ];
        for (setting, value, min, max) in ranges {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::OutOfRange {
                    setting,
                    value,
                    min,
                    max,
                });
            }
        }
        let waits = [
            ("handshake_timeout", c.handshake_timeout),
            ("message_timeout", c.message_timeout),
            ("close_linger", c.close_linger),
            ("keepalive_idle", c.keepalive_idle.unwrap_or(LIFE_MIN)),
            ("keepalive_timeout", c.keepalive_timeout),
            ("write_timeout", c.write_timeout),
            ("drain_timeout", c.drain_timeout),
        ];
        for (setting, value) in waits {
            if value.is_zero() || value > Duration::from_secs(3600) {
                return Err(ConfigError::WaitOutOfRange { setting, value });
            }
        }
        let life = [
            ("keepalive_idle", c.keepalive_idle.unwrap_or(LIFE_MIN)),
            ("keepalive_timeout", c.keepalive_timeout),
            ("write_timeout", c.write_timeout),
            ("max_age", c.max_age.unwrap_or(LIFE_MIN)),
        ];
        for (setting, value) in life {
            if value < LIFE_MIN {
                let min = LIFE_MIN;
                return Err(ConfigError::WaitTooShort {
                    setting,
                    value,
                    min,
                });
            }
        }
        if let Some(value) = c.max_age.filter(|age| *age > AGE_MAX) {
            let (setting, max) = ("max_age", AGE_MAX);
            return Err(ConfigError::WaitTooLong {
                setting,
                value,
                max,
            });
        }
        Ok(self.config)
    }
}

/// A setting is outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size or a count.
    #[error("{setting} is {value}, must be from {min} to {max}")]
    OutOfRange {
        /// The builder's method.
        setting: &'static str,
        /// What it was given.
        value: u32,
        /// The smallest value accepted.
        min: u32,
        /// The largest value accepted.
        max: u32,
    },
    /// A duration.
    #[error("{setting} is {value:?}, must be more than 0 and at most one hour")]
    WaitOutOfRange {
        /// The builder's method.
        setting: &'static str,
        /// What it was given.
        value: Duration,
    },
    /// A duration that makes no difference any more.
    #[error("{setting} is {value:?}, must be at most {max:?}")]
    WaitTooLong {
        /// The builder's method.
        setting: &'static str,
        /// What it was given.
        value: Duration,
        /// The largest value accepted.
        max: Duration,
    },
    /// A duration that would make the session do nothing else, or end for no reason.
    #[error("{setting} is {value:?}, must be at least {min:?}")]
    WaitTooShort {
        /// The builder's method.
        setting: &'static str,
        /// What it was given.
        value: Duration,
        /// The smallest value accepted.
        min: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::builder().build(), Ok(Config::default()));
    }

    #[test]
    fn a_window_that_starts_above_its_maximum_is_refused_by_name() {
        let error = Config::builder()
            .stream_window(2 * MIB)
            .build()
            .unwrap_err();
        assert!(matches!(
            error,
            ConfigError::OutOfRange {
                setting: "stream_window_max",
                ..
            }
        ));
    }

    #[test]
    fn a_wait_of_zero_is_refused_by_name() {
        let error = Config::builder()
            .close_linger(Duration::ZERO)
            .build()
            .unwrap_err();
        assert!(error.to_string().starts_with("close_linger"));
    }

    #[test]
    fn a_sign_of_life_every_millisecond_is_refused_by_name_and_none_is_fine() {
        let idle = |idle| Config::builder().keepalive_idle(idle).build();
        let error = idle(Some(Duration::from_millis(1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "keepalive_idle is 1ms, must be at least 10ms"
        );
        assert_eq!(idle(None).map(|c| c.keepalive_idle()), Ok(None));
        let day = Duration::from_secs(86_400);
        assert!(Config::builder().write_timeout(day).build().is_err());
    }
}
