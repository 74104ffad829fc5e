//! The turn loop of a session over any of the wires.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Beside, Transport, Turns};
use crate::bridge::{AnyEngine, DrpcEngine, NativeEngine};
use crate::error::SessionError;

/// A session of one of the wires, and its transport.
///
/// The loop is compiled for each wire: which one it is, is asked once for each poll, and not for a message.
#[expect(
    clippy::large_enum_variant,
    reason = "a session has one, and a box would be a step in each turn"
)]
pub(crate) enum AnyTurns<T> {
    Native(Turns<T, NativeEngine>),
    Drpc(Turns<T, DrpcEngine>),
}

/// The same expression for every wire.
macro_rules! each {
    ($turns:expr, $inner:ident => $answer:expr) => {
        match $turns {
            Self::Native($inner) => $answer,
            Self::Drpc($inner) => $answer,
        }
    };
}

impl<T: Transport + Unpin> AnyTurns<T> {
    pub(crate) fn new(connection: AnyEngine, transport: T) -> Self {
        match connection {
            AnyEngine::Native(engine) => Self::Native(Turns::new(engine, transport)),
            AnyEngine::Drpc(engine) => Self::Drpc(Turns::new(engine, transport)),
        }
    }

    /// As [`Turns::set_beside`].
    pub(crate) const fn set_beside(&mut self, beside: Beside) {
        each!(self, turns => turns.set_beside(beside));
    }

    /// As [`Turns::is_due`].
    pub(super) const fn is_due(&self) -> bool {
        each!(self, turns => turns.is_due())
    }

    /// As [`Turns::has_used_up`].
    pub(super) const fn has_used_up(&self) -> bool {
        each!(self, turns => turns.has_used_up())
    }

    /// As [`Turns::give_up`].
    #[cold]
    pub(crate) fn give_up(&mut self, error: io::Error) {
        each!(self, turns => turns.give_up(error));
    }
}

impl<T: Transport + Unpin> Future for AnyTurns<T> {
    type Output = SessionError;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SessionError> {
        each!(&mut *self, turns => Pin::new(turns).poll(cx))
    }
}

impl<T> std::fmt::Debug for AnyTurns<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        each!(self, turns => turns.fmt(f))
    }
}
