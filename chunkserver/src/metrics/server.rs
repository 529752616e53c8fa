//! The smallest web server that Prometheus is content with.

use super::encode;
use crate::serve::HostHandle;
use crate::smart::Reports;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const CONNECTIONS_MAX: usize = 16;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after an accept that failed for want of descriptors, or it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until its task is dropped.
pub(crate) async fn serve(listener: TcpListener, host: HostHandle, smart: Reports) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (host, smart) = (host.clone(), smart.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, host.clone(), smart.clone()));
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
            if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "serve metrics");
            }
            drop(place);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    host: HostHandle,
    smart: Reports,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"));
    }
    if request.method() != Method::GET {
        return Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "metrics are read with GET\n"));
    }
    let Ok(snapshot) = host.snapshot().await else {
        return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the chunkserver is ending\n"));
    };
    let encoded = encode(&snapshot, &smart.borrow());
    match encoded {
        Ok(text) => {
            let response = Response::builder().header(CONTENT_TYPE, OPENMETRICS).body(Full::from(text));
            Ok(response.expect("the header is well-formed"))
        }
        Err(error) => {
            tracing::error!(%error, "encode metrics");
            Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded\n"))
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(text)).expect("no header can be wrong")
}
