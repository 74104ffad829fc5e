//! Metrics of managers: published as differences since the last time, so that managers of one name add up.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use super::Publisher;
use crate::manage::{Manager, Metrics, Phase, WeakManager};

/// Watched managers, and the numbers already published.
#[derive(Debug, Default)]
pub(super) struct Managers(Vec<Watched>);

#[derive(Debug)]
struct Watched {
    name: String,
    manager: WeakManager,
    told: Metrics,
    /// Ready sessions, pausing places, waiting callers.
    gauges: [u64; 3],
}

const GAUGES: [&str; 3] = [
    "ringmux_manager_ready",
    "ringmux_manager_pausing",
    "ringmux_manager_waiting",
];

impl Publisher {
    /// From now on publishes the metrics of this manager as well, with the label `manager`. Watching does not keep the manager
    /// alive: it is forgotten once the last handle and the manager's [`Running`](crate::manage::Running) are dropped. Use few
    /// names: recorders keep each for ever.
    pub fn watch(&mut self, name: impl Into<String>, manager: &Manager) {
        self.managers.0.push(Watched {
            name: name.into(),
            manager: manager.downgrade(),
            told: Metrics::default(),
            gauges: [0; 3],
        });
    }
}

impl Managers {
    pub(super) fn publish(&mut self) {
        self.0.retain_mut(Watched::publish);
    }
}

impl Watched {
    /// False once the manager was dropped; its last numbers were published before.
    fn publish(&mut self) -> bool {
        let description = self.manager.describe();
        let (now, gauges) = match &description {
            Some(description) => {
                let count = |wanted: fn(&Phase) -> bool| {
                    let places = description.places.iter();
                    places.filter(|place| wanted(&place.phase)).count() as u64
                };
                let ready = count(|phase| matches!(phase, Phase::Ready(_)));
                let pausing = count(|phase| matches!(phase, Phase::Pausing(_)));
                let metrics = description.metrics;
                (metrics, [ready, pausing, metrics.waiting])
            }
            None => (self.told, [0; 3]),
        };
        self.tell(&now);
        for ((name, now), told) in GAUGES.into_iter().zip(gauges).zip(self.gauges) {
            gauge!(name, "manager" => self.name.clone()).increment(now as f64 - told as f64);
        }
        (self.told, self.gauges) = (now, gauges);
        description.is_some()
    }

    fn tell(&self, now: &Metrics) {
        let told = &self.told;
        let grown = [
            (
                "ringmux_manager_attempts_total",
                now.attempts - told.attempts,
            ),
            (
                "ringmux_manager_failures_total",
                now.failures - told.failures,
            ),
            ("ringmux_manager_panics_total", now.panics - told.panics),
            ("ringmux_manager_sessions_total", now.ready - told.ready),
            ("ringmux_manager_lost_total", now.lost - told.lost),
        ];
        for (name, by) in grown {
            counter!(name, "manager" => self.name.clone()).increment(by);
        }
        let calls = [
            ("served", now.served - told.served),
            ("closing", now.refused_closing - told.refused_closing),
            ("late", now.refused_late - told.refused_late),
            ("crowded", now.refused_waiting - told.refused_waiting),
            ("unstarted", now.refused_unstarted - told.refused_unstarted),
        ];
        for (result, by) in calls {
            counter!("ringmux_manager_calls_total", "manager" => self.name.clone(), "result" => result)
                .increment(by);
        }
    }
}

pub(super) fn describe() {
    let counters = [
        (
            "ringmux_manager_attempts_total",
            "Attempts to have a session.",
        ),
        ("ringmux_manager_failures_total", "Attempts that failed."),
        (
            "ringmux_manager_panics_total",
            "Panics of the application's provider or hook.",
        ),
        (
            "ringmux_manager_sessions_total",
            "Sessions that became ready.",
        ),
        (
            "ringmux_manager_lost_total",
            "Sessions that were ready and are not any more.",
        ),
        (
            "ringmux_manager_calls_total",
            "Calls that asked for a session.",
        ),
    ];
    for (name, text) in counters {
        describe_counter!(name, Unit::Count, text);
    }
    let texts = [
        "Sessions that are ready.",
        "Places that pause before their next attempt.",
        "Callers that wait for a session.",
    ];
    for (name, text) in GAUGES.into_iter().zip(texts) {
        describe_gauge!(name, Unit::Count, text);
    }
}
