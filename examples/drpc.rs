//! A service over DRPC, as peers of storj or CockroachDB speak it, and a client of it.
//!
//! ```text
//! cargo run --features rpc-prost --example drpc                              both, in one process
//! cargo run --features rpc-prost --example drpc -- serve 127.0.0.1:7777
//! cargo run --features rpc-prost --example drpc -- call 127.0.0.1:7777 drpc-cockroach
//! ```
//! The server takes clients of ringmux's own wire on the same port.

use std::time::Duration;

use ringmux::drpc::Profile;
use ringmux::rpc::{Channel, Context, Sender, Server, Status};
use ringmux::{Addr, Config, Engine, Wire};

/// A message of protobuf; `ringmux-build` makes such types of a `.proto` file.
#[derive(Clone, PartialEq, prost::Message)]
struct Cookie {
    #[prost(string, tag = "1")]
    kind: String,
}

/// Called as `/sesamestreet.CookieMonster/EatCookie`, and so on.
#[ringmux::service(name = "sesamestreet.CookieMonster", codec = "prost")]
trait CookieMonster {
    async fn eat_cookie(&self, cx: &Context, cookie: Cookie) -> Result<Cookie, Status>;
    async fn bake(&self, cx: &Context, like: Cookie, out: Sender<Cookie>) -> Result<(), Status>;
}

struct Monster;

impl CookieMonster for Monster {
    async fn eat_cookie(&self, cx: &Context, cookie: Cookie) -> Result<Cookie, Status> {
        let who = cx.metadata().get_str("who").unwrap_or("a stranger");
        match &*cookie.kind {
            "spinach" => Err(Status::invalid_argument("that is no cookie")),
            kind => Ok(Cookie {
                kind: format!("crumbs of {kind}, thanks to {who}"),
            }),
        }
    }

    async fn bake(&self, _: &Context, like: Cookie, mut out: Sender<Cookie>) -> Result<(), Status> {
        for _ in 0..3 {
            out.send(like.clone()).await?;
        }
        Ok(())
    }
}

async fn serve(addr: &Addr) -> Result<(Addr, Server, ringmux::Listener), ringmux::Error> {
    // A client that begins as DRPC gets that wire, every other one ringmux's own.
    let config = Config::builder()
        .detect_drpc(Some(Profile::COCKROACH))
        .build()?;
    let listener = Engine::auto()?.listen(addr, &config).await?;
    let server = Server::builder().add(CookieMonsterServer::new(Monster));
    let server = server.build().expect("no method is there twice");
    Ok((listener.local_addr().clone(), server, listener))
}

async fn call(addr: &Addr, wire: Wire) -> Result<(), ringmux::Error> {
    let config = Config::builder().wire(wire).build()?;
    let session = Engine::auto()?.connect(addr, &config).await?;
    println!("over {}:", session.wire());
    let monster = CookieMonsterClient::new(Channel::new(session));
    for kind in ["oatmeal", "spinach"] {
        let cookie = Cookie { kind: kind.into() };
        let eating = monster.eat_cookie(&cookie).metadata("who", "ringmux");
        // Nothing of the time is said to a server of DRPC: at its end the call is cancelled.
        match eating.timeout(Duration::from_secs(1)).await {
            Ok(crumbs) => println!("  {kind}: {}", crumbs.kind),
            Err(status) => println!("  {kind}: {status}"),
        }
    }
    let cookie = Cookie {
        kind: "ginger".into(),
    };
    let mut baked = monster.bake(&cookie).open().await?;
    while let Some(cookie) = baked.recv().await? {
        println!("  baked: {}", cookie.kind);
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", addr] => {
            let (addr, server, listener) = serve(&addr.parse()?).await?;
            println!("listening at {addr}");
            server.serve(listener).await?;
        }
        ["call", addr] => call(&addr.parse()?, "drpc".parse()?).await?,
        ["call", addr, wire] => call(&addr.parse()?, wire.parse()?).await?,
        [] => {
            let (addr, server, listener) = serve(&"127.0.0.1:0".parse()?).await?;
            tokio::spawn(async move { server.serve(listener).await });
            for wire in ["drpc-cockroach", "native"] {
                call(&addr, wire.parse()?).await?;
            }
        }
        _ => return Err("usage: drpc [serve ADDR | call ADDR [WIRE]]".into()),
    }
    Ok(())
}
