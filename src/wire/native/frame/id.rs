//! Who speaks, and the number of a stream.

use std::cmp::Ordering;
use std::fmt;
use std::num::NonZeroU32;

/// Which side of a session one is: the side that dialled or the side that accepted.
///
/// It decides who speaks first and which stream ids a side opens, and nothing else: both sides may open streams.
///
/// # Examples
///
/// ```
/// use ringmux::{Role, wire::StreamId};
///
/// assert_eq!(Role::Dialer.peer(), Role::Acceptor);
/// assert_eq!(StreamId::first(Role::Dialer).get(), 1);
/// assert_eq!(StreamId::first(Role::Acceptor).get(), 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Dialled the connection, speaks first, opens the odd ids.
    Dialer,
    /// Accepted the connection, opens the even ids.
    Acceptor,
}

impl Role {
    /// The role of the other side.
    #[inline]
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dialer => "dialer",
            Self::Acceptor => "acceptor",
        })
    }
}

/// The number of a stream within its session; never 0, which on the wire means the session itself.
///
/// Odd ids are opened by the side that dialled, even ids by the side that accepted, each in increasing order. The ids
/// wrap round, so a session need not end because it has used up its numbers, and "increasing" is serial-number order
/// (RFC 1982) over the 31 bits above the parity: of two ids the later is the one less than half the circle ahead. This
/// order is not transitive, therefore the type has no `Ord`; compare with [`serial_cmp`](Self::serial_cmp).
///
/// # Examples
///
/// ```
/// use ringmux::{Role, wire::StreamId};
///
/// let last = StreamId::new(u32::MAX).unwrap();
/// assert!(last.is_opened_by(Role::Dialer));
/// assert_eq!(last.next(), StreamId::first(Role::Dialer));
/// assert!(last.next().is_after(last));
/// assert_eq!(StreamId::new(0), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct StreamId(NonZeroU32);

impl StreamId {
    const TWO: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);

    /// The bits above the parity.
    const SERIAL_MASK: u32 = u32::MAX >> 1;

    /// Half the circle of 31 bits: two ids this far apart are in no order.
    const SERIAL_HALF: u32 = 1 << 30;

    /// Makes an id of its number, or `None` of 0.
    #[inline]
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The first id that a side opens.
    #[inline]
    #[must_use]
    pub const fn first(opener: Role) -> Self {
        match opener {
            Role::Dialer => Self(NonZeroU32::MIN),
            Role::Acceptor => Self(Self::TWO),
        }
    }

    /// The number, never 0.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// The side that opens streams with ids of this parity.
    #[inline]
    #[must_use]
    pub const fn opener(self) -> Role {
        if self.get() & 1 == 1 {
            Role::Dialer
        } else {
            Role::Acceptor
        }
    }

    /// Whether `role` is the side that opens streams with ids of this parity.
    #[inline]
    #[must_use]
    pub const fn is_opened_by(self, role: Role) -> bool {
        (self.get() & 1 == 1) == matches!(role, Role::Dialer)
    }

    /// The id that its opener uses next: two further, and past the end the first one again.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        match NonZeroU32::new(self.get().wrapping_add(2)) {
            Some(number) => Self(number),
            None => Self(Self::TWO),
        }
    }

    /// Compares two ids of one opener in serial-number order.
    ///
    /// `None` if they have different openers, or are exactly half the circle apart, where the order is undefined.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cmp::Ordering;
    /// use ringmux::wire::StreamId;
    ///
    /// let id = |number| StreamId::new(number).unwrap();
    /// assert_eq!(id(5).serial_cmp(id(3)), Some(Ordering::Greater));
    /// assert_eq!(id(1).serial_cmp(id(u32::MAX)), Some(Ordering::Greater));
    /// assert_eq!(id(1).serial_cmp(id(2)), None);
    /// ```
    #[inline]
    #[must_use]
    pub const fn serial_cmp(self, other: Self) -> Option<Ordering> {
        if (self.get() ^ other.get()) & 1 != 0 {
            return None;
        }
        let ahead = (self.get() >> 1).wrapping_sub(other.get() >> 1) & Self::SERIAL_MASK;
        match ahead {
            0 => Some(Ordering::Equal),
            Self::SERIAL_HALF => None,
            1..Self::SERIAL_HALF => Some(Ordering::Greater),
            _ => Some(Ordering::Less),
        }
    }

    /// Whether this id comes after `other` in the order of [`serial_cmp`](Self::serial_cmp); false where there is none.
    #[inline]
    #[must_use]
    pub const fn is_after(self, other: Self) -> bool {
        matches!(self.serial_cmp(other), Some(Ordering::Greater))
    }
}

impl From<StreamId> for u32 {
    #[inline]
    fn from(id: StreamId) -> Self {
        id.get()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId({})", self.0)
    }
}

// "No stream" costs no room: the session is `None`.
const _: () = assert!(size_of::<Option<StreamId>>() == size_of::<u32>());
