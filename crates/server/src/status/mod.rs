//! The status port: metrics, health, configuration, profiles and a dashboard, over plain HTTP/1.1.
//!
//! It only reads: nothing here changes data or configuration. It listens on loopback unless told otherwise.

mod profile;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base::MonoTime;
use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;

use crate::config::{ApiVersion, Config};

/// Connections at once: a few people and scrapers.
pub const CONNECTIONS_MAX: usize = 64;

/// What `/status` tells.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    pub version: &'static str,
    pub commit: &'static str,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub ready: bool,
    /// Empty until the process knows its cluster. Text: a browser's numbers end at 53 bits.
    pub cluster_id: String,
    /// Set when the process runs a placement driver.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pd: Option<PdReport>,
    /// The stores of this process: one in a server, several in a playground.
    pub stores: Vec<StoreReport>,
}

/// A placement driver as `/status` tells it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PdReport {
    pub address: String,
    /// Name of the member that leads; empty if none is known to.
    pub leader: String,
    pub members: u64,
    /// Stores and regions of the whole cluster; zero on members that do not lead.
    pub stores: u64,
    pub regions: u64,
}

/// A store as `/status` tells it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StoreReport {
    pub id: u64,
    pub address: String,
    pub engine: &'static str,
    pub api_version: ApiVersion,
    /// Regions with a peer here.
    pub regions: u64,
    /// Regions led here.
    pub leaders: u64,
    /// Regions here that hibernate, as nobody used them for `raft.hibernate-after`.
    pub hibernating: u64,
    pub disk_bytes: u64,
    pub disk_free_bytes: u64,
}

type Part = Arc<dyn Fn(Report) -> BoxFuture<'static, Report> + Send + Sync>;

/// What the status port knows of the process. Parts add themselves as they start.
pub struct Status {
    started: MonoTime,
    config: serde_json::Value,
    parts: Mutex<Vec<Part>>,
    awaited: Mutex<BTreeSet<&'static str>>,
}

impl Status {
    /// A process with `config`, ready once every part of `awaited` has called [`part_ready`](Status::part_ready).
    pub fn new(config: &Config, awaited: impl IntoIterator<Item = &'static str>) -> Arc<Status> {
        Arc::new(Status {
            started: MonoTime::now(),
            config: serde_json::to_value(config).expect("every option has a JSON form"),
            parts: Mutex::default(),
            awaited: Mutex::new(awaited.into_iter().collect()),
        })
    }

    /// Lets `part` add to every report from now on. It is called for each request, so it answers soon.
    pub fn add_part<F: Future<Output = Report> + Send + 'static>(&self, part: impl Fn(Report) -> F + Send + Sync + 'static) {
        self.parts.lock().push(Arc::new(move |report| part(report).boxed()));
    }

    /// Strikes `part` from what readiness waits for.
    pub fn part_ready(&self, part: &'static str) {
        self.awaited.lock().remove(part);
    }

    /// Makes the process unready while it stops.
    pub fn stopping(&self) {
        self.awaited.lock().insert("the process stops");
    }

    fn missing(&self) -> Vec<&'static str> {
        self.awaited.lock().iter().copied().collect()
    }

    pub async fn report(&self) -> Report {
        let mut report = Report {
            version: crate::VERSION,
            commit: crate::COMMIT,
            pid: std::process::id(),
            uptime_seconds: MonoTime::now().since(self.started).as_secs(),
            ready: self.missing().is_empty(),
            ..Report::default()
        };
        let parts = self.parts.lock().clone();
        for part in parts {
            report = part(report).await;
        }
        report
    }
}

/// The pages of the status port.
pub fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(include_str!("dashboard.html")) }))
        .route(
            "/status",
            get(|State(status): State<Arc<Status>>| async move { Json(status.report().await) }),
        )
        .route("/ready", get(ready))
        .route(
            "/config",
            get(|State(status): State<Arc<Status>>| async move { Json(status.config.clone()) }),
        )
        .route("/metrics", get(metrics))
        .route("/debug/pprof/profile", get(profile::cpu))
        .route("/debug/pprof/heap", get(profile::heap))
        .with_state(status)
}

async fn ready(State(status): State<Arc<Status>>) -> Response {
    let missing = status.missing();
    if missing.is_empty() {
        return (StatusCode::OK, "ready\n").into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: {}\n", missing.join(", ")),
    )
        .into_response()
}

async fn metrics() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], base::metrics::render())
}
