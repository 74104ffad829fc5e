//! A service from a `.proto` file: its messages, client and server, and an implementation.

use std::collections::BTreeMap;

use ringmux::rpc::{Context, Receiver, Sender, Status};
use tokio::sync::watch;

/// Made of `proto/bank.proto` by the build script.
#[allow(missing_docs)]
pub mod bank {
    include!(concat!(env!("OUT_DIR"), "/bank.v1.rs"));
}

use bank::{Account, Amount, Bank, Row, Summary};

/// Accounts with their balances, in memory.
#[derive(Debug)]
pub struct Accounts(BTreeMap<u64, watch::Sender<i64>>);

impl Accounts {
    /// Accounts with these numbers and cents.
    #[must_use]
    pub fn new(accounts: &[(u64, i64)]) -> Self {
        let accounts = accounts.iter();
        Self(
            accounts
                .map(|&(id, cents)| (id, watch::Sender::new(cents)))
                .collect(),
        )
    }

    fn account(&self, id: u64) -> Result<&watch::Sender<i64>, Status> {
        let account = self.0.get(&id);
        account.ok_or_else(|| Status::not_found(format!("no account {id}")))
    }

    /// The balance after a change, unless it would be below zero.
    fn change(&self, row: &Row) -> Result<i64, Status> {
        let account = self.account(row.account)?;
        let mut balance = None;
        account.send_if_modified(|cents| {
            balance = cents.checked_add(row.cents).filter(|&cents| cents >= 0);
            *cents = balance.unwrap_or(*cents);
            balance.is_some()
        });
        balance.ok_or_else(|| Status::failed_precondition("not that much money"))
    }
}

impl Bank for Accounts {
    async fn balance(&self, _: &Context, request: Account) -> Result<Amount, Status> {
        let cents = *self.account(request.id)?.borrow();
        Ok(Amount { cents })
    }

    async fn watch(
        &self,
        _: &Context,
        request: Account,
        mut out: Sender<Amount>,
    ) -> Result<(), Status> {
        let mut balance = self.account(request.id)?.subscribe();
        loop {
            let cents = *balance.borrow_and_update();
            // Fails when the caller has gone; a handler that waits is dropped before.
            out.send(Amount { cents }).await?;
            if balance.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    async fn import(&self, _: &Context, mut rows: Receiver<Row>) -> Result<Summary, Status> {
        let mut summary = Summary::default();
        while let Some(row) = rows.recv().await? {
            self.change(&row)?;
            summary.rows += 1;
            summary.cents += row.cents;
        }
        Ok(summary)
    }

    async fn trade(
        &self,
        _: &Context,
        mut orders: Receiver<Row>,
        mut fills: Sender<Amount>,
    ) -> Result<(), Status> {
        while let Some(order) = orders.recv().await? {
            let cents = self.change(&order)?;
            fills.send(Amount { cents }).await?;
        }
        Ok(())
    }
}
