//! What can go wrong, and what a caller can do about it.

use std::time::Duration;

use base::Ts;
use bytes::Bytes;

/// What to do after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing was done, or doing it again is harmless: try again, later rather than sooner.
    Retry,
    /// The transaction was not committed and will not be: begin a new one and do all of it again.
    RetryTransaction,
    /// A write may or may not have been done, now or in a moment: read before writing again.
    Undetermined,
    /// The set-up is wrong: an address, the form of keys, a keyspace, a certificate. Trying again does not help.
    Configuration,
    /// The cluster refuses this request as it stands: a key too long, a value too large, a feature it lacks.
    Refused,
}

impl Hint {
    /// The same in a sentence, for people and for clients in other languages.
    pub fn advice(self) -> &'static str {
        match self {
            Hint::Retry => "try again, later rather than sooner: nothing was done, or doing it again is harmless",
            Hint::RetryTransaction => {
                "begin a new transaction and do all of it again: this one was not committed and will not be"
            }
            Hint::Undetermined => "read before writing again: the write may be done, now or in a moment",
            Hint::Configuration => "check addresses, options and keyspace: trying again does not help",
            Hint::Refused => "change the request: the cluster does not serve it as it stands",
        }
    }
}

/// Failure of a call. [`Error::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address that cannot be one.
    #[error("`{address}` is not an address: wanted host:port, http://host:port or https://host:port")]
    BadAddress { address: String },
    /// Certificates of this client that cannot be used.
    #[error("certificates of the client cannot be used")]
    Certificates(#[source] tls::Error),
    /// The two sides do not agree on TLS: a certificate that one of them does not take, or one side alone speaks it.
    #[error("no TLS with {address}: {what}")]
    Tls { address: String, what: String },
    /// No member of the placement driver answered in time.
    #[error("no placement driver answered at {endpoints} within {waited:?}: is the cluster up, and is this its address?")]
    PdUnreachable {
        endpoints: String,
        waited: Duration,
        #[source]
        last: Option<Box<Error>>,
    },
    /// Two endpoints belong to different clusters, or PD says that this client's cluster is not its own.
    #[error("{address} belongs to cluster {actual}, wanted {expected}: are these endpoints of one cluster?")]
    WrongCluster { address: String, expected: u64, actual: u64 },
    /// The placement driver answered with an error.
    #[error("placement driver: {message}")]
    Pd { kind: PdError, message: String },
    /// A remote call failed below the level of the protocol.
    #[error("call {address}: {}", told(.status))]
    Rpc { address: String, status: Box<tonic::Status> },
    /// The time given to the call is over; it has not been done.
    #[error("not done within {deadline:?} after {attempts} attempts")]
    DeadlineExceeded {
        deadline: Duration,
        attempts: u32,
        #[source]
        last: Option<Box<Error>>,
    },
    /// It is unknown whether a write was done.
    #[error("it is unknown whether the write was done: read before writing again")]
    Undetermined {
        #[source]
        last: Option<Box<Error>>,
    },
    /// A store could not serve a region; seen as the last cause of a deadline.
    #[error("region {region}: {message}")]
    Region { region: u64, message: String },
    /// A store refused the request itself.
    #[error("store refused: {message}")]
    Refused { message: String },
    /// Another transaction wrote a key of this one after it began. Nothing was committed.
    #[error("transaction {start_ts} conflicts with {conflict_ts}, which was committed at {conflict_commit_ts}")]
    WriteConflict {
        start_ts: Ts,
        conflict_ts: Ts,
        conflict_commit_ts: Ts,
        key: Bytes,
    },
    /// A key that was to be inserted is there. Nothing was committed.
    #[error("key exists already")]
    AlreadyExists { key: Bytes },
    /// Another transaction's lock is in the way: the last cause of a deadline, or all that was wanted of a lock without waiting.
    #[error("key is locked by transaction {holder}")]
    Locked { key: Bytes, holder: Ts },
    /// Waiting for a lock would have closed a circle. The transaction still holds its other locks until it is rolled back.
    #[error("deadlock: transaction {start_ts} would wait for {holder}, over {} locks", .chain.len())]
    Deadlock {
        start_ts: Ts,
        holder: Ts,
        key: Bytes,
        /// Who waits for whom, from the holder back to this transaction.
        chain: Vec<WaitFor>,
    },
    /// Others rolled the transaction back, as its locks outlived their time, or it was rolled back before.
    #[error("transaction {start_ts} was rolled back")]
    RolledBack { start_ts: Ts },
    /// The store ended the transaction for another reason.
    #[error("transaction {start_ts} was aborted: {message}")]
    Aborted { start_ts: Ts, message: String },
    /// A keyspace id that does not fit three bytes.
    #[error("keyspace {id} is out of range: wanted less than 16777216")]
    BadKeyspace { id: u32 },
    /// Peer said something that the protocol does not allow.
    #[error("{address} answered against the protocol: {what}")]
    Protocol { address: String, what: String },
}

/// One edge of a deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitFor {
    pub waiter: Ts,
    pub holder: Ts,
    /// The key waited for.
    pub key: Bytes,
}

/// Kinds of errors of the placement driver, as far as callers tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PdError {
    /// No store has joined yet.
    NotBootstrapped,
    /// No region, or no leader for it yet.
    RegionNotFound,
    /// A store, keyspace or other entry that does not exist.
    NotFound,
    /// Any other.
    Other,
}

impl Error {
    /// What a caller can do.
    pub fn hint(&self) -> Hint {
        match self {
            Error::PdUnreachable { last: Some(last), .. } | Error::DeadlineExceeded { last: Some(last), .. }
                if matches!(**last, Error::Tls { .. }) =>
            {
                Hint::Configuration
            }
            Error::PdUnreachable { .. } | Error::DeadlineExceeded { .. } | Error::Region { .. } | Error::Locked { .. } => {
                Hint::Retry
            }
            Error::WriteConflict { .. } | Error::Deadlock { .. } | Error::RolledBack { .. } | Error::Aborted { .. } => {
                Hint::RetryTransaction
            }
            Error::Pd {
                kind: PdError::NotBootstrapped | PdError::RegionNotFound,
                ..
            } => Hint::Retry,
            Error::Rpc { status, .. } if is_refusal(status) => Hint::Refused,
            Error::Rpc { .. } => Hint::Retry,
            Error::Undetermined { .. } => Hint::Undetermined,
            Error::BadAddress { .. }
            | Error::Certificates(_)
            | Error::Tls { .. }
            | Error::WrongCluster { .. }
            | Error::BadKeyspace { .. } => Hint::Configuration,
            Error::Pd {
                kind: PdError::NotFound, ..
            } => Hint::Configuration,
            Error::Pd {
                kind: PdError::Other, ..
            }
            | Error::Refused { .. }
            | Error::AlreadyExists { .. }
            | Error::Protocol { .. } => Hint::Refused,
        }
    }

    /// Wraps a failed remote call.
    pub(crate) fn rpc(address: &str, status: tonic::Status) -> Error {
        if let Some(what) = tls::fault(&status) {
            return Error::Tls {
                address: address.to_owned(),
                what,
            };
        }
        Error::Rpc {
            address: address.to_owned(),
            status: Box::new(status),
        }
    }
}

/// A status in a few words; its `Display` tells the whole transport stack.
fn told(status: &tonic::Status) -> &str {
    if status.message().is_empty() {
        status.code().description()
    } else {
        status.message()
    }
}

/// Whether the server looked at the request and will not serve it, now or later.
pub(crate) fn is_refusal(status: &tonic::Status) -> bool {
    use tonic::Code::*;
    match status.code() {
        InvalidArgument | FailedPrecondition | OutOfRange | Unimplemented | PermissionDenied | Unauthenticated | NotFound
        | AlreadyExists | ResourceExhausted | DataLoss => true,
        Ok | Cancelled | Unknown | DeadlineExceeded | Aborted | Internal | Unavailable => false,
    }
}

/// Whether the request certainly never left: no connection could be made.
pub(crate) fn was_not_sent(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
