//! How often handles wake the engine, and how often they need not.

use super::solo::Solo;
use super::*;

/// A waker that counts stands for the driver; whether it sleeps is up to the test.
#[test]
fn a_ring_wakes_a_parked_session_once_and_a_busy_one_never() {
    let mut solo = Solo::new(Role::Dialer, &Config::default());
    let session = solo.end.session().clone();
    let link = Arc::clone(solo.end.connection.link());
    let engine = Arc::new(Bell::default());
    let since = session.stats();
    let wakes = || {
        let now = session.stats();
        (
            now.wakes_issued - since.wakes_issued,
            now.wakes_suppressed - since.wakes_suppressed,
        )
    };

    assert!(link.prepare_sleep(&Waker::from(Arc::clone(&engine))));
    let mut streams: Vec<_> = (0..5).map(|_| session.try_open("").unwrap()).collect();
    assert_eq!(
        (wakes(), engine.0.load(Ordering::Relaxed)),
        ((1, 0), 1),
        "not yet taken"
    );
    link.awake();
    solo.said();
    assert_eq!((wakes(), engine.0.load(Ordering::Relaxed)), ((1, 4), 1));

    // It is up.
    for stream in &mut streams {
        stream.try_send("a".into()).unwrap();
        stream.try_send("joins the one before".into()).unwrap();
    }
    solo.said();
    assert_eq!((wakes(), engine.0.load(Ordering::Relaxed)), ((1, 9), 1));

    // What comes between the announcement of a sleep and the look for work keeps it up.
    drop(streams);
    assert!(!link.prepare_sleep(&Waker::from(Arc::clone(&engine))));
    solo.said();
    assert_eq!((wakes(), engine.0.load(Ordering::Relaxed)), ((1, 14), 1));

    // Requests of the session ring as well.
    assert!(link.prepare_sleep(&Waker::from(Arc::clone(&engine))));
    session.close();
    session.close();
    link.awake();
    solo.said();
    assert_eq!((wakes(), engine.0.load(Ordering::Relaxed)), ((2, 14), 2));
}
