//! Many connects to one listener at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use ringmux::drpc::Profile;
use ringmux::{Addr, Chain, Config, ConfigBuilder, ConnectError, Listener, Session};
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

/// Looks at a burst whose places are kept for a second: the machine may keep a client waiting for longer, which is hung up on then.
const LOOKS: usize = 4;

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

/// [`burst`], a few times, until all get a session.
async fn burst_in_time(net: &Net, listener: &Listener, config: &Config) {
    let mut missed = Vec::new();
    for _ in 0..LOOKS {
        let begun = Instant::now();
        let failed = burst(net, listener, config, BURST).await;
        println!("{:?}: {BURST} in {:?}", net.host, begun.elapsed());
        if failed.is_empty() {
            return;
        }
        missed.push(failed);
    }
    panic!("{missed:#?}");
}

/// Connects to a listener that hangs up on a client that the machine keeps waiting for too long: then again.
pub(crate) async fn in_time(net: &Net, listener: &Listener, config: &Config) -> Session {
    let connecting = async {
        loop {
            match net.engine().connect(listener.local_addr(), config).await {
                Err(ConnectError::Handshake { error, .. }) if error.is_retryable() => {}
                connected => return connected.unwrap(),
            }
        }
    };
    connecting.soon().await
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

/// More than may be in their handshake, which has a second of each pause. Only time in which the listener's thread runs counts.
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
    burst_in_time(&net, &listener, &config).await;
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

/// Connects, sends nothing, and connects again when it is hung up on, which it counts.
async fn silent(addr: String, evicted: Arc<AtomicU32>) {
    loop {
        if let Ok(mut socket) = TcpStream::connect(&addr).await {
            let _ = socket.read_to_end(&mut Vec::new()).await;
            evicted.fetch_add(1, Ordering::Relaxed);
        }
    }
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
    let evicted = Arc::new(AtomicU32::new(0));
    let mut attackers = tokio::task::JoinSet::new();
    for _ in 0..200 {
        attackers.spawn(silent(addr.clone(), Arc::clone(&evicted)));
    }
    let evicted = || evicted.load(Ordering::Relaxed);
    // All places are theirs, and others of them wait.
    eventually("one was evicted", || evicted() > 0).await;
    burst_in_time(&net, &listener, &config).await;
    assert!(evicted() >= HALF_OPEN, "{}", evicted());
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
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(addr).soon().await.unwrap());
    }
    // Accepting was paused until the first one was evicted, and is again.
    silent[0].read_to_end(&mut Vec::new()).soon().await.unwrap();
    let begun = Instant::now();
    listener.shutdown(Duration::from_secs(40)).soon().await;
    // Handshakes have a second of the grace.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}
