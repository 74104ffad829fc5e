//! The two default profiles.
//!
//! [`Config::default`] is for trusted peers: it bounds pending work and leaves rates unlimited, because a client that hedges
//! rightly resets thousands of streams a second. [`Config::edge`] is for untrusted peers.

use std::time::Duration;

use super::{Config, ConfigBuilder, KIB, MIB, Rate};
use crate::addr::Wire;

impl Default for Config {
    /// For a mesh of trusted peers.
    fn default() -> Self {
        Self {
            max_frame: 16 * KIB,
            receive_buffer: 256 * KIB,
            max_message: 4 * MIB,
            stream_window: 64 * KIB,
            stream_window_max: MIB,
            session_window: MIB,
            session_window_max: 16 * MIB,
            receive_pool: 256 << 20,
            max_streams: 256,
            max_unaccepted: None,
            max_unaccepted_resets: None,
            max_faulty_streams: 1024,
            glitch_rate: Rate::new(10_000, 330),
            reset_rate: None,
            ping_rate: None,
            send_buffer: 256 * KIB,
            session_send_buffer: 4 * MIB,
            max_pending_opens: 1024,
            max_half_open: 256,
            min_half_open_time: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            message_timeout: Duration::from_secs(10),
            min_message_rate: KIB,
            close_linger: Duration::from_secs(1),
            keepalive_idle: Some(Duration::from_secs(15)),
            keepalive_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            max_age: None,
            drain_timeout: Duration::from_secs(30),
            wire: Wire::Native,
            detect_drpc: None,
            calls: true,
        }
    }
}

impl Config {
    /// For untrusted peers: smaller limits, and rate limits.
    ///
    /// An honest peer within the numbers of the table at [`Config`] never meets a limit. One that resets more than 33 streams a
    /// second for long, or sends more than one PING a second, gets an error that names the limit.
    ///
    /// # Examples
    /// ```
    /// use ringmux::Config;
    ///
    /// let config = Config::edge().max_streams(200).build()?;
    /// assert_eq!(config.max_streams(), 200);
    /// assert!(config.reset_rate().is_some() && Config::default().reset_rate().is_none());
    ///
    /// let error = Config::edge().max_half_open(0).build().unwrap_err();
    /// assert!(error.to_string().starts_with("max_half_open"));
    /// # Ok::<(), ringmux::ConfigError>(())
    /// ```
    pub fn edge() -> ConfigBuilder {
        ConfigBuilder {
            config: Self {
                receive_buffer: 32 * KIB,
                stream_window: 64 * KIB,
                stream_window_max: 64 * KIB,
                session_window: 256 * KIB,
                session_window_max: MIB,
                receive_pool: 128 << 20,
                max_streams: 100,
                max_unaccepted: Some(64),
                max_unaccepted_resets: Some(20),
                max_faulty_streams: 256,
                glitch_rate: Rate::new(1000, 33),
                reset_rate: Some(Rate::new(1000, 33)),
                ping_rate: Some(Rate::new(10, 1)),
                send_buffer: 32 * KIB,
                session_send_buffer: 256 * KIB,
                max_half_open: 128,
                min_half_open_time: Duration::from_millis(250),
                handshake_timeout: Duration::from_secs(5),
                min_message_rate: 3 * KIB / 2,
                write_timeout: Duration::from_secs(5),
                max_age: Some(Duration::from_secs(3600)),
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_profiles_are_valid() {
        assert_eq!(Config::builder().build(), Ok(Config::default()));
        assert!(Config::edge().build().is_ok());
    }

    #[test]
    fn the_edge_allows_no_more_than_the_mesh() {
        let (mesh, edge) = (Config::default(), Config::edge().build().unwrap());
        assert!(edge.max_streams() <= mesh.max_streams());
        assert!(edge.stream_window_max() <= mesh.stream_window_max());
        assert!(edge.session_window_max() <= mesh.session_window_max());
        assert!(edge.receive_pool() <= mesh.receive_pool());
        assert!(edge.receive_buffer() <= mesh.receive_buffer());
        assert!(edge.max_faulty_streams() <= mesh.max_faulty_streams());
        assert!(edge.glitch_rate().burst <= mesh.glitch_rate().burst);
        assert!(edge.glitch_rate().per_second <= mesh.glitch_rate().per_second);
        assert!(edge.send_buffer() <= mesh.send_buffer());
        assert!(edge.session_send_buffer() <= mesh.session_send_buffer());
        assert!(edge.max_half_open() <= mesh.max_half_open());
        assert!(edge.min_half_open_time() <= mesh.min_half_open_time());
        assert!(edge.handshake_timeout() <= mesh.handshake_timeout());
        assert!(edge.write_timeout() <= mesh.write_timeout());
        assert!(edge.min_message_rate() >= mesh.min_message_rate());
    }
}
