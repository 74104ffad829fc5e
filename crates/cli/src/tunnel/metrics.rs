//! Metrics of `serve` and `forward` for Prometheus: `GET /metrics`, collected at each request.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use ringmux::manage::Manager;
use ringmux::metrics::Publisher;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use super::OpenConnections;
use crate::log;
use crate::output;
use ringmux_measure::failure::Failure;

/// Scrapers connected at once; beyond that the one silent longest is evicted.
const SCRAPERS_MAX: usize = 16;
/// Time limit of a connection's first request.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit between two requests, the time to read the answer included: the minimum rate of a scraper that keeps its
/// connection.
const NEXT_REQUEST_TIMEOUT: Duration = Duration::from_secs(75);
/// Pause after a failed accept.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const REFUSED: &str = "ringmux_connections_refused_total";

/// Counts a connection that was closed before it reached its target.
pub(crate) fn count_refused() {
    metrics::counter!(REFUSED).increment(1);
}

/// Listens for scrapers.
#[derive(Debug)]
pub(crate) struct Endpoint {
    listener: TcpListener,
    scraped: Scraped,
}

/// The data of a scrape.
#[derive(Clone, Debug)]
struct Scraped {
    publisher: Arc<Mutex<Publisher>>,
    recorder: PrometheusHandle,
    open: OpenConnections,
}

impl Endpoint {
    /// Listens, and prints the address.
    pub(crate) async fn bind(addr: &str, open: OpenConnections) -> Result<Self, Failure> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Failure::new(format!("cannot listen on {addr} for metrics")).because(error)
        };
        let listener = TcpListener::bind(addr).await.map_err(|e| failed(&e))?;
        let local = listener.local_addr().map_err(|e| failed(&e))?;
        let recorder = PrometheusBuilder::new().install_recorder();
        let recorder = recorder.map_err(|e| failed(&e))?;
        ringmux::metrics::describe();
        metrics::describe_gauge!(
            "ringmux_connections",
            "TCP and Unix connections that are carried."
        );
        metrics::describe_counter!(
            REFUSED,
            "Connections that were closed before they reached their target."
        );
        // So that it is there before the first.
        metrics::counter!(REFUSED).increment(0);
        metrics::describe_counter!(
            REFUSED,
            "Connections that were closed before they reached their target."
        );
        // So that it is there before the first.
        metrics::counter!(REFUSED).increment(0);
        metrics::describe_counter!(
            "ringmux_log_lines_lost_total",
            "Lines of the log that could not be written, or not fast enough."
        );
        metrics::describe_counter!(
            "ringmux_log_lines_left_out_total",
            "Lines of the log that were counted instead of written, as too many were alike."
        );
        output::announce(format_args!("metrics on http://{local}/metrics"));
        Ok(Self {
            listener,
            scraped: Scraped {
                publisher: Arc::default(),
                recorder,
                open,
            },
        })
    }

    /// Adds the metrics of a manager.
    pub(crate) fn watch(&self, name: &str, manager: &Manager) {
        self.scraped.publisher().watch(name, manager);
    }

    /// Answers scrapers for as long as the program runs.
    pub(crate) async fn serve(self) {
        let mut scrapers = Scrapers::default();
        loop {
            match self.listener.accept().await {
                Ok((socket, _)) => scrapers.enter(socket, &self.scraped),
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a scraper");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }
}

/// The connected scrapers.
#[derive(Debug, Default)]
struct Scrapers(Vec<Scraper>);

#[derive(Debug)]
struct Scraper {
    heard: Arc<Heard>,
    task: AbortHandle,
}

impl Scrapers {
    fn enter(&mut self, socket: TcpStream, scraped: &Scraped) {
        self.0.retain(|scraper| !scraper.task.is_finished());
        if self.0.len() >= SCRAPERS_MAX {
            let silent = (0..self.0.len()).min_by_key(|&n| self.0[n].heard.last());
            let silent = self.0.swap_remove(silent.unwrap_or(0));
            silent.task.abort();
            tracing::debug!("a scraper that was silent longest makes place for another");
        }
        let heard = Arc::new(Heard::new());
        let (scraped, told) = (scraped.clone(), Arc::clone(&heard));
        let answering = tokio::spawn(async move {
            tokio::select! {
                () = scraped.answer_all(socket, &told) => {}
                () = told.silence() => tracing::debug!("a scraper is silent"),
            }
        });
        let task = answering.abort_handle();
        self.0.push(Scraper { heard, task });
    }
}

/// Time of a scraper's last request.
#[derive(Debug)]
struct Heard {
    connected: Instant,
    /// Milliseconds after that; 0 before the first request.
    last_ms: AtomicU64,
}

impl Heard {
    fn new() -> Self {
        Self {
            connected: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }

    fn now(&self) {
        let ms = u64::try_from(self.connected.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(ms.max(1), Ordering::Relaxed);
    }

    /// Connections without any request are evicted first, oldest first.
    fn last(&self) -> (bool, Instant) {
        let ms = self.last_ms.load(Ordering::Relaxed);
        (ms > 0, self.connected + Duration::from_millis(ms))
    }

    /// Waits until it has been silent for too long.
    async fn silence(&self) {
        loop {
            let (asked, last) = self.last();
            let limit = if asked {
                NEXT_REQUEST_TIMEOUT
            } else {
                FIRST_REQUEST_TIMEOUT
            };
            sleep_until(last + limit).await;
            if self.last() == (asked, last) {
                return;
            }
        }
    }
}

impl Scraped {
    fn publisher(&self) -> std::sync::MutexGuard<'_, Publisher> {
        self.publisher
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer_all(&self, socket: TcpStream, heard: &Heard) {
        let answer = service_fn(async |request| {
            heard.now();
            Ok::<_, Infallible>(self.answer(&request))
        });
        let serving = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), answer);
        if let Err(error) = serving.await {
            tracing::debug!(%error, "a scraper is gone");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        if request.uri().path() != "/metrics" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        } else if request.method() != Method::GET {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET"));
        } else {
            self.publisher().publish();
            metrics::gauge!("ringmux_connections").set(self.open.count() as f64);
            metrics::counter!("ringmux_log_lines_lost_total").absolute(log::lost());
            metrics::counter!("ringmux_log_lines_left_out_total").absolute(log::left_out());
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
            *response.body_mut() = Full::from(self.recorder.render());
        }
        response
    }
}
