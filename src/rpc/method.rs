//! The name of a method, with its types.

use std::fmt;
use std::marker::PhantomData;

use super::codec::{Codec, Coding};
use super::wire::flag;

mod sealed {
    pub trait Sealed {
        const FLAGS: u8;
    }
}

/// Which side of a method sends a stream of messages: [`Unary`], [`ServerStreaming`], [`ClientStreaming`] or
/// [`Bidirectional`].
pub trait Kind: sealed::Sealed + Send + Sync + 'static {}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $flags:expr;)+) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl sealed::Sealed for $name {
            const FLAGS: u8 = $flags;
        }

        impl Kind for $name {})+
    };
}

kinds! {
    /// One request, one answer.
    Unary = 0;
    /// One request, a stream of answers.
    ServerStreaming = flag::RESPONSE_STREAM;
    /// A stream of requests, one answer.
    ClientStreaming = flag::REQUEST_STREAM;
    /// A stream of requests and a stream of answers, beside each other.
    Bidirectional = flag::REQUEST_STREAM | flag::RESPONSE_STREAM;
}

/// A method of a service: its name, its codec, and the types of its messages. Both sides use the same constant.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use ringmux::rpc::{Method, Raw, ServerStreaming};
///
/// const ECHO: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Echo/Echo");
/// const FEED: Method<Bytes, Bytes, ServerStreaming> = Method::server_streaming::<Raw>("example.v1.Echo/Feed");
/// assert_eq!((ECHO.service(), ECHO.method()), ("example.v1.Echo", "Echo"));
/// # let _ = FEED;
/// ```
pub struct Method<Req, Resp, K = Unary> {
    pub(super) name: &'static str,
    pub(super) codec: u8,
    pub(super) request: Coding<Req>,
    pub(super) response: Coding<Resp>,
    kind: PhantomData<fn() -> K>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident: $kind:ident;)+) => {
        $(impl<Req, Resp> Method<Req, Resp, $kind> {
            $(#[$doc])*
            ///
            /// # Panics
            /// If the name, `service/method`, is empty or longer than 255 bytes: for a constant, when it is compiled.
            #[must_use]
            pub const fn $name<C: Codec<Req> + Codec<Resp>>(name: &'static str) -> Self {
                Self::new::<C>(name)
            }
        })+
    };
}

constructors! {
    /// A method with one request and one answer.
    unary: Unary;
    /// A method with one request and a stream of answers.
    server_streaming: ServerStreaming;
    /// A method with a stream of requests and one answer.
    client_streaming: ClientStreaming;
    /// A method with a stream of requests and a stream of answers.
    bidirectional: Bidirectional;
}

impl<Req, Resp, K: Kind> Method<Req, Resp, K> {
    const fn new<C: Codec<Req> + Codec<Resp>>(name: &'static str) -> Self {
        assert!(
            !name.is_empty() && name.len() <= 255,
            "a method's name is 1 to 255 bytes"
        );
        Self {
            name,
            codec: C::ID,
            request: Coding::of::<C>(),
            response: Coding::of::<C>(),
            kind: PhantomData,
        }
    }

    /// `service/method`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What is before the last `/` of the name; empty if there is none.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.name
            .rsplit_once('/')
            .map_or("", |(service, _)| service)
    }

    /// What is behind the last `/` of the name.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.name
            .rsplit_once('/')
            .map_or(self.name, |(_, method)| method)
    }

    pub(super) const fn flags(&self) -> u8 {
        K::FLAGS
    }
}

impl<Req, Resp, K> Clone for Method<Req, Resp, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Req, Resp, K> Copy for Method<Req, Resp, K> {}

impl<Req, Resp, K> fmt::Debug for Method<Req, Resp, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method")
            .field("name", &self.name)
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}
