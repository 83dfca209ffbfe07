//! Configuration: defaults, under a TOML file, under flags. The docs of the options are what `docs/build-cache-configuration.md` is
//! made of; a test fails when it is stale.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base::log::LogFormat;
use base::options::SectionDoc;
use base::{ByteSize, Span, section};
use client::TlsOptions;
use serde::{Deserialize, Serialize};

use crate::tier::{Limits, Objects};

/// When an upload is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Sync {
    /// Once the system has the bytes.
    #[default]
    Never,
    /// Once the disk has them.
    Always,
}

/// What somebody may do; each includes those before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Nothing.
    None,
    /// Get what is there.
    #[default]
    Read,
    /// Upload too.
    Write,
    /// Purge too.
    Admin,
}

/// Somebody who is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct User {
    /// The name for basic authentication, and in the access log.
    pub name: String,
    /// Password for basic authentication; empty: none.
    pub password: String,
    /// Bearer token; empty: none.
    pub token: String,
    /// SHA-256 of the client's certificate (DER), 64 hexadecimal digits; empty: none.
    pub certificate: String,
    pub role: Role,
    /// Instances that may be written, `ci/main` or `ci/*`; empty: all.
    pub instances: Vec<String>,
}

section! { "server",
    /// Where it listens and what it bears.
    pub struct ServerConfig {
        /// Address for every protocol: HTTP/1.1, HTTP/2 and gRPC. Port 0 takes a free one. Fixed at start.
        pub addr: String = "127.0.0.1:8980".into(),
        /// Whether to let anonymous callers write on an address that other machines reach. Fixed at start.
        pub allow_insecure: bool = false,
        /// Connections served at once; more wait in the system's queue. Bound 10 to 1000000. Fixed at start.
        pub connections_max: usize = 10_000,
        /// Uploads at once; more are refused with 503 or UNAVAILABLE. Bound 1 to 100000. Fixed at start.
        pub uploads_max: usize = 2_000,
        /// How long a client may take for its headers, or be silent within an upload. Bound 1s to 10m. Fixed at start.
        pub idle: Span = Span::secs(30),
        /// Bytes a second that an upload must reach on average once it has lasted for `idle`. Bound 0 to 1MiB. Fixed at start.
        pub upload_rate_min: ByteSize = ByteSize::kib(1),
        /// Threads of the network; 0: one per core. Bound 256. Fixed at start.
        pub threads: usize = 0,
        /// Threads that hash, compress and wait for the disk. Bound 1 to 512. Fixed at start.
        pub blocking_threads: usize = 32,
        /// Memory for uploads in flight and, as far as they leave it, for content of blobs that are read often by clients that take no zstd.
        /// Fixed at start.
        pub memory_max: ByteSize = ByteSize::mib(160),
        /// How long a stop waits for running requests. Bound 1m. Fixed at start.
        pub drain: Span = Span::secs(5),
    }
}

section! { "store",
    /// The blobs on disk.
    pub struct StoreConfig {
        /// Directory of all data; made when missing. One process at a time. Fixed at start.
        pub data_dir: PathBuf = PathBuf::from("ferrite-build-cache-data"),
        /// Bytes on disk that are never exceeded, uploads in flight included. At least 16MiB; 85 % of the disk is sound. Fixed at start.
        pub size_max: ByteSize = ByteSize::gib(10),
        /// Bytes above which the least recently used blobs go; 0: 95 % of `size-max`. Fixed at start.
        pub size_soft: ByteSize = ByteSize(0),
        /// Free bytes that the disk keeps whatever `size-max` says; 0: not looked at. Fixed at start.
        pub disk_free_min: ByteSize = ByteSize(0),
        /// Blobs not used for this long go; 0s: never. Fixed at start.
        pub age_max: Span = Span::secs(0),
        /// `never`: an upload is answered once the system has it, so a power cut may lose it, never damage it. `always`: once the disk has
        /// it. Fixed at start.
        pub sync: Sync = Sync::Never,
        /// Largest blob; also what a compressed upload may grow to. Bound 1B to 1TiB. Fixed at start.
        pub blob_max: ByteSize = ByteSize::gib(4),
        /// zstd level at rest. Bound 1 to 19. Fixed at start.
        pub zstd_level: i32 = 1,
    }
}

section! { "access",
    /// Who may do what. Rights to write are by instance name.
    pub struct AccessConfig {
        /// Role of callers without credentials: `none`, `read`, `write` or `admin`. Fixed at start.
        pub anonymous: Role = Role::Write,
        /// Known callers, as `[[access.users]]`: `name`, one or more of `password`, `token` and `certificate`, `role`, `instances`.
        /// Fixed at start.
        pub users: Vec<User> = Vec::new(),
    }
}

section! { "tls",
    /// Encryption; off where `certificate` is empty.
    pub struct TlsConfig {
        /// PEM file with the server's certificate and those above it. Fixed at start; the file is looked at for each connection.
        pub certificate: PathBuf = PathBuf::new(),
        /// PEM file with the key of it. Fixed at start; the file is looked at for each connection.
        pub key: PathBuf = PathBuf::new(),
        /// PEM file with authorities of client certificates. A client with one is asked for nothing else. Fixed at start; the file is looked
        /// at for each connection.
        pub client_ca: PathBuf = PathBuf::new(),
        /// Role of clients with a certificate of `client-ca` that no user has. Fixed at start.
        pub client_role: Role = Role::Read,
        /// Whether clients without a certificate are turned away. Fixed at start.
        pub client_required: bool = false,
    }
}

/// What a tier is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TierMode {
    /// Others fill it.
    Read,
    /// Filled from a queue, after the upload is answered.
    #[default]
    WriteBack,
    /// Filled before the upload is answered; what does not get through in time goes to the queue.
    WriteThrough,
}

/// How raw data lies in the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum FerriteApi {
    #[default]
    V1,
    V1ttl,
    V2,
}

section! { "ferrite",
    /// A Ferrite cluster that several cache servers share; off where `endpoints` is empty. It is asked before the upstream.
    pub struct FerriteConfig {
        /// Placement drivers of the cluster, `HOST:PORT`. Fixed at start.
        pub endpoints: Vec<String> = Vec::new(),
        /// The cluster's `api-version`: `v1`, `v1ttl` or `v2`. Fixed at start.
        pub api: FerriteApi = FerriteApi::V1,
        /// Keyspace of API v2; empty: the default one. Fixed at start.
        pub keyspace: String = String::new(),
        /// PEM file with the authority of the cluster's certificates; empty: no TLS. Fixed at start; the file is looked
        /// at for each connection.
        pub ca: PathBuf = PathBuf::new(),
        /// PEM file with a certificate to show to the cluster. Fixed at start; the file is looked at for each connection.
        pub cert: PathBuf = PathBuf::new(),
        /// PEM file with the key of it. Fixed at start; the file is looked at for each connection.
        pub key: PathBuf = PathBuf::new(),
        /// What every key starts with. Fixed at start.
        pub prefix: String = "build-cache/".into(),
        /// How long blobs live there; read ones are renewed at half of it. Wants `v1ttl` or `v2`. 0s: for ever, and nothing but purges makes
        /// room. Fixed at start.
        pub ttl: Span = Span::secs(0),
        /// Largest blob, as compressed, that goes there. Fixed at start.
        pub blob_max: ByteSize = ByteSize::mib(256),
        /// `read`, `write-back` (from a queue, after the answer) or `write-through` (before it). Fixed at start.
        pub mode: TierMode = TierMode::WriteBack,
        /// Fetches at once, and as many sends. Bound 1 to 256. Fixed at start.
        pub parallel: usize = 16,
        /// Blobs that wait to be sent; those beyond are not. Bound 1 to 1000000. Fixed at start.
        pub queue_max: usize = 10_000,
        /// For each request; a blob may take this once more for each 8 MiB. What takes longer is a miss. Bound 100ms to 5m. Fixed at start.
        pub timeout: Span = Span::secs(5),
    }
}

section! { "upstream",
    /// An object store behind this cache; off where `url` is empty.
    pub struct UpstreamConfig {
        /// `s3://BUCKET/PREFIX`, `gs://…`, `az://CONTAINER/PREFIX`, `http://…` and `https://…` (a server that takes GET, PUT and DELETE),
        /// `file:///DIR`. Fixed at start.
        pub url: String = String::new(),
        /// `read`, `write-back` (from a queue, after the answer) or `write-through` (before it). Fixed at start.
        pub mode: TierMode = TierMode::WriteBack,
        /// Fetches at once, and as many sends, each with up to 16 MiB in memory. Bound 1 to 256. Fixed at start.
        pub parallel: usize = 8,
        /// Blobs that wait to be sent; those beyond are not. Bound 1 to 1000000. Fixed at start.
        pub queue_max: usize = 10_000,
        /// For each request; a blob may take this once more for each 8 MiB. What takes longer is a miss. Bound 100ms to 5m. Fixed at start.
        pub timeout: Span = Span::secs(10),
        /// Options of the store, such as `aws_endpoint`, `aws_region`, `google_service_account`, `azure_storage_account_name`: those of the
        /// `object_store` crate. Credentials may come from the environment instead (`AWS_…`, `GOOGLE_…`, `AZURE_…`). Fixed at start.
        pub options: BTreeMap<String, String> = BTreeMap::new(),
    }
}

section! { "log",
    /// What is told on standard error.
    pub struct LogConfig {
        /// Level `error`, `warn`, `info`, `debug` or `trace`, or a filter. Fixed at start.
        pub level: String = "info".into(),
        /// `text` for people, `json` for programs. Fixed at start.
        pub format: LogFormat = LogFormat::Text,
        /// Whether every request is logged. Fixed at start.
        pub access: bool = false,
    }
}

/// All options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    pub server: ServerConfig,
    pub store: StoreConfig,
    pub access: AccessConfig,
    pub tls: TlsConfig,
    pub ferrite: FerriteConfig,
    pub upstream: UpstreamConfig,
    pub log: LogConfig,
}

/// Every section as documented.
pub const SECTIONS: [SectionDoc; 7] = [
    ServerConfig::DOC,
    StoreConfig::DOC,
    AccessConfig::DOC,
    TlsConfig::DOC,
    FerriteConfig::DOC,
    UpstreamConfig::DOC,
    LogConfig::DOC,
];

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

    /// Every fault of the values at once.
    pub fn validate(&self) -> Vec<String> {
        let mut faults = Faults::default();
        self.server.validate(&mut faults);
        self.store.validate(&mut faults);
        for user in &self.access.users {
            user.validate(&mut faults);
        }
        self.validate_openness(&mut faults);
        let tls = &self.tls;
        faults.wanted(
            tls.certificate.as_os_str().is_empty() == tls.key.as_os_str().is_empty(),
            || "tls: wanted both certificate and key, or neither".into(),
        );
        faults.wanted(!tls.client_required || !tls.client_ca.as_os_str().is_empty(), || {
            "tls.client-required = true: wanted tls.client-ca".into()
        });
        self.ferrite.validate(&mut faults);
        self.upstream.validate(&mut faults);
        if let Err(error) = base::log::check_filter(&self.log.level) {
            faults.0.push(format!(
                "log.level = {:?}: wanted a level or a filter ({error})",
                self.log.level
            ));
        }
        faults.0
    }

    fn validate_openness(&self, faults: &mut Faults) {
        let Ok(addr) = self.server.addr.parse::<SocketAddr>() else {
            return;
        };
        let is_open = !addr.ip().is_loopback() && self.access.anonymous >= Role::Write;
        faults.wanted(!is_open || self.server.allow_insecure, || {
            format!(
                "server.addr = {addr}: other machines reach it and access.anonymous may write: wanted access.anonymous = \"read\" with users, \
                 a loopback address, or --allow-insecure"
            )
        });
        let is_bare = !addr.ip().is_loopback() && !self.access.users.is_empty() && self.tls.certificate.as_os_str().is_empty();
        faults.wanted(!is_bare || self.server.allow_insecure, || {
            format!("server.addr = {addr}: passwords and tokens would cross the network in the clear: wanted [tls] or --allow-insecure")
        });
    }
}

#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn wanted(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
        }
    }

    fn tier(&mut self, name: &str, limits: &Limits) {
        self.within(&format!("{name}.parallel"), limits.parallel, 1, 256);
        self.within(&format!("{name}.queue-max"), limits.queue_max, 1, 1_000_000);
        let timeout = Span(limits.timeout);
        self.wanted((Span::millis(100)..=Span::secs(300)).contains(&timeout), || {
            format!("{name}.timeout = {timeout}: wanted 100ms to 5m")
        });
    }

    fn within(&mut self, name: &str, value: usize, low: usize, high: usize) {
        self.wanted((low..=high).contains(&value), || {
            format!("{name} = {value}: wanted {low} to {high}")
        });
    }
}

impl ServerConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.wanted(self.addr.parse::<SocketAddr>().is_ok(), || {
            format!("server.addr = {:?}: wanted IP:PORT", self.addr)
        });
        faults.within("server.connections-max", self.connections_max, 10, 1_000_000);
        faults.within("server.uploads-max", self.uploads_max, 1, 100_000);
        faults.within("server.threads", self.threads, 0, 256);
        faults.within("server.blocking-threads", self.blocking_threads, 1, 512);
        faults.wanted((Span::secs(1)..=Span::secs(600)).contains(&self.idle), || {
            format!("server.idle = {}: wanted 1s to 10m", self.idle)
        });
        faults.wanted(self.upload_rate_min <= ByteSize::mib(1), || {
            format!("server.upload-rate-min = {}: wanted at most 1MiB", self.upload_rate_min)
        });
        faults.wanted(self.drain <= Span::secs(60), || {
            format!("server.drain = {}: wanted at most 1m", self.drain)
        });
    }
}

impl StoreConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.wanted(self.size_max >= ByteSize::mib(16), || {
            format!("store.size-max = {}: wanted at least 16MiB", self.size_max)
        });
        faults.wanted(self.size_soft <= self.size_max, || {
            format!(
                "store.size-soft = {}: wanted at most store.size-max ({})",
                self.size_soft, self.size_max
            )
        });
        faults.wanted((1..=1 << 40).contains(&self.blob_max.0), || {
            format!("store.blob-max = {}: wanted 1B to 1TiB", self.blob_max)
        });
        faults.wanted((1..=19).contains(&self.zstd_level), || {
            format!("store.zstd-level = {}: wanted 1 to 19", self.zstd_level)
        });
    }

    /// For the store itself, with `memory_max` of memory.
    pub fn to_store(&self, memory_max: ByteSize) -> blob_store::Config {
        let mut config = blob_store::Config::new(&self.data_dir, self.size_max.0);
        if self.size_soft.0 > 0 {
            config.size_soft = self.size_soft.0;
        }
        config.memory_max = memory_max.0;
        config.disk_free_min = self.disk_free_min.0;
        config.age_max = self.age_max.0;
        config.level = self.zstd_level;
        config.sync = match self.sync {
            Sync::Never => blob_store::SyncMode::Never,
            Sync::Always => blob_store::SyncMode::Always,
        };
        config
    }
}

impl FerriteConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.tier("ferrite", &self.limits());
        faults.wanted(self.ttl.0.is_zero() || self.api != FerriteApi::V1, || {
            format!(
                "ferrite.ttl = {}: wanted ferrite.api = \"v1ttl\" or \"v2\", as the cluster has it",
                self.ttl
            )
        });
        faults.wanted(self.ttl.0.is_zero() || self.ttl >= Span::secs(3600), || {
            format!("ferrite.ttl = {}: wanted 0s, or at least 1h", self.ttl)
        });
        faults.wanted(self.keyspace.is_empty() || self.api == FerriteApi::V2, || {
            format!("ferrite.keyspace = {:?}: wanted ferrite.api = \"v2\"", self.keyspace)
        });
        if let Err(error) = self.tls() {
            faults.0.push(format!("ferrite: {error}"));
        }
    }

    /// How the cluster is reached, if that is by TLS.
    pub fn tls(&self) -> Result<Option<TlsOptions>, &'static str> {
        let of = |path: &PathBuf| path.to_string_lossy().into_owned();
        TlsOptions::of_options(&of(&self.ca), &of(&self.cert), &of(&self.key))
    }

    /// For the tier's bounds.
    pub fn limits(&self) -> Limits {
        Limits {
            mode: self.mode,
            parallel: self.parallel,
            queue_max: self.queue_max,
            timeout: self.timeout.0,
        }
    }
}

impl UpstreamConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.tier("upstream", &self.limits());
        if !self.url.is_empty()
            && let Err(error) = Objects::new(self)
        {
            faults.0.push(format!("{error:#}"));
        }
    }

    /// For the tier's bounds.
    pub fn limits(&self) -> Limits {
        Limits {
            mode: self.mode,
            parallel: self.parallel,
            queue_max: self.queue_max,
            timeout: self.timeout.0,
        }
    }
}

impl User {
    fn validate(&self, faults: &mut Faults) {
        let name = &self.name;
        let is_known = !(self.password.is_empty() && self.token.is_empty() && self.certificate.is_empty());
        faults.wanted(is_known, || {
            format!("access.users {name:?}: wanted a password, a token or a certificate")
        });
        faults.wanted(self.password.is_empty() || !name.is_empty(), || {
            "access.users: wanted a name beside the password".into()
        });
        let is_digest = self.certificate.is_empty() || blob_store::Key::from_hex(&self.certificate).is_some();
        faults.wanted(is_digest, || {
            format!("access.users {name:?}: wanted the certificate's SHA-256 in 64 hexadecimal digits")
        });
    }
}

/// The reference page of all options.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Build cache: configuration\n\n<!-- Made from services/build-cache/src/config.rs; edit there. -->\n\nThe file of `--config` is TOML; \
         flags win over it. `--check-config` tells every fault, `--print-config` shows the outcome with all defaults.\n",
    );
    let defaults = toml::Value::try_from(Config::default()).expect("options are plain values");
    for section in SECTIONS {
        page += &format!(
            "\n## [{}]\n\n{}\n\n| option | default | meaning |\n|---|---|---|\n",
            section.name,
            text(section.lines)
        );
        for option in section.options {
            let key = option.key();
            let default = &defaults[section.name][&key];
            page += &format!("| `{key}` | `{default}` | {} |\n", text(option.lines).replace('|', "\\|"));
        }
    }
    page
}

fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_fresh() {
        // Tests run in the directory of their package.
        let path = Path::new("../../docs/build-cache-configuration.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, reference_page()).expect("writes");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference_page(),
            "docs/build-cache-configuration.md is stale; run: BLESS=1 cargo test -p ferrite-build-cache --lib config"
        );
    }

    #[test]
    fn the_default_is_valid_and_round_trips() {
        let config = Config::default();
        assert_eq!(config.validate(), [""; 0]);
        assert_eq!(toml::from_str::<Config>(&config.to_toml()).expect("reads"), config);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = "[server]\naddr = \"0.0.0.0:1\"\nuploads-max = 0\n[store]\nsize-max = \"1MiB\"\n[[access.users]]\nname = \"ci\"\n\
                    [tls]\nclient-required = true\n[ferrite]\nttl = \"2h\"\nparallel = 0\n\
                    [upstream]\nurl = \"s3://bucket/x\"\n[upstream.options]\naws_regoin = \"x\"\n[log]\nlevel = \"inof\"\n";
        let config: Config = toml::from_str(text).expect("reads");
        let faults = config.validate().join("\n");
        for part in [
            "uploads-max",
            "size-max",
            "\"ci\"",
            "may write",
            "in the clear",
            "client-ca",
            "ferrite.parallel",
            "ferrite.ttl",
            "aws_regoin",
            "log.level",
        ] {
            assert!(faults.contains(part), "{part} not in:\n{faults}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<Config>("[store]\nsize = \"1GiB\"\n").expect_err("no such option");
        assert!(error.to_string().contains("size-max"), "{error}");
    }

    #[test]
    fn every_option_tells_when_it_changes() {
        for section in SECTIONS {
            for option in section.options {
                assert!(text(option.lines).contains("Fixed "), "{}.{}", section.name, option.key());
            }
        }
    }
}
