//! Metrics of calls, by method: published as differences since the last time, so that servers and channels of one name add up.

use std::fmt;
use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use super::Publisher;
use crate::rpc::{Channel, Code, MethodMetrics, Mode, Server};

/// Bounds of the published buckets: each fourth doubling of nanoseconds, from about 1 µs to about 69 s.
const BOUND_BITS: std::ops::RangeInclusive<u32> = 10..=36;
const BOUND_STEP: usize = 2;

/// Watched servers and channels, and the numbers already published.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<Watched>);

struct Watched {
    side: &'static str,
    name: String,
    read: Box<dyn Fn() -> Option<Vec<MethodMetrics>> + Send + Sync>,
    told: Vec<MethodMetrics>,
}

impl Publisher {
    /// From now on publishes the calls of this server as well, by method, with the labels `side` = `server`, `name` and `method`. Watching
    /// does not keep the server alive. Use few names: recorders keep each for ever.
    pub fn watch_server<M: Mode>(&mut self, name: impl Into<String>, server: &Server<M>) {
        self.watch_calls("server", name.into(), server.weak_metrics());
    }

    /// The same for the calls of a channel, with `side` = `client`. Watching does not keep the channel alive.
    pub fn watch_channel(&mut self, name: impl Into<String>, channel: &Channel) {
        self.watch_calls("client", name.into(), channel.weak_metrics());
    }

    fn watch_calls(
        &mut self,
        side: &'static str,
        name: String,
        read: impl Fn() -> Option<Vec<MethodMetrics>> + Send + Sync + 'static,
    ) {
        self.calls.0.push(Watched {
            side,
            name,
            read: Box::new(read),
            told: Vec::new(),
        });
    }
}

impl Calls {
    pub(super) fn publish(&mut self) {
        self.0.retain_mut(Watched::publish);
    }
}

impl Watched {
    /// False once the server or channel was dropped; its last numbers were published before.
    fn publish(&mut self) -> bool {
        let now = (self.read)();
        let is_alive = now.is_some();
        for row in now.iter().flatten() {
            let told = self.told.iter().find(|told| told.method == row.method);
            self.tell(row, told);
        }
        // Calls that were in flight ended with their server or channel.
        for row in self.told.iter().filter(|_| !is_alive) {
            let labels = self.labels(row);
            gauge!("ringmux_calls_in_flight", &labels).decrement(row.in_flight() as f64);
        }
        self.told = now.unwrap_or_default();
        is_alive
    }

    fn labels(&self, row: &MethodMetrics) -> [(&'static str, String); 3] {
        [
            ("side", self.side.to_owned()),
            ("name", self.name.clone()),
            ("method", row.method.to_owned()),
        ]
    }

    fn tell(&self, now: &MethodMetrics, told: Option<&MethodMetrics>) {
        let labels = self.labels(now);
        let of_told = |get: fn(&MethodMetrics) -> u64| told.map_or(0, get);
        let grown = |get: fn(&MethodMetrics) -> u64| get(now).saturating_sub(of_told(get));
        counter!("ringmux_calls_started_total", &labels).increment(grown(|row| row.started));
        let in_flight = now.in_flight() as f64 - of_told(MethodMetrics::in_flight) as f64;
        gauge!("ringmux_calls_in_flight", &labels).increment(in_flight);
        for (code, count) in now.codes() {
            let before = told.map_or(0, |told| {
                let codes = told.codes().find(|(other, _)| *other == code);
                codes.map_or(0, |(_, count)| count)
            });
            let code = code.and_then(Code::name);
            let code = ("code", code.unwrap_or("application").to_owned());
            let labels: Vec<_> = labels.iter().cloned().chain([code]).collect();
            counter!("ringmux_calls_total", &labels).increment(count.saturating_sub(before));
        }
        let bounds = BOUND_BITS.step_by(BOUND_STEP).map(|bits| {
            let bound = Duration::from_nanos(1 << bits);
            (bound, bound.as_secs_f64().to_string())
        });
        for (bound, text) in bounds.chain([(Duration::MAX, "+Inf".to_owned())]) {
            let count = count_until(now, bound) - told.map_or(0, |told| count_until(told, bound));
            let labels: Vec<_> = labels.iter().cloned().chain([("le", text)]).collect();
            counter!("ringmux_call_seconds_bucket", &labels).increment(count);
        }
        counter!("ringmux_call_seconds_count", &labels).increment(grown(MethodMetrics::ended));
        let sum = now.latency.sum().as_secs_f64();
        let told = told.map_or(0.0, |told| told.latency.sum().as_secs_f64());
        gauge!("ringmux_call_seconds_sum", &labels).increment(sum - told);
    }
}

fn count_until(row: &MethodMetrics, bound: Duration) -> u64 {
    let buckets = row.latency.buckets();
    let below = buckets.take_while(|(until, _)| *until <= bound);
    below.map(|(_, count)| count).sum()
}

pub(super) fn describe() {
    let counters = [
        ("ringmux_calls_started_total", "Calls begun."),
        ("ringmux_calls_total", "Calls ended, by code."),
        (
            "ringmux_call_seconds_bucket",
            "Calls ended within `le` seconds.",
        ),
        ("ringmux_call_seconds_count", "Calls ended."),
    ];
    for (name, text) in counters {
        describe_counter!(name, Unit::Count, text);
    }
    describe_gauge!("ringmux_calls_in_flight", Unit::Count, "Calls that go on.");
    describe_gauge!(
        "ringmux_call_seconds_sum",
        Unit::Seconds,
        "Times of all ended calls."
    );
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("side", &self.side)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use ::metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder,
        SharedString,
    };
    use bytes::Bytes;

    use super::*;
    use crate::rpc::{Method, Raw, Status};

    /// Keeps the values, by name and labels.
    #[derive(Default)]
    struct Values(Mutex<BTreeMap<String, Arc<Value>>>);

    #[derive(Default)]
    struct Value(AtomicU64);

    impl CounterFn for Value {
        fn increment(&self, value: u64) {
            self.0.fetch_add(value, Ordering::Relaxed);
        }

        fn absolute(&self, value: u64) {
            self.0.store(value, Ordering::Relaxed);
        }
    }

    impl GaugeFn for Value {
        fn increment(&self, value: f64) {
            self.0.fetch_add(value as i64 as u64, Ordering::Relaxed);
        }

        fn decrement(&self, value: f64) {
            self.0.fetch_sub(value as i64 as u64, Ordering::Relaxed);
        }

        fn set(&self, value: f64) {
            self.0.store(value as u64, Ordering::Relaxed);
        }
    }

    impl Values {
        fn value(&self, key: &Key) -> Arc<Value> {
            let labels: Vec<_> = key
                .labels()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            let name = format!("{}{{{}}}", key.name(), labels.join(","));
            Arc::clone(self.0.lock().unwrap().entry(name).or_default())
        }

        fn get(&self, name: &str) -> Option<u64> {
            let values = self.0.lock().unwrap();
            values
                .get(name)
                .map(|value| value.0.load(Ordering::Relaxed))
        }
    }

    impl Recorder for Values {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.value(key))
        }

        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.value(key))
        }

        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[tokio::test]
    async fn calls_are_published_by_method_code_and_time_once_each() {
        const HALF: Method<Bytes, Bytes> = Method::unary::<Raw>("test.Test/Half");
        let (a, b) = tokio::io::duplex(64 * 1024);
        let (client, connection) = crate::client(a, &crate::Config::default());
        tokio::spawn(connection);
        let (session, connection) = crate::server(b, &crate::Config::default());
        tokio::spawn(connection);
        let handler = |_, half: Bytes| async move {
            match half.is_empty() {
                true => Err(Status::not_found("nothing")),
                false => Ok(half),
            }
        };
        let server = Server::builder().unary(HALF, handler).build().unwrap();
        let serving = server.clone();
        let serving = tokio::spawn(async move { serving.serve_session(session).await });
        let channel = Channel::new(client.clone());
        let mut publisher = Publisher::new();
        publisher.watch_server("main", &server);
        publisher.watch_channel("peer", &channel);
        let values = Values::default();
        let publish = |publisher: &mut Publisher| {
            ::metrics::with_local_recorder(&values, || publisher.publish());
        };
        for _ in 0..2 {
            channel.call(&HALF, &"a".into()).await.unwrap();
            channel.call(&HALF, &Bytes::new()).await.unwrap_err();
            publish(&mut publisher);
            publish(&mut publisher);
        }
        client.close();
        let _ = serving.await.unwrap();
        publish(&mut publisher);
        for of in ["side=server,name=main", "side=client,name=peer"] {
            let of = format!("{of},method=test.Test/Half");
            let expect = |name: &str, label: &str, count| {
                let name = format!("ringmux_{name}{{{of}{label}}}");
                assert_eq!(values.get(&name), Some(count), "{name}");
            };
            expect("calls_started_total", "", 4);
            expect("calls_in_flight", "", 0);
            expect("calls_total", ",code=ok", 2);
            expect("calls_total", ",code=not-found", 2);
            expect("call_seconds_bucket", ",le=+Inf", 4);
            expect("call_seconds_count", "", 4);
        }
        drop((server, channel));
        publish(&mut publisher);
        publish(&mut publisher);
        assert!(publisher.calls.0.is_empty(), "{:?}", publisher.calls);
    }
}
