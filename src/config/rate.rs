//! Rate limits.

/// A token bucket: `burst` at once, and `per_second` more for each second, up to `burst`.
///
/// Both are from 1 to 1,000,000.
///
/// # Examples
/// ```
/// use ringmux::{Config, Rate};
///
/// let config = Config::builder().reset_rate(Some(Rate::new(1000, 33))).build()?;
/// assert_eq!(config.reset_rate().map(|rate| rate.burst), Some(1000));
///
/// let never = Config::builder().glitch_rate(Rate::new(100, 0)).build().unwrap_err();
/// assert!(never.to_string().starts_with("glitch_rate.per_second is 0"));
/// # Ok::<(), ringmux::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// The most events at once.
    pub burst: u32,
    /// The long-run average per second.
    pub per_second: u32,
}

impl Rate {
    /// The maximum of both.
    pub(super) const MAX: u32 = 1_000_000;

    /// `burst` at once, `per_second` in the long run.
    #[must_use]
    pub const fn new(burst: u32, per_second: u32) -> Self {
        Self { burst, per_second }
    }
}
