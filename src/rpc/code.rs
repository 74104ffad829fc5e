//! The code of a status.

use std::fmt;

/// What kind of failure a [`Status`](super::Status) is: the 17 codes of gRPC by their numbers; every other number is the
/// application's.
///
/// # Examples
/// ```
/// use ringmux::rpc::Code;
///
/// assert_eq!(Code::NOT_FOUND.number(), 5);
/// assert_eq!(Code::NOT_FOUND.name(), Some("not-found"));
/// assert_eq!(Code::new(1000).to_string(), "code 1000");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)+) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($number);)+

            /// The short name of a code of gRPC; `None` for one of the application's.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// No failure. A status never has it: one that was made with it says [`UNKNOWN`](Self::UNKNOWN).
    OK = 0, "ok";
    /// The caller gave the call up.
    CANCELLED = 1, "cancelled";
    /// Nothing is known about the failure.
    UNKNOWN = 2, "unknown";
    /// The request makes no sense, whatever the state of the server.
    INVALID_ARGUMENT = 3, "invalid-argument";
    /// The time for the call ran out.
    DEADLINE_EXCEEDED = 4, "deadline-exceeded";
    /// There is no such thing.
    NOT_FOUND = 5, "not-found";
    /// The thing that was to be made exists.
    ALREADY_EXISTS = 6, "already-exists";
    /// The caller may not do this.
    PERMISSION_DENIED = 7, "permission-denied";
    /// A limit was reached: a quota, a queue, the size of a message.
    RESOURCE_EXHAUSTED = 8, "resource-exhausted";
    /// The system is not in the state that the call needs.
    FAILED_PRECONDITION = 9, "failed-precondition";
    /// Another call got in the way, such as in a transaction.
    ABORTED = 10, "aborted";
    /// Beyond the end of what there is.
    OUT_OF_RANGE = 11, "out-of-range";
    /// The server does not know the method, the codec or the version.
    UNIMPLEMENTED = 12, "unimplemented";
    /// A part of the system is broken, such as a handler that panicked.
    INTERNAL = 13, "internal";
    /// The server cannot be reached, or takes no call for now.
    UNAVAILABLE = 14, "unavailable";
    /// Data was lost for good.
    DATA_LOSS = 15, "data-loss";
    /// The caller did not say who it is.
    UNAUTHENTICATED = 16, "unauthenticated";
}

impl Code {
    /// The code with this number.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number, as it is on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Code({}, {self})", self.0)
    }
}

impl From<u32> for Code {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<Code> for u32 {
    fn from(code: Code) -> Self {
        code.0
    }
}
