//! Pages for people and programs: `/`, `/status`, `/metrics`, and what operators delete.

use std::sync::Arc;

use ::http::{HeaderValue, Response, StatusCode, header};
use base::MonoTime;
use blob_store::Content;
use serde_json::{Value, json};

use crate::body::Body;
use crate::cache::{self, Cache};
use crate::error::Error;
use crate::http;
use crate::metrics::{self, Meters};
use crate::name::{self, What};

const PAGE: &str = include_str!("status.html");

/// The pages of one server.
pub struct Pages {
    cache: Cache,
    meters: Arc<Meters>,
    start: MonoTime,
}

impl Pages {
    pub fn new(cache: Cache, meters: Arc<Meters>) -> Pages {
        Pages {
            cache,
            meters,
            start: MonoTime::now(),
        }
    }

    /// The page for people; it reads `/status` itself.
    pub fn html(&self) -> Response<Body> {
        typed("text/html; charset=utf-8", PAGE.to_owned())
    }

    /// Everything that Prometheus scrapes.
    pub fn metrics(&self) -> Response<Body> {
        metrics::note_store(&self.cache.store.stats());
        typed("text/plain; version=0.0.4", base::metrics::render())
    }

    /// Figures of this moment and of the last day.
    pub fn status(&self) -> Response<Body> {
        let stats = self.cache.store.stats();
        let mut response = http::json(
            StatusCode::OK,
            &json!({
                "version": env!("CARGO_PKG_VERSION"),
                "commit": base::BUILD_COMMIT,
                "uptime_seconds": MonoTime::now().since(self.start).as_secs(),
                "store": {
                    "used_bytes": stats.used, "max_bytes": stats.size_max, "disk_free_bytes": stats.disk_free,
                    "blobs": stats.blobs, "blob_bytes": stats.stored, "segments": stats.segments,
                    "dead_bytes": stats.dead, "index_bytes": stats.index_memory, "hot_bytes": stats.hot,
                },
                "uploads": metrics::UPLOADS.get(),
                "connections": metrics::CONNECTIONS.get(),
                "blocking": metrics::BLOCKING.get(),
                "tiers": self.cache.tiers.figures(),
                "instances": self.instances(&stats),
                "protocols": self.protocols(),
                "history": self.meters.history(),
            }),
        );
        let fresh = HeaderValue::from_static("no-store");
        response.headers_mut().insert(header::CACHE_CONTROL, fresh);
        response
    }

    fn instances(&self, stats: &blob_store::Stats) -> Value {
        let top = self.meters.top();
        let requests = |name: &str| top.iter().find(|(known, _)| known == name).map_or(0, |(_, count)| *count);
        let stored = stats
            .spaces
            .iter()
            .map(|(name, blobs, bytes)| json!({ "name": name, "blobs": blobs, "bytes": bytes, "requests": requests(name) }));
        let is_stored = |name: &str| stats.spaces.iter().any(|(known, ..)| known == name);
        let others = top.iter().filter(|(name, _)| !is_stored(name));
        let others = others.map(|(name, count)| json!({ "name": name, "blobs": 0, "bytes": 0, "requests": count }));
        stored.chain(others).collect()
    }

    fn protocols(&self) -> Value {
        let meters = self.meters.list();
        let rows = meters.iter().map(|meter| {
            json!({
                "protocol": meter.protocol.name(), "instance": meter.instance,
                "hits": meter.hits.get(), "misses": meter.misses.get(), "stored": meter.stored.get(),
                "refused": meter.refused.get(), "failed": meter.failed.get(),
                "bytes_in": meter.bytes_in.get(), "bytes_out": meter.bytes_out.get(), "bytes_saved": meter.bytes_saved.get(),
            })
        });
        rows.collect()
    }

    /// `DELETE /admin/key/<path of the blob>` and `DELETE /admin/instance/<name>`: how many blobs went from here. They go from the tiers
    /// too: of an instance, what is under names; content under digests is everybody's.
    pub async fn purge(&self, what: &str) -> Result<Response<Body>, Error> {
        let (kind, name) = what.split_once('/').ok_or(Error::NotFound)?;
        let purged = match kind {
            "key" => {
                let target = name::parse(&format!("/{name}"), "")?;
                let id = match target.what {
                    What::Blob { key, content, .. } => target.id(key, content),
                    What::Action(key) => target.id(key, Content::Named),
                    _ => return Err(Error::NotFound),
                };
                u64::from(self.cache.remove(id).await?)
            }
            "instance" => {
                let purged = match self.cache.store.find_space(name) {
                    Some(space) => {
                        let store = self.cache.store.clone();
                        cache::blocking(move || store.remove_space(space)).await?
                    }
                    None => 0,
                };
                self.cache.tiers.remove_instance(name).await;
                purged
            }
            _ => return Err(Error::NotFound),
        };
        tracing::info!(kind, name, purged, "purged");
        Ok(http::json(StatusCode::OK, &json!({ "purged": purged })))
    }
}

fn typed(kind: &'static str, text: String) -> Response<Body> {
    let mut response = Response::new(Body::text(text));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
