//! Memory held by handlers of ended sessions.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ringmux::{Addr, Config};

use crate::count::{Footprint, alone};
use crate::host::{Host, Net, Soon, eventually, run};

const STREAMS: u32 = 8;
const ROUNDS: usize = 40;
/// Bytes sent of a message of 4 MiB on each stream: more than its window, but together less than the session's.
const PIECES: usize = 6;
const PIECE: usize = 16_000;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    bytes.push(kind << 4 | flags);
    bytes.extend_from_slice(&stream.to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Begins a message on each of its streams, after a short complete one; returns when all permitted bytes are sent.
fn attack(addr: &str) -> TcpStream {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut bytes = b"RINGMUX\x01".to_vec();
    bytes.extend(frame(7, 0, 0, &[]));
    let mut first = vec![1; PIECE];
    first[..4].copy_from_slice(&(4_u32 << 20).to_le_bytes());
    for n in 0..STREAMS {
        bytes.extend(frame(1, 0, 2 * n + 1, &[]));
        bytes.extend(frame(0, 2, 2 * n + 1, &[7; 1000]));
        bytes.extend(frame(0, 0, 2 * n + 1, &first));
    }
    socket.write_all(&bytes).unwrap();
    let (mut granted, mut heard) = (BTreeSet::new(), Vec::new());
    let mut at = 8;
    while granted.len() < STREAMS as usize {
        let mut buffer = [0; 4096];
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0, "it hung up");
        heard.extend_from_slice(&buffer[..n]);
        while heard.len() >= at + 8 {
            let head = &heard[at..at + 8];
            let len = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
            let stream = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
            if head[3] >> 4 == 4 && stream != 0 {
                granted.insert(stream);
            }
            at += 8 + len;
        }
    }
    for _ in 1..PIECES {
        for n in 0..STREAMS {
            socket
                .write_all(&frame(0, 0, 2 * n + 1, &[1; PIECE]))
                .unwrap();
        }
    }
    socket
}

pub(crate) fn handlers_of_ended_sessions_hold_no_unfinished_message_and_the_rest_is_counted(
    host: Host,
) {
    let _alone = alone();
    run(host, |net: Net| async move {
        let listener = net.listen(&Config::default()).await;
        let Addr::Tcp(addr) = listener.local_addr().clone() else {
            panic!("TCP")
        };
        let before = ringmux::process_stats();
        let mut held = Vec::new();
        let mut footprint = Footprint::now().bytes;
        for round in 0..ROUNDS {
            let addr = addr.clone();
            let attacking = tokio::task::spawn_blocking(move || attack(&addr));
            let session = listener.accept().soon().await.unwrap();
            let mut streams = Vec::new();
            for _ in 0..STREAMS {
                streams.push(session.accept().soon().await.unwrap().unwrap());
            }
            let socket = attacking.soon().await.unwrap();
            let all = u64::from(STREAMS) * (PIECES * PIECE) as u64;
            eventually("it has come", || session.stats().bytes_received >= all).await;
            drop(socket);
            session.closed().soon().await;
            let lies = u64::from(STREAMS) * 1256;
            let counted = session.stats().bytes_held;
            assert!((lies..4 * lies).contains(&counted), "{counted}");
            held.push((session, streams));
            if round == 0 {
                footprint = Footprint::now().bytes;
            }
        }
        let grown = Footprint::now().bytes - footprint;
        let came = (ROUNDS - 1) * STREAMS as usize * PIECES * PIECE;
        println!("{grown} bytes more, of {came} that came");
        assert!(grown < came as i64 / 4, "{grown} of {came}");
        let used = ringmux::process_stats().receive_pool_used - before.receive_pool_used;
        assert!(
            used >= held.len() as u64 * u64::from(STREAMS) * 1256,
            "{used}"
        );
        let (sessions, streams): (Vec<_>, Vec<_>) = held.into_iter().unzip();
        drop(streams);
        assert!(
            sessions
                .iter()
                .all(|session| session.stats().bytes_held == 0)
        );
        eventually("the pool is whole", || {
            ringmux::process_stats().receive_pool_used <= before.receive_pool_used
        })
        .await;
    });
}
