//! A client that keeps its session: the server may be unreachable, restarted, or started later.
//!
//! ```text
//! cargo run --release --example echo -- serve tcp://127.0.0.1:4500     stop it, start it again
//! cargo run --release --features manage --example reconnect -- tcp://127.0.0.1:4500
//! ```
//! Without an address it is its own server, which is down for a second in the middle.

use std::error::Error;
use std::time::Duration;

use ringmux::manage::{Dial, Event, ManageError, Manager};
use ringmux::{Addr, Chain, Config, Engine, Listener, Session};

const CALLS: u32 = 10;
/// How long a call waits for a session.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let engine = Engine::auto()?;
    let addr: Addr = match std::env::args().nth(1) {
        Some(addr) => addr.parse()?,
        None => {
            let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
            let addr = listener.local_addr().clone();
            tokio::spawn(serve_with_a_break(listener));
            addr
        }
    };

    let manager = Manager::builder(Dial::new(engine, addr.clone(), Config::default()))
        .on_session(|session| async move {
            // Here a client would sign in, or subscribe again.
            println!("  new session, round trip {:?}", session.ping().await?);
            Ok(())
        })
        .build()?;
    let running = tokio::spawn(manager.start()?);
    let telling = tokio::spawn(tell(manager.clone()));

    for n in 0..CALLS {
        match manager
            .with_session_within(PATIENCE, |session| call(session, n))
            .await
        {
            Ok(Ok(answer)) => println!("call {n}: {answer}"),
            // The application decides whether to call again.
            Ok(Err(error)) => println!("call {n} failed: {error:#}"),
            Err(error @ ManageError::NotReady { .. }) => {
                println!("call {n} given up: {}", Chain(&error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!("{}", manager.describe());
    manager.close();
    running.await??;
    telling.await?;
    Ok(())
}

async fn call(session: Session, n: u32) -> Result<String, ringmux::Error> {
    let (mut send, mut recv) = session.open("echo").await?;
    send.send(format!("message {n}")).await?;
    send.finish()?;
    let answer = recv.recv().await?;
    let answer = answer.unwrap_or_else(|| "none: the server finished early".into());
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

async fn tell(manager: Manager) {
    let mut events = manager.subscribe();
    drop(manager);
    while let Some(event) = events.next().await {
        match event {
            Event::Ready { number, .. } => println!("  session {number} is ready"),
            Event::Lost { number, reason, .. } => {
                println!("  session {number} is lost: {}", Chain(&reason));
            }
            Event::Reconnecting { pause, .. } => println!("  next attempt in {pause:?}"),
            _ => {}
        }
    }
}

/// Serves three streams, is down for a second, and serves again.
async fn serve_with_a_break(listener: Listener) -> Result<(), Box<dyn Error + Send + Sync>> {
    let addr = listener.local_addr().to_string();
    serve(listener, 3).await?;
    println!("  the server is away");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let listener = ringmux::listen(addr).await?;
    println!("  the server is back");
    serve(listener, u32::MAX).await
}

/// Serves `streams` streams of one session after the other, and closes.
async fn serve(listener: Listener, streams: u32) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut left = streams;
    while left > 0 {
        let session = listener.accept().await?;
        while left > 0
            && let Ok(Some((mut send, mut recv))) = session.accept().await
        {
            left -= 1;
            while let Ok(Some(message)) = recv.recv().await {
                // Fails if the caller has disconnected.
                let _ = send.send(message).await;
            }
            let _ = send.finish();
        }
        session.close();
        session.closed().await;
    }
    Ok(())
}
