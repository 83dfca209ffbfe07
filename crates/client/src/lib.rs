//! A client of the cluster, over the public wire alone: it works against any server that speaks it.
//!
//! [`RawClient`] serves keys without transactions, [`TxnClient`] transactions, [`Pd`] talks to the placement driver. A key goes from `raw` or `txn` to `route`,
//! which finds its region in `cache` (or asks `pd`), sends the request through `store`, on a stream of its own or with others
//! in `batch`, and tries again as `cache` and `retry` say. `cache`, `keys` and `retry` are plain values without I/O.
//! Invariants: every call ends within its deadline; a write whose outcome is unknown is never reported as failed or done, and
//! one that must not happen twice is never sent twice; all queues are bounded.

mod batch;
mod cache;
mod call;
mod error;
mod keys;
mod metrics;
mod net;
mod options;
mod pd;
mod raw;
mod request;
mod retry;
mod route;
mod scan;
mod store;
mod tso;
mod txn;

pub use error::{Error, Hint, PdError, WaitFor};
pub use keys::KeyRange;
pub use metrics::{CommandMetrics, Metrics, RequestOutcome};
pub use options::{Api, ClientOptions, Keyspace};
pub use pd::Pd;
pub use raw::{Checksum, RawClient, Swap, Ttl};
pub use scan::{Pair, ScanOptions};
pub use tls::{ClientOptions as TlsOptions, Identity, Pem};
pub use txn::{LockWait, ReadFrom, Savepoint, Snapshot, Transaction, TxnClient, TxnOptions};
