//! The checks of a [`ConfigBuilder`], and their errors.

use std::time::Duration;

use super::{Config, ConfigBuilder, KIB, MIB, Rate};

/// The minimum of keepalive and write timeouts.
const LIFE_MIN: Duration = Duration::from_millis(10);
/// The maximum of `max_age`.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The maximum of other waits.
const WAIT_MAX: Duration = Duration::from_secs(3600);
/// The maximum of stream counts.
const STREAMS_MAX: u32 = 1 << 24;
/// The maximum of `receive_pool`, in bytes.
const POOL_MAX: u64 = 1 << 40;

impl ConfigBuilder {
    /// Checks the numbers and their relations.
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is out of range, and the range.
    pub fn build(self) -> Result<Config, ConfigError> {
        let c = &self.config;
        c.check_sizes()?;
        in_range("receive_pool", c.receive_pool, 0, POOL_MAX)?;
        check_rate(
            "glitch_rate.burst",
            "glitch_rate.per_second",
            Some(c.glitch_rate),
        )?;
        check_rate("reset_rate.burst", "reset_rate.per_second", c.reset_rate)?;
        check_rate("ping_rate.burst", "ping_rate.per_second", c.ping_rate)?;
        c.check_waits()?;
        c.check_profiles()?;
        Ok(self.config)
    }
}

impl Config {
    fn check_sizes(&self) -> Result<(), ConfigError> {
        let ranges = [
            ("max_frame", self.max_frame, 16 * KIB, 64 * KIB),
            ("receive_buffer", self.receive_buffer, 0, 16 * MIB),
            ("max_message", self.max_message, 64 * KIB, 1024 * MIB),
            ("stream_window", self.stream_window, 32 * KIB, 64 * MIB),
            (
                "stream_window_max",
                self.stream_window_max,
                self.stream_window,
                64 * MIB,
            ),
            ("session_window", self.session_window, 256 * KIB, 1024 * MIB),
            (
                "session_window_max",
                self.session_window_max,
                self.session_window,
                1024 * MIB,
            ),
            ("max_streams", self.max_streams, 16, STREAMS_MAX),
            (
                "max_unaccepted",
                self.max_unaccepted.unwrap_or(1),
                1,
                STREAMS_MAX,
            ),
            (
                "max_unaccepted_resets",
                self.max_unaccepted_resets.unwrap_or(1),
                1,
                STREAMS_MAX,
            ),
            ("max_faulty_streams", self.max_faulty_streams, 1, u32::MAX),
            ("send_buffer", self.send_buffer, 4 * KIB, 64 * MIB),
            (
                "session_send_buffer",
                self.session_send_buffer,
                self.send_buffer,
                1024 * MIB,
            ),
            ("max_pending_opens", self.max_pending_opens, 1, STREAMS_MAX),
            ("max_half_open", self.max_half_open, 1, 1 << 16),
            ("min_message_rate", self.min_message_rate, 1, 1024 * MIB),
        ];
        for (setting, value, min, max) in ranges {
            in_range(setting, value.into(), min.into(), max.into())?;
        }
        Ok(())
    }

    /// Of DRPC: for connections that speak it in any case, and those that turn out to.
    fn check_profiles(&self) -> Result<(), ConfigError> {
        for profile in self.wire.drpc().into_iter().chain(self.detect_drpc) {
            in_range("Profile::window", profile.window.into(), 1, u32::MAX.into())?;
            let setting = "Profile::first_call";
            if let Some(value) = profile.first_call
                && (value.is_zero() || value > WAIT_MAX)
            {
                return Err(ConfigError::WaitOutOfRange { setting, value });
            }
        }
        Ok(())
    }

    fn check_waits(&self) -> Result<(), ConfigError> {
        let waits = [
            ("connect_timeout", self.connect_timeout),
            ("handshake_timeout", self.handshake_timeout),
            ("min_half_open_time", self.min_half_open_time),
            ("message_timeout", self.message_timeout),
            ("close_linger", self.close_linger),
            ("keepalive_idle", self.keepalive_idle.unwrap_or(LIFE_MIN)),
            ("keepalive_timeout", self.keepalive_timeout),
            ("write_timeout", self.write_timeout),
            ("drain_timeout", self.drain_timeout),
        ];
        for (setting, value) in waits {
            if value.is_zero() || value > WAIT_MAX {
                return Err(ConfigError::WaitOutOfRange { setting, value });
            }
        }
        let min = LIFE_MIN;
        let life = [
            ("keepalive_idle", self.keepalive_idle.unwrap_or(min)),
            ("keepalive_timeout", self.keepalive_timeout),
            ("write_timeout", self.write_timeout),
            ("max_age", self.max_age.unwrap_or(min)),
        ];
        for (setting, value) in life {
            if value < min {
                return Err(ConfigError::WaitTooShort {
                    setting,
                    value,
                    min,
                });
            }
        }
        if let Some(value) = self.max_age.filter(|age| *age > AGE_MAX) {
            let (setting, max) = ("max_age", AGE_MAX);
            return Err(ConfigError::WaitTooLong {
                setting,
                value,
                max,
            });
        }
        Ok(())
    }
}

fn in_range(setting: &'static str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        setting,
        value,
        min,
        max,
    })
}

fn check_rate(
    burst: &'static str,
    per_second: &'static str,
    rate: Option<Rate>,
) -> Result<(), ConfigError> {
    let Some(rate) = rate else { return Ok(()) };
    in_range(burst, rate.burst.into(), 1, Rate::MAX.into())?;
    in_range(per_second, rate.per_second.into(), 1, Rate::MAX.into())
}

/// A setting is outside its range.
///
/// # Examples
/// ```
/// use ringmux::{Config, ConfigError};
///
/// let error = Config::builder().max_half_open(0).build().unwrap_err();
/// assert!(matches!(error, ConfigError::OutOfRange { setting: "max_half_open", min: 1, .. }));
/// assert_eq!(error.to_string(), "max_half_open is 0, must be from 1 to 65536");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A size or a count.
    #[error("{setting} is {value}, must be from {min} to {max}")]
    OutOfRange {
        /// The builder's method.
        setting: &'static str,
        /// The given value.
        value: u64,
        /// The smallest value accepted.
        min: u64,
        /// The largest value accepted.
        max: u64,
    },
    /// A duration.
    #[error("{setting} is {value:?}, must be more than 0 and at most one hour")]
    WaitOutOfRange {
        /// The builder's method.
        setting: &'static str,
        /// The given value.
        value: Duration,
    },
    /// A duration above its maximum.
    #[error("{setting} is {value:?}, must be at most {max:?}")]
    WaitTooLong {
        /// The builder's method.
        setting: &'static str,
        /// The given value.
        value: Duration,
        /// The largest value accepted.
        max: Duration,
    },
    /// A duration below its minimum.
    #[error("{setting} is {value:?}, must be at least {min:?}")]
    WaitTooShort {
        /// The builder's method.
        setting: &'static str,
        /// The given value.
        value: Duration,
        /// The smallest value accepted.
        min: Duration,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drpc::Profile;

    #[test]
    fn each_number_out_of_its_range_is_refused_by_name() {
        let (b, e) = (Config::builder, Config::edge);
        let wrong = [
            (b().max_frame(1), "max_frame"),
            (b().receive_buffer(32 << 20), "receive_buffer"),
            (b().max_message(1), "max_message"),
            (b().stream_window(1), "stream_window"),
            (b().stream_window_max(1), "stream_window_max"),
            (b().session_window(1), "session_window"),
            (b().session_window_max(1), "session_window_max"),
            (b().receive_pool(2 << 40), "receive_pool"),
            (b().max_streams(15), "max_streams"),
            (b().max_unaccepted(Some(0)), "max_unaccepted"),
            (b().max_unaccepted_resets(Some(0)), "max_unaccepted_resets"),
            (b().max_faulty_streams(0), "max_faulty_streams"),
            (b().glitch_rate(Rate::new(0, 1)), "glitch_rate.burst"),
            (b().glitch_rate(Rate::new(1, 0)), "glitch_rate.per_second"),
            (b().reset_rate(Some(Rate::new(0, 1))), "reset_rate.burst"),
            (
                e().reset_rate(Some(Rate::new(1, 1_000_001))),
                "reset_rate.per_second",
            ),
            (
                e().ping_rate(Some(Rate::new(1_000_001, 1))),
                "ping_rate.burst",
            ),
            (e().ping_rate(Some(Rate::new(1, 0))), "ping_rate.per_second"),
            (b().send_buffer(1), "send_buffer"),
            (b().session_send_buffer(1), "session_send_buffer"),
            (b().send_buffer(8 * MIB), "session_send_buffer"),
            (b().max_pending_opens(0), "max_pending_opens"),
            (b().max_half_open(1 << 17), "max_half_open"),
            (b().min_message_rate(0), "min_message_rate"),
            (b().drpc(Profile::STORJ.window(0)), "Profile::window"),
            (
                b().detect_drpc(Some(Profile::COCKROACH.window(0))),
                "Profile::window",
            ),
        ];
        for (builder, named) in wrong {
            let error = builder.build().unwrap_err();
            let ConfigError::OutOfRange { setting, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(setting, named);
            assert!(error.to_string().starts_with(named), "{error}");
        }
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
        let never = Profile::COCKROACH.first_call(Some(Duration::ZERO));
        let error = Config::builder().drpc(never).build().unwrap_err();
        assert!(error.to_string().starts_with("Profile::first_call"));
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
