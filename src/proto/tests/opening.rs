//! Opening streams: ids, grants, order, and streams that never leave.

use super::*;

#[test]
fn a_message_sent_before_the_handshake_arrives_with_it() {
    let mut pair = Pair::new(&small_config(), &small_config());
    let mut stream = now(pair.ends[D].session().open("early")).unwrap();
    now(stream.send_slice(b"hello")).unwrap();
    stream.finish().unwrap();
    pair.drive();
    let mut accepted = now(pair.ends[A].session().accept()).unwrap();
    assert_eq!(accepted.opening(), "early");
    assert_eq!(now(accepted.recv()).unwrap().unwrap(), "hello");
    assert_eq!(now(accepted.recv()).unwrap(), None);
    drop((stream, accepted));
    pair.is_clean();
}
