//! Counters and gauges for the [`metrics`](https://docs.rs/metrics) facade: any recorder that an application installs
//! (Prometheus, StatsD, …) shows the counters of its sessions.
//!
//! Messages record nothing. A [`Publisher`] reads [`process_stats`] on request, at each scrape or periodically, and passes the
//! numbers to the recorder; between requests it adds no cost.
//!
//! # Names
//! All begin with `ringmux_`; those that end with `_total` only grow. [`describe`] registers their units and texts.
//!
//! | metric | labels |
//! |---|---|
//! | `sessions`, `sessions_started_total`, `sessions_ended_total` | the last: `reason` |
//! | `streams`, `streams_opened_total`, `streams_finished_total`, `streams_cancelled_total`, `calls_in_frames_total` | `opened`: `by` = `local`, `peer` |
//! | `limits_tripped_total` | `limit` |
//! | `messages_total`, `frames_total`, `bytes_total` | `direction` = `sent`, `received` |
//! | `batches_total`, `turns_total`, `activations_total`, `requests_total` | |
//! | `wakes_total` | `kind` = `issued`, `suppressed` |
//! | `windows_grown_total`, `keepalives_total`, `received_bytes_held` | |
//! | `receive_pool_used_bytes`, `ring_enters_total`, `leaked_buffers_total` | |
//!
//! With the feature `manage`, for each manager that is [watched](Publisher::watch), labelled `manager`:
//! `manager_attempts_total`, `manager_failures_total`, `manager_panics_total`, `manager_sessions_total`, `manager_lost_total`,
//! `manager_calls_total` (`result` = `served`, `closing`, `late`, `crowded`, `unstarted`), `manager_ready`, `manager_pausing`,
//! `manager_waiting`.
//!
//! With the feature `rpc`, for each server and channel that is watched ([`Publisher::watch_server`], [`Publisher::watch_channel`]),
//! labelled `side` = `server`, `client`, `name` and `method`: `calls_started_total`, `calls_total` (`code`), `calls_in_flight`, and the parts of a
//! histogram of Prometheus: `call_seconds_bucket` (`le`, from 1 µs to 69 s), `call_seconds_count`, `call_seconds_sum`.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::bridge::SessionStats;
use crate::connect::{ProcessStats, process_stats};

/// Passes the process's counters to the installed recorder.
///
/// Several publishers do no harm: the process's counters are passed as absolute numbers.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
///
/// use ringmux::metrics::Publisher;
///
/// // After a recorder was installed, as with `PrometheusBuilder::install`:
/// ringmux::metrics::describe();
/// let publishing = tokio::spawn(async {
///     let mut publisher = Publisher::new();
///     loop {
///         publisher.publish();
///         tokio::time::sleep(Duration::from_secs(5)).await;
///     }
/// });
/// # publishing.abort();
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Publisher {
    #[cfg(feature = "manage")]
    managers: managers::Managers,
    #[cfg(feature = "rpc")]
    calls: calls::Calls,
}

impl Publisher {
    /// A publisher that watches nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Passes the current [`process_stats`] to the recorder, and the changes of all that is watched since the last call.
    pub fn publish(&mut self) {
        publish_process(&process_stats());
        #[cfg(feature = "manage")]
        self.managers.publish();
        #[cfg(feature = "rpc")]
        self.calls.publish();
    }
}

/// A metric of a field of [`SessionStats`].
struct Metric {
    name: &'static str,
    label: Option<(&'static str, &'static str)>,
    /// A gauge: it may shrink.
    now: bool,
    unit: Unit,
    text: &'static str,
    get: fn(&SessionStats) -> u64,
}

macro_rules! table {
    ($($field:ident: $name:literal $(, $label:literal = $value:literal)?; $unit:ident $kind:ident; $text:literal;)+) => {
        &[$(Metric {
            name: concat!("ringmux_", $name),
            label: table!(@label $($label $value)?),
            now: table!(@now $kind),
            unit: Unit::$unit,
            text: $text,
            get: |stats| stats.$field,
        }),+]
    };
    (@label) => { None };
    (@label $label:literal $value:literal) => { Some(($label, $value)) };
    (@now gauge) => { true };
    (@now counter) => { false };
}

/// All fields of [`SessionStats`], except those of `sessions_ended_total` and `limits_tripped_total`.
const SESSION_METRICS: &[Metric] = table! {
    streams: "streams"; Count gauge; "Streams that exist now.";
    opened: "streams_opened_total", "by" = "local"; Count counter; "Streams opened.";
    accepted: "streams_opened_total", "by" = "peer"; Count counter; "Streams opened.";
    calls: "calls_in_frames_total"; Count counter; "Streams that were unary calls in one frame each way.";
    finished: "streams_finished_total"; Count counter; "Streams that ended in order, in both directions.";
    cancelled: "streams_cancelled_total"; Count counter; "Streams ended by a cancel of either side.";
    messages_sent: "messages_total", "direction" = "sent"; Count counter; "Messages.";
    messages_received: "messages_total", "direction" = "received"; Count counter; "Messages.";
    frames_sent: "frames_total", "direction" = "sent"; Count counter; "Frames.";
    frames_received: "frames_total", "direction" = "received"; Count counter; "Frames.";
    bytes_sent: "bytes_total", "direction" = "sent"; Bytes counter; "Bytes handed to and taken from sockets.";
    bytes_received: "bytes_total", "direction" = "received"; Bytes counter; "Bytes handed to and taken from sockets.";
    batches: "batches_total"; Count counter; "Batches handed to sockets.";
    turns: "turns_total"; Count counter; "Times that an engine looked at a session.";
    activations: "activations_total"; Count counter; "Times that streams were taken off a ready list.";
    requests: "requests_total"; Count counter; "Pings, closes and shutdowns asked for.";
    wakes_issued: "wakes_total", "kind" = "issued"; Count counter; "Times that a handle woke its session, or need not.";
    wakes_suppressed: "wakes_total", "kind" = "suppressed"; Count counter; "Times that a handle woke its session, or need not.";
    windows_grown: "windows_grown_total"; Count counter; "Times that a receive window was doubled.";
    keepalives: "keepalives_total"; Count counter; "Keepalive PINGs sent to a silent peer.";
    bytes_held: "received_bytes_held"; Bytes gauge; "Bytes received that applications have not consumed, frame cost included.";
};

/// Registers unit and text of every metric with the recorder. Call once, after it was installed.
pub fn describe() {
    describe_gauge!("ringmux_sessions", Unit::Count, "Sessions that exist now.");
    describe_counter!(
        "ringmux_sessions_started_total",
        Unit::Count,
        "Sessions started."
    );
    describe_counter!(
        "ringmux_sessions_ended_total",
        Unit::Count,
        "Sessions ended, by reason."
    );
    for metric in SESSION_METRICS {
        if metric.now {
            describe_gauge!(metric.name, metric.unit, metric.text);
        } else {
            describe_counter!(metric.name, metric.unit, metric.text);
        }
    }
    describe_counter!(
        "ringmux_limits_tripped_total",
        Unit::Count,
        "Limits of this side that were tripped, by limit."
    );
    describe_gauge!(
        "ringmux_receive_pool_used_bytes",
        Unit::Bytes,
        "Receive memory that is taken."
    );
    describe_counter!(
        "ringmux_ring_enters_total",
        Unit::Count,
        "Times that rings entered the kernel."
    );
    describe_counter!(
        "ringmux_leaked_buffers_total",
        Unit::Count,
        "Buffers given up to the kernel."
    );
    #[cfg(feature = "manage")]
    managers::describe();
    #[cfg(feature = "rpc")]
    calls::describe();
}

fn publish_process(stats: &ProcessStats) {
    let totals = &stats.totals;
    set("ringmux_sessions", totals.open());
    counter!("ringmux_sessions_started_total").absolute(totals.started);
    for (reason, count) in totals.ended.by_reason() {
        counter!("ringmux_sessions_ended_total", "reason" => reason).absolute(count);
    }
    for metric in SESSION_METRICS {
        let value = (metric.get)(&totals.sessions);
        match (metric.now, metric.label) {
            (true, _) => set(metric.name, value),
            (false, None) => counter!(metric.name).absolute(value),
            (false, Some((label, name))) => counter!(metric.name, label => name).absolute(value),
        }
    }
    for (limit, times) in totals.sessions.tripped.iter() {
        counter!("ringmux_limits_tripped_total", "limit" => limit.name()).absolute(times);
    }
    set("ringmux_receive_pool_used_bytes", stats.receive_pool_used);
    counter!("ringmux_ring_enters_total").absolute(stats.ring_enters);
    counter!("ringmux_leaked_buffers_total").absolute(stats.leaked_buffers);
}

fn set(name: &'static str, value: u64) {
    gauge!(name).set(value as f64);
}

#[cfg(feature = "rpc")]
mod calls;
#[cfg(feature = "manage")]
mod managers;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_a_session_is_a_metric() {
        // Its `Debug` names every field.
        let text = format!("{:?}", SessionStats::default());
        let fields = text.matches(": 0").count();
        // Two fields are end reasons, and one is the sum of the limits.
        assert_eq!(SESSION_METRICS.len() + 3, fields, "{text}");
        for metric in SESSION_METRICS {
            assert_eq!(
                metric.name.ends_with("_total"),
                !metric.now,
                "{}",
                metric.name
            );
        }
    }
}
