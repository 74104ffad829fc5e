//! The server calls its client, over the session that the client has made.
//!
//! ```sh
//! cargo run --example callback --features rpc
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringmux::rpc::{Channel, Context, Method, Raw, Server, Status};

/// Served by the server.
const INSTALL: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.Installer/Install");
/// Served by the client.
const CONFIRM: Method<Bytes, Bytes> = Method::unary::<Raw>("example.v1.User/Confirm");

/// Asks its caller before it does something.
async fn install(cx: Context, package: Bytes) -> Result<Bytes, Status> {
    let caller = cx
        .channel()
        .ok_or_else(|| Status::internal("a call has a caller"))?;
    // Over as soon as the call is that it is made for.
    let answer = caller.call(&CONFIRM, &package).parent(&cx).await?;
    match &answer[..] {
        b"yes" => Ok("installed".into()),
        _ => Err(Status::failed_precondition("the user does not want it")),
    }
}

async fn confirm(_: Context, package: Bytes) -> Result<Bytes, Status> {
    println!("asked about {package:?}");
    let wanted = package != "everything";
    Ok(if wanted { "yes" } else { "no" }.into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = Arc::new(ringmux::listen("tcp://127.0.0.1:0").await?);
    let addr = listener.local_addr().to_string();
    let server = Server::builder().unary(INSTALL, install).build()?;
    let serving = Arc::clone(&listener);
    let serving = tokio::spawn(async move { server.serve(serving).await });

    // The client is a server as well, of the same session.
    let session = ringmux::connect(addr).await?;
    let user = Server::builder().unary(CONFIRM, confirm).build()?;
    let served = session.clone();
    tokio::spawn(async move { user.serve_session(served).await });

    let channel = Channel::new(session.clone());
    let answer = channel.call(&INSTALL, &"a package".into()).await?;
    println!("{answer:?}");
    let status = channel
        .call(&INSTALL, &"everything".into())
        .await
        .unwrap_err();
    println!("{status}");
    assert_eq!(status.message(), "the user does not want it");

    session.close();
    session.closed().await;
    listener.shutdown(Duration::from_secs(5)).await;
    serving.await??;
    Ok(())
}
