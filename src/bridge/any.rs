//! A session over the wire that its settings name.

use std::sync::Arc as StdArc;
use std::time::Instant;

use super::info::Info;
use super::pool::Pool;
use super::session::SessionLink;
use super::{DrpcEngine, NativeEngine};
use crate::addr;
use crate::config::Config;
use crate::sync::Arc;
use crate::wire::Role;

/// A session's protocol state, over one of the wires. A driver's loop is compiled for each of them.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a session has one, and a box would be a step in each turn"
)]
pub(crate) enum AnyEngine {
    Native(NativeEngine),
    Drpc(DrpcEngine),
}

impl AnyEngine {
    /// A session over the wire of its settings, and the link for its first handle.
    pub(crate) fn new(
        role: Role,
        config: &Config,
        info: Info,
        pool: StdArc<Pool>,
        now: Instant,
    ) -> (Self, Arc<SessionLink>) {
        match config.wire() {
            addr::Wire::Native => {
                let (engine, link) = NativeEngine::new(role, config, info, pool, now);
                (Self::Native(engine), link)
            }
            addr::Wire::Drpc(_) => {
                let (engine, link) = DrpcEngine::new(role, config, info, pool, now);
                (Self::Drpc(engine), link)
            }
        }
    }
}
