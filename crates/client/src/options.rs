//! How a client is set up.

use std::time::Duration;

use tls::ClientOptions as TlsOptions;

/// What the keys of a client look like on the wire. Must fit what the stores are configured for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Api {
    /// Keys travel as they are. Also for stores that keep a TTL with every value (V1TTL).
    #[default]
    V1,
    /// Keys belong to a keyspace.
    V2(Keyspace),
}

/// A keyspace of API V2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyspace {
    /// Below 2^24. 0 is the one named `DEFAULT`.
    Id(u32),
    /// Turned into an id by PD when the client connects.
    Name(String),
}

/// See the fields. `Default` suits an application near its cluster.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Form of the keys. Default V1.
    pub api: Api,
    /// Time for one call of the API, retries included. Default 5 s.
    pub deadline: Duration,
    /// Sends requests of many callers together on one stream per connection, matched by request id. Default true: more
    /// throughput with many callers in flight. Off, each request is an HTTP/2 stream of its own.
    pub batch_commands: bool,
    /// Connections to each store. Default 1.
    pub connections: usize,
    /// Repeats a put or a delete of which it is unknown whether the store did it. Default true. Writing a value twice is
    /// harmless unless somebody else wrote in between; who cannot have that turns it off and gets [`crate::Error::Undetermined`].
    /// A compare-and-swap is never repeated in that case.
    pub retry_undetermined: bool,
    /// TLS to the placement driver and the stores; without, everything goes in the clear. Default none. Files are read again when they change,
    /// for connections made from then on.
    pub tls: Option<TlsOptions>,
    /// Largest answer that is accepted, in bytes. Default 64 MiB.
    pub answer_bytes_max: usize,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            api: Api::V1,
            deadline: Duration::from_secs(5),
            batch_commands: true,
            connections: 1,
            retry_undetermined: true,
            tls: None,
            answer_bytes_max: 64 << 20,
        }
    }
}
