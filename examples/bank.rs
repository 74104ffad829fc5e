//! A service with calls of all four kinds: metadata, deadlines, cancellation and status, over TCP in one process.
//!
//! ```sh
//! cargo run --example bank --features rpc-postcard
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ringmux::rpc::{
    Bidirectional, Channel, ClientStreaming, Code, Context, Method, Postcard, Receiver, Router,
    Sender, Server, ServerStreaming, Service, Status,
};
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

const BALANCE: Method<Account, Amount> = Method::unary::<Postcard>("bank.v1.Bank/Balance");
const WATCH: Method<Account, Amount, ServerStreaming> =
    Method::server_streaming::<Postcard>("bank.v1.Bank/Watch");
const IMPORT: Method<Row, Summary, ClientStreaming> =
    Method::client_streaming::<Postcard>("bank.v1.Bank/Import");
const TRADE: Method<Row, Amount, Bidirectional> =
    Method::bidirectional::<Postcard>("bank.v1.Bank/Trade");

// ---- the server -------------------------------------------------------------------------------------

struct Bank {
    accounts: BTreeMap<u64, AtomicI64>,
}

impl Bank {
    fn account(&self, id: u64) -> Result<&AtomicI64, Status> {
        let account = self.accounts.get(&id);
        account.ok_or_else(|| Status::not_found(format!("no account {id}")))
    }

    async fn balance(&self, cx: &Context, request: Account) -> Result<Amount, Status> {
        let tenant = cx.metadata().get_str("tenant").unwrap_or("none");
        cx.add_trailer("asked-by", tenant)?;
        let cents = self.account(request.id)?.load(Ordering::Relaxed);
        Ok(Amount { cents })
    }

    /// Tells the balance again and again, until the caller has enough.
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

impl Service for Bank {
    const NAME: &'static str = "bank.v1.Bank";

    fn register(self: Arc<Self>, router: &mut Router) {
        let bank = Arc::clone(&self);
        router.unary(BALANCE, move |cx, request| {
            let bank = Arc::clone(&bank);
            async move { bank.balance(&cx, request).await }
        });
        let bank = Arc::clone(&self);
        router.server_streaming(WATCH, move |cx, request, out| {
            let bank = Arc::clone(&bank);
            async move { bank.watch(&cx, request, out).await }
        });
        let bank = Arc::clone(&self);
        router.client_streaming(IMPORT, move |cx, rows| {
            let bank = Arc::clone(&bank);
            async move { bank.import(&cx, rows).await }
        });
        let bank = self;
        router.bidirectional(TRADE, move |cx, orders, fills| {
            let bank = Arc::clone(&bank);
            async move { bank.trade(&cx, orders, fills).await }
        });
    }
}

// ---- the client -------------------------------------------------------------------------------------

/// What a caller holds; a method for each of the service.
#[derive(Clone)]
struct BankClient {
    channel: Channel,
}

async fn use_bank(bank: &BankClient) -> Result<(), Status> {
    let channel = &bank.channel;
    let account = Account { id: 1 };

    // One request, one answer, within a second.
    let call = channel.call(&BALANCE, &account).metadata("tenant", "a");
    let response = call.timeout(Duration::from_secs(1)).detailed().await?;
    let asked_by = response.trailers.get_str("asked-by");
    println!("balance {:?}, asked by {asked_by:?}", response.message);
    assert_eq!(asked_by, Some("a"));

    // A stream of requests, one answer.
    let (mut rows, summary) = channel.client_streaming(&IMPORT).open().await?;
    for cents in 1..=100 {
        rows.send(Row { account: 1, cents }).await?;
    }
    rows.finish()?;
    println!("imported {:?}", summary.await?);

    // One request, a stream of answers; dropping it cancels the call, and drops its handler.
    let mut watched = channel.server_streaming(&WATCH, &account).open().await?;
    for _ in 0..3 {
        println!("watched {:?}", watched.recv().await?);
    }
    drop(watched);

    // Streams in both directions; what ends it is a status.
    let (mut orders, mut fills) = channel.bidirectional(&TRADE).open().await?;
    for cents in [-50, -1_000_000] {
        orders.send(Row { account: 1, cents }).await?;
        match fills.recv().await {
            Ok(fill) => println!("filled, {fill:?}"),
            Err(status) => {
                println!("refused: {status}");
                assert_eq!(status.code(), Code::FAILED_PRECONDITION);
            }
        }
    }

    let status = channel
        .call(&BALANCE, &Account { id: 7 })
        .await
        .unwrap_err();
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
    let bank = Bank {
        accounts: accounts.into(),
    };
    let server = Server::builder().add(bank).build()?;
    let listener = Arc::new(ringmux::listen("tcp://127.0.0.1:0").await?);
    let addr = listener.local_addr().to_string();
    let serving = {
        let (server, listener) = (server.clone(), Arc::clone(&listener));
        tokio::spawn(async move { server.serve(listener).await })
    };

    let session = ringmux::connect(addr).await?;
    let bank = BankClient {
        channel: Channel::new(session.clone()),
    };
    use_bank(&bank).await?;
    session.close();
    session.closed().await;

    listener.shutdown(Duration::from_secs(5)).await;
    serving.await??;
    println!("{:?}", server.stats());
    Ok(())
}
