//! The way of one request: path, cache, source, work, answer.

pub mod answer;
pub mod freshness;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ::bytes::Bytes;
use anyhow::Context as _;
use base::{MonoTime, WallTime};
use blob_store::Key;
use futures::FutureExt as _;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;

use crate::cache::{Cache, Entry, Head, Shared, Tier};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::error::Error;
use crate::flight::{Flights, Landed};
use crate::format::Format;
use crate::header::{self, HeaderError, Info};
use crate::metrics;
use crate::picture::Picture;
use crate::pipeline::{Defaults, Job};
use crate::pool::{Cancel, Pool, PoolError};
use crate::rate::Rate;
use crate::source::{Fetched, Sources, Validators, Want};
use crate::url::options::Options;
use crate::url::{Asked, Grammar};
use answer::{Answers, Context};

/// Body of every answer.
pub type Body = Full<Bytes>;

/// Changes whenever equal requests get other results than before, so that old results are not found.
const VERSION: &str = "2";

/// How many bytes of a source are looked at for what its header tells; the last: all of them.
const LOOKS: [Option<u64>; 3] = [Some(64 << 10), Some(1 << 20), None];

/// What all requests share.
pub struct Service {
    grammar: Grammar,
    sources: Sources,
    defaults: Arc<Defaults>,
    pool: Pool,
    cache: Arc<Cache>,
    flights: Flights,
    answers: Answers,
    prefer: Vec<Format>,
    timeout: Duration,
    fresh: Duration,
    fallback: Option<Fallback>,
    rate: Option<Rate>,
    /// Of all in the configuration that results depend on.
    fingerprint: String,
}

/// The picture that takes the place of others.
#[derive(Clone, Debug)]
struct Fallback {
    /// What its results are kept under, as those of a source are.
    name: String,
    bytes: Bytes,
}

/// Where the bytes of a flight come from.
#[derive(Clone, Debug)]
enum Origin {
    Address(String),
    Fallback(Fallback),
}

impl Origin {
    /// What results are kept under.
    fn address(&self) -> &str {
        match self {
            Origin::Address(address) => address,
            Origin::Fallback(fallback) => &fallback.name,
        }
    }
}

/// What the cache did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    Hit(Tier),
    /// Not there, or `stale`: too old to be served without asking the source.
    Miss {
        stale: bool,
        shared: bool,
    },
    None,
}

impl Cached {
    fn label(self) -> &'static str {
        match self {
            Cached::Hit(tier) => tier.name(),
            Cached::Miss { shared: true, .. } => "shared",
            Cached::Miss { .. } => "miss",
            Cached::None => "none",
        }
    }
}

impl Service {
    /// As configured.
    pub fn new(config: &Config) -> anyhow::Result<Service> {
        let mut defaults = defaults(config);
        let mut fingerprint = vec![
            toml::to_string(&config.output).context("output")?,
            toml::to_string(&config.limits).context("limits")?,
        ];
        if !config.output.watermark.as_os_str().is_empty() {
            let bytes = std::fs::read(&config.output.watermark)
                .with_context(|| format!("read output.watermark {}", config.output.watermark.display()))?;
            fingerprint.push(Key::sha256(&bytes).to_string());
            defaults.watermark = Some(Arc::new(load(&bytes, &defaults).context("decode output.watermark")?));
        }
        let fallback = match config.fallback.path.as_os_str().is_empty() {
            true => None,
            false => {
                let bytes = std::fs::read(&config.fallback.path)
                    .with_context(|| format!("read fallback.path {}", config.fallback.path.display()))?;
                load(&bytes, &defaults).context("decode fallback.path")?;
                // Nobody's source: its name cannot come from a URL.
                let name = format!("\0fallback {}", Key::sha256(&bytes));
                let bytes = bytes.into();
                Some(Fallback { name, bytes })
            }
        };
        let cluster = Cluster::new(&config.ferrite);
        let shared = Shared::new(cluster.clone(), &config.ferrite);
        Ok(Service {
            grammar: config.url.grammar().map_err(anyhow::Error::msg)?,
            sources: Sources::new(config, cluster)?,
            defaults: Arc::new(defaults),
            pool: Pool::new(config.server.workers(), config.server.queue_max, config.server.memory_max.0),
            cache: Arc::new(Cache::open(&config.cache, shared)?),
            flights: Flights::default(),
            answers: Answers::new(config),
            prefer: config.output.prefer.clone(),
            timeout: config.server.request_timeout.0,
            fresh: config.cache.fresh.0,
            fallback,
            rate: Rate::new(&config.clients),
            fingerprint: Key::sha256(fingerprint.concat().as_bytes()).to_string(),
        })
    }

    /// Answers a request of `peer` on the address for pictures.
    pub async fn answer<B>(self: Arc<Self>, request: Request<B>, peer: IpAddr) -> Response<Body> {
        let start = MonoTime::now();
        let (response, cached) = self.route(&request, peer).await;
        let label = cached.label();
        metrics::REQUESTS
            .with_label_values(&[response.status().as_str(), label])
            .inc();
        metrics::SECONDS
            .with_label_values(&[label])
            .observe(MonoTime::now().since(start).as_secs_f64());
        response
    }

    async fn route<B>(self: &Arc<Self>, request: &Request<B>, peer: IpAddr) -> (Response<Body>, Cached) {
        let plain = |response| (response, Cached::None);
        let is_head = request.method() == Method::HEAD;
        let path = request.uri().path();
        match *request.method() {
            Method::OPTIONS => return plain(self.answers.preflight()),
            Method::GET | Method::HEAD => (),
            _ => {
                return plain(
                    self.answers
                        .text(StatusCode::METHOD_NOT_ALLOWED, "wanted GET, HEAD or OPTIONS"),
                );
            }
        }
        match path {
            "/" => return plain(self.answers.text(StatusCode::OK, "ferrite-thumbnails")),
            "/health" => return plain(self.answers.text(StatusCode::OK, "ok")),
            "/favicon.ico" | "/robots.txt" => return plain(self.answers.text(StatusCode::NOT_FOUND, "nothing here")),
            _ => (),
        }
        // Before any work, and before the queue that all share.
        if let Some(rate) = &self.rate
            && let Err(wait) = rate.check(request.headers(), peer, MonoTime::now())
        {
            return plain(self.answers.error(&Error::TooOften { wait }));
        }
        if let Some(path) = path.strip_prefix("/info/") {
            return plain(self.info(&format!("/{path}")).await);
        }
        let asked = match self.grammar.read(path, WallTime::now().seconds()) {
            Ok(asked) => asked,
            Err(error) => return plain(self.answers.error(&error.into())),
        };
        let accepted = self.accepted(request.headers(), &asked.options);
        let (landed, cached) = self.find(&asked, accepted).await;
        let context = Context {
            options: &asked.options,
            headers: request.headers(),
            is_head,
            is_negotiated: asked.options.format.is_none() && !self.prefer.is_empty(),
            cached,
        };
        let response = match landed {
            Ok(entry) => self.answers.picture(&entry, &context),
            Err(error) => {
                error.log();
                match self.stand_in(&error, &asked).await {
                    Some(entry) => self.answers.fallback(&entry, &context, error.status()),
                    None => self.answers.error(&error),
                }
            }
        };
        (response, cached)
    }

    /// Formats that may be chosen, by preference.
    fn accepted(&self, headers: &HeaderMap, options: &Options) -> Vec<Format> {
        if options.format.is_some() {
            return Vec::new();
        }
        let accept = headers
            .get_all(http::header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let accept = accept.collect::<Vec<_>>().join(",");
        self.prefer
            .iter()
            .copied()
            .filter(|format| answer::accepts(&accept, format.mime()))
            .collect()
    }

    /// What all that a result depends on hashes to.
    fn key(&self, asked: &Asked, accepted: &[Format]) -> Key {
        // These change the answer's headers alone.
        let options = Options {
            expires: 0,
            filename: None,
            attachment: None,
            ..asked.options.clone()
        };
        Key::named(&[
            "thumbnails",
            VERSION,
            &self.fingerprint,
            &asked.source,
            &format!("{options:?}"),
            &format!("{accepted:?}"),
        ])
    }

    /// From the cache, or by work.
    async fn find(self: &Arc<Self>, asked: &Asked, accepted: Vec<Format>) -> (Landed, Cached) {
        let key = self.key(asked, &accepted);
        let found = self.cache.get(key, &asked.source).await;
        let now = WallTime::now();
        let stale = match found {
            Some((entry, tier)) if freshness::left(&entry.head, self.fresh, now).is_some() => {
                return (Ok(entry), Cached::Hit(tier));
            }
            Some((entry, _)) => Some(entry),
            None => None,
        };
        let is_stale = stale.is_some();
        let service = self.clone();
        let (origin, options) = (Origin::Address(asked.source.clone()), asked.options.clone());
        let make = move || {
            service
                .make(key, origin, options, accepted, stale)
                .map(|made| made.map_err(Arc::new))
                .boxed()
        };
        let (landed, shared) = self.flights.join(key, make).await;
        (landed, Cached::Miss { stale: is_stale, shared })
    }

    /// A picture that takes the place of one that cannot be had.
    async fn stand_in(self: &Arc<Self>, error: &Error, asked: &Asked) -> Option<Arc<Entry>> {
        let fallback = self.fallback.clone().filter(|_| error.has_fallback())?;
        let options = asked.options.clone();
        let asked = Asked {
            source: fallback.name.clone(),
            options: options.clone(),
        };
        let key = self.key(&asked, &[]);
        if let Some((entry, _)) = self.cache.get(key, &asked.source).await {
            return Some(entry);
        }
        let service = self.clone();
        let make = move || {
            service
                .make(key, Origin::Fallback(fallback), options, Vec::new(), None)
                .map(|made| made.map_err(Arc::new))
                .boxed()
        };
        self.flights.join(key, make).await.0.ok()
    }

    async fn make(
        self: Arc<Self>,
        key: Key,
        origin: Origin,
        options: Options,
        accepted: Vec<Format>,
        stale: Option<Arc<Entry>>,
    ) -> Result<Arc<Entry>, Error> {
        let cancel = Cancel::at(MonoTime::now() + self.timeout);
        // Dropped with this future, when nobody waits any more.
        let _guard = CancelGuard(cancel.clone());
        if self.pool.is_full() {
            return Err(Error::Busy);
        }
        let work = self.work(key, origin, options, accepted, stale, cancel);
        match tokio::time::timeout(self.timeout, work).await {
            Ok(made) => made,
            Err(_) => Err(Error::Timeout),
        }
    }

    async fn work(
        &self,
        key: Key,
        origin: Origin,
        options: Options,
        accepted: Vec<Format>,
        stale: Option<Arc<Entry>>,
        cancel: Cancel,
    ) -> Result<Arc<Entry>, Error> {
        let checked_ms = WallTime::now().0;
        let address = origin.address().to_owned();
        let (bytes, source) = match origin {
            Origin::Fallback(fallback) => (fallback.bytes, Validators::default()),
            Origin::Address(address) => {
                let limit = self.defaults.limits.with(&options).source_bytes;
                let known = stale
                    .as_ref()
                    .map(|entry| &entry.head.source)
                    .filter(|known| known.etag.is_some() || known.last_modified.is_some());
                let want = Want {
                    known,
                    ..Want::whole(limit)
                };
                match self.sources.fetch(&address, &want).await? {
                    Fetched::Found { bytes, validators, .. } => (bytes, validators),
                    Fetched::Unchanged(validators) => {
                        let Some(stale) = stale else { return Err(Error::Failed) };
                        return Ok(self.renew(key, &address, &stale, validators, checked_ms));
                    }
                }
            }
        };
        let entry = self.render(bytes, source, options, accepted, checked_ms, cancel).await?;
        let entry = Arc::new(entry);
        if freshness::may_store(&entry.head) {
            self.cache.put(key, &address, &entry);
        }
        Ok(entry)
    }

    /// The same result, found unchanged.
    fn renew(&self, key: Key, address: &str, stale: &Entry, validators: Validators, checked_ms: u64) -> Arc<Entry> {
        let mut entry = stale.clone();
        entry.head.checked_ms = checked_ms;
        let source = &mut entry.head.source;
        // An answer of 304 may leave out what did not change.
        for (old, new) in [
            (&mut source.etag, validators.etag),
            (&mut source.last_modified, validators.last_modified),
            (&mut source.cache_control, validators.cache_control),
            (&mut source.expires, validators.expires),
        ] {
            if new.is_some() {
                *old = new;
            }
        }
        let entry = Arc::new(entry);
        self.cache.put(key, address, &entry);
        entry
    }

    async fn render(
        &self,
        bytes: Bytes,
        source: Validators,
        options: Options,
        accepted: Vec<Format>,
        checked_ms: u64,
        cancel: Cancel,
    ) -> Result<Entry, Error> {
        let defaults = self.defaults.clone();
        // Refused here, before anything waits.
        let estimate = Job {
            bytes: &bytes,
            options: &options,
            defaults: &defaults,
            accepted: &accepted,
            cancelled: &|| false,
        }
        .estimate()?;
        let cost = estimate.bytes + bytes.len() as u64;
        let format = estimate.info.format.name();
        let work = {
            let (cancel, defaults) = (cancel.clone(), defaults.clone());
            move || {
                let timer = metrics::WORK_SECONDS.with_label_values(&[format]).start_timer();
                let cancelled = || cancel.is_cancelled();
                let job = Job {
                    bytes: &bytes,
                    options: &options,
                    defaults: &defaults,
                    accepted: &accepted,
                    cancelled: &cancelled,
                };
                let output = job.run();
                timer.observe_duration();
                output
            }
        };
        let output = match self.pool.run(cost, cancel.clone(), work).await {
            Err(PoolError::Dropped) if cancel.is_cancelled() => return Err(Error::Timeout),
            done => done??,
        };
        Ok(Entry {
            head: Head {
                format: output.format,
                width: output.width,
                height: output.height,
                etag: format!("\"{}\"", &Key::sha256(&output.bytes).to_string()[..32]),
                source,
                checked_ms,
            },
            bytes: output.bytes.into(),
        })
    }

    /// What the header of the source tells, as JSON.
    async fn info(&self, path: &str) -> Response<Body> {
        let asked = match self.grammar.read(path, WallTime::now().seconds()) {
            Ok(asked) => asked,
            Err(error) => return self.answers.error(&error.into()),
        };
        match self.look(&asked).await {
            Ok((info, bytes)) => self.answers.info(&info, bytes),
            Err(error) => {
                error.log();
                self.answers.error(&error)
            }
        }
    }

    /// Reads as much of a source as its header takes, and tells how many bytes it has.
    async fn look(&self, asked: &Asked) -> Result<(Info, Option<u64>), Error> {
        let limits = self.defaults.limits.with(&asked.options);
        for start in LOOKS {
            let want = Want {
                start,
                ..Want::whole(limits.source_bytes)
            };
            let Fetched::Found { bytes, total, .. } = self.sources.fetch(&asked.source, &want).await? else {
                return Err(Error::Failed);
            };
            let is_whole = start.is_none() || total == Some(bytes.len() as u64);
            match header::read(&bytes, limits.frames_file) {
                Ok(info) if is_whole || header::is_told_by_start(&bytes, &info) => return Ok((info, total)),
                Err(error) if is_whole || error == HeaderError::Unknown => return Err(crate::pipeline::Error::from(error).into()),
                _ => (),
            }
        }
        Err(Error::Failed)
    }

    /// Forgets every result of `source`, which is as a URL names it after decoding.
    pub async fn purge(&self, source: &str) -> anyhow::Result<()> {
        self.cache.purge(source, WallTime::now().0).await
    }

    /// Writes down what is not yet.
    pub async fn close(&self) -> anyhow::Result<()> {
        self.cache.clone().close().await
    }
}

struct CancelGuard(Cancel);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How results are written, as configured.
pub fn defaults(config: &Config) -> Defaults {
    let output = &config.output;
    Defaults {
        limits: config.limits.to_limits(),
        quality_jpeg: output.quality_jpeg,
        quality_webp: output.quality_webp,
        quality_avif: output.quality_avif,
        jpeg_progressive: output.jpeg_progressive,
        webp_method: output.webp_method,
        avif_speed: output.avif_speed,
        png_colors: output.png_colors,
        decode_margin: output.decode_margin,
        auto_rotate: output.auto_rotate,
        strip_metadata: output.strip_metadata,
        keep_copyright: output.keep_copyright,
        strip_color_profile: output.strip_color_profile,
        watermark: None,
    }
}

fn load(bytes: &[u8], defaults: &Defaults) -> Result<Picture, crate::pipeline::Error> {
    let job = Job {
        bytes,
        options: &Options::default(),
        defaults,
        accepted: &[],
        cancelled: &|| false,
    };
    job.picture()
}
