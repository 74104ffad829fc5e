//! A probe that gets lost, over DRPC, whose wire has no PING: the peer reads nothing, so that its window is closed, and its system
//! is asked ever more rarely whether it still is.
//!
//! The network is made and cut as in `partition`, for as long as each connection's system needs to send one probe.

use std::net::TcpListener;
use std::time::Duration;

use ringmux::drpc::Profile;
use ringmux::{Addr, Config, Engine};

use crate::DRIVERS;
use crate::child::{Child, follow_the_parent};
use crate::host::{Soon, eventually, pattern, tokio_runtime};
use crate::partition::loopback;

const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// The bytes that the peer's system takes of those sent: the rest stays in the socket, which has room for it.
const TAKEN: usize = 16 << 10;
const SENT: usize = 64 << 10;
/// Hundredths of a second to the next probe; the one behind it follows after twice as long.
const RARE: u64 = 200;

#[test]
fn over_drpc_a_peer_that_reads_nothing_is_kept_where_one_probe_of_its_closed_window_is_lost() {
    Child::in_own_network("probes").succeeds();
}

/// The sockets with a closed window: the time to the next probe, and the number of those that are not answered.
fn probed() -> Vec<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a system with this table");
    let row = |row: &str| {
        let fields: Vec<&str> = row.split_whitespace().collect();
        let (timer, at) = fields.get(5)?.split_once(':')?;
        let probes = fields.get(8)?.parse().ok()?;
        (timer == "04").then_some((u64::from_str_radix(at, 16).ok()?, probes))
    };
    table.lines().skip(1).filter_map(row).collect()
}

/// The whole test, in a process with a network of its own.
pub(crate) fn inside() {
    follow_the_parent();
    loopback("up");
    let config = Config::builder()
        .drpc(Profile::COCKROACH)
        .write_timeout(WRITE_TIMEOUT)
        .build()
        .unwrap();
    tokio_runtime().block_on(async {
        let mut sides = Vec::new();
        for driver in DRIVERS {
            let engine = Engine::thread(driver).expect("it works here");
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = socket2::SockRef::from(&listener);
            socket.set_recv_buffer_size(TAKEN).unwrap();
            let addr = Addr::Tcp(listener.local_addr().unwrap().to_string());
            let client = engine.connect(&addr, &config).soon().await.unwrap();
            let (peer, _) = listener.accept().unwrap();
            let (mut send, recv) = client.open("/m").soon().await.unwrap();
            send.send(pattern(SENT, 1)).soon().await.unwrap();
            sides.push((driver, client, engine, (send, recv), peer));
        }
        let all = |probed: &[(u64, u64)], is: fn(&(u64, u64)) -> bool| {
            probed.len() == DRIVERS.len() && probed.iter().all(is)
        };
        let open = || {
            for (driver, client, ..) in &sides {
                let end = client.state().end();
                assert!(end.is_none(), "{driver}: {end:?}");
            }
        };
        let until = async |what, is| {
            eventually(what, || {
                open();
                all(&probed(), is)
            })
            .await;
        };
        until("probes are rare", |(at, probes)| *at > RARE && *probes == 0).await;
        loopback("down");
        until("one is lost", |(_, probes)| *probes > 0).await;
        loopback("up");
        until("the next one is answered", |(_, probes)| *probes == 0).await;
        open();
    });
}
