//! The report: rows of checks, as a table or as JSON.

use comfy_table::{ContentArrangement, Table, presets};
use ringmux::{Chain, ChosenBackend, EngineError, Features, ProbeStep, Refusal};
use serde::Serialize;

use super::system::{Memlock, Seccomp, System};

const KIB: u64 = 1024;
/// The first kernel with the features that the driver uring needs.
const KERNEL_MIN: &str = "6.1";

/// The findings, and the resulting backend.
pub(super) struct Report<'a> {
    system: System,
    backend: &'a ChosenBackend,
}

/// How a step of the trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Passed,
    Failed,
    NotTried,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::NotTried => "not tried",
        }
    }
}

/// One line of the table.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    what: String,
    found: String,
    verdict: &'static str,
}

impl Row {
    fn new(what: impl Into<String>, found: impl Into<String>, verdict: &'static str) -> Self {
        Self {
            what: what.into(),
            found: found.into(),
            verdict,
        }
    }
}

impl<'a> Report<'a> {
    pub(super) const fn new(system: System, backend: &'a ChosenBackend) -> Self {
        Self { system, backend }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_BORDERS_ONLY)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(["what", "found", ""]);
        let refusal = self.refusal();
        let rows = policy_rows(&self.system, refusal)
            .into_iter()
            .chain(trial_rows(self.backend.refused().is_none(), refusal))
            .chain(
                self.backend
                    .features()
                    .map(feature_rows)
                    .unwrap_or_default(),
            );
        for row in rows {
            table.add_row([row.what, row.found, row.verdict.to_owned()]);
        }
        format!("{table}\n{}", self.summary())
    }

    fn summary(&self) -> String {
        let driver = self.backend.driver();
        match (self.backend.refused(), self.refusal()) {
            (None, _) => format!("backend: {driver}"),
            (Some(_), Some(refusal)) => format!(
                "backend: {driver}, the fallback\nreason:  {}\nchange:  {}",
                Chain(refusal),
                refusal.remedy()
            ),
            (Some(error), None) => {
                format!("backend: {driver}, the fallback\nreason:  {}", Chain(error))
            }
        }
    }

    fn refusal(&self) -> Option<&Refusal> {
        match self.backend.refused()? {
            EngineError::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let works = self.backend.refused().is_none();
        let refusal = self.refusal();
        let object = Object {
            version: env!("CARGO_PKG_VERSION"),
            kernel: self.system.kernel.as_deref(),
            io_uring_disabled: self.system.disabled,
            io_uring_group: self.system.group,
            seccomp: self.system.seccomp.map(seccomp_name),
            memlock_soft_bytes: self.system.memlock.soft,
            memlock_hard_bytes: self.system.memlock.hard,
            memlock_exempt: self.system.memlock.exempt,
            steps: steps(works, refusal)
                .map(|(step, outcome)| Step {
                    step: step.to_string(),
                    outcome,
                })
                .collect(),
            operations: operations(works, refusal)
                .map(|(name, outcome)| Operation { name, outcome })
                .collect(),
            completions: self.backend.features().map(|found| found.completions),
            fixed_files: self.backend.features().map(|found| found.fixed_files),
            registered_ring: self.backend.features().map(|found| found.registered_ring),
            backend: self.backend.driver().to_string(),
            reason: match (self.backend.refused(), refusal) {
                (_, Some(refusal)) => Some(Chain(refusal).to_string()),
                (refused, None) => refused.map(|error| Chain(error).to_string()),
            },
            change: refusal.map(Refusal::remedy),
        };
        serde_json::to_string(&object).expect("a report is plain data")
    }
}

/// The object of `--json`.
#[derive(Debug, Serialize)]
struct Object<'a> {
    version: &'static str,
    kernel: Option<&'a str>,
    io_uring_disabled: Option<u32>,
    io_uring_group: Option<u32>,
    seccomp: Option<&'static str>,
    memlock_soft_bytes: Option<u64>,
    memlock_hard_bytes: Option<u64>,
    memlock_exempt: bool,
    steps: Vec<Step>,
    operations: Vec<Operation>,
    completions: Option<u32>,
    fixed_files: Option<u32>,
    registered_ring: Option<bool>,
    backend: String,
    reason: Option<String>,
    change: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Step {
    step: String,
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
struct Operation {
    name: &'static str,
    outcome: Outcome,
}

// ---- rows -----------------------------------------------------------------------------------

/// The settings of this machine and process. The row of the refusing one is marked.
fn policy_rows(system: &System, refusal: Option<&Refusal>) -> [Row; 4] {
    let blamed = |blame: fn(&Refusal) -> bool| match refusal {
        Some(refusal) if blame(refusal) => "REFUSES",
        _ => "ok",
    };
    [
        Row::new(
            "kernel",
            format!(
                "Linux {} (needed: {KERNEL_MIN})",
                system.kernel.as_deref().unwrap_or("unknown")
            ),
            blamed(|refusal| {
                matches!(
                    refusal,
                    Refusal::NotInKernel
                        | Refusal::TooOld { .. }
                        | Refusal::MissingOperation { .. }
                )
            }),
        ),
        Row::new(
            "sysctl kernel.io_uring_disabled",
            sysctl(system.disabled, system.group),
            blamed(|refusal| matches!(refusal, Refusal::Sysctl { .. })),
        ),
        Row::new(
            "seccomp",
            match system.seccomp {
                Some(Seccomp::Off) => "no filter",
                Some(Seccomp::Strict) => "strict mode",
                Some(Seccomp::Filter) => "a filter",
                None => "unknown",
            },
            blamed(|refusal| matches!(refusal, Refusal::Seccomp { .. })),
        ),
        Row::new(
            "RLIMIT_MEMLOCK",
            memlock(system.memlock),
            blamed(|refusal| matches!(refusal, Refusal::LockedMemory { .. })),
        ),
    ]
}

/// The steps of the trial in their order, and below theirs the operations.
fn trial_rows(works: bool, refusal: Option<&Refusal>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (step, outcome) in steps(works, refusal) {
        rows.push(Row::new(
            format!("ring: {step}"),
            meaning(step),
            outcome.word(),
        ));
        if step == ProbeStep::Operations {
            let operations = operations(works, refusal);
            rows.extend(
                operations
                    .map(|(name, found)| Row::new(format!("  operation {name}"), "", found.word())),
            );
        }
    }
    rows
}

fn feature_rows(features: &Features) -> Vec<Row> {
    let or_none = |found: bool| if found { "ok" } else { "not there" };
    vec![
        Row::new(
            "ring: completions",
            format!("{} can wait", features.completions),
            "ok",
        ),
        Row::new(
            "ring: fixed files",
            format!("{} sockets", features.fixed_files),
            or_none(features.fixed_files > 0),
        ),
        Row::new(
            "ring: registered ring",
            "entered without looking its descriptor up",
            or_none(features.registered_ring),
        ),
    ]
}

/// Every step with its end. A refusal names the failed step; without one, either all passed or an
/// engine failed before the first.
fn steps(works: bool, refusal: Option<&Refusal>) -> impl Iterator<Item = (ProbeStep, Outcome)> {
    let failed = refusal.map(Refusal::step);
    ProbeStep::ALL.into_iter().map(move |step| {
        let outcome = match failed {
            Some(failed) if step == failed => Outcome::Failed,
            Some(failed) if step > failed => Outcome::NotTried,
            None if !works => Outcome::NotTried,
            _ => Outcome::Passed,
        };
        (step, outcome)
    })
}

fn operations(
    works: bool,
    refusal: Option<&Refusal>,
) -> impl Iterator<Item = (&'static str, Outcome)> {
    let (mut asked, missing) = match refusal {
        None => (works, None),
        Some(Refusal::MissingOperation { name }) => (true, Some(*name)),
        Some(refusal) => (refusal.step() > ProbeStep::Operations, None),
    };
    Features::OPERATIONS.into_iter().map(move |name| {
        let outcome = match asked {
            false => Outcome::NotTried,
            true if missing == Some(name) => Outcome::Failed,
            true => Outcome::Passed,
        };
        // Operations after the first missing one were not checked.
        asked &= outcome != Outcome::Failed;
        (name, outcome)
    })
}

const fn meaning(step: ProbeStep) -> &'static str {
    match step {
        ProbeStep::SetUp => "io_uring_setup with the driver's flags",
        ProbeStep::Operations => "the kernel is asked which it has",
        ProbeStep::Enable => "restricted to these, given buffers",
        ProbeStep::Nop => "completes",
        ProbeStep::Receive => "two messages and the end of a socket",
        _ => "",
    }
}

const fn seccomp_name(seccomp: Seccomp) -> &'static str {
    match seccomp {
        Seccomp::Off => "off",
        Seccomp::Strict => "strict",
        Seccomp::Filter => "filter",
    }
}

fn sysctl(disabled: Option<u32>, group: Option<u32>) -> String {
    match (disabled, group) {
        (None, _) => "not there (Linux before 6.6, or no io_uring)".to_owned(),
        (Some(0), _) => "0: allowed".to_owned(),
        (Some(1), Some(group)) => format!("1: for group {group} and CAP_SYS_ADMIN only"),
        (Some(1), None) => "1: for CAP_SYS_ADMIN only".to_owned(),
        (Some(value), _) => format!("{value}: denied to all"),
    }
}

fn memlock(limit: Memlock) -> String {
    let shown = |bytes: Option<u64>| match bytes {
        None => "unlimited".to_owned(),
        Some(bytes) if bytes >= KIB * KIB && bytes.is_multiple_of(KIB * KIB) => {
            format!("{} MiB", bytes / KIB / KIB)
        }
        Some(bytes) => format!("{} KiB", bytes / KIB),
    };
    let both = format!("{} soft, {} hard", shown(limit.soft), shown(limit.hard));
    if limit.exempt {
        format!("{both}; CAP_IPC_LOCK lifts it")
    } else {
        both
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(works: bool, refusal: Option<&Refusal>) -> Vec<Outcome> {
        steps(works, refusal).map(|(_, outcome)| outcome).collect()
    }

    #[test]
    fn steps_before_the_refusal_have_passed_and_those_behind_it_were_not_tried() {
        use Outcome::{Failed, NotTried, Passed};
        let at_nop = Refusal::SelfTest {
            step: ProbeStep::Nop,
            what: "nothing has completed",
        };
        assert_eq!(
            outcomes(false, Some(&at_nop)),
            [Passed, Passed, Passed, Failed, NotTried]
        );
        assert_eq!(
            outcomes(false, Some(&Refusal::NotInKernel)),
            [Failed, NotTried, NotTried, NotTried, NotTried]
        );
        assert_eq!(outcomes(true, None), [Passed; 5]);
        assert_eq!(outcomes(false, None), [NotTried; 5]);
    }

    #[test]
    fn operations_are_known_up_to_the_first_that_is_missing() {
        use Outcome::{Failed, NotTried, Passed};
        let of = |works, refusal: Option<&Refusal>| -> Vec<Outcome> {
            operations(works, refusal)
                .map(|(_, outcome)| outcome)
                .collect()
        };
        let third = Refusal::MissingOperation {
            name: Features::OPERATIONS[2],
        };
        assert_eq!(
            of(false, Some(&third)),
            [Passed, Passed, Failed, NotTried, NotTried, NotTried]
        );
        assert_eq!(of(false, Some(&Refusal::NotInKernel)), [NotTried; 6]);
        assert_eq!(of(true, None), [Passed; 6]);
    }

    #[test]
    fn only_the_policy_that_refuses_is_blamed() {
        let blamed = |refusal: &Refusal| -> Vec<String> {
            policy_rows(&System::default(), Some(refusal))
                .into_iter()
                .filter(|row| row.verdict == "REFUSES")
                .map(|row| row.what)
                .collect()
        };
        let (step, call) = (ProbeStep::SetUp, "io_uring_setup");
        let group = None;
        assert_eq!(blamed(&Refusal::NotInKernel), ["kernel"]);
        assert_eq!(
            blamed(&Refusal::Sysctl { value: 2, group }),
            ["sysctl kernel.io_uring_disabled"]
        );
        assert_eq!(
            blamed(&Refusal::Seccomp {
                step,
                call,
                errno: 1
            }),
            ["seccomp"]
        );
        let (soft, hard) = (Some(0), Some(0));
        assert_eq!(
            blamed(&Refusal::LockedMemory { step, soft, hard }),
            ["RLIMIT_MEMLOCK"]
        );
        assert!(
            blamed(&Refusal::Denied {
                step,
                call,
                errno: 1
            })
            .is_empty()
        );
    }

    #[test]
    fn limits_and_the_sysctl_are_shown_in_words() {
        let limit = |soft, hard, exempt| memlock(Memlock { soft, hard, exempt });
        assert_eq!(
            limit(Some(65536), None, false),
            "64 KiB soft, unlimited hard"
        );
        assert_eq!(
            limit(Some(8 << 20), Some(8 << 20), true),
            "8 MiB soft, 8 MiB hard; CAP_IPC_LOCK lifts it"
        );
        assert_eq!(sysctl(Some(0), None), "0: allowed");
        assert!(sysctl(Some(1), Some(7)).contains("group 7"));
        assert!(sysctl(Some(2), Some(7)).contains("denied to all"));
        assert!(sysctl(None, None).contains("6.6"));
    }
}
