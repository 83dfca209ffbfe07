//! Metrics, health and pools over HTTP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use super::Control;
use crate::metrics;

/// Scrapers and people at once.
const CONNECTIONS_MAX: usize = 64;

/// Listens at `addr` and serves in the background. Returns where it listens.
pub async fn serve(control: Arc<Control>, addr: &str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(addr)
        .await
        .with_context(|| format!("listen on server.admin-addr {addr}"))?;
    let bound = listener.local_addr().context("listen")?;
    tokio::spawn(accept(control, listener));
    Ok(bound)
}

async fn accept(control: Arc<Control>, listener: TcpListener) {
    let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let control = Arc::clone(&control);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&control), request));
                    let served = hyper::server::conn::http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(Duration::from_secs(10))
                        .serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "an admin connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept an admin connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn answer(control: Arc<Control>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, text) = match request.uri().path() {
        "/metrics" => (StatusCode::OK, control.metrics()),
        "/healthz" => (StatusCode::OK, "ok\n".into()),
        "/pools" => (StatusCode::OK, control.pools_text()),
        _ => (StatusCode::NOT_FOUND, "wanted /metrics, /healthz or /pools\n".into()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}

impl Control {
    fn metrics(&self) -> String {
        let state = self.state.lock();
        let plans: Vec<_> = state.pools.values().map(|pool| Arc::clone(&pool.plan)).collect();
        drop(state);
        metrics::render(&self.insight, &plans)
    }

    fn pools_text(&self) -> String {
        let state = self.state.lock();
        let mut text = String::new();
        for pool in state.pools.values() {
            let plan = &pool.plan;
            text += &format!("pool {} listens on {}\n", plan.config.name, plan.addr);
            for node in &plan.topology.nodes {
                let role = if node.replica_of.is_some() { "replica" } else { "primary" };
                let standing = if node.is_healthy { "healthy" } else { "failing" };
                text += &format!("  {} {role} {standing}\n", node.addr);
            }
        }
        text
    }
}
