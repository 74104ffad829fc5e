//! A service with all four kinds of methods, as a trait and written by hand: either one's client calls either one's server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ringmux::rpc::{
    Bidirectional, Channel, ClientStreaming, Code, Context, Method, Postcard, Receiver, Router,
    Sender, Server, ServerStreaming, Service, Status,
};
use serde::{Deserialize, Serialize};

use super::host::{Host, soon};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Account {
    id: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Amount {
    cents: i64,
}

/// Keeps accounts.
#[ringmux::service(name = "bank.v1.Bank", codec = "postcard")]
pub(crate) trait Bank {
    /// What is there.
    async fn balance(&self, cx: &Context, request: Account) -> Result<Amount, Status>;
    async fn watch(
        &self,
        cx: &Context,
        request: Account,
        out: Sender<Amount>,
    ) -> Result<(), Status>;
    async fn import(&self, cx: &Context, rows: Receiver<Amount>) -> Result<Amount, Status>;
    #[method(name = "Trade")]
    async fn r#yield(
        &self,
        cx: &Context,
        orders: Receiver<Amount>,
        fills: Sender<Amount>,
    ) -> Result<(), Status>;

    /// Has a body, which an implementation may leave.
    async fn close(&self, cx: &Context, request: Account) -> Result<(), Status> {
        let method = cx.method();
        Err(Status::new(
            Code::UNIMPLEMENTED,
            format!("{method} {}", request.id),
        ))
    }
}

#[derive(Default)]
struct Vault {
    cents: AtomicI64,
}

impl Vault {
    fn add(&self, amount: Amount) -> Amount {
        let cents = self.cents.fetch_add(amount.cents, Ordering::Relaxed) + amount.cents;
        Amount { cents }
    }
}

impl Bank for Vault {
    async fn balance(&self, cx: &Context, request: Account) -> Result<Amount, Status> {
        if request.id != 1 {
            return Err(Status::not_found(format!("no account {}", request.id)));
        }
        cx.add_trailer("tenant", cx.metadata().get_str("tenant").unwrap_or("none"))?;
        Ok(self.add(Amount { cents: 0 }))
    }

    async fn watch(
        &self,
        _: &Context,
        request: Account,
        mut out: Sender<Amount>,
    ) -> Result<(), Status> {
        for cents in 0..request.id as i64 {
            out.send(Amount { cents }).await?;
        }
        Ok(())
    }

    async fn import(&self, _: &Context, mut rows: Receiver<Amount>) -> Result<Amount, Status> {
        while let Some(row) = rows.recv().await? {
            self.add(row);
        }
        Ok(self.add(Amount { cents: 0 }))
    }

    async fn r#yield(
        &self,
        _: &Context,
        mut orders: Receiver<Amount>,
        mut fills: Sender<Amount>,
    ) -> Result<(), Status> {
        while let Some(order) = orders.recv().await? {
            fills.send(self.add(order)).await?;
        }
        Ok(())
    }
}

const BALANCE: Method<Account, Amount> = Method::unary::<Postcard>("bank.v1.Bank/Balance");
const WATCH: Method<Account, Amount, ServerStreaming> =
    Method::server_streaming::<Postcard>("bank.v1.Bank/Watch");
const IMPORT: Method<Amount, Amount, ClientStreaming> =
    Method::client_streaming::<Postcard>("bank.v1.Bank/Import");
const TRADE: Method<Amount, Amount, Bidirectional> =
    Method::bidirectional::<Postcard>("bank.v1.Bank/Trade");

/// The server without the macro.
struct ByHand(Vault);

impl Service for ByHand {
    const NAME: &'static str = "bank.v1.Bank";

    fn register(self: Arc<Self>, router: &mut Router) {
        let bank = Arc::clone(&self);
        router.unary(BALANCE, move |cx, request| {
            let bank = Arc::clone(&bank);
            async move { bank.0.balance(&cx, request).await }
        });
        let bank = Arc::clone(&self);
        router.server_streaming(WATCH, move |cx, request, out| {
            let bank = Arc::clone(&bank);
            async move { bank.0.watch(&cx, request, out).await }
        });
        let bank = Arc::clone(&self);
        router.client_streaming(IMPORT, move |cx, rows| {
            let bank = Arc::clone(&bank);
            async move { bank.0.import(&cx, rows).await }
        });
        let bank = self;
        router.bidirectional(TRADE, move |cx, orders, fills| {
            let bank = Arc::clone(&bank);
            async move { bank.0.r#yield(&cx, orders, fills).await }
        });
    }
}

/// Calls all four kinds of methods; the bank is new.
async fn use_client(bank: &BankClient) -> Result<(), Status> {
    let account = Account { id: 1 };
    let response = bank.balance(&account).metadata("tenant", "a").detailed();
    let response = response.await?;
    assert_eq!(response.message, Amount { cents: 0 });
    assert_eq!(response.trailers.get_str("tenant"), Some("a"));
    let status = bank.balance(&Account { id: 7 }).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::NOT_FOUND, "no account 7")
    );

    let mut watched = bank.watch(&Account { id: 3 }).open().await?;
    for cents in 0..3 {
        assert_eq!(watched.recv().await?, Some(Amount { cents }));
    }
    assert_eq!(watched.recv().await?, None);

    let (mut rows, sum) = bank.import().open().await?;
    for cents in 1..=100 {
        rows.send(Amount { cents }).await?;
    }
    rows.finish()?;
    assert_eq!(sum.await?, Amount { cents: 5050 });

    let (mut orders, mut fills) = bank.r#yield().open().await?;
    for sum in [5060, 5070] {
        orders.send(Amount { cents: 10 }).await?;
        assert_eq!(fills.recv().await?, Some(Amount { cents: sum }));
    }
    orders.finish()?;
    assert_eq!(fills.recv().await?, None);
    Ok(())
}

/// The same without the macro.
async fn use_channel(channel: &Channel) -> Result<(), Status> {
    let account = Account { id: 1 };
    let amount = channel.call(&BALANCE, &account).await?;
    assert_eq!(amount, Amount { cents: 0 });
    let mut watched = channel.server_streaming(&WATCH, &account).open().await?;
    assert_eq!(watched.recv().await?, Some(Amount { cents: 0 }));
    assert_eq!(watched.recv().await?, None);
    let (mut rows, sum) = channel.client_streaming(&IMPORT).open().await?;
    rows.send(Amount { cents: 5 }).await?;
    rows.finish()?;
    assert_eq!(sum.await?, Amount { cents: 5 });
    let (mut orders, mut fills) = channel.bidirectional(&TRADE).open().await?;
    orders.send(Amount { cents: 1 }).await?;
    assert_eq!(fills.recv().await?, Some(Amount { cents: 6 }));
    orders.finish()?;
    assert_eq!(fills.recv().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_made_client_calls_all_kinds_of_a_made_server() {
    let service = BankServer::new(Vault::default());
    let host = Host::new(Server::builder().add(service)).await;
    let bank = BankClient::new(host.channel.clone());
    soon(use_client(&bank.clone())).await.unwrap();

    let status = soon(bank.close(&Account { id: 9 })).await.unwrap_err();
    assert_eq!(status.code(), Code::UNIMPLEMENTED);
    assert_eq!(status.message(), "bank.v1.Bank/Close 9", "the trait's body");
}

#[tokio::test]
async fn a_made_client_calls_a_server_written_by_hand() {
    let host = Host::new(Server::builder().add(ByHand(Vault::default()))).await;
    let bank = BankClient::new(host.client.clone());
    soon(use_client(&bank)).await.unwrap();
}

#[tokio::test]
async fn calls_written_by_hand_reach_a_made_server() {
    let service = BankServer::from_arc(Arc::new(Vault::default()));
    let host = Host::new(Server::builder().add(service)).await;
    soon(use_channel(&host.channel)).await.unwrap();
}

#[test]
fn the_constants_are_the_methods_of_the_service() {
    assert_eq!(BankClient::NAME, "bank.v1.Bank");
    assert_eq!(BankMethods::BALANCE.name(), BALANCE.name());
    assert_eq!(BankMethods::WATCH.name(), WATCH.name());
    assert_eq!(BankMethods::IMPORT.name(), IMPORT.name());
    assert_eq!(BankMethods::YIELD.name(), TRADE.name());
}

/// Services in places that are unlike a module of the application.
mod elsewhere {
    use bytes::{BufMut, Bytes, BytesMut};
    use ringmux as transport;
    use ringmux::rpc::{Codec, CodecError, Encoding, Payload};

    use super::{Context, Host, Receiver, Sender, Server, Status, soon};

    /// A codec of the application.
    struct Fixed;

    impl Encoding for Fixed {
        const ID: u8 = 128;
    }

    impl Codec<u64> for Fixed {
        fn encode(message: &u64, buffer: &mut BytesMut) -> Result<(), CodecError> {
            buffer.put_u64_le(*message);
            Ok(())
        }

        fn decode(payload: Payload<'_>) -> Result<u64, CodecError> {
            let bytes = payload.to_contiguous();
            let bytes = bytes[..].try_into();
            bytes
                .map(u64::from_le_bytes)
                .map_err(|_| CodecError("eight bytes".into()))
        }
    }

    #[ringmux::service(name = "Numbers", codec = Fixed, crate = transport)]
    trait Numbers {
        async fn double(&self, cx: &Context, number: u64) -> Result<u64, Status>;
    }

    #[tokio::test]
    async fn a_service_has_a_codec_of_the_application() {
        struct Double;
        impl Numbers for Double {
            async fn double(&self, _: &Context, number: u64) -> Result<u64, Status> {
                Ok(2 * number)
            }
        }
        let host = Host::new(Server::builder().add(NumbersServer::new(Double))).await;
        let numbers = NumbersClient::new(host.channel.clone());
        assert_eq!(soon(numbers.double(&21)).await.unwrap(), 42);
    }

    #[tokio::test]
    async fn a_service_is_inside_of_a_function_and_its_bytes_are_raw() {
        #[ringmux::service(name = "Echo", codec = "raw")]
        trait Echo {
            async fn once(&self, cx: &Context, bytes: Bytes) -> Result<Bytes, Status>;
            #[cfg(any())]
            async fn never(&self, cx: &Context, bytes: Missing) -> Result<Bytes, Status>;
            async fn all(
                &self,
                cx: &Context,
                bytes: Receiver<Bytes>,
                out: Sender<Bytes>,
            ) -> Result<(), Status>;
        }
        struct Mirror;
        impl Echo for Mirror {
            async fn once(&self, _: &Context, bytes: Bytes) -> Result<Bytes, Status> {
                Ok(bytes)
            }
            async fn all(
                &self,
                _: &Context,
                mut bytes: Receiver<Bytes>,
                mut out: Sender<Bytes>,
            ) -> Result<(), Status> {
                while let Some(bytes) = bytes.recv().await? {
                    out.send(bytes).await?;
                }
                Ok(())
            }
        }
        let host = Host::new(Server::builder().add(EchoServer::new(Mirror))).await;
        let echo = EchoClient::new(host.channel.clone());
        let bytes = Bytes::from("bytes");
        assert_eq!(soon(echo.once(&bytes)).await.unwrap(), bytes);
        let (mut send, mut recv) = soon(echo.all().open()).await.unwrap();
        soon(send.send(bytes.clone())).await.unwrap();
        assert_eq!(soon(recv.recv()).await.unwrap(), Some(bytes));
    }
}
