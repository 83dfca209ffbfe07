//! Configuration: defaults, under a TOML file, under flags. The docs of the options are what `docs/thumbnails-configuration.md` is made
//! of; a test fails when it is stale.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base::log::LogFormat;
use base::options::SectionDoc;
use base::{ByteSize, Span, section};
use client::TlsOptions;
use serde::{Deserialize, Serialize};

use crate::format::Format;
use crate::limits::Limits;
use crate::source::objects::Objects;
use crate::url::Grammar;
use crate::url::sign::Signer;

section! { "server",
    /// Where it listens and what it bears.
    pub struct ServerConfig {
        /// Address for pictures, HTTP/1.1 and HTTP/2. Port 0 takes a free one. Fixed at start.
        pub addr: String = "127.0.0.1:8985".into(),
        /// Address for `/health`, `/metrics` and `DELETE /purge/…`, which never wait for work on pictures. Empty: none. Fixed at start.
        pub status_addr: String = "127.0.0.1:8986".into(),
        /// Connections served at once; more wait in the system's queue. Bound 10 to 1000000. Fixed at start.
        pub connections_max: usize = 2_000,
        /// How long a client may take for its headers. Bound 1s to 10m. Fixed at start.
        pub idle: Span = Span::secs(10),
        /// Time for one request, from its headers to its answer; 504 afterwards. Bound 100ms to 10m. Fixed at start.
        pub request_timeout: Span = Span::secs(15),
        /// Threads for work on pictures; 0: one per core. Bound 256. Fixed at start.
        pub workers: usize = 0,
        /// Pictures that wait for such a thread; more are refused with 503. Bound 1 to 100000. Fixed at start.
        pub queue_max: usize = 64,
        /// Memory that work on pictures may take at once, by estimate; what does not fit waits. At least 16MiB. Fixed at start.
        pub memory_max: ByteSize = ByteSize::mib(512),
        /// How long a stop waits for running requests. Bound 1m. Fixed at start.
        pub drain: Span = Span::secs(5),
        /// What `Access-Control-Allow-Origin` says: `*` or an origin; empty: the header is left out. Fixed at start.
        pub allow_origin: String = String::new(),
    }
}

section! { "url",
    /// Who may ask for what.
    pub struct UrlConfig {
        /// Keys of signatures in hexadecimal, the one to sign with first. Fixed at start.
        pub keys: Vec<String> = Vec::new(),
        /// A salt for each key, in hexadecimal. Fixed at start.
        pub salts: Vec<String> = Vec::new(),
        /// Bytes of a signature that count. Bound 1 to 32. Fixed at start.
        pub signature_size: usize = 32,
        /// Texts that are taken in the place of a signature. Fixed at start.
        pub trusted_signatures: Vec<String> = Vec::new(),
        /// Whether anything may stand in the place of a signature where there are no keys. Fixed at start.
        pub allow_unsigned: bool = false,
        /// Options that URLs may have, by their long names; empty: all. Fixed at start.
        pub allowed_options: Vec<String> = Vec::new(),
        /// Whether URLs may have the options that move limits: `max_src_resolution` and those like it. Fixed at start.
        pub allow_limits: bool = false,
        /// Named options, `thumb = "rs:fill:200:200/q:70"`; the one named `default` applies to every URL. Fixed at start.
        pub presets: BTreeMap<String, String> = BTreeMap::new(),
        /// Whether URLs name presets and nothing else: `/SIGNATURE/thumb:sharp/plain/…`. Fixed at start.
        pub only_presets: bool = false,
        /// What is put before sources that have no scheme, `https://images.example.com/`. Fixed at start.
        pub base_url: String = String::new(),
    }
}

section! { "local",
    /// Sources in a folder: `local:///a/b.jpg`.
    pub struct LocalConfig {
        /// The folder; nothing outside of it is read, be it by `..` or by a link. Empty: off. Fixed at start.
        pub root: PathBuf = PathBuf::new(),
    }
}

section! { "http",
    /// Sources on web servers: `http://…` and `https://…`.
    pub struct HttpConfig {
        /// Whether there are any. Fixed at start.
        pub enabled: bool = true,
        /// Hosts that are asked, `images.example.com` or `*.example.com`; empty: all with public addresses. Fixed at start.
        pub allowed_hosts: Vec<String> = Vec::new(),
        /// Whether addresses of this machine may be dialled. Fixed at start.
        pub allow_loopback: bool = false,
        /// Whether private addresses may be dialled, and those shared by a carrier. Fixed at start.
        pub allow_private: bool = false,
        /// Whether link-local addresses may be dialled; clouds keep credentials there. Fixed at start.
        pub allow_link_local: bool = false,
        /// Redirects that are followed, each checked as the first address was. Bound 20. Fixed at start.
        pub redirects_max: usize = 5,
        /// Time for a connection. Bound 10ms to 1m. Fixed at start.
        pub connect_timeout: Span = Span::secs(3),
        /// Idle connections kept for each host. Bound 1000. Fixed at start.
        pub idle_max: usize = 8,
        /// Who we say we are. Fixed at start.
        pub user_agent: String = "ferrite-thumbnails".into(),
    }
}

section! { "objects",
    /// Sources in object stores: `s3://BUCKET/KEY`, `gs://BUCKET/KEY` of Google, `abs://CONTAINER/KEY` of Azure.
    pub struct ObjectsConfig {
        /// Buckets that are read, `s3://photos`; with a folder behind, `s3://photos/public`, only what is below it. Empty: none. Fixed at start.
        pub buckets: Vec<String> = Vec::new(),
        /// Options of the stores, such as `aws_region`, `aws_endpoint`, `google_service_account`, `azure_storage_account_name`: those of the
        /// `object_store` crate. Credentials may come from the environment instead (`AWS_…`, `GOOGLE_…`, `AZURE_…`). Fixed at start.
        pub options: BTreeMap<String, String> = BTreeMap::new(),
        /// Time for a connection. Bound 10ms to 1m. Fixed at start.
        pub connect_timeout: Span = Span::secs(3),
    }
}

/// How keys are written in the cluster, as it is configured itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FerriteApi {
    #[default]
    V1,
    V1ttl,
    V2,
}

section! { "ferrite",
    /// A Ferrite cluster, for sources (`ferrite:///NAME`) and for results that several servers share; off where `endpoints` is empty.
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
        /// What keys of sources start with: `ferrite:///a.jpg` is the value under this and `a.jpg`. Empty: no sources there. Fixed at start.
        pub sources: String = String::new(),
        /// What keys of results start with, `thumbnails/`. Empty: results are not shared. Fixed at start.
        pub results: String = String::new(),
        /// How long results live there. Wants `v1ttl` or `v2`. 0s: for ever, and nothing but purges makes room. Fixed at start.
        pub results_ttl: Span = Span::secs(0),
        /// Largest result that goes there. Bound 1KiB to 4MiB. Fixed at start.
        pub result_max: ByteSize = ByteSize::mib(1),
        /// For each call; what takes longer is a miss. Bound 10ms to 1m. Fixed at start.
        pub timeout: Span = Span::secs(2),
    }
}

section! { "clients",
    /// How often one client may ask; more is refused with 429 and the time to wait.
    pub struct ClientsConfig {
        /// Requests a second of one client, over time, whether they are found in the cache or not. 0: no limit. Bound 1000000. Fixed at start.
        pub rate: f64 = 0.0,
        /// Requests that it may make at once before that. Bound 1 to 1000000. Fixed at start.
        pub burst: u32 = 50,
        /// Header that tells clients apart, such as one that a proxy of yours sets; whoever can choose it has no limit. Empty, or where a
        /// request lacks it: the address, of IPv6 its first 64 bits. Fixed at start.
        pub header: String = String::new(),
    }
}

section! { "limits",
    /// What is too much. Pictures are refused from their header, before anything is decoded.
    pub struct LimitsConfig {
        /// Bytes of a source. Bound 1KiB to 1GiB. Fixed at start.
        pub source_max: ByteSize = ByteSize::mib(32),
        /// Megapixels of a source. Above 0. Fixed at start.
        pub resolution_max: f64 = 50.0,
        /// Frames of an animation that go into a result; those beyond are left out. 1: results are stills. Bound 1 to 10000. Fixed at start.
        pub frames_max: u32 = 60,
        /// Frames that a source may have, used or not. Bound 1 to 100000. Fixed at start.
        pub frames_file_max: u32 = 2_000,
        /// Megapixels of all used frames together. Above 0. Fixed at start.
        pub frames_resolution_max: f64 = 100.0,
        /// Longest side of a result. Bound 1 to 16383. Fixed at start.
        pub result_side_max: u32 = 8_192,
        /// Memory for decoding one picture, by estimate. At least 1MiB. Fixed at start.
        pub decoded_max: ByteSize = ByteSize::mib(400),
        /// Time to bring a source. Bound 100ms to 5m. Fixed at start.
        pub download_timeout: Span = Span::secs(5),
        /// Sources that are brought at once; more are refused with 503. Bound 1 to 10000. Fixed at start.
        pub downloads_max: usize = 64,
    }
}

section! { "output",
    /// How results are written where the URL does not say.
    pub struct OutputConfig {
        /// Formats for clients whose `Accept` names them, by preference. Else the format of the source. Fixed at start.
        pub prefer: Vec<Format> = vec![Format::Webp],
        /// Quality of JPEG. Bound 1 to 100. Fixed at start.
        pub quality_jpeg: u8 = 80,
        /// Quality of WebP. Bound 1 to 100. Fixed at start.
        pub quality_webp: u8 = 79,
        /// Quality of AVIF, whose scale is another. Bound 1 to 100. Fixed at start.
        pub quality_avif: u8 = 63,
        /// Whether JPEG is progressive: smaller by a few percent, and shown sooner on slow lines. Fixed at start.
        pub jpeg_progressive: bool = false,
        /// Effort for WebP: 2 is fast, 4 saves about a twentieth of the bytes at twice the time. Bound 0 to 6. Fixed at start.
        pub webp_method: u8 = 2,
        /// Speed for AVIF: 9 is fast, 0 is small. Bound 9. Fixed at start.
        pub avif_speed: u8 = 9,
        /// Colours of PNG palettes, 64 to 256; 0: true colour. Fixed at start.
        pub png_colors: usize = 0,
        /// How much larger than the result a JPEG or PNG is decoded at least; higher is finer and slower. Bound 1 to 8. Fixed at start.
        pub decode_margin: f64 = 2.0,
        /// Whether pictures are turned as their EXIF says. Fixed at start.
        pub auto_rotate: bool = true,
        /// Whether EXIF is left out. Fixed at start.
        pub strip_metadata: bool = true,
        /// Whether artist and copyright are kept nevertheless. Fixed at start.
        pub keep_copyright: bool = true,
        /// Whether colours are converted to sRGB, so that no profile is needed. Fixed at start.
        pub strip_color_profile: bool = true,
        /// File with the picture for `watermark`; empty: none. Fixed at start.
        pub watermark: PathBuf = PathBuf::new(),
        /// Lifetime for caches, where the source says nothing or is not listened to. Fixed at start.
        pub ttl: Span = Span::secs(365 * 24 * 3600),
        /// Whether `Cache-Control` and `Expires` of the source are passed on. Fixed at start.
        pub cache_control_passthrough: bool = true,
    }
}

section! { "cache",
    /// Results that are kept.
    pub struct CacheConfig {
        /// Memory for results; 0: none. Fixed at start.
        pub memory_max: ByteSize = ByteSize::mib(64),
        /// Directory of results on disk; made when missing, one process at a time. Empty: none. Fixed at start.
        pub dir: PathBuf = PathBuf::new(),
        /// Bytes on disk that are never exceeded. At least 16MiB. Fixed at start.
        pub disk_max: ByteSize = ByteSize::gib(1),
        /// How long a result is served without asking the source whether it changed; a shorter `max-age` of the source counts. Fixed at start.
        pub fresh: Span = Span::secs(3600),
    }
}

section! { "fallback",
    /// A picture in the place of those that cannot be had.
    pub struct FallbackConfig {
        /// File with it; empty: none, and clients get the error as text. Fixed at start.
        pub path: PathBuf = PathBuf::new(),
        /// Status of the answer; 0: that of the error. Fixed at start.
        pub status: u16 = 200,
        /// Lifetime for caches. Bound 1d. Fixed at start.
        pub ttl: Span = Span::secs(60),
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
    pub url: UrlConfig,
    pub local: LocalConfig,
    pub http: HttpConfig,
    pub objects: ObjectsConfig,
    pub ferrite: FerriteConfig,
    pub clients: ClientsConfig,
    pub limits: LimitsConfig,
    pub output: OutputConfig,
    pub cache: CacheConfig,
    pub fallback: FallbackConfig,
    pub log: LogConfig,
}

/// Every section as documented.
pub const SECTIONS: [SectionDoc; 12] = [
    ServerConfig::DOC,
    UrlConfig::DOC,
    LocalConfig::DOC,
    HttpConfig::DOC,
    ObjectsConfig::DOC,
    FerriteConfig::DOC,
    ClientsConfig::DOC,
    LimitsConfig::DOC,
    OutputConfig::DOC,
    CacheConfig::DOC,
    FallbackConfig::DOC,
    LogConfig::DOC,
];

impl Config {
    /// Reads the file at `path`; what it does not name keeps its default.
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
        self.url.validate(&mut faults);
        self.http.validate(&mut faults);
        self.objects.validate(&mut faults);
        self.ferrite.validate(&mut faults);
        self.clients.validate(&mut faults);
        self.limits.validate(&mut faults);
        self.output.validate(&mut faults);
        faults.wanted(self.cache.disk_max >= ByteSize::mib(16), || {
            format!("cache.disk-max = {}: wanted 16MiB at least", self.cache.disk_max)
        });
        self.fallback.validate(&mut faults);
        if let Err(error) = base::log::check_filter(&self.log.level) {
            faults.0.push(format!(
                "log.level = {:?}: wanted a level or a filter ({error})",
                self.log.level
            ));
        }
        faults.0
    }
}

#[derive(Default)]
pub(crate) struct Faults(pub Vec<String>);

impl Faults {
    pub fn wanted(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.0.push(fault());
        }
    }

    pub fn within<T: PartialOrd + std::fmt::Display>(&mut self, name: &str, value: T, low: T, high: T) {
        self.wanted((&low..=&high).contains(&&value), || {
            format!("{name} = {value}: wanted {low} to {high}")
        });
    }
}

impl ServerConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.wanted(self.addr.parse::<SocketAddr>().is_ok(), || {
            format!("server.addr = {:?}: wanted IP:PORT", self.addr)
        });
        let status = &self.status_addr;
        faults.wanted(status.is_empty() || status.parse::<SocketAddr>().is_ok(), || {
            format!("server.status-addr = {status:?}: wanted IP:PORT or nothing")
        });
        faults.within("server.connections-max", self.connections_max, 10, 1_000_000);
        faults.within("server.idle", self.idle, Span::secs(1), Span::secs(600));
        faults.within(
            "server.request-timeout",
            self.request_timeout,
            Span::millis(100),
            Span::secs(600),
        );
        faults.within("server.workers", self.workers, 0, 256);
        faults.within("server.queue-max", self.queue_max, 1, 100_000);
        faults.wanted(self.memory_max >= ByteSize::mib(16), || {
            format!("server.memory-max = {}: wanted 16MiB at least", self.memory_max)
        });
        faults.within("server.drain", self.drain, Span::secs(0), Span::secs(60));
        let origin = &self.allow_origin;
        faults.wanted(origin.is_ascii() && !origin.contains(char::is_control), || {
            format!("server.allow-origin = {origin:?}: wanted * or an origin")
        });
    }

    /// Threads for pixels.
    pub fn workers(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

impl UrlConfig {
    fn validate(&self, faults: &mut Faults) {
        match self.grammar() {
            Err(error) => faults.0.push(format!("url: {error}")),
            Ok(grammar) => {
                faults.wanted(!grammar.signer.is_open() || self.allow_unsigned, || {
                    "url.keys is empty: wanted keys and salts, or url.allow-unsigned = true, with which anybody may ask for any picture in any size".into()
                });
                faults.0.extend(grammar.check());
            }
        }
        faults.wanted(!self.only_presets || !self.presets.is_empty(), || {
            "url.only-presets = true: wanted url.presets".into()
        });
    }

    /// The grammar of URLs.
    pub fn grammar(&self) -> Result<Grammar, String> {
        Ok(Grammar {
            signer: Signer::new(&self.keys, &self.salts, self.signature_size, &self.trusted_signatures)?,
            presets: self.presets.clone(),
            only_presets: self.only_presets,
            allowed: self.allowed_options.iter().cloned().collect(),
            allows_limits: self.allow_limits,
            base_url: self.base_url.clone(),
        })
    }
}

impl HttpConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.within("http.redirects-max", self.redirects_max, 0, 20);
        faults.within("http.connect-timeout", self.connect_timeout, Span::millis(10), Span::secs(60));
        faults.within("http.idle-max", self.idle_max, 0, 1000);
        faults.wanted(http::HeaderValue::from_str(&self.user_agent).is_ok(), || {
            format!("http.user-agent = {:?}: wanted text for a header", self.user_agent)
        });
    }
}

impl ObjectsConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.within(
            "objects.connect-timeout",
            self.connect_timeout,
            Span::millis(10),
            Span::secs(60),
        );
        if let Err(error) = Objects::new(self) {
            faults.0.push(format!("{error:#}"));
        }
    }
}

impl FerriteConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.within("ferrite.timeout", self.timeout, Span::millis(10), Span::secs(60));
        faults.within("ferrite.result-max", self.result_max, ByteSize::kib(1), ByteSize::mib(4));
        let is_used = !self.sources.is_empty() || !self.results.is_empty();
        faults.wanted(is_used != self.endpoints.is_empty(), || {
            "ferrite: wanted endpoints, and sources or results or both; or none of them".into()
        });
        let ttl = self.results_ttl;
        faults.wanted(ttl.0.is_zero() || self.api != FerriteApi::V1, || {
            format!("ferrite.results-ttl = {ttl}: wanted ferrite.api = \"v1ttl\" or \"v2\", as the cluster has it")
        });
        faults.wanted(ttl.0.is_zero() || ttl >= Span::secs(1), || {
            format!("ferrite.results-ttl = {ttl}: wanted 0s, or at least 1s")
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
}

impl ClientsConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.within("clients.rate", self.rate, 0.0, 1e6);
        faults.within("clients.burst", self.burst, 1, 1_000_000);
        let header = &self.header;
        faults.wanted(header.is_empty() || header.parse::<http::HeaderName>().is_ok(), || {
            format!("clients.header = {header:?}: wanted the name of a header")
        });
    }
}

impl LimitsConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.within("limits.source-max", self.source_max, ByteSize::kib(1), ByteSize::gib(1));
        for (name, value) in [
            ("resolution-max", self.resolution_max),
            ("frames-resolution-max", self.frames_resolution_max),
        ] {
            faults.wanted(value > 0.0 && value <= 1e5, || {
                format!("limits.{name} = {value}: wanted more than 0")
            });
        }
        faults.within("limits.frames-max", self.frames_max, 1, 10_000);
        faults.within("limits.frames-file-max", self.frames_file_max, 1, 100_000);
        faults.within("limits.result-side-max", self.result_side_max, 1, 16_383);
        faults.wanted(self.decoded_max >= ByteSize::mib(1), || {
            format!("limits.decoded-max = {}: wanted 1MiB at least", self.decoded_max)
        });
        faults.within(
            "limits.download-timeout",
            self.download_timeout,
            Span::millis(100),
            Span::secs(300),
        );
        faults.within("limits.downloads-max", self.downloads_max, 1, 10_000);
    }

    /// For the pipeline.
    pub fn to_limits(&self) -> Limits {
        Limits {
            source_bytes: self.source_max.0,
            resolution: self.resolution_max,
            frames: self.frames_max,
            frames_file: self.frames_file_max,
            frames_resolution: self.frames_resolution_max,
            result_side: self.result_side_max,
            decoded_bytes: self.decoded_max.0,
        }
    }
}

impl OutputConfig {
    fn validate(&self, faults: &mut Faults) {
        for format in &self.prefer {
            faults.wanted(format.is_output(), || {
                format!("output.prefer: results cannot be {}", format.name())
            });
        }
        for (name, quality) in [
            ("jpeg", self.quality_jpeg),
            ("webp", self.quality_webp),
            ("avif", self.quality_avif),
        ] {
            faults.within(&format!("output.quality-{name}"), quality, 1, 100);
        }
        faults.within("output.webp-method", self.webp_method, 0, 6);
        faults.within("output.avif-speed", self.avif_speed, 0, 9);
        faults.wanted(self.png_colors == 0 || (64..=256).contains(&self.png_colors), || {
            format!("output.png-colors = {}: wanted 0, or 64 to 256", self.png_colors)
        });
        faults.within("output.decode-margin", self.decode_margin, 1.0, 8.0);
    }
}

impl FallbackConfig {
    fn validate(&self, faults: &mut Faults) {
        faults.wanted(self.status == 0 || (200..600).contains(&self.status), || {
            format!("fallback.status = {}: wanted 0, or 200 to 599", self.status)
        });
        faults.within("fallback.ttl", self.ttl, Span::secs(0), Span::secs(24 * 3600));
    }
}

/// The reference page of all options.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Thumbnails: configuration\n\n<!-- Made from services/thumbnails/src/config.rs; edit there. -->\n\nThe file of `--config` is TOML; \
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
        let path = Path::new("../../docs/thumbnails-configuration.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, reference_page()).expect("writes");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference_page(),
            "docs/thumbnails-configuration.md is stale; run: BLESS=1 cargo test -p ferrite-thumbnails --lib config"
        );
    }

    #[test]
    fn the_default_wants_keys_and_round_trips() {
        let mut config = Config::default();
        assert_eq!(config.validate().len(), 1, "{:?}", config.validate());
        config.url.allow_unsigned = true;
        assert_eq!(config.validate(), [""; 0]);
        assert_eq!(toml::from_str::<Config>(&config.to_toml()).expect("reads"), config);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = "[server]\naddr = \"x\"\nqueue-max = 0\n[url]\nkeys = [\"zz\"]\nsalts = [\"aa\"]\nonly-presets = true\n\
                    [http]\nredirects-max = 99\n[limits]\nresolution-max = 0.0\n[output]\nprefer = [\"svg\"]\navif-speed = 10\n\
                    [objects]\nbuckets = [\"photos\"]\n[ferrite]\nsources = \"s/\"\nresults-ttl = \"1s\"\n[clients]\nburst = 0\nheader = \"a b\"\n[fallback]\nstatus = 7\n[log]\nlevel = \"inof\"\n";
        let config: Config = toml::from_str(text).expect("reads");
        let faults = config.validate().join("\n");
        for part in [
            "addr",
            "queue-max",
            "key 0",
            "only-presets",
            "redirects-max",
            "resolution-max",
            "svg",
            "avif-speed",
            "s3://BUCKET",
            "wanted endpoints",
            "results-ttl",
            "clients.burst",
            "clients.header",
            "fallback.status",
            "log.level",
        ] {
            assert!(faults.contains(part), "{part} not in:\n{faults}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = toml::from_str::<Config>("[url]\nkey = \"aa\"\n").expect_err("no such option");
        assert!(error.to_string().contains("keys"), "{error}");
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
