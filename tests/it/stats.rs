//! Counters of sessions, and their sums by engine and process.

use crate::host::{Net, Soon, echo, round_trip};

test_on!(stats_of_engine_and_process_keep_what_sessions_did: tokio_thread_tcp tokio_uring_thread_tcp uring_thread_tcp);

async fn stats_of_engine_and_process_keep_what_sessions_did(net: Net) {
    const CALLS: u64 = 20;
    let before = ringmux::process_stats().totals;
    let entered = ringmux::process_stats().ring_enters;
    for round in 1..=3 {
        let (client, server) = net.pair().await;
        let serving = echo(server);
        for _ in 0..CALLS {
            round_trip(&client, "hello".into()).await;
        }
        assert_eq!(client.stats().opened, CALLS, "its own alone");
        assert_eq!(net.engine().stats().open(), 1);
        client.close();
        client.closed().soon().await;
        drop(client);
        serving.soon().await.unwrap();
        let stats = net.engine().stats();
        assert_eq!(
            (stats.started, stats.open(), stats.ended.closed),
            (round, 0, round)
        );
        assert_eq!(stats.sessions.opened, round * CALLS);
        assert_eq!(
            (stats.sessions.finished, stats.sessions.cancelled),
            (round * CALLS, 0)
        );
        assert_eq!(stats.sessions.messages_sent, round * CALLS);
        assert_eq!((stats.sessions.streams, stats.sessions.bytes_held), (0, 0));
    }
    if net.driver() == ringmux::Driver::Uring {
        assert!(ringmux::process_stats().ring_enters > entered);
    }
    // The process's counters include other tests.
    let now = ringmux::process_stats().totals;
    assert!(now.started >= before.started + 6);
    assert!(now.sessions.messages_received >= before.sessions.messages_received + 6 * CALLS);
}
