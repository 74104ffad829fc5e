//! What `serve` and `forward` do, for Prometheus: `GET /metrics`, read when it is asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use ringmux::manage::Manager;
use ringmux::metrics::Publisher;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::OpenConnections;
use crate::output;
use ringmux_measure::failure::Failure;

/// Scrapers connected at once; more wait to be accepted.
const SCRAPERS_MAX: usize = 16;
/// How long a request may take to come; a scraper that keeps its connection may ask so often at least.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// How long to pause when nothing can be accepted.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// Prometheus' text format.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Listens for scrapers.
#[derive(Debug)]
pub(crate) struct Endpoint {
    listener: TcpListener,
    scraped: Scraped,
}

/// What a scrape shows.
#[derive(Clone, Debug)]
struct Scraped {
    publisher: Arc<Mutex<Publisher>>,
    recorder: PrometheusHandle,
    open: OpenConnections,
}

impl Endpoint {
    /// Listens, and prints where.
    pub(crate) async fn bind(addr: SocketAddr, open: OpenConnections) -> Result<Self, Failure> {
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

    /// Shows what a manager does as well.
    pub(crate) fn watch(&self, name: &str, manager: &Manager) {
        self.scraped.publisher().watch(name, manager);
    }

    /// Answers scrapers for as long as the program runs.
    pub(crate) async fn serve(self) {
        let places = Arc::new(Semaphore::new(SCRAPERS_MAX));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match self.listener.accept().await {
                Ok((socket, _)) => {
                    let scraped = self.scraped.clone();
                    tokio::spawn(async move {
                        scraped.answer_all(socket).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a scraper");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
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

    async fn answer_all(&self, socket: TcpStream) {
        let answer = service_fn(async |request| Ok::<_, Infallible>(self.answer(&request)));
        let serving = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_TIMEOUT)
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
            response.headers_mut().insert(CONTENT_TYPE, TEXT);
            *response.body_mut() = Full::from(self.recorder.render());
        }
        response
    }
}
