//! A stream as a byte stream: `AsyncRead` and `AsyncWrite`, with half-close.
//!
//! ```text
//! cargo run --release --example bytes
//! ```

use std::error::Error;

use ringmux::{Config, Driver, Engine};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const BYTES: usize = 32 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    // Both ends as tasks of one tokio-uring runtime: no message crosses a thread.
    tokio_uring::start(async {
        let engine = Engine::inline(Driver::TokioUring)?;
        let listener = engine
            .listen(&"127.0.0.1:0".parse()?, &Config::default())
            .await?;
        let client = engine
            .connect(listener.local_addr(), &Config::default())
            .await?;
        let server = listener.accept().await?;

        let upper = tokio_uring::spawn(async move {
            let (mut send, mut recv) = server.accept().await?.ok_or("no stream")?;
            let mut buf = vec![0; 64 * 1024];
            loop {
                let n = recv.read(&mut buf).await?;
                if n == 0 {
                    return send.shutdown().await.map_err(Box::<dyn Error>::from);
                }
                buf[..n].make_ascii_uppercase();
                send.write_all(&buf[..n]).await?;
            }
        });

        let (mut send, mut recv) = client.open("upper").await?;
        let writer = tokio_uring::spawn(async move {
            send.write_all(&vec![b'x'; BYTES]).await?;
            send.shutdown().await // ready when the socket has taken all of it
        });
        let mut answer = Vec::new();
        recv.read_to_end(&mut answer).await?;
        writer.await??;
        upper.await??;
        client.close();
        client.closed().await;
        assert!(answer.len() == BYTES && answer.iter().all(|byte| *byte == b'X'));
        println!("{} MiB there and back, in upper case", BYTES >> 20);
        Ok(())
    })
}
