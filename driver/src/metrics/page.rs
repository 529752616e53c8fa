//! The metrics page: HTTP/1.1, one request per connection, `GET /metrics` only. Read-only, and apart from the control
//! API's port.

use super::Metrics;
use crate::control::Control;
use crate::shutdown::Shutdown;
use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

const CONNECTIONS_MAX: usize = 16;
const REQUEST_BYTES_MAX: usize = 8 << 10;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A metrics page that listens.
#[derive(Debug)]
pub struct Page {
    listener: TcpListener,
    metrics: Metrics,
    /// Where the gauges come from; a node has none.
    control: Option<Arc<Control>>,
}

impl Page {
    pub async fn bind(address: SocketAddr, metrics: Metrics, control: Option<Arc<Control>>) -> anyhow::Result<Page> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("bind metrics page {address}"))?;
        Ok(Page { listener, metrics, control })
    }

    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        self.listener.local_addr().context("address of the metrics page")
    }

    pub async fn serve(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let page = Arc::new(self);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let stop = shutdown.requested();
        tokio::pin!(stop);
        loop {
            let permit = connections.clone().acquire_owned().await.context("bound connections")?;
            let accepted = tokio::select! {
                accepted = page.listener.accept() => accepted,
                () = &mut stop => return Ok(()),
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accept a connection to the metrics page");
                    // Out of descriptors, for instance: without a pause this would spin.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let page = page.clone();
            tokio::spawn(async move {
                let answered = tokio::time::timeout(REQUEST_TIMEOUT, page.answer(stream)).await;
                if !matches!(answered, Ok(Ok(()))) {
                    tracing::debug!(?answered, "metrics page not read to the end");
                }
                drop(permit);
            });
        }
    }

    async fn answer(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let mut request = Vec::new();
        let mut part = [0; 1024];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            let count = stream.read(&mut part).await.context("read request")?;
            anyhow::ensure!(count > 0 && request.len() + count <= REQUEST_BYTES_MAX, "no whole request");
            request.extend_from_slice(&part[..count]);
        }
        let wanted = request.starts_with(b"GET /metrics ");
        let (status, body) = if wanted { ("200 OK", self.page().await?) } else { ("404 Not Found", String::new()) };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.context("write head")?;
        stream.write_all(body.as_bytes()).await.context("write page")?;
        stream.shutdown().await.context("close")
    }

    async fn page(&self) -> anyhow::Result<String> {
        if let Some(control) = &self.control {
            self.metrics.set_health(&control.health().await?);
            self.metrics.set_repair(&control.repair.last().figures);
        }
        Ok(self.metrics.text())
    }
}
