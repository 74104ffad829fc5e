//! The program as a user meets it: arguments in, lines and exit codes out.

use std::process::{Command, Output};

fn ringmux(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringmux"))
        .args(line.split_whitespace())
        .env_remove("RUST_LOG")
        .output()
        .expect("the program starts")
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("stdout is text")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("stderr is text")
}

#[test]
fn help_shows_commands_examples_and_exit_codes() {
    let output = ringmux("--help");
    assert_eq!(output.status.code(), Some(0));
    for expected in ["ping", "Exit codes:"] {
        assert!(stdout(&output).contains(expected), "{expected}");
    }
    for command in ["ping"] {
        let output = ringmux(&format!("{command} --help"));
        assert_eq!(output.status.code(), Some(0));
        assert!(stdout(&output).contains("Examples:"), "{command}");
    }
}

#[test]
fn an_address_without_a_server_is_one_clear_line() {
    let output = ringmux("ping -c 1 tcp://127.0.0.1:1");
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.starts_with("error: cannot connect to tcp://127.0.0.1:1: "),
        "{text}"
    );
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
    assert!(
        text.trim_end()
            .ends_with("is a ringmux server listening there?"),
        "{text}"
    );
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    let output = ringmux("ping carrier-pigeon://loft");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("carrier-pigeon"));
}
