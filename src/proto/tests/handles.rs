//! What handles promise, whatever is done with them.

use super::*;

#[test]
fn a_lease_that_is_forgotten_is_no_part_of_the_next_message() {
    let mut pair = Pair::established(&small_config(), &small_config());
    let (mut sender, mut receiver) = pair.stream(D);
    for len in [3, 20_000, 5, 7] {
        now(sender.send(message(len))).unwrap();
        pair.drive();
    }
    for len in [3, 20_000] {
        let lease = now(receiver.lease()).unwrap().unwrap();
        assert_eq!(lease.len(), len);
        std::mem::forget(lease);
    }
    assert_eq!(now(receiver.recv()).unwrap().unwrap(), message(5));
    std::mem::forget(now(receiver.lease()).unwrap());
    assert_eq!(receiver.try_recv(), None);
    drop((sender, receiver));
    pair.is_clean();
}
