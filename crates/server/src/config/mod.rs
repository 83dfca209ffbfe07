//! Configuration of a process: defaults, under a TOML file, under command line flags.
//!
//! [`Config::load`] reads a file and tells every unknown key at once; [`Config::validate`] tells every fault of the values at
//! once and changes nothing. The docs of the options here are what `docs/configuration.md` and `config.example.toml` are made
//! of ([`docs`]); a test fails when those are stale.

pub mod docs;
mod load;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use base::log::LogFormat;
use base::options::SectionDoc;
use base::{ByteSize, Span, section};
use engine::EngineConfig;
use raftstore::log::LogConfig;
use serde::{Deserialize, Serialize};

pub use load::LoadError;

use crate::security::Security;

/// Which parts of Ferrite a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A placement driver and a store.
    #[default]
    All,
    /// The placement driver alone.
    Pd,
    /// A store alone.
    Store,
}

impl Role {
    pub fn has_pd(self) -> bool {
        self != Role::Store
    }

    pub fn has_store(self) -> bool {
        self != Role::Pd
    }
}

/// How keys and values of raw and transactional clients lie in a store. Belongs to the data: it is fixed at first start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum ApiVersion {
    /// Raw keys as they are, without time to live.
    #[default]
    #[serde(rename = "v1")]
    #[value(name = "v1", alias = "1")]
    V1,
    /// Raw keys as they are, values with time to live.
    #[serde(rename = "v1ttl")]
    #[value(name = "v1ttl", alias = "1ttl")]
    V1Ttl,
    /// Keyspaces: every key starts with a mode and a keyspace; values with time to live.
    #[serde(rename = "v2")]
    #[value(name = "v2", alias = "2")]
    V2,
}

impl ApiVersion {
    /// As users write it.
    pub fn name(self) -> &'static str {
        match self {
            ApiVersion::V1 => "v1",
            ApiVersion::V1Ttl => "v1ttl",
            ApiVersion::V2 => "v2",
        }
    }
}

section! { "server",
    /// What runs in the process, where it keeps data, where it listens.
    pub struct ServerConfig {
        /// What runs in this process: `all` (placement driver and store), `pd`, or `store` (which `--join` implies). Fixed at start.
        pub role: Role = Role::All,
        /// Directory of all data of this process; made when missing. One process at a time. Fixed at start.
        pub data_dir: PathBuf = PathBuf::from("ferrite-data"),
        /// Address on which the store listens for clients and other stores. Port 0 takes a free one. Fixed at start.
        pub addr: String = "127.0.0.1:20160".into(),
        /// Address of the store that others dial, `host:port`; empty means `addr`. Fixed at start.
        pub advertise_addr: String = String::new(),
        /// Address of the status port (metrics, profiles, dashboard, over plain HTTP); empty turns it off. Fixed at start.
        pub status_addr: String = "127.0.0.1:20180".into(),
        /// Labels of the store that tell where it stands, `["zone=z1", "host=h1"]`; `ferrite ctl scheduler location-labels` names those that
        /// copies of a region are kept apart by. Fixed at start.
        pub labels: Vec<String> = Vec::new(),
        /// Free disk below which a store refuses writes that need room (`DiskFull`), as do other stores for the regions that they share; what
        /// deletes or ends a transaction goes on. With less than a quarter of it a process refuses to start. 0: never. Fixed at start.
        pub disk_reserve: ByteSize = ByteSize::mib(256),
        /// How often raw values whose time to live has passed are removed from disk, in the background; nobody sees them before that either. At
        /// least 1 s, or 0: never. Fixed at start.
        pub expired_sweep: Span = Span::secs(3_600),
        /// Keys read and written a second above which a region is busy. One that is busy for 10 s is divided where its accesses fall in halves.
        /// 0: never for that reason. Fixed at start.
        pub split_qps: u64 = 50_000,
        /// Bytes read and written a second above which a region is busy. 0: never for that reason. Fixed at start.
        pub split_byte_rate: ByteSize = ByteSize::mib(200),
        /// How raw data lies in the store: `v1`, `v1ttl` or `v2`. The same on all stores; fixed when the data directory is made.
        pub api_version: ApiVersion = ApiVersion::V1,
        /// Whether to listen on addresses that other machines reach although traffic is neither encrypted nor authenticated.
        /// Fixed at start.
        pub allow_insecure: bool = false,
        /// Threads that serve the network; 0 means one per core, at most 8. Bound 256. Fixed at start.
        pub grpc_threads: usize = 0,
        /// Connections served at once on one listener; more wait in the system's queue. Bound 10 to 1000000. Fixed at start.
        pub connections_max: usize = 10_000,
        /// How long a stop waits for running requests before it cuts them off. Bound 1 m. Fixed at start.
        pub drain: Span = Span::secs(5),
    }
}

section! { "pd",
    /// The placement driver: this process' own, and where to find the cluster's.
    pub struct PdConfig {
        /// Address on which the placement driver listens (gRPC and HTTP). Port 0 takes a free one. Fixed at start.
        pub addr: String = "127.0.0.1:2379".into(),
        /// Address of the placement driver that others dial, `host:port`; empty means `addr`. Fixed at start.
        pub advertise_addr: String = String::new(),
        /// Name of this placement driver among its members; empty: `pd-1` if it begins alone, that of its address in `initial-cluster`, or
        /// one made of its address. Fixed at start.
        pub name: String = String::new(),
        /// All placement drivers that begin a cluster together, this one among them: `["pd-1=host:port", ..]`, three as a rule, at most
        /// seven. The same on each of them. Empty: it begins alone. Fixed when the data directory is made.
        pub initial_cluster: Vec<String> = Vec::new(),
        /// Addresses of placement drivers of the cluster to join, `["host:port"]`. A process with a placement driver becomes a further
        /// member. Empty: this process starts a cluster. Fixed at start.
        pub join: Vec<String> = Vec::new(),
        /// Copies of each region that the cluster works towards. Bound 1 to 7, odd. Fixed when the cluster starts.
        pub replicas: usize = 3,
        /// Keys, as text, at which the first regions are split, for data whose spread is known. Fixed when the cluster starts.
        pub split_keys: Vec<String> = Vec::new(),
        /// The same for keys of transactions, which lie encoded in every version. Fixed when the cluster starts.
        pub split_txn_keys: Vec<String> = Vec::new(),
        /// How long versions that were overwritten or deleted can still be read; then they are collected. At least 1 s, or 0: clients move
        /// the safe point. Once a client does, as TiDB, it alone goes on. Fixed at start.
        pub gc_life_time: Span = Span::secs(86_400),
        /// How long a region of at most 20 MiB and 200,000 keys stays as it is before it becomes part of a neighbour. 0: for ever. Fixed
        /// at start.
        pub merge_after: Span = Span::secs(3_600),
    }
}

section! { "transport",
    /// Messages and raft snapshots between stores.
    pub struct TransportConfig {
        /// Raft messages that wait for one other store; when full, new ones are dropped and raft sends again. Bound 128 to 1048576.
        /// Fixed at start.
        pub queue_max: usize = 8_192,
        /// Bytes a second that a store may send in raft snapshots, all together. At least 1MiB. Fixed at start.
        pub snapshot_rate: ByteSize = ByteSize::mib(128),
        /// Raft snapshots sent, and as many received, at once. Bound 1 to 64. Fixed at start.
        pub snapshots_max: usize = 4,
    }
}

section! { "security",
    /// TLS on every port and between all processes, with a certificate on both sides. Off where `ca-path`, `cert-path` and `key-path` are empty;
    /// all processes of a cluster have it, or none. The files are PEM. They are read again when they change, for connections made from then on.
    pub struct SecurityConfig {
        /// File with the authorities that certificates of servers and clients must be of. Fixed at start; what the file holds is not.
        pub ca_path: PathBuf = PathBuf::new(),
        /// File with the certificate of this process and those above it. It serves both ways, and names every host or IP address by which others
        /// dial this process. Fixed at start; what the file holds is not.
        pub cert_path: PathBuf = PathBuf::new(),
        /// File with the key of the certificate, without passphrase. Fixed at start; what the file holds is not.
        pub key_path: PathBuf = PathBuf::new(),
        /// Common names of certificates that may connect, those of the cluster's own processes among them; empty: any of the authority. Fixed
        /// at start.
        pub cert_allowed_cn: Vec<String> = Vec::new(),
        /// Whether the status port wants a certificate too. Without, whoever reaches it reads metrics, configuration and profiles. Fixed at
        /// start.
        pub status_client_cert: bool = true,
    }
}

impl SecurityConfig {
    /// Whether there is to be TLS.
    pub fn is_on(&self) -> bool {
        [&self.ca_path, &self.cert_path, &self.key_path]
            .iter()
            .any(|path| !path.as_os_str().is_empty())
    }
}

section! { "log",
    /// What the process tells on standard error.
    pub struct LoggingConfig {
        /// Level `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,raftstore=debug`. Fixed at start.
        pub level: String = "info".into(),
        /// `text` for people, `json` for programs: one object a line. Fixed at start.
        pub format: LogFormat = LogFormat::Text,
    }
}

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: ServerConfig,
    pub pd: PdConfig,
    pub engine: EngineConfig,
    pub raft: raftstore::Config,
    #[serde(rename = "raft-log")]
    pub raft_log: LogConfig,
    pub transport: TransportConfig,
    pub security: SecurityConfig,
    pub log: LoggingConfig,
}

/// Every section in the order of the reference page.
pub const SECTIONS: [SectionDoc; 8] = [
    ServerConfig::DOC,
    PdConfig::DOC,
    EngineConfig::DOC,
    raftstore::Config::DOC,
    LogConfig::DOC,
    TransportConfig::DOC,
    SecurityConfig::DOC,
    LoggingConfig::DOC,
];

/// Collects what is wrong: one line a fault, `raft.election-ticks = 1: wanted more than raft.heartbeat-ticks (2)`.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, key: &str, value: impl fmt::Display, wanted: impl fmt::Display) {
        self.0.push(format!("{key} = {value}: wanted {wanted}"));
    }

    fn within<T: PartialOrd + fmt::Display>(&mut self, key: &str, value: T, min: T, max: T) {
        if value < min || value > max {
            self.add(key, value, format_args!("{min} to {max}"));
        }
    }

    fn at_least<T: PartialOrd + fmt::Display>(&mut self, key: &str, value: T, min: T) {
        if value < min {
            self.add(key, value, format_args!("at least {min}"));
        }
    }

    fn listener(&mut self, key: &str, addr: &str, is_safe: bool) {
        match listen_addr(addr) {
            Err(wanted) => self.add(key, format_args!("{addr:?}"), wanted),
            Ok(parsed) if !parsed.ip().is_loopback() && !is_safe => self.add(
                key,
                format_args!("{addr:?}"),
                "a loopback address, or TLS by [security], as traffic is neither encrypted nor authenticated without; --allow-insecure listens there all the same",
            ),
            Ok(_) => {}
        }
    }

    fn dialled(&mut self, key: &str, addr: &str) {
        let port = addr
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty())
            .and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            self.add(key, format_args!("{addr:?}"), "host:port, such as \"10.0.0.1:2379\"");
        }
    }
}

/// A placement driver and where it is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedAddr {
    pub name: String,
    /// `host:port`.
    pub addr: String,
}

impl NamedAddr {
    /// Reads `name=host:port`; a scheme before the host is left out.
    pub fn parse(text: &str) -> Option<NamedAddr> {
        let (name, addr) = text.split_once('=')?;
        let (name, addr) = (name.trim().to_owned(), strip_scheme(addr.trim()).to_owned());
        (!name.is_empty()).then_some(NamedAddr { name, addr })
    }
}

impl PdConfig {
    /// The placement drivers that begin together; those that cannot be read are left out.
    pub fn founders(&self) -> Vec<NamedAddr> {
        self.initial_cluster.iter().filter_map(|one| NamedAddr::parse(one)).collect()
    }

    /// Where others dial this placement driver, unless its port is not known before it listens.
    fn dialled(&self) -> &str {
        if self.advertise_addr.is_empty() {
            &self.addr
        } else {
            &self.advertise_addr
        }
    }

    /// The name of this placement driver, which others dial at `address`.
    pub fn member_name(&self, address: &str) -> String {
        let founder = self.founders().into_iter().find(|founder| founder.addr == address);
        match founder {
            _ if !self.name.is_empty() => self.name.clone(),
            Some(founder) => founder.name,
            None if self.join.is_empty() => "pd-1".to_owned(),
            None => format!("pd-{address}"),
        }
    }
}

/// Most placement drivers of a cluster: more make it no safer, and each write slower.
const MEMBERS_MAX: usize = 7;

/// Reads an address to listen on: `127.0.0.1:20160`, `[::1]:20160`, `localhost:20160`. Errors tell what was wanted.
pub fn listen_addr(addr: &str) -> Result<SocketAddr, &'static str> {
    const WANTED: &str = "IP:port, such as \"127.0.0.1:20160\"";
    let port = addr.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    // Names other than localhost are refused: what they stand for may change between this check and the listening.
    port.as_deref().unwrap_or(addr).parse().map_err(|_| WANTED)
}

/// Reads the address of another process: a URL or `host:port`, as clients write it. Returns `host:port`.
pub fn strip_scheme(addr: &str) -> &str {
    addr.trim_start_matches("http://")
        .trim_start_matches("https://")
        .trim_end_matches('/')
}

impl Config {
    /// Every fault of the values, one line each; empty when there is none. Changes nothing; reads the files of `[security]` alone.
    pub fn validate(&self) -> Vec<String> {
        let mut faults = Faults::default();
        self.validate_server(&mut faults);
        self.validate_transport(&mut faults);
        self.validate_security(&mut faults);
        [
            faults.0,
            self.engine.validate(),
            self.raft.validate(),
            self.raft_log.validate(),
        ]
        .concat()
    }

    fn validate_server(&self, faults: &mut Faults) {
        let Config { server, pd, log, .. } = self;
        let is_safe = server.allow_insecure || self.security.is_on();
        if server.role.has_store() {
            faults.listener("server.addr", &server.addr, is_safe);
        }
        if server.role.has_pd() {
            faults.listener("pd.addr", &pd.addr, is_safe);
        }
        if !server.status_addr.is_empty() {
            let is_safe = server.allow_insecure || (self.security.is_on() && self.security.status_client_cert);
            faults.listener("server.status-addr", &server.status_addr, is_safe);
        }
        for (key, addr) in [
            ("server.advertise-addr", &server.advertise_addr),
            ("pd.advertise-addr", &pd.advertise_addr),
        ] {
            if !addr.is_empty() {
                faults.dialled(key, addr);
            }
        }
        for addr in &pd.join {
            faults.dialled("pd.join", strip_scheme(addr));
        }
        self.validate_members(faults);
        for label in &server.labels {
            if label
                .split_once('=')
                .is_none_or(|(key, value)| key.is_empty() || value.is_empty())
            {
                faults.add("server.labels", format_args!("{label:?}"), "key=value, such as \"zone=z1\"");
            }
        }
        if server.data_dir.as_os_str().is_empty() {
            faults.add("server.data-dir", "\"\"", "a directory");
        }
        faults.within("server.grpc-threads", server.grpc_threads, 0, 256);
        faults.within("server.connections-max", server.connections_max, 10, 1_000_000);
        faults.within("server.drain", server.drain, Span::millis(0), Span::secs(60));
        if pd.replicas % 2 == 0 || pd.replicas > 7 {
            faults.add("pd.replicas", pd.replicas, "1, 3, 5 or 7");
        }
        if server.expired_sweep > Span::millis(0) && server.expired_sweep < Span::secs(1) {
            faults.add("server.expired-sweep", server.expired_sweep, "0, or at least 1s");
        }
        if pd.gc_life_time > Span::millis(0) && pd.gc_life_time < Span::secs(1) {
            faults.add("pd.gc-life-time", pd.gc_life_time, "0, or at least 1s");
        }
        if let Err(why) = base::log::check_filter(&log.level) {
            faults.add(
                "log.level",
                format_args!("{:?}", log.level),
                format_args!("a level such as \"info\", or a filter ({why})"),
            );
        }
    }

    fn validate_members(&self, faults: &mut Faults) {
        let Config { server, pd, .. } = self;
        if server.role == Role::Store && pd.join.is_empty() {
            faults.add("pd.join", "[]", "the placement driver to join, as server.role is \"store\"");
        }
        let shown = format!("{:?}", pd.initial_cluster);
        let mut wanted = |wanted| faults.add("pd.initial-cluster", &shown, wanted);
        let founders = pd.founders();
        let names: BTreeSet<&str> = founders.iter().map(|one| &*one.name).collect();
        let addrs: BTreeSet<&str> = founders.iter().map(|one| &*one.addr).collect();
        match founders.len() {
            _ if pd.initial_cluster.is_empty() => return,
            _ if server.role == Role::Store => wanted("nothing, as server.role is \"store\": it joins by pd.join"),
            _ if !pd.join.is_empty() => wanted("nothing beside pd.join: a cluster is begun or joined"),
            count if count != pd.initial_cluster.len() => wanted("name=host:port for each, such as \"pd-1=10.0.0.1:2379\""),
            count if count > MEMBERS_MAX => wanted("at most 7 placement drivers"),
            count if names.len() < count || addrs.len() < count => wanted("names and addresses that differ"),
            _ if !addrs.contains(pd.dialled()) => wanted("this placement driver among them, by pd.advertise-addr or pd.addr"),
            _ => {}
        }
        for founder in &founders {
            faults.dialled("pd.initial-cluster", &founder.addr);
        }
    }

    fn validate_security(&self, faults: &mut Faults) {
        let security = &self.security;
        let paths = [
            ("security.ca-path", &security.ca_path),
            ("security.cert-path", &security.cert_path),
            ("security.key-path", &security.key_path),
        ];
        if !security.is_on() {
            if !security.cert_allowed_cn.is_empty() {
                let shown = format!("{:?}", security.cert_allowed_cn);
                faults.add("security.cert-allowed-cn", shown, "ca-path, cert-path and key-path beside it");
            }
            return;
        }
        let missing = paths.iter().filter(|(_, path)| path.as_os_str().is_empty());
        let missing: Vec<&str> = missing.map(|(key, _)| *key).collect();
        missing
            .iter()
            .for_each(|key| faults.add(key, "\"\"", "a file, as TLS needs all three"));
        if missing.is_empty()
            && let Err(error) = Security::open(security)
        {
            faults.0.push(format!("security: {}", base::log::chain(&error)));
        }
    }

    fn validate_transport(&self, faults: &mut Faults) {
        let transport = &self.transport;
        faults.within("transport.queue-max", transport.queue_max, 128, 1_048_576);
        faults.at_least("transport.snapshot-rate", transport.snapshot_rate, ByteSize::mib(1));
        faults.within("transport.snapshots-max", transport.snapshots_max, 1, 64);
    }

    /// The configuration as a TOML file would hold it.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every option has a TOML form")
    }

    /// Threads that serve the network, once 0 is replaced by what the machine has.
    pub fn grpc_threads(&self) -> usize {
        match self.server.grpc_threads {
            0 => std::thread::available_parallelism()
                .map_or(2, |cores| cores.get())
                .clamp(2, 8),
            threads => threads,
        }
    }
}

#[cfg(test)]
mod tests;
