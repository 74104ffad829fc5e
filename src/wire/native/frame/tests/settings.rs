//! Floors, ceilings, repeated and unknown ids.

use proptest::prelude::*;

use super::*;

fn frame(entries: &[(u16, u32)]) -> Result<Settings, FrameError> {
    let mut payload = Vec::new();
    for (id, value) in entries {
        payload.extend_from_slice(&id.to_le_bytes());
        payload.extend_from_slice(&value.to_le_bytes());
    }
    let header = Header {
        length: u32::try_from(payload.len()).unwrap(),
        kind: 7,
        flags: 0,
        stream: 0,
    };
    match Frame::parse(header, &payload)? {
        Frame::Settings(settings) => Ok(settings),
        other => panic!("{other:?}"),
    }
}

/// Id, floor, ceiling, as the specification has them.
const BOUNDS: [(u16, u32, u32); 5] = [
    (1, 16_384, 65_536),
    (2, 65_536, u32::MAX),
    (3, 32_768, u32::MAX),
    (4, 262_144, u32::MAX),
    (5, 16, u32::MAX),
];

fn value_of(settings: Settings, id: u16) -> u32 {
    match id {
        1 => settings.max_frame,
        2 => settings.max_message,
        3 => settings.stream_window,
        4 => settings.session_window,
        _ => settings.streams,
    }
}

#[test]
fn what_is_left_out_is_at_its_floor() {
    assert_eq!(frame(&[]), Ok(Settings::FLOORS));
    for (id, floor, _) in BOUNDS {
        assert_eq!(value_of(Settings::FLOORS, id), floor);
    }
    let raised = Settings {
        streams: 17,
        ..Settings::FLOORS
    };
    assert_eq!(frame(&[(5, 17)]), Ok(raised));
}

#[test]
fn a_value_may_only_raise_its_floor() {
    for (id, floor, ceiling) in BOUNDS {
        for value in [floor, floor + 1, ceiling] {
            assert_eq!(frame(&[(id, value)]).map(|s| value_of(s, id)), Ok(value));
        }
        for value in [0, floor - 1] {
            let error = FrameError::SettingBelowFloor { id, value, floor };
            assert_eq!(frame(&[(id, value)]), Err(error));
            assert!(error.to_string().ends_with("a value may only raise it"));
        }
    }
}

#[test]
fn a_frame_size_above_64_kib_is_refused() {
    let error = FrameError::SettingAboveCeiling {
        id: 1,
        value: 65_537,
        ceiling: 65_536,
    };
    assert_eq!(frame(&[(1, 65_537)]), Err(error));
    let settings = Settings {
        max_frame: 65_537,
        ..Settings::FLOORS
    };
    assert_eq!(settings.validate(), Err(error));
}

#[test]
fn a_role_is_one_of_the_two_or_left_out() {
    let role = |value| frame(&[(6, value)]).map(|settings| settings.role);
    assert_eq!(frame(&[]).map(|settings| settings.role), Ok(None));
    assert_eq!(role(1), Ok(Some(Role::Dialer)));
    assert_eq!(role(2), Ok(Some(Role::Acceptor)));
    assert_eq!(
        role(0).map_err(|error| error.rule()),
        Err("setting-below-floor")
    );
    for value in [3, u32::MAX] {
        let rule = role(value).map_err(|error| error.rule());
        assert_eq!(rule, Err("setting-above-ceiling"));
    }
}

fn unknown_ids_are_ignored_however_often_they_come() {
    for id in [0, 7, 8, 9, 256 + 1, 0xffff] {
        let entries = [(id, 0), (2, 70_000), (id, u32::MAX), (id, 0)];
        let expected = Settings {
            max_message: 70_000,
            ..Settings::FLOORS
        };
        assert_eq!(frame(&entries), Ok(expected), "{id}");
    }
}

#[test]
fn a_known_id_that_comes_twice_is_refused_with_whatever_value() {
    for (id, floor, _) in BOUNDS {
        for again in [floor, floor + 1, 0] {
            let twice = [(id, floor), (77, 65_536), (id, again)];
            assert_eq!(frame(&twice), Err(FrameError::SettingTwice { id }));
        }
    }
}

#[test]
fn as_many_entries_as_there_is_room_for_are_accepted_and_one_more_is_not() {
    let entries: Vec<_> = (100..100 + 2731).map(|id| (id, 0)).collect();
    assert_eq!(frame(&entries[..2730]), Ok(Settings::FLOORS));
    assert_eq!(
        frame(&entries).map_err(|error| error.rule()),
        Err("frame-too-long")
    );
}

proptest! {
    #[test]
    fn parsing_agrees_with_a_naive_reading(
        entries in prop::collection::vec(
            (0u16..8, prop_oneof![0u32..4, 0u32..70_000, any::<u32>()]),
            0..8,
        ),
    ) {
        let mut expected = Settings::FLOORS;
        let mut seen = std::collections::HashSet::new();
        let mut right = true;
        for &(id, value) in &entries {
            right &= seen.insert(id) || !(1..=6).contains(&id);
            match id {
                1 => { right &= (16_384..=65_536).contains(&value); expected.max_frame = value; }
                2 => { right &= value >= 65_536; expected.max_message = value; }
                3 => { right &= value >= 32_768; expected.stream_window = value; }
                4 => { right &= value >= 262_144; expected.session_window = value; }
                5 => { right &= value >= 16; expected.streams = value; }
                6 => match value {
                    1 => expected.role = Some(Role::Dialer),
                    2 => expected.role = Some(Role::Acceptor),
                    _ => right = false,
                },
                _ => {}
            }
        }
        prop_assert_eq!(frame(&entries).ok(), right.then_some(expected));
    }
}
