//! Configuration: a TOML file. The docs of the options are what `docs/cache-proxy-configuration.md` is made of; a test fails when it is
//! stale.

mod check;
mod page;

use std::path::{Path, PathBuf};

use base::log::LogFormat;
use base::options::SectionDoc;
use base::{ByteSize, Span, section};
use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::ring::Distribution;

pub use page::reference_page;

/// What clients of a pool speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// RESP2 and RESP3.
    #[default]
    Redis,
    /// Text, meta and binary, told apart by the first byte.
    Memcached,
}

/// What stands behind a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The servers named, by hash.
    #[default]
    Servers,
    /// A Redis Cluster; the servers named are where to ask for the others.
    Cluster,
    /// The master that Redis Sentinels name; the servers are the sentinels.
    Sentinel,
    /// A Ferrite cluster; the servers are its placement drivers.
    Ferrite,
}

/// Who answers reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadPolicy {
    #[default]
    Primary,
    /// A replica if one is known and healthy.
    PreferReplica,
    /// Whoever of primary and replicas answers probes soonest.
    Nearest,
}

section! { "server",
    /// The process.
    pub struct ServerConfig {
        /// Threads, each with a listener, an event loop and server connections of its own; 0: one per core. Bound 256. Fixed at start.
        pub threads: usize = 0,
        /// Address of metrics (`/metrics`), health (`/healthz`) and pools (`/pools`), over HTTP; empty: off. Fixed at start.
        pub admin_addr: String = String::new(),
        /// Whether pools may listen, without a password, on addresses that other machines reach. Changes on reload.
        pub allow_insecure: bool = false,
        /// Requests slower than this go to `SLOWLOG`. 0s: none. Changes on reload.
        pub slow: Span = Span::millis(10),
        /// Values and requests of at least this size are counted as big and named in `HOTKEYS BIG`. Changes on reload.
        pub big: ByteSize = ByteSize::mib(1),
        /// How long a stop waits for running requests. Bound 1m. Fixed at start.
        pub drain: Span = Span::secs(5),
    }
}

section! { "log",
    /// What is told on standard error.
    pub struct LogConfig {
        /// Level `error`, `warn`, `info`, `debug` or `trace`, or a filter. Fixed at start.
        pub level: String = "info".into(),
        /// `text` for people, `json` for programs. Fixed at start.
        pub format: LogFormat = LogFormat::Text,
    }
}

section! { "pools",
    /// A listener and the servers behind it, as `[[pools]]`; any number of them.
    pub struct PoolConfig {
        /// Its name in logs and metrics. Changes on reload.
        pub name: String = String::new(),
        /// Address for clients, `IP:PORT`. Changes on reload.
        pub listen: String = String::new(),
        /// What clients speak: `redis` or `memcached`. Changes on reload.
        pub protocol: Protocol = Protocol::Redis,
        /// What stands behind: `servers`, `cluster` (Redis Cluster), `sentinel` or `ferrite`. Changes on reload.
        pub backend: Backend = Backend::Servers,
        /// `HOST:PORT`, `HOST:PORT:WEIGHT` or `HOST:PORT:WEIGHT NAME`, as twemproxy writes them; the name stands for the server on the ring, so
        /// that a replacement keeps its keys. Changes on reload.
        pub servers: Vec<String> = Vec::new(),
        /// Name of the master that sentinels watch. Changes on reload.
        pub sentinel_master: String = String::new(),
        /// `ketama`, `modula` or `random`. Changes on reload.
        pub distribution: Distribution = Distribution::Ketama,
        /// `fnv1a_64`, `fnv1_64`, `fnv1_32`, `fnv1a_32`, `one_at_a_time`, `md5`, `crc16`, `crc32`, `crc32a` or `murmur`, each with twemproxy's
        /// numbers. Changes on reload.
        pub hash: Hash = Hash::Fnv1a64,
        /// Two characters; what stands between them in a key is hashed in its place. Empty: the whole key. Changes on reload.
        pub hash_tag: String = String::new(),
        /// Databases that `SELECT` offers. A cluster has one. Bound 1 to 1024. Changes on reload.
        pub databases: u32 = 16,
        /// Connections to each server from each thread. Bound 1 to 64. Changes on reload.
        pub connections: usize = 1,
        /// User for the servers; empty: the default one. Changes on reload.
        pub server_user: String = String::new(),
        /// Password for the servers; empty: none. Changes on reload.
        pub server_password: String = String::new(),
        /// Whether servers are reached by TLS. Changes on reload.
        pub server_tls: bool = false,
        /// PEM file with the authorities of the servers' certificates. Changes on reload; the file is looked at for each connection.
        pub server_tls_ca: PathBuf = PathBuf::new(),
        /// PEM file with a certificate that is shown to servers; empty: none. Changes on reload; the file is looked at for each connection.
        pub server_tls_certificate: PathBuf = PathBuf::new(),
        /// PEM file with the key of it. Changes on reload; the file is looked at for each connection.
        pub server_tls_key: PathBuf = PathBuf::new(),
        /// Name in the servers' certificates; empty: the host as named. A Ferrite cluster's are by host. Changes on reload.
        pub server_tls_name: String = String::new(),
        /// PEM file with the certificate for clients; empty: no TLS. Changes on reload; the file is looked at for each connection.
        pub tls_certificate: PathBuf = PathBuf::new(),
        /// PEM file with the key of it. Changes on reload; the file is looked at for each connection.
        pub tls_key: PathBuf = PathBuf::new(),
        /// PEM file with authorities of client certificates; clients must have one. Empty: not asked for. Changes on reload; the file
        /// is looked at for each connection.
        pub tls_client_ca: PathBuf = PathBuf::new(),
        /// Who may connect, as `[[pools.users]]`: `name`, `password` (`sha256:…` from `hash-password`), `commands`, `keys`, `rate`. None:
        /// everybody may everything. Changes on reload.
        pub users: Vec<UserConfig> = Vec::new(),
        /// For connecting to a server with its handshake. Bound 10ms to 1m. Changes on reload.
        pub timeout_connect: Span = Span::secs(1),
        /// For a request at a server; the connection is closed then, since replies have no other name than their order. Blocking commands are
        /// exempt. Bound 10ms to 10m. Changes on reload.
        pub timeout_request: Span = Span::secs(2),
        /// How long a client may be silent; 0s: for ever. Changes on reload.
        pub timeout_client: Span = Span::secs(0),
        /// Requests in flight to one server from one thread; more are refused at once. Bound 1 to 1000000. Changes on reload.
        pub in_flight_max: usize = 20_000,
        /// Requests of one client that wait for replies; more are left unread. Bound 1 to 100000. Changes on reload.
        pub pipeline_max: usize = 1_024,
        /// Largest request. Bound 1KiB to 1GiB. Changes on reload.
        pub request_max: ByteSize = ByteSize::mib(64),
        /// Largest reply of a server. Bound 1KiB to 4GiB. Changes on reload.
        pub reply_max: ByteSize = ByteSize::mib(512),
        /// Clients; more are told so and closed. Bound 1 to 1000000. Changes on reload.
        pub clients_max: usize = 10_000,
        /// Connections of clients' own (transactions, blocking commands, subscriptions). Bound 1 to 1000000. Changes on reload.
        pub private_max: usize = 1_000,
        /// Who answers reads, where replicas are known (cluster, sentinel): `primary`, `prefer-replica` or `nearest`. Changes on reload.
        pub reads: ReadPolicy = ReadPolicy::Primary,
        /// How long a read may wait for one server before another of its primary and replicas is asked as well; the first answer counts.
        /// Wants `reads` other than `primary`. Bound 1ms to `timeout-request`; 0s: never. Changes on reload.
        pub hedge_after: Span = Span::secs(0),
        /// Whether a failing server leaves the ring, so that others get its keys, until probes succeed. Changes on reload.
        pub eject: bool = false,
        /// Failures in a row (requests or probes) that make a server failing. Bound 1 to 1000. Changes on reload.
        pub eject_failures: u32 = 3,
        /// How often each server is probed. Bound 10ms to 10m. Changes on reload.
        pub probe_interval: Span = Span::secs(1),
        /// Probes in a row that must succeed before a failing server is used again. Bound 1 to 1000. Changes on reload.
        pub probe_successes: u32 = 2,
        /// How often the slots of a cluster, or the master of sentinels, are asked for; redirections ask too. Bound 100ms to 1h. Changes on reload.
        pub refresh_interval: Span = Span::secs(5),
        /// Whether commands that no table knows are looked for in the answer of a server to `COMMAND`. Changes on reload.
        pub learn_commands: bool = false,
        /// Whether commands over all servers are served: `FLUSHALL`, `KEYS`, `SCAN`, `DBSIZE`, `CONFIG`, `SCRIPT`, `flush_all`. Changes on reload.
        pub admin: bool = false,
        /// Name of a pool that writes and reads are sent to as well; its answers are dropped. Empty: none. Changes on reload.
        pub mirror: String = String::new(),
        /// What every key starts with in a Ferrite cluster. Changes on reload.
        pub ferrite_prefix: String = String::new(),
    }
}

/// Somebody who may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct UserConfig {
    /// `default` is who gives a password alone.
    pub name: String,
    /// `sha256:SALT:DIGEST`, as `ferrite-cache-proxy hash-password` prints it. Empty: no password is asked for.
    pub password: String,
    /// Names of commands and, with `@`, groups: `@read`, `@write`, `@string`. Empty: all.
    pub commands: Vec<String>,
    /// Prefixes that each key must have one of. Empty: all keys.
    pub keys: Vec<String>,
    /// Requests a second on each thread; 0: not limited.
    pub rate: u32,
}

/// All options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub server: ServerConfig,
    pub log: LogConfig,
    pub pools: Vec<PoolConfig>,
}

/// Every section as documented.
pub const SECTIONS: [SectionDoc; 3] = [ServerConfig::DOC, LogConfig::DOC, PoolConfig::DOC];

impl Config {
    /// Reads the file at `path`; what it does not name keeps its default. The error tells the line and, for a key that no option
    /// has, the keys that there are.
    pub fn load(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("read {}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// As TOML, with every default.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("options are plain values")
    }
}

/// A server as a pool names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerName {
    /// `HOST:PORT`.
    pub addr: String,
    pub weight: u32,
    /// What its points on the ring are made from.
    pub ring_name: String,
}

/// The port whose servers libmemcached, and so twemproxy, puts on the ring without it.
const PORT_UNNAMED: &str = "11211";

impl ServerName {
    /// Reads `HOST:PORT[:WEIGHT][ NAME]`; the error tells what was wanted.
    pub fn parse(text: &str) -> Result<ServerName, String> {
        let wanted = || format!("{text:?}: wanted HOST:PORT, HOST:PORT:WEIGHT or HOST:PORT:WEIGHT NAME");
        let (place, name) = match text.trim().split_once(char::is_whitespace) {
            Some((place, name)) => (place, Some(name.trim().to_owned())),
            None => (text.trim(), None),
        };
        let bracket = place.find(']').map_or(0, |at| at + 1);
        let (host, rest) = place
            .get(bracket..)
            .and_then(|tail| {
                let colon = bracket + tail.find(':')?;
                Some((place.get(..colon)?, place.get(colon + 1..)?))
            })
            .ok_or_else(wanted)?;
        let (port, weight) = match rest.split_once(':') {
            Some((port, weight)) => (port, weight.parse().map_err(|_error| wanted())?),
            None => (rest, 1),
        };
        let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
        if host.is_empty() || !is_port || weight == 0 || weight > 100_000 {
            return Err(wanted());
        }
        let addr = format!("{host}:{port}");
        let plain = if port == PORT_UNNAMED { host.to_owned() } else { addr.clone() };
        Ok(ServerName {
            addr,
            weight,
            ring_name: name.unwrap_or(plain),
        })
    }
}

impl PoolConfig {
    /// The servers, in order. Those that do not parse are left out: `validate` has told them.
    pub fn server_names(&self) -> Vec<ServerName> {
        self.servers
            .iter()
            .filter_map(|server| ServerName::parse(server).ok())
            .collect()
    }

    /// The two bytes of the hash tag.
    pub fn tag(&self) -> Option<(u8, u8)> {
        match self.hash_tag.as_bytes() {
            [open, close] => Some((*open, *close)),
            _ => None,
        }
    }
}
