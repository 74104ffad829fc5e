//! The service of the `.proto` file beside the same one written as a trait: either one's client calls either one's server.

use std::future::IntoFuture;
use std::time::Duration;

use ringmux::rpc::{Code, Server, ServerBuilder, Status};
use ringmux::{Config, Session};
use ringmux_example_proto::{Accounts, bank};

/// Nothing here takes so long, even on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// The same service, by the macro and with messages written by hand.
mod by_trait {
    use prost::Message;
    use ringmux::rpc::{Context, Receiver, Sender, Status};
    use ringmux_example_proto::bank;

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Account {
        #[prost(uint64, tag = "1")]
        pub(crate) id: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Amount {
        #[prost(sint64, tag = "1")]
        pub(crate) cents: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Row {
        #[prost(uint64, tag = "1")]
        pub(crate) account: u64,
        #[prost(sint64, tag = "2")]
        pub(crate) cents: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(crate) struct Summary {
        #[prost(uint64, tag = "1")]
        pub(crate) rows: u64,
        #[prost(sint64, tag = "2")]
        pub(crate) cents: i64,
    }

    #[ringmux::service(name = "bank.v1.Bank", codec = "prost")]
    pub(crate) trait Bank {
        async fn balance(&self, cx: &Context, request: Account) -> Result<Amount, Status>;
        async fn watch(
            &self,
            cx: &Context,
            request: Account,
            out: Sender<Amount>,
        ) -> Result<(), Status>;
        async fn import(&self, cx: &Context, rows: Receiver<Row>) -> Result<Summary, Status>;
        async fn trade(
            &self,
            cx: &Context,
            orders: Receiver<Row>,
            fills: Sender<Amount>,
        ) -> Result<(), Status>;
    }

    /// One account.
    pub(crate) struct One(pub(crate) std::sync::atomic::AtomicI64);

    impl One {
        fn change(&self, cents: i64) -> Result<Amount, Status> {
            let order = std::sync::atomic::Ordering::Relaxed;
            let changed = self.0.fetch_update(order, order, |balance| {
                Some(balance + cents).filter(|&cents| cents >= 0)
            });
            let before = changed.map_err(|_| Status::failed_precondition("not that much money"))?;
            Ok(Amount {
                cents: before + cents,
            })
        }
    }

    impl Bank for One {
        async fn balance(&self, _: &Context, request: Account) -> Result<Amount, Status> {
            match request.id {
                1 => self.change(0),
                id => Err(Status::not_found(format!("no account {id}"))),
            }
        }

        async fn watch(
            &self,
            _: &Context,
            _: Account,
            mut out: Sender<Amount>,
        ) -> Result<(), Status> {
            out.send(self.change(0)?).await?;
            std::future::pending().await
        }

        async fn import(&self, _: &Context, mut rows: Receiver<Row>) -> Result<Summary, Status> {
            let mut summary = Summary::default();
            while let Some(row) = rows.recv().await? {
                self.change(row.cents)?;
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
                fills.send(self.change(order.cents)?).await?;
            }
            Ok(())
        }
    }

    /// Both have the same constants, but for the types.
    pub(crate) fn names() -> [(&'static str, &'static str); 4] {
        type Other = bank::BankMethods;
        [
            (BankMethods::BALANCE.name(), Other::BALANCE.name()),
            (BankMethods::WATCH.name(), Other::WATCH.name()),
            (BankMethods::IMPORT.name(), Other::IMPORT.name()),
            (BankMethods::TRADE.name(), Other::TRADE.name()),
        ]
    }
}

/// A client whose session leads to a server over a pipe.
async fn session(builder: ServerBuilder) -> Session {
    let (a, b) = tokio::io::duplex(256 * 1024);
    let (client, connection) = ringmux::client(a, &Config::default());
    tokio::spawn(connection);
    let (peer, connection) = ringmux::server(b, &Config::default());
    tokio::spawn(connection);
    let server = builder.build().unwrap();
    tokio::spawn(async move { server.serve_session(peer).await });
    client
}

async fn soon<F: IntoFuture>(future: F) -> F::Output {
    let done = tokio::time::timeout(LIMIT, future).await;
    done.expect("within the limit")
}

/// Calls all four kinds of methods, with the messages and the client of one of the two modules.
macro_rules! use_bank {
    ($bank:expr, $module:ident) => {
        async {
            let bank = $bank;
            let account = $module::Account { id: 1 };
            assert_eq!(bank.balance(&account).await?.cents, 1000);
            let status = bank.balance(&$module::Account { id: 7 }).await.unwrap_err();
            assert_eq!(status.code(), Code::NOT_FOUND);

            let mut watched = bank.watch(&account).open().await?;
            assert_eq!(watched.recv().await?.unwrap().cents, 1000);

            let (mut rows, summary) = bank.import().open().await?;
            for cents in 1..=100 {
                rows.send($module::Row { account: 1, cents }).await?;
            }
            rows.finish()?;
            assert_eq!(
                summary.await?,
                $module::Summary {
                    rows: 100,
                    cents: 5050
                }
            );

            let (mut orders, mut fills) = bank.trade().open().await?;
            orders
                .send($module::Row {
                    account: 1,
                    cents: -50,
                })
                .await?;
            assert_eq!(fills.recv().await?.unwrap().cents, 6000);
            orders
                .send($module::Row {
                    account: 1,
                    cents: -6001,
                })
                .await?;
            let status = fills.recv().await.unwrap_err();
            assert_eq!(status.code(), Code::FAILED_PRECONDITION);
            Ok::<_, Status>(())
        }
    };
}

fn from_proto() -> ServerBuilder {
    Server::builder().add(bank::BankServer::new(Accounts::new(&[(1, 1000)])))
}

fn from_trait() -> ServerBuilder {
    Server::builder().add(by_trait::BankServer::new(by_trait::One(1000.into())))
}

#[tokio::test]
async fn a_client_from_proto_calls_all_kinds_of_a_server_from_proto() {
    let client = bank::BankClient::new(session(from_proto()).await);
    soon(use_bank!(client, bank)).await.unwrap();
}

#[tokio::test]
async fn a_client_from_a_trait_calls_a_server_from_proto() {
    let client = by_trait::BankClient::new(session(from_proto()).await);
    soon(use_bank!(client, by_trait)).await.unwrap();
}

#[tokio::test]
async fn a_client_from_proto_calls_a_server_from_a_trait() {
    let client = bank::BankClient::new(session(from_trait()).await);
    soon(use_bank!(client, bank)).await.unwrap();
}

#[test]
fn the_constants_have_the_same_names() {
    for (by_trait, by_proto) in by_trait::names() {
        assert_eq!(by_trait, by_proto);
    }
    assert_eq!(by_trait::BankClient::NAME, bank::BankClient::NAME);
}
