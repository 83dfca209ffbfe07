//! Failures in the form in which they cross into other languages.

use std::any::Any;
use std::fmt;

use bytes::Bytes;
use client::{Error, Hint, PdError};

/// Kind of a failure. Numbers and names are the same in every language and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// The cluster could not serve the call now.
    Retryable = 1,
    /// The time of the call is over, and it has not been done.
    Deadline = 2,
    /// Another transaction wrote a key of this one.
    Conflict = 3,
    /// Another transaction holds a lock that was not waited for.
    Locked = 4,
    /// Waiting for a lock would have closed a circle.
    Deadlock = 5,
    /// The transaction was rolled back by others.
    Aborted = 6,
    /// A key that was to be inserted is there.
    Exists = 7,
    /// It is unknown whether a write was done.
    Undetermined = 8,
    /// An entry that was named does not exist, such as a keyspace.
    NotFound = 9,
    /// Addresses, options or the form of keys are wrong.
    Configuration = 10,
    /// The cluster refuses the request as it stands.
    Refused = 11,
    /// The caller cancelled the call.
    Cancelled = 12,
    /// The transaction was used after its end.
    Closed = 13,
    /// A fault of the library.
    Internal = 14,
}

/// Why a call failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub class: Class,
    /// What happened, with its causes, in one line.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
    /// Whether all of it, for a transaction from its begin, may be tried again.
    pub retryable: bool,
    /// The key it is about, if it is about one.
    pub key: Option<Bytes>,
}

impl Class {
    /// All of them, in the order of their numbers.
    pub const ALL: [Class; 14] = [
        Class::Retryable,
        Class::Deadline,
        Class::Conflict,
        Class::Locked,
        Class::Deadlock,
        Class::Aborted,
        Class::Exists,
        Class::Undetermined,
        Class::NotFound,
        Class::Configuration,
        Class::Refused,
        Class::Cancelled,
        Class::Closed,
        Class::Internal,
    ];

    /// One word, lower case.
    pub fn name(self) -> &'static str {
        match self {
            Class::Retryable => "retryable",
            Class::Deadline => "deadline",
            Class::Conflict => "conflict",
            Class::Locked => "locked",
            Class::Deadlock => "deadlock",
            Class::Aborted => "aborted",
            Class::Exists => "exists",
            Class::Undetermined => "undetermined",
            Class::NotFound => "not_found",
            Class::Configuration => "configuration",
            Class::Refused => "refused",
            Class::Cancelled => "cancelled",
            Class::Closed => "closed",
            Class::Internal => "internal",
        }
    }
}

impl Failure {
    /// An option or an argument that cannot be used.
    pub fn configuration(message: String) -> Failure {
        Failure {
            class: Class::Configuration,
            message,
            hint: Hint::Configuration.advice(),
            retryable: false,
            key: None,
        }
    }

    pub(crate) fn cancelled() -> Failure {
        Failure {
            class: Class::Cancelled,
            message: "the call was cancelled".into(),
            hint: "a write that was under way may be done or not: read before writing again",
            retryable: false,
            key: None,
        }
    }

    pub(crate) fn closed() -> Failure {
        Failure {
            class: Class::Closed,
            message: "the transaction has ended".into(),
            hint: "begin a new transaction: this one was committed or rolled back",
            retryable: false,
            key: None,
        }
    }

    pub(crate) fn freed() -> Failure {
        Failure {
            class: Class::Closed,
            message: "what it was called on has been closed".into(),
            hint: "connect or begin anew, and close only what is not needed any more",
            retryable: false,
            key: None,
        }
    }

    pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Failure {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Failure {
            class: Class::Internal,
            message: format!("the library panicked: {}", text.unwrap_or("no message")),
            hint: "this is a fault of the library, please report it; what the call was to write may be done or not",
            retryable: false,
            key: None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (class, hint) = (class(&error), error.hint());
        let message = base::log::chain(&error).to_string();
        Failure {
            class,
            message,
            hint: hint.advice(),
            retryable: matches!(hint, Hint::Retry | Hint::RetryTransaction),
            key: match error {
                Error::WriteConflict { key, .. }
                | Error::AlreadyExists { key }
                | Error::Locked { key, .. }
                | Error::Deadlock { key, .. } => Some(key),
                _ => None,
            },
        }
    }
}

/// Exhaustive, so that a new error does not compile until somebody decides what other languages see.
fn class(error: &Error) -> Class {
    match error {
        Error::DeadlineExceeded { .. } => Class::Deadline,
        Error::PdUnreachable { .. } | Error::Region { .. } => Class::Retryable,
        Error::WriteConflict { .. } => Class::Conflict,
        Error::Locked { .. } => Class::Locked,
        Error::Deadlock { .. } => Class::Deadlock,
        Error::RolledBack { .. } | Error::Aborted { .. } => Class::Aborted,
        Error::AlreadyExists { .. } => Class::Exists,
        Error::Undetermined { .. } => Class::Undetermined,
        Error::Pd { kind, .. } => match kind {
            PdError::NotFound => Class::NotFound,
            PdError::NotBootstrapped | PdError::RegionNotFound => Class::Retryable,
            PdError::Other => Class::Refused,
        },
        Error::Rpc { .. } => match error.hint() {
            Hint::Refused => Class::Refused,
            _ => Class::Retryable,
        },
        Error::BadAddress { .. }
        | Error::Certificates(_)
        | Error::Tls { .. }
        | Error::WrongCluster { .. }
        | Error::BadKeyspace { .. } => Class::Configuration,
        Error::Refused { .. } | Error::Protocol { .. } => Class::Refused,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}; hint: {})", self.message, self.class.name(), self.hint)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_the_order_and_names_differ() {
        for (index, class) in Class::ALL.iter().enumerate() {
            assert_eq!(*class as usize, index + 1);
        }
        let names: std::collections::BTreeSet<_> = Class::ALL.iter().map(|class| class.name()).collect();
        assert_eq!(names.len(), Class::ALL.len());
    }

    #[test]
    fn an_error_keeps_its_key_and_its_causes() {
        let locked = Failure::from(Error::Locked {
            key: "k".into(),
            holder: base::Ts(7),
        });
        assert_eq!(
            (locked.class, locked.key.as_deref(), locked.retryable),
            (Class::Locked, Some(&b"k"[..]), true)
        );
        let late = Failure::from(Error::DeadlineExceeded {
            deadline: std::time::Duration::from_secs(1),
            attempts: 3,
            last: Some(Box::new(Error::Refused { message: "cause".into() })),
        });
        assert_eq!(late.class, Class::Deadline);
        assert!(late.message.contains("cause"), "{}", late.message);
    }
}
