//! Many connects to one listener at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringmux::drpc::Profile;
use ringmux::{Addr, Chain, Config, ConfigBuilder, Limit, Listener, Session};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, MutexGuard};

use crate::host::{Net, Soon, eventually};

test_on!(hundreds_of_connects_at_once_all_get_a_session:
    tokio_inline_tcp tokio_thread_tcp tokio_uring_inline_tcp tokio_uring_thread_tcp
    uring_inline_tcp uring_thread_tcp shared_tcp
    tokio_inline_unix tokio_uring_thread_unix uring_thread_unix
);

on_each_driver!(
    connects_at_once_within_the_default_limits_all_get_a_session,
    connects_at_once_whose_wire_is_detected_all_get_a_session,
    connects_at_once_to_a_shared_port_all_get_a_session,
    a_burst_beside_silent_peers_that_return_is_served,
    a_shutdown_while_accepting_is_paused_ends_at_once,
);

/// Connects at once, several times as many as may be in their handshake. Each needs two descriptors here.
const BURST: usize = 300;
const HALF_OPEN: u32 = 64;

/// One burst at a time, for the descriptors of the process; all that it may have.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    let alone = ALONE.lock().await;
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files).unwrap();
    alone
}

/// With time for a machine that is busy: in none of it may an honest client be evicted. They leave the memory for windows to other
/// cases.
fn patient() -> ConfigBuilder {
    Config::builder()
        .connect_timeout(Duration::from_secs(40))
        .handshake_timeout(Duration::from_secs(40))
        .min_half_open_time(Duration::from_secs(40))
        .max_half_open(HALF_OPEN)
        .receive_pool(1 << 20)
}

/// Takes sessions and keeps them.
async fn keep(listener: &Listener) -> ! {
    let mut kept: Vec<Session> = Vec::new();
    loop {
        kept.push(listener.accept().await.unwrap());
    }
}

/// Connects `n` times at once, and counts what went wrong, by its text. A session ends at once: the more there are in the process,
/// the less may the windows of other cases grow.
async fn burst(
    net: &Net,
    listener: &Listener,
    config: &Config,
    n: usize,
) -> BTreeMap<String, usize> {
    let connect = |_| async {
        let connected = net.engine().connect(listener.local_addr(), config).await;
        connected.err()
    };
    let connects = join_all((0..n).map(connect));
    let ended = tokio::select! {
        ended = connects.soon() => ended,
        () = async { keep(listener).await } => unreachable!(),
    };
    let mut failed = BTreeMap::new();
    for error in ended.iter().flatten() {
        *failed.entry(Chain(error).to_string()).or_default() += 1;
    }
    failed
}

async fn hundreds_of_connects_at_once_all_get_a_session(net: Net) {
    let _alone = alone().await;
    let config = patient().build().unwrap();
    let listener = net.listen(&config).await;
    let begun = Instant::now();
    let failed = burst(&net, &listener, &config, BURST).await;
    println!("{:?}: {BURST} in {:?}", net.host, begun.elapsed());
    assert!(failed.is_empty(), "{failed:#?}");
}

/// More than may be in their handshake, which has a second of each pause: only time in which the listener's thread runs counts, so
/// that it is enough on a machine that is busy.
async fn connects_at_once_within_the_default_limits_all_get_a_session(net: Net) {
    let _alone = alone().await;
    let defaults = Config::default();
    assert!((defaults.max_half_open() as usize) < BURST);
    let config = patient()
        .max_half_open(defaults.max_half_open())
        .min_half_open_time(defaults.min_half_open_time())
        .build()
        .unwrap();
    let listener = net.listen(&config).await;
    let before = evicted();
    let failed = burst(&net, &listener, &config, BURST).await;
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(evicted(), before);
}

async fn connects_at_once_whose_wire_is_detected_all_get_a_session(net: Net) {
    let _alone = alone().await;
    let config = patient().detect_drpc(Some(Profile::STORJ)).build().unwrap();
    let listener = net.listen(&config).await;
    let failed = burst(&net, &listener, &config, BURST).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

async fn connects_at_once_to_a_shared_port_all_get_a_session(net: Net) {
    let _alone = alone().await;
    let config = patient().build().unwrap();
    let addr = net.free_addr();
    let listening = net.engine().listen_shared(&addr, &config);
    let listener = listening.soon().await.unwrap();
    let failed = burst(&net, &listener, &config, BURST).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Connects, sends nothing, and connects again when it is hung up on.
async fn silent(addr: String) {
    loop {
        if let Ok(mut socket) = TcpStream::connect(&addr).await {
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    }
}

fn evicted() -> u64 {
    let totals = ringmux::process_stats().totals;
    totals.sessions.tripped.get(Limit::HalfOpen)
}

async fn a_burst_beside_silent_peers_that_return_is_served(net: Net) {
    let _alone = alone().await;
    // Longer than on an idle machine, where 250 ms is enough.
    let config = patient().min_half_open_time(Duration::from_secs(1));
    let config = config.build().unwrap();
    let listener = net.listen(&config).await;
    let Addr::Tcp(addr) = listener.local_addr() else {
        panic!("a TCP host");
    };
    let before = evicted();
    let mut attackers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        attackers.spawn(silent(addr.clone()));
    }
    // All places are theirs, and others of them wait.
    eventually("one was evicted", || evicted() > before).await;
    let begun = Instant::now();
    let failed = burst(&net, &listener, &config, 300).await;
    println!("{:?}: {:?}", net.host, begun.elapsed());
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(evicted() >= before + 64, "{}", evicted() - before);
}

async fn a_shutdown_while_accepting_is_paused_ends_at_once(net: Net) {
    let config = patient()
        .max_half_open(3)
        .min_half_open_time(Duration::from_millis(10));
    let config = config.build().unwrap();
    let listener = net.listen(&config).await;
    let Addr::Tcp(addr) = listener.local_addr() else {
        panic!("a TCP host");
    };
    let before = evicted();
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(addr).soon().await.unwrap());
    }
    eventually("accepting was paused", || evicted() > before).await;
    let begun = Instant::now();
    listener.shutdown(Duration::from_secs(40)).soon().await;
    // Handshakes have a second of the grace.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}
