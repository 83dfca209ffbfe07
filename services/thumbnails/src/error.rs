//! Why a request gets no picture, and what the client is told.

use std::time::Duration;

use http::StatusCode;

use crate::pipeline;
use crate::pool::PoolError;
use crate::source::SourceError;
use crate::url::UrlError;

/// Errors of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Picture(#[from] pipeline::Error),
    /// Come again.
    #[error("busy: too much work is waiting")]
    Busy,
    /// Come again after that time; others may come meanwhile.
    #[error("this client asks too often: wait {} ms", .wait.as_millis())]
    TooOften { wait: Duration },
    #[error("the request took too long")]
    Timeout,
    /// Ours to explain.
    #[error("the work failed; the log tells why")]
    Failed,
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Error {
        match error {
            PoolError::Busy => Error::Busy,
            PoolError::Dropped => Error::Failed,
        }
    }
}

impl Error {
    /// For HTTP. What is wrong with the request is 4xx, with the picture 422, with where it comes from 404, 502 or 504.
    pub fn status(&self) -> StatusCode {
        use pipeline::Error as Picture;
        match self {
            Error::Url(UrlError::Signature) => StatusCode::FORBIDDEN,
            Error::Url(UrlError::Expired) => StatusCode::NOT_FOUND,
            Error::Url(_) => StatusCode::BAD_REQUEST,
            Error::Source(source) => source.status(),
            Error::Picture(Picture::Header(_) | Picture::TooMuch(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Picture(Picture::Codec(crate::codec::CodecError::Decode { .. })) => StatusCode::UNPROCESSABLE_ENTITY,
            Error::Picture(Picture::Codec(crate::codec::CodecError::Encode { .. })) | Error::Failed => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            Error::Picture(Picture::Cancelled) | Error::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Error::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Error::TooOften { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// Whether another picture may stand in: not for those who may not ask.
    pub fn has_fallback(&self) -> bool {
        !matches!(self, Error::Url(_) | Error::Busy | Error::TooOften { .. })
    }

    /// Logs what a human must see.
    pub fn log(&self) {
        match self {
            Error::Picture(pipeline::Error::Codec(crate::codec::CodecError::Encode { .. })) | Error::Failed => {
                tracing::error!(error = %base::log::chain(self), "request failed");
            }
            _ => tracing::debug!(error = %base::log::chain(self), "request refused"),
        }
    }
}
