//! Why certificates cannot be used.

use std::io;

/// Each tells the file, or which of the given texts, that has the fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read {file}")]
    Read { file: String, source: io::Error },
    #[error("{file} is larger than 1 MiB, which no certificate or key is")]
    TooLarge { file: String },
    #[error("{file} is not PEM: {reason}")]
    NotPem { file: String, reason: String },
    #[error("{file} holds no certificate")]
    NoCertificate { file: String },
    #[error("{file} holds no private key: wanted one without a passphrase")]
    NoKey { file: String },
    #[error("the key in {key} does not fit the certificate in {certificate}: {reason}")]
    Mismatch {
        certificate: String,
        key: String,
        reason: String,
    },
    #[error("the certificate in {file} expired at {at}")]
    Expired { file: String, at: String },
    #[error("the certificate in {file} is not valid before {at}")]
    NotYet { file: String, at: String },
    #[error("{file} holds no certificate of an authority that is valid now: {reason}")]
    Authority { file: String, reason: String },
    #[error("set up TLS")]
    Setup(#[from] rustls::Error),
}
