//! The files under `deploy/`: they parse, and they allow what the program needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const PROGRAM: &str = "/usr/local/bin/ringmux";
/// `systemd-analyze security` rates units from 0, nothing is open, to 100.
const EXPOSURE_MAX: &str = "20";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).expect("the file is there")
}

/// The values of a setting, in the unit's order.
fn settings(unit: &str, name: &str) -> Vec<String> {
    unit.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_profile_allows_the_three_system_calls_of_io_uring_and_nothing_else() {
    let profile: Value = serde_json::from_str(&text("seccomp.json")).expect("JSON");
    let keys: Vec<&String> = profile.as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["syscalls"]);
    let expected = serde_json::json!([{
        "names": ["io_uring_setup", "io_uring_enter", "io_uring_register"],
        "action": "SCMP_ACT_ALLOW",
    }]);
    assert_eq!(profile["syscalls"], expected);
}

#[test]
fn the_unit_has_a_command_line_that_the_program_takes() {
    let unit = text("ringmux.service");
    let defaults = settings(&unit, "Environment");
    let value = |name: &str| {
        let found = defaults
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("{name} has no default"))
    };
    let [command] = &settings(&unit, "ExecStart")[..] else {
        panic!("one command")
    };
    let arguments = command
        .replace("${RINGMUX_LISTEN}", value("RINGMUX_LISTEN"))
        .replace("$RINGMUX_ALLOW", value("RINGMUX_ALLOW"))
        .replace("$RINGMUX_OPTIONS", value("RINGMUX_OPTIONS"));
    let arguments = arguments.strip_prefix(PROGRAM).expect("the program");
    assert!(!arguments.contains('$'), "{arguments}");
    // Help is shown after everything before it was understood.
    let output = Command::new(env!("CARGO_BIN_EXE_ringmux"))
        .args(arguments.split_whitespace())
        .arg("--help")
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn the_unit_stops_after_connections_and_sessions_had_their_time() {
    let unit = text("ringmux.service");
    assert_eq!(settings(&unit, "KillSignal"), ["SIGTERM"]);
    let [time] = &settings(&unit, "TimeoutStopSec")[..] else {
        panic!("one time")
    };
    // The default of `--grace`, and what `serve` takes at most to cut what is left.
    let needed = 30 + 2;
    assert!(time.parse::<u32>().expect("seconds") > needed, "{time}");
}

#[test]
fn the_unit_allows_io_uring_and_no_privileges() {
    let unit = text("ringmux.service");
    let filters = settings(&unit, "SystemCallFilter").join(" ");
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(filters.contains(name), "{name}");
    }
    assert_eq!(settings(&unit, "NoNewPrivileges"), ["yes"]);
    assert_eq!(settings(&unit, "DynamicUser"), ["yes"]);
    assert_eq!(settings(&unit, "CapabilityBoundingSet"), [""]);
    assert_eq!(settings(&unit, "LimitMEMLOCK"), ["8M"]);
}

/// Where systemd is not installed there is nothing to ask.
#[test]
fn systemd_understands_the_unit_and_finds_little_open() {
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("ringmux.service");
    fs::write(&unit, text("ringmux.service").replace(PROGRAM, "/bin/true")).unwrap();
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&unit).output().ok()
    };
    let Some(verified) = analyze(&["verify", "--man=no"]) else {
        println!("systemd-analyze is not installed");
        return;
    };
    // It also warns about units of the machine that this one wants.
    let errors = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<&str> = errors
        .lines()
        .filter(|line| line.contains("ringmux.service"))
        .collect();
    assert_eq!(ours, Vec::<&str>::new());

    let arguments = ["security", "--offline=true", "--threshold", EXPOSURE_MAX];
    if let Some(rated) = analyze(&arguments) {
        let rating = String::from_utf8_lossy(&rated.stdout);
        // Before systemd 250 only units that are loaded can be rated.
        let too_old = String::from_utf8_lossy(&rated.stderr).contains("unrecognized option");
        assert!(rated.status.success() || too_old, "{rating}");
    }
}
