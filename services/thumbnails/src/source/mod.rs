//! Where pictures come from, by the scheme of their address.

pub mod guard;
pub mod http;
pub mod local;

use std::time::Duration;

use ::http::StatusCode;
use bytes::Bytes;

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

/// A source's answer.
#[derive(Debug)]
pub enum Fetched {
    Found {
        bytes: Bytes,
        validators: Validators,
    },
    /// As it was when the validators that were sent along were taken.
    Unchanged(Validators),
}

/// All sources that are configured.
pub struct Sources {
    local: Option<local::Local>,
    http: Option<http::Http>,
    permits: tokio::sync::Semaphore,
    timeout: Duration,
}

impl Sources {
    /// As configured; nothing is dialled.
    pub fn new(config: &Config) -> anyhow::Result<Sources> {
        Ok(Sources {
            local: local::Local::new(&config.local)?,
            http: http::Http::new(&config.http)?,
            permits: tokio::sync::Semaphore::new(config.limits.downloads_max),
            timeout: config.limits.download_timeout.0,
        })
    }

    /// Brings what is at `address`, at most `bytes_max` bytes of it. With `known` validators it may turn out to be unchanged.
    pub async fn fetch(&self, address: &str, bytes_max: u64, known: Option<&Validators>) -> Result<Fetched, SourceError> {
        let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
        let kind = match scheme {
            "local" => "local",
            "http" | "https" => "http",
            _ => return Err(SourceError::Scheme(scheme.chars().take(32).collect())),
        };
        let _permit = self.permits.try_acquire().map_err(|_| SourceError::Busy)?;
        let timer = metrics::SOURCE_SECONDS.with_label_values(&[kind]).start_timer();
        let fetch = async {
            match kind {
                "local" => self.local(rest, bytes_max, known).await,
                _ => match &self.http {
                    Some(http) => http.fetch(address, bytes_max, known).await,
                    None => Err(SourceError::Scheme(scheme.to_owned())),
                },
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

    async fn local(&self, path: &str, bytes_max: u64, known: Option<&Validators>) -> Result<Fetched, SourceError> {
        let local = self.local.clone().ok_or_else(|| SourceError::Scheme("local".into()))?;
        let (path, known) = (path.to_owned(), known.cloned());
        tokio::task::spawn_blocking(move || local.fetch(&path, bytes_max, known.as_ref()))
            .await
            .map_err(|error| SourceError::Down(error.to_string()))?
    }
}
