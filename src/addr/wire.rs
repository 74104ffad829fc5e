//! What a session speaks, by name.

use std::fmt;
use std::str::FromStr;

use crate::drpc::{Calls, ErrorForm, Profile};

/// What a session speaks on its connection.
///
/// Nothing is negotiated: both sides are told the same, except that a listener can
/// [tell](crate::ConfigBuilder::detect_drpc) DRPC from ringmux's own wire.
///
/// | name | wire |
/// |---|---|
/// | `native` | [`Native`](Self::Native) |
/// | `drpc`, `drpc-storj` | DRPC with [`Profile::STORJ`] |
/// | `drpc-cockroach` | DRPC with [`Profile::COCKROACH`] |
/// | `drpc-cockroach-before-mux` | DRPC with [`Profile::COCKROACH_BEFORE_MUX`] |
///
/// # Examples
/// ```
/// use ringmux::drpc::Profile;
/// use ringmux::{Config, Wire};
///
/// let wire: Wire = "drpc-cockroach".parse()?;
/// assert_eq!(wire, Wire::Drpc(Profile::COCKROACH));
/// let config = Config::builder().wire(wire).build()?;
/// assert_eq!(config.wire().to_string(), "drpc-cockroach");
/// assert_eq!(Config::default().wire(), Wire::Native);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wire {
    /// ringmux's own: credit for each stream and for the session, PING, GOAWAY, streams opened by either side.
    #[default]
    Native,
    /// DRPC: the dialling side calls, the accepting side serves.
    Drpc(Profile),
}

impl Wire {
    /// The profile, if it is DRPC.
    #[must_use]
    pub const fn drpc(self) -> Option<Profile> {
        match self {
            Self::Native => None,
            Self::Drpc(profile) => Some(profile),
        }
    }
}

const STORJ: &str = "drpc-storj";
const COCKROACH: &str = "drpc-cockroach";
const BEFORE_MUX: &str = "drpc-cockroach-before-mux";

impl fmt::Display for Wire {
    /// The name of the profile that is the nearest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Drpc(profile) => match (profile.calls, profile.errors) {
                (Calls::Many, _) => COCKROACH,
                (Calls::OneAtATime, ErrorForm::Status) => BEFORE_MUX,
                (Calls::OneAtATime, ErrorForm::Code) => STORJ,
            },
        })
    }
}

impl FromStr for Wire {
    type Err = UnknownWire;

    fn from_str(name: &str) -> Result<Self, UnknownWire> {
        match name {
            "native" => Ok(Self::Native),
            "drpc" | STORJ => Ok(Self::Drpc(Profile::STORJ)),
            COCKROACH => Ok(Self::Drpc(Profile::COCKROACH)),
            BEFORE_MUX => Ok(Self::Drpc(Profile::COCKROACH_BEFORE_MUX)),
            _ => Err(UnknownWire(name.to_owned())),
        }
    }
}

/// An unknown name of a [`Wire`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown wire {0:?} (expected native, drpc, drpc-cockroach or drpc-cockroach-before-mux)")]
pub struct UnknownWire(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_is_read_as_it_is_shown_and_any_other_name_is_refused_with_the_right_ones() {
        for name in ["native", STORJ, COCKROACH, BEFORE_MUX] {
            let shown = name.parse::<Wire>().map(|wire| wire.to_string());
            assert_eq!(shown, Ok(name.to_owned()));
        }
        assert_eq!("drpc".parse::<Wire>(), STORJ.parse());
        let error = "grpc".parse::<Wire>().unwrap_err().to_string();
        assert!(
            error.contains("\"grpc\"") && error.contains(BEFORE_MUX),
            "{error}"
        );
    }
}
