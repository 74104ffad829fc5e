//! The files under `deploy/`: they parse, and they allow the system calls that the program needs.

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

const SERVICES: [&str; 2] = ["ringmux.service", "ringmux-forward.service"];

#[test]
fn the_units_have_command_lines_that_the_program_takes() {
    for service in SERVICES {
        has_a_command_line_that_the_program_takes(service);
    }
}

fn has_a_command_line_that_the_program_takes(service: &str) {
    let unit = text(service);
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
    let mut arguments = command.clone();
    for default in &defaults {
        let (name, _) = default.split_once('=').expect("NAME=VALUE");
        for form in [format!("${{{name}}}"), format!("${name}")] {
            arguments = arguments.replace(&form, value(name));
        }
    }
    let arguments = arguments.strip_prefix(PROGRAM).expect("the program");
    assert!(!arguments.contains('$'), "{arguments}");
    // Help is shown only if the arguments before it are valid.
    let output = Command::new(env!("CARGO_BIN_EXE_ringmux"))
        .args(arguments.split_whitespace())
        .arg("--help")
        .output()
        .expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

#[test]
fn the_units_stop_after_connections_and_sessions_had_their_time() {
    for service in SERVICES {
        let unit = text(service);
        assert_eq!(settings(&unit, "KillSignal"), ["SIGTERM"]);
        let [time] = &settings(&unit, "TimeoutStopSec")[..] else {
            panic!("one time")
        };
        // The default of `--grace`, and the most that the two take to cut the rest.
        let needed = 30 + 3;
        assert!(time.parse::<u32>().expect("seconds") > needed, "{time}");
    }
}

#[test]
fn the_unit_of_forward_starts_before_its_server() {
    let commands = settings(&text("ringmux-forward.service"), "ExecStart");
    assert!(commands[0].contains(" forward --retry "), "{commands:?}");
}

#[test]
fn the_socket_is_where_the_service_listens_by_itself() {
    let [stream] = &settings(&text("ringmux.socket"), "ListenStream")[..] else {
        panic!("one socket, which is systemd:0")
    };
    let service = settings(&text("ringmux.service"), "Environment");
    assert!(service.contains(&format!("RINGMUX_LISTEN=tcp://{stream}")));
}

#[test]
fn the_units_allow_io_uring_and_no_privileges() {
    for service in SERVICES {
        allows_io_uring_and_no_privileges(service);
    }
}

fn allows_io_uring_and_no_privileges(service: &str) {
    let unit = text(service);
    let filters = settings(&unit, "SystemCallFilter").join(" ");
    for name in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(filters.contains(name), "{name}");
    }
    assert_eq!(settings(&unit, "NoNewPrivileges"), ["yes"]);
    assert_eq!(settings(&unit, "DynamicUser"), ["yes"]);
    assert_eq!(settings(&unit, "CapabilityBoundingSet"), [""]);
    assert_eq!(settings(&unit, "LimitMEMLOCK"), ["8M"]);
}

/// Skipped where systemd is not installed.
#[test]
fn systemd_understands_the_units_and_finds_little_open() {
    for unit in [
        "ringmux.socket",
        "ringmux.service",
        "ringmux-forward.service",
    ] {
        is_understood(unit);
    }
}

fn is_understood(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    for other in ["ringmux.service", name] {
        let text = text(other).replace(PROGRAM, "/bin/true");
        fs::write(dir.path().join(other), text).unwrap();
    }
    let unit = dir.path().join(name);
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command.args(arguments).arg(&unit).output().ok()
    };
    let Some(verified) = analyze(&["verify", "--man=no"]) else {
        println!("systemd-analyze is not installed");
        return;
    };
    // It also warns about units of the machine that this one depends on.
    let errors = String::from_utf8_lossy(&verified.stderr);
    let ours: Vec<&str> = errors.lines().filter(|line| line.contains(name)).collect();
    assert_eq!(ours, Vec::<&str>::new());

    if name.ends_with(".socket") {
        return;
    }
    let arguments = ["security", "--offline=true", "--threshold", EXPOSURE_MAX];
    if let Some(rated) = analyze(&arguments) {
        let rating = String::from_utf8_lossy(&rated.stdout);
        // Before systemd 250 only units that are loaded can be rated.
        let too_old = String::from_utf8_lossy(&rated.stderr).contains("unrecognized option");
        assert!(rated.status.success() || too_old, "{rating}");
    }
}
