//! TLS for every listener and every connection: PEM in, configurations of rustls out, made anew when the files change.
//!
//! [`Acceptor`] serves listeners, [`Connector`] bare connections, [`Dialer`] those of gRPC. Each looks at its files when a connection
//! begins, at most once a second; connections that are open stay as they are. What cannot be used is refused when they are made, and ignored
//! with a warning later: the last that worked goes on. Not here: who may do what.
//! Invariants: keys are in no error, log or `Debug`; a new configuration knows no session of an older one, so whoever the new authority does
//! not vouch for cannot come back by a resumption.

mod accept;
mod certificate;
mod connect;
mod dial;
mod error;
mod fault;
mod live;
mod names;
mod pem;

pub use accept::{Acceptor, Clients, ServerOptions};
pub use connect::{ClientOptions, Connector, Identity};
pub use dial::Dialer;
pub use error::Error;
pub use fault::fault;
pub use pem::Pem;

use std::sync::Arc;

/// The one that builds without a system library, as everywhere in the workspace.
fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

#[cfg(test)]
mod tests;
