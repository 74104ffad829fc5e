//! Facts of a session that never change.

use super::ledger::Account;
use crate::addr::{Addr, Driver};
use crate::sync::Arc;
use crate::wire::Role;

/// A session's addresses, driver and role.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub(crate) peer: Option<Addr>,
    pub(crate) local: Option<Addr>,
    pub(crate) driver: Driver,
    pub(crate) role: Role,
    /// The seed of its jitter and its table of ids: different for each session, unknown to the peer.
    pub(crate) seed: u64,
    /// The account of the engine that runs it.
    pub(crate) account: Arc<Account>,
}

#[cfg(any(test, fuzzing))]
impl Info {
    /// For a session without an engine.
    pub(crate) fn of_a_test(role: Role) -> Self {
        Self {
            peer: None,
            local: None,
            driver: Driver::Tokio,
            role,
            seed: 0,
            account: Account::of_the_process(),
        }
    }
}
