//! Why a request is not served, and how each wire says so.

use ::http::StatusCode;
use tonic::{Code, Status};

use crate::metrics::Failure;

/// Errors of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path, header or message is none that we know.
    #[error("{0}")]
    Malformed(&'static str),
    /// Credentials are missing or wrong.
    #[error("who are you? credentials are missing or wrong")]
    Unauthenticated,
    /// Known, but without the right.
    #[error("no right to {0} here")]
    Forbidden(&'static str),
    #[error("no such blob")]
    NotFound,
    /// The client sends too slowly, or stopped.
    #[error("the upload is too slow")]
    Slow,
    /// As many uploads run as are allowed.
    #[error("too many uploads at once")]
    Busy,
    /// An offset that the blob, or the upload, does not have.
    #[error("{0}")]
    OutOfRange(&'static str),
    /// The connection broke while the body was read.
    #[error("read the request")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What was sent as zstd is none, or broke off.
    #[error("the body is not zstd")]
    Compression,
    #[error("the store")]
    Store(#[from] blob_store::Error),
}

impl Error {
    /// For HTTP.
    pub fn status(&self) -> StatusCode {
        use blob_store::Error as Store;
        match self {
            Error::Malformed(_) | Error::Body(_) | Error::Compression => StatusCode::BAD_REQUEST,
            Error::Unauthenticated => StatusCode::UNAUTHORIZED,
            Error::Forbidden(_) => StatusCode::FORBIDDEN,
            Error::NotFound => StatusCode::NOT_FOUND,
            Error::OutOfRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Error::Slow => StatusCode::REQUEST_TIMEOUT,
            Error::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Error::Store(store) => match store {
                Store::Full | Store::Spaces => StatusCode::INSUFFICIENT_STORAGE,
                Store::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                Store::Mismatch { .. } | Store::Short { .. } => StatusCode::BAD_REQUEST,
                Store::Damaged | Store::Poisoned | Store::Locked { .. } | Store::Config(_) | Store::Io { .. } => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            },
        }
    }

    /// For gRPC.
    pub fn code(&self) -> Code {
        use blob_store::Error as Store;
        match self {
            Error::Malformed(_) | Error::Compression => Code::InvalidArgument,
            Error::Unauthenticated => Code::Unauthenticated,
            Error::Forbidden(_) => Code::PermissionDenied,
            Error::NotFound => Code::NotFound,
            Error::OutOfRange(_) => Code::OutOfRange,
            Error::Slow => Code::DeadlineExceeded,
            Error::Busy => Code::Unavailable,
            Error::Body(_) => Code::Cancelled,
            Error::Store(store) => match store {
                Store::Full | Store::Spaces => Code::ResourceExhausted,
                Store::TooLarge { .. } | Store::Mismatch { .. } | Store::Short { .. } => Code::InvalidArgument,
                Store::Damaged => Code::DataLoss,
                Store::Poisoned | Store::Locked { .. } | Store::Config(_) | Store::Io { .. } => Code::Internal,
            },
        }
    }

    /// How it counts.
    pub fn failure(&self) -> Option<Failure> {
        failure(self.code())
    }

    /// What the client reads. Inner text stays in the log.
    pub fn message(&self) -> String {
        match self {
            Error::Store(store) if self.status() != StatusCode::INTERNAL_SERVER_ERROR => store.to_string(),
            Error::Store(_) => "the store failed; its log tells why".to_owned(),
            other => other.to_string(),
        }
    }

    /// Logs what a human must see.
    pub fn log(&self) {
        if self.status().is_server_error() && !matches!(self, Error::Busy | Error::Store(blob_store::Error::Full)) {
            tracing::error!(error = %base::log::chain(self), "request failed");
        }
    }
}

/// How an answer with this code counts; a miss is no failure.
pub fn failure(code: Code) -> Option<Failure> {
    match code {
        Code::Ok | Code::NotFound => None,
        Code::Internal | Code::Unknown | Code::DataLoss | Code::ResourceExhausted | Code::Unavailable => Some(Failure::Failed),
        _ => Some(Failure::Refused),
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        error.log();
        Status::new(error.code(), error.message())
    }
}
