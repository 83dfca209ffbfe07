//! What can go wrong with a blob.

use std::io;

/// Errors of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No room below the hard limit, or too little free disk, and eviction did not make any in time. Reads go on; try later.
    #[error("the store is full")]
    Full,
    /// More content than was declared, or than a blob may have.
    #[error("content is larger than {max} bytes")]
    TooLarge { max: u64 },
    /// The content is whole but not what its key says.
    #[error("content hashes to {got}, wanted {wanted}")]
    Mismatch { wanted: crate::Key, got: crate::Key },
    /// Less content than was declared.
    #[error("content has {got} bytes, wanted {wanted}")]
    Short { wanted: u64, got: u64 },
    /// Bytes on disk are not what was written. The blob is dropped.
    #[error("bytes on disk are damaged")]
    Damaged,
    /// A sync failed earlier: nothing is written until a restart.
    #[error("a sync failed earlier, the store only reads until it is started again")]
    Poisoned,
    /// Another process has the store open.
    #[error("{path} is open in another process")]
    Locked { path: String },
    /// A limit that cannot hold.
    #[error("{0}")]
    Config(String),
    /// Too many spaces: they are numbered with 16 bits.
    #[error("more than 65535 instance names")]
    Spaces,
    #[error("{act}")]
    Io { act: &'static str, source: io::Error },
}

impl Error {
    /// For `map_err`: says what was being done.
    pub(crate) fn io(act: &'static str) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { act, source }
    }
}
