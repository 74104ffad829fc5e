//! A session over the wire that its settings name.

use std::sync::Arc as StdArc;
use std::time::Instant;

use super::NativeEngine;
use super::pool::Pool;
use super::session::{Info, SessionLink};
use crate::config::Config;
use crate::sync::Arc;
use crate::wire::Role;

/// A session's protocol state, over one of the wires. A driver's loop is compiled for each of them.
#[derive(Debug)]
pub(crate) enum AnyEngine {
    Native(NativeEngine),
}

impl AnyEngine {
    /// A session over the wire of `info`, and the link for its first handle.
    pub(crate) fn new(
        role: Role,
        config: &Config,
        info: Info,
        pool: StdArc<Pool>,
        now: Instant,
    ) -> (Self, Arc<SessionLink>) {
        let (engine, link) = NativeEngine::new(role, config, info, pool, now);
        (Self::Native(engine), link)
    }
}
