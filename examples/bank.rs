//! A service with calls of all four kinds, from a trait: metadata, deadlines, cancellation and status, over TCP in one
//! process.
//!
//! ```sh
//! cargo run --example bank --features rpc-postcard
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ringmux::rpc::{Code, Context, Receiver, Sender, Server, Status};
use serde::{Deserialize, Serialize};

// ---- the service, which both sides know -----------------------------------------------------------

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Account {
    id: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Amount {
    cents: i64,
}

/// Moves money into an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    account: u64,
    cents: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Summary {
    rows: u64,
    cents: i64,
}

/// Makes `BankClient`, `BankServer` and `BankMethods`.
#[ringmux::service(name = "bank.v1.Bank", codec = "postcard")]
trait Bank {
    async fn balance(&self, cx: &Context, request: Account) -> Result<Amount, Status>;

    /// Tells the balance again and again, until the caller has enough.
    async fn watch(
        &self,
        cx: &Context,
        request: Account,
        out: Sender<Amount>,
    ) -> Result<(), Status>;

    async fn import(&self, cx: &Context, rows: Receiver<Row>) -> Result<Summary, Status>;

    /// Answers each order with the balance after it, until one cannot be filled.
    async fn trade(
        &self,
        cx: &Context,
        orders: Receiver<Row>,
        fills: Sender<Amount>,
    ) -> Result<(), Status>;
}

// ---- the server -------------------------------------------------------------------------------------

struct Accounts {
    accounts: BTreeMap<u64, AtomicI64>,
}

impl Accounts {
    fn account(&self, id: u64) -> Result<&AtomicI64, Status> {
        let account = self.accounts.get(&id);
        account.ok_or_else(|| Status::not_found(format!("no account {id}")))
    }
}

impl Bank for Accounts {
    async fn balance(&self, cx: &Context, request: Account) -> Result<Amount, Status> {
        let tenant = cx.metadata().get_str("tenant").unwrap_or("none");
        cx.add_trailer("asked-by", tenant)?;
        let cents = self.account(request.id)?.load(Ordering::Relaxed);
        Ok(Amount { cents })
    }

    async fn watch(
        &self,
        _: &Context,
        request: Account,
        mut out: Sender<Amount>,
    ) -> Result<(), Status> {
        let account = self.account(request.id)?;
        loop {
            let cents = account.load(Ordering::Relaxed);
            // Fails when the caller has gone; a handler that waits is dropped before.
            out.send(Amount { cents }).await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn import(&self, _: &Context, mut rows: Receiver<Row>) -> Result<Summary, Status> {
        let mut summary = Summary { rows: 0, cents: 0 };
        while let Some(row) = rows.recv().await? {
            self.account(row.account)?
                .fetch_add(row.cents, Ordering::Relaxed);
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
            let account = self.account(order.account)?;
            let cents = account.fetch_add(order.cents, Ordering::Relaxed) + order.cents;
            if cents < 0 {
                account.fetch_sub(order.cents, Ordering::Relaxed);
                return Err(Status::failed_precondition("not that much money"));
            }
            fills.send(Amount { cents }).await?;
        }
        Ok(())
    }
}

// ---- the client -------------------------------------------------------------------------------------

async fn use_bank(bank: &BankClient) -> Result<(), Status> {
    let account = Account { id: 1 };

    // One request, one answer, within a second.
    let call = bank.balance(&account).metadata("tenant", "a");
    let response = call.timeout(Duration::from_secs(1)).detailed().await?;
    let asked_by = response.trailers.get_str("asked-by");
    println!("balance {:?}, asked by {asked_by:?}", response.message);
    assert_eq!(asked_by, Some("a"));

    // A stream of requests, one answer.
    let (mut rows, summary) = bank.import().open().await?;
    for cents in 1..=100 {
        if rows.send(Row { account: 1, cents }).await.is_err() {
            break; // the server has answered already: why, the reply says
        }
    }
    let _ = rows.finish(); // fails with the call, as above
    println!("imported {:?}", summary.await?);

    // One request, a stream of answers; dropping it cancels the call, and drops its handler.
    let mut watched = bank.watch(&account).open().await?;
    for _ in 0..3 {
        println!("watched {:?}", watched.recv().await?);
    }
    drop(watched);

    // Streams in both directions; what ends it is a status.
    let (mut orders, mut fills) = bank.trade().open().await?;
    for cents in [-50, -1_000_000] {
        // If it fails, the receiver says why.
        let _ = orders.send(Row { account: 1, cents }).await;
        match fills.recv().await {
            Ok(fill) => println!("filled, {fill:?}"),
            Err(status) => {
                println!("refused: {status}");
                assert_eq!(status.code(), Code::FAILED_PRECONDITION);
            }
        }
    }

    let status = bank.balance(&Account { id: 7 }).await.unwrap_err();
    println!(
        "{status}; {:?}, retryable: {}",
        status.was_processed(),
        status.is_retryable()
    );
    assert_eq!(status.code(), Code::NOT_FOUND);
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let accounts = [(1, AtomicI64::new(1000)), (2, AtomicI64::new(0))];
    let bank = Accounts {
        accounts: accounts.into(),
    };
    let server = Server::builder().add(BankServer::new(bank)).build()?;
    let listener = Arc::new(ringmux::listen("tcp://127.0.0.1:0").await?);
    let addr = listener.local_addr().to_string();
    let serving = {
        let (server, listener) = (server.clone(), Arc::clone(&listener));
        tokio::spawn(async move { server.serve(listener).await })
    };

    let session = ringmux::connect(addr).await?;
    use_bank(&BankClient::new(session.clone())).await?;
    session.close();
    session.closed().await;

    listener.shutdown(Duration::from_secs(5)).await;
    serving.await??;
    println!("{:?}", server.stats());
    Ok(())
}
