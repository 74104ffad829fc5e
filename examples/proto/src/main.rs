//! The service of `proto/bank.proto`, its server and its client over TCP in one process.
//!
//! ```sh
//! cargo run -p ringmux-example-proto
//! ```

use std::time::Duration;

use ringmux::rpc::Server;
use ringmux_example_proto::Accounts;
use ringmux_example_proto::bank::{Account, BankClient, BankServer, Row};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
    let addr = listener.local_addr().to_string();
    let accounts = Accounts::new(&[(1, 1000)]);
    let server = Server::builder().add(BankServer::new(accounts)).build()?;
    tokio::spawn(async move { server.serve(listener).await });

    let bank = BankClient::new(ringmux::connect(addr).await?);
    let account = Account { id: 1 };
    let amount = bank
        .balance(&account)
        .timeout(Duration::from_secs(1))
        .await?;
    println!("balance {amount:?}");

    let mut watched = bank.watch(&account).open().await?;
    let (mut orders, mut fills) = bank.trade().open().await?;
    for cents in [-50, -1_000_000] {
        println!("watched {:?}", watched.recv().await?);
        orders.send(Row { account: 1, cents }).await?;
        match fills.recv().await {
            Ok(fill) => println!("filled, {fill:?}"),
            Err(status) => println!("refused: {status}"),
        }
    }
    Ok(())
}
