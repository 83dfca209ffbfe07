//! Where pictures come from, by the scheme of their address.

pub mod ferrite;
pub mod guard;
pub mod http;
pub mod local;
pub mod objects;

use std::sync::Arc;
use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;

use crate::cluster::Cluster;
use crate::config::Config;
use crate::metrics;

/// Why there is no source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not an address, or of a scheme that is off.
    #[error("sources of {0:?} are not configured here")]
    Scheme(String),
    #[error("the source is no valid address: {0}")]
    Address(String),
    /// By a list, or by the guard of addresses.
    #[error("the source is not allowed: {0}")]
    Refused(String),
    #[error("there is no such source")]
    NotFound,
    #[error("the source has more than {max} bytes")]
    TooLarge { max: u64 },
    #[error("the source took too long")]
    Timeout,
    /// It answered, but not with a picture.
    #[error("the source answered {0}")]
    Status(u16),
    #[error("the source is down: {0}")]
    Down(String),
    /// More downloads than are allowed already run.
    #[error("too many sources at once")]
    Busy,
}

impl SourceError {
    /// A source that is missing is the client's affair, one that is down is not.
    pub fn status(&self) -> StatusCode {
        match self {
            SourceError::Address(_) => StatusCode::BAD_REQUEST,
            SourceError::Scheme(_) | SourceError::Refused(_) => StatusCode::FORBIDDEN,
            SourceError::NotFound => StatusCode::NOT_FOUND,
            SourceError::TooLarge { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            SourceError::Timeout => StatusCode::GATEWAY_TIMEOUT,
            SourceError::Status(_) | SourceError::Down(_) => StatusCode::BAD_GATEWAY,
            SourceError::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn outcome(&self) -> &'static str {
        match self {
            SourceError::NotFound => "missing",
            SourceError::Scheme(_) | SourceError::Address(_) | SourceError::Refused(_) | SourceError::TooLarge { .. } => {
                "refused"
            }
            _ => "failed",
        }
    }
}

/// What a source says of its version and of how long it may be kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Validators {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    pub cache_control: Option<String>,
    pub expires: Option<String>,
}

/// What is wanted of a source.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// A larger source is refused.
    pub bytes_max: u64,
    /// What is known of it; it may turn out to be unchanged.
    pub known: Option<&'a Validators>,
    /// How many of its first bytes are enough. A source that cannot be read in part comes whole.
    pub start: Option<u64>,
}

impl Want<'_> {
    /// All of it, whatever is known.
    pub fn whole(bytes_max: u64) -> Want<'static> {
        Want {
            bytes_max,
            known: None,
            start: None,
        }
    }
}

/// A source's answer.
#[derive(Debug)]
pub enum Fetched {
    Found {
        bytes: Bytes,
        validators: Validators,
        /// Bytes of the whole source, if it tells.
        total: Option<u64>,
    },
    /// As it was when the validators that were sent along were taken.
    Unchanged(Validators),
}

/// All sources that are configured.
pub struct Sources {
    local: Option<local::Local>,
    http: Option<http::Http>,
    objects: Option<objects::Objects>,
    ferrite: Option<ferrite::Ferrite>,
    permits: tokio::sync::Semaphore,
    timeout: Duration,
}

impl Sources {
    /// As configured; nothing is dialled.
    pub fn new(config: &Config, cluster: Option<Arc<Cluster>>) -> anyhow::Result<Sources> {
        Ok(Sources {
            local: local::Local::new(&config.local)?,
            http: http::Http::new(&config.http)?,
            objects: objects::Objects::new(&config.objects)?,
            ferrite: ferrite::Ferrite::new(cluster, &config.ferrite.sources),
            permits: tokio::sync::Semaphore::new(config.limits.downloads_max),
            timeout: config.limits.download_timeout.0,
        })
    }

    /// Brings what is at `address`.
    pub async fn fetch(&self, address: &str, want: &Want<'_>) -> Result<Fetched, SourceError> {
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let kind = match scheme {
            "local" => "local",
            "http" | "https" => "http",
            "ferrite" => "ferrite",
            scheme if objects::Objects::has_scheme(scheme) => "objects",
            _ => return Err(SourceError::Scheme(scheme.chars().take(32).collect())),
        };
        let _permit = self.permits.try_acquire().map_err(|_| SourceError::Busy)?;
        let timer = metrics::SOURCE_SECONDS.with_label_values(&[kind]).start_timer();
        let fetch = async {
            let is_off = || SourceError::Scheme(scheme.to_owned());
            match kind {
                "local" => self.local(rest, want).await,
                "objects" => self.objects.as_ref().ok_or_else(is_off)?.fetch(scheme, rest, want).await,
                "ferrite" => self.ferrite.as_ref().ok_or_else(is_off)?.fetch(rest, want).await,
                _ => self.http.as_ref().ok_or_else(is_off)?.fetch(address, want).await,
            }
        };
        let fetched = match tokio::time::timeout(self.timeout, fetch).await {
            Ok(fetched) => fetched,
            Err(_) => Err(SourceError::Timeout),
        };
        timer.observe_duration();
        let outcome = match &fetched {
            Ok(Fetched::Found { .. }) => "found",
            Ok(Fetched::Unchanged(_)) => "unchanged",
            Err(error) => error.outcome(),
        };
        metrics::SOURCES.with_label_values(&[kind, outcome]).inc();
        fetched
    }

    async fn local(&self, path: &str, want: &Want<'_>) -> Result<Fetched, SourceError> {
        let local = self.local.clone().ok_or_else(|| SourceError::Scheme("local".into()))?;
        let (path, known, Want { bytes_max, start, .. }) = (path.to_owned(), want.known.cloned(), *want);
        let read = move || {
            let known = known.as_ref();
            local.fetch(&path, &Want { bytes_max, known, start })
        };
        tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| SourceError::Down(error.to_string()))?
    }
}
