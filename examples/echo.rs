//! A server that sends every message back, and a client that measures it.
//!
//! ```text
//! cargo run --release --example echo                        both ends in one process
//! cargo run --release --example echo -- serve tcp://127.0.0.1:4500
//! cargo run --release --example echo -- call  tcp://127.0.0.1:4500
//! ```

use std::error::Error;
use std::time::Instant;

use ringmux::{Chain, Listener, Session};

const ROUND_TRIPS: u32 = 10_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let listener = ringmux::listen("tcp://127.0.0.1:0").await?;
            let addr = listener.local_addr().to_string();
            tokio::spawn(serve(listener));
            call(&addr).await
        }
        ["serve", addr] => {
            let listener = ringmux::listen(addr).await?;
            println!("listening on {}", listener.local_addr());
            serve(listener).await;
            Ok(())
        }
        ["call", addr] => call(addr).await,
        _ => Err("usage: echo [serve ADDR | call ADDR]".into()),
    }
}

async fn serve(listener: Listener) {
    while let Ok(session) = listener.accept().await {
        tokio::spawn(serve_session(session));
    }
}

async fn serve_session(session: Session) {
    while let Ok(Some((mut send, mut recv))) = session.accept().await {
        tokio::spawn(async move {
            while let Ok(Some(message)) = recv.recv().await {
                if send.send(message).await.is_err() {
                    return;
                }
            }
            // Fails if the caller has cancelled the stream or disconnected.
            let _ = send.finish();
        });
    }
    if let Some(end) = session.state().end() {
        println!("a session ended: {}", Chain(&end));
    }
}

async fn call(addr: &str) -> Result<(), Box<dyn Error>> {
    let session = ringmux::connect(addr).await?;
    let (mut send, mut recv) = session.open("echo").await?;
    let start = Instant::now();
    for n in 0..ROUND_TRIPS {
        send.send_slice(&n.to_le_bytes()).await?;
        let answer = recv.recv().await?.ok_or("the server finished early")?;
        assert_eq!(answer, n.to_le_bytes()[..]);
    }
    println!(
        "{ROUND_TRIPS} round trips over {}, {:?} each",
        session.driver(),
        start.elapsed() / ROUND_TRIPS
    );
    send.finish()?;
    // `close` returns at once; `closed` when all bytes have left, so that the program may end.
    session.close();
    session.closed().await;
    Ok(())
}
