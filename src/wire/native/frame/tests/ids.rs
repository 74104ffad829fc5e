//! Ids: parity, order round the wrap, next.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

#[test]
fn odd_ids_are_opened_by_the_dialer_and_even_ids_by_the_acceptor() {
    for number in [1, 3, 0x7fff_ffff, u32::MAX] {
        assert_eq!(id(number).opener(), Role::Dialer);
    }
    for number in [2, 4, 0x8000_0000, u32::MAX - 1] {
        assert_eq!(id(number).opener(), Role::Acceptor);
    }
}

#[test]
fn ids_step_by_two_and_wrap_past_zero() {
    for (number, next) in [(1, 3), (2, 4), (u32::MAX - 1, 2), (u32::MAX, 1)] {
        assert_eq!(id(number).next(), id(next));
    }
}

#[test]
fn order_continues_round_the_wrap() {
    for (earlier, later) in [
        (1, 3),
        (2, 4),
        (u32::MAX, 1),
        (u32::MAX - 1, 2),
        (0xffff_fff1, 0x0000_0011),
        (1, 0x7fff_ffff),
        (0x7fff_ffff, 0x8000_0001),
    ] {
        assert!(id(later).is_after(id(earlier)), "{later} after {earlier}");
        assert!(!id(earlier).is_after(id(later)), "{earlier} before {later}");
    }
}

#[test]
fn ids_half_the_circle_apart_are_in_no_order() {
    assert_eq!(id(1).serial_cmp(id(0x8000_0001)), None);
    assert_eq!(id(0x8000_0001).serial_cmp(id(1)), None);
    let (before, after) = (id(0x7fff_ffff), id(0x8000_0003));
    assert_eq!(before.serial_cmp(id(1)), Some(Ordering::Greater));
    assert_eq!(after.serial_cmp(id(1)), Some(Ordering::Less));
}

#[test]
fn an_id_is_shown_as_its_number() {
    assert_eq!(id(7).to_string(), "7");
    assert_eq!(format!("{:?}", id(7)), "StreamId(7)");
    assert_eq!(Role::Dialer.to_string(), "dialer");
}

proptest! {
    #[test]
    fn the_next_id_is_after_and_has_the_same_opener(number in 1u32..) {
        let id = id(number);
        prop_assert!(id.next().is_after(id));
        prop_assert_eq!(id.next().opener(), id.opener());
        for role in [Role::Dialer, Role::Acceptor] {
            prop_assert_eq!(id.is_opened_by(role), id.opener() == role);
        }
    }

    #[test]
    fn an_id_less_than_half_the_circle_ahead_is_after(number in 1u32.., steps in 1u32..1 << 30) {
        let ahead = number.wrapping_add(steps << 1);
        prop_assume!(ahead != 0);
        prop_assert!(id(ahead).is_after(id(number)));
    }

    #[test]
    fn turning_a_comparison_round_reverses_it(a in 1u32.., b in 1u32..) {
        let reversed = id(b).serial_cmp(id(a)).map(Ordering::reverse);
        prop_assert_eq!(id(a).serial_cmp(id(b)), reversed);
        prop_assert_eq!(id(a).serial_cmp(id(a)), Some(Ordering::Equal));
    }

    #[test]
    fn ids_of_different_openers_are_in_no_order(a in 1u32.., b in 1u32..) {
        prop_assume!((a ^ b) & 1 == 1);
        prop_assert_eq!(id(a).serial_cmp(id(b)), None);
    }
}
