//! A `.proto` file whose messages and methods have the names of items that are made of services: all of it compiles, and the
//! methods are called.

use ringmux::rpc::{Context, Sender, Server, Status};
use ringmux::{Config, Session};

#[allow(missing_docs, unreachable_pub)]
mod names {
    include!(concat!(env!("OUT_DIR"), "/names.v1.rs"));
}

use names::{Bank, BankClient__, BankMethods_, BankServer_};

struct All;

impl Bank for All {
    async fn new_(&self, _: &Context, sender: names::Sender) -> Result<names::Receiver, Status> {
        Ok(names::Receiver { id: sender.id + 1 })
    }

    async fn channel_(&self, _: &Context, it: names::Receiver) -> Result<names::Sender, Status> {
        Ok(names::Sender { id: it.id + 2 })
    }

    async fn clone_(&self, _: &Context, it: names::Clone) -> Result<names::Clone, Status> {
        Ok(it)
    }

    async fn get_all(
        &self,
        _: &Context,
        it: names::Context,
        mut out: Sender<names::Status>,
    ) -> Result<(), Status> {
        out.send(names::Status { id: it.id + 3 }).await
    }

    async fn get_all_(
        &self,
        _: &Context,
        it: names::BankClient,
    ) -> Result<names::BankServer, Status> {
        Ok(names::BankServer { id: it.id + 4 })
    }

    async fn name(&self, _: &Context, it: names::Result) -> Result<names::Result, Status> {
        Ok(it)
    }
}

impl names::BankClient_ for All {
    async fn fmt(&self, _: &Context, it: names::Status) -> Result<names::Context, Status> {
        Ok(names::Context { id: it.id + 5 })
    }
}

impl names::T for All {
    async fn into_(&self, _: &Context, it: names::Status) -> Result<names::Context, Status> {
        Ok(names::Context { id: it.id + 6 })
    }
}

/// A client whose session leads to a server over a pipe.
async fn session() -> Session {
    let (a, b) = tokio::io::duplex(64 * 1024);
    let (client, connection) = ringmux::client(a, &Config::default());
    tokio::spawn(connection);
    let (peer, connection) = ringmux::server(b, &Config::default());
    tokio::spawn(connection);
    let server = Server::builder()
        .add(BankServer_::new(All))
        .add(names::BankClientServer::new(All))
        .add(names::TServer::new(All));
    let server = server.build().unwrap();
    tokio::spawn(async move { server.serve_session(peer).await });
    client
}

#[tokio::test]
async fn methods_are_called_whatever_messages_are_called() {
    let session = session().await;
    let bank = BankClient__::new(session.clone()).clone();
    assert_eq!(bank.new_(&names::Sender { id: 1 }).await.unwrap().id, 2);
    assert_eq!(
        bank.channel_(&names::Receiver { id: 1 }).await.unwrap().id,
        3
    );
    assert_eq!(bank.clone_(&names::Clone { id: 1 }).await.unwrap().id, 1);
    let mut all = bank
        .get_all(&names::Context { id: 1 })
        .open()
        .await
        .unwrap();
    assert_eq!(all.recv().await.unwrap().unwrap().id, 4);
    assert_eq!(
        bank.get_all_(&names::BankClient { id: 1 })
            .await
            .unwrap()
            .id,
        5
    );
    let kind = names::Result {
        methods: names::BankMethods::None.into(),
    };
    assert_eq!(bank.name(&kind).await.unwrap(), kind);
    let called = [BankMethods_::GET_ALL.name(), BankMethods_::GET_ALL_.name()];
    assert_eq!(called, ["names.v1.Bank/GetAll", "names.v1.Bank/get_all"]);
    let other = names::BankClientClient::new(session.clone());
    assert_eq!(other.fmt(&names::Status { id: 1 }).await.unwrap().id, 6);
    let t = names::TClient::new(session.clone());
    assert_eq!(t.into_(&names::Status { id: 1 }).await.unwrap().id, 7);
}
