//! An object store as a tier: S3, Google, Azure, HTTP servers that take PUT, a folder.
//!
//! An object is a [`Head`] and the body behind it. Names: `PREFIX/cas/ab/<hex>`, `PREFIX/cas-blake3/ab/<hex>`, and for names
//! `PREFIX/named/<hash of the instance>/ab/<hex>`; `docs/build-cache.md` tells them too.

use std::sync::Arc;

use anyhow::Context as _;
use blob_store::{Content, Key};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, MultipartUpload as _, ObjectStore, ObjectStoreExt as _, ObjectStoreScheme, PutPayload,
    RetryConfig,
};
use url::Url;

use super::{Body, Error, Found, Head, Id, Tier};
use crate::config::UpstreamConfig;

/// Larger bodies go in parts of this size. Stores want at least 5 MiB of all but the last.
const PART: usize = 8 << 20;
/// Larger content is looked for before it is sent.
const WORTH_A_LOOK: u64 = 1 << 20;
/// Look-ups at once for one request.
const LOOKUPS: usize = 32;
/// Times that the client of the store tries again by itself, for what is over in a moment.
const RETRIES: usize = 1;

/// An object store.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    place: String,
}

impl Objects {
    /// As configured; nothing is dialled. Errors for a URL or an option that no store knows.
    pub fn new(config: &UpstreamConfig) -> anyhow::Result<Objects> {
        let url = Url::parse(&config.url).with_context(|| format!("upstream.url = {:?}", config.url))?;
        let (scheme, prefix) = ObjectStoreScheme::parse(&url).with_context(|| format!("upstream.url = {url}"))?;
        let store = open(scheme, &url, config).context("upstream")?;
        let mut place = url;
        // Credentials in a URL are not for the status page.
        let _no_host = place.set_username("").and_then(|()| place.set_password(None));
        place.set_query(None);
        Ok(Objects::over(store, prefix, place.to_string()))
    }

    /// Over a store that is open.
    pub fn over(store: Arc<dyn ObjectStore>, prefix: Path, place: String) -> Objects {
        Objects { store, prefix, place }
    }

    fn folder(&self, content: Content, instance: &str) -> Path {
        let prefix = &self.prefix;
        match content {
            Content::Sha256 => prefix.clone().join("cas"),
            Content::Blake3 => prefix.clone().join("cas-blake3"),
            Content::Named => {
                // Hashed, so that any name is a part of a path.
                let hash = Key::sha256(instance.as_bytes()).to_string();
                prefix.clone().join("named").join(&hash[..16])
            }
        }
    }

    fn path(&self, id: Id<'_>) -> Path {
        let hex = id.key.to_string();
        self.folder(id.content, id.instance).join(&hex[..2]).join(hex)
    }

    async fn head(&self, path: Path) -> Result<Option<Head>, Error> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(0..Head::LEN as u64)),
            ..GetOptions::default()
        };
        match self.store.get_opts(&path, options).await {
            Ok(found) => Head::decode(&found.bytes().await?).map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn put_in_parts(&self, path: &Path, head: Head, mut body: Body) -> Result<(), Error> {
        let mut upload = match self.store.put_multipart(path).await {
            Ok(upload) => upload,
            // Plain HTTP servers take a body whole or not at all.
            Err(object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. }) => {
                return Err(Error::TooLarge);
            }
            Err(error) => return Err(error.into()),
        };
        let mut part = vec![Bytes::copy_from_slice(&head.encode())];
        let mut part_len = Head::LEN;
        let sent = async {
            while let Some(bytes) = body.try_next().await? {
                part_len += bytes.len();
                part.push(bytes);
                if part_len >= PART {
                    upload.put_part(std::mem::take(&mut part).into_iter().collect()).await?;
                    part_len = 0;
                }
            }
            if !part.is_empty() {
                upload.put_part(part.into_iter().collect()).await?;
            }
            upload.complete().await?;
            Ok(())
        };
        let sent = sent.await;
        if sent.is_err() {
            // Else the store keeps the parts, and somebody pays for them.
            let _best_effort = upload.abort().await;
        }
        sent
    }
}

#[tonic::async_trait]
impl Tier for Objects {
    fn kind(&self) -> &'static str {
        "objects"
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    async fn get(&self, id: Id<'_>) -> Result<Option<Found>, Error> {
        let found = match self.store.get(&self.path(id)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut stream = found.into_stream();
        let mut start = Vec::new();
        while start.len() < Head::LEN {
            let Some(bytes) = stream.try_next().await? else { break };
            start.extend_from_slice(&bytes);
        }
        let head = Head::decode(&start)?;
        let rest = Bytes::from(start).slice(Head::LEN..);
        let body = futures::stream::iter([Ok(rest)]).chain(stream.map_err(Error::from));
        Ok(Some(Found {
            head,
            body: body.boxed(),
            is_old: false,
        }))
    }

    async fn has(&self, ids: &[Id<'_>]) -> Result<Vec<Option<u64>>, Error> {
        let paths: Vec<Path> = ids.iter().map(|id| self.path(*id)).collect();
        let looks = futures::stream::iter(paths).map(|path| self.head(path));
        let heads: Vec<Option<Head>> = looks.buffered(LOOKUPS).try_collect().await?;
        Ok(heads.into_iter().map(|head| head.map(|head| head.len)).collect())
    }

    async fn put(&self, id: Id<'_>, head: Head, body: Body) -> Result<(), Error> {
        if id.content != Content::Named && head.stored > WORTH_A_LOOK && self.has(&[id]).await? == [Some(head.len)] {
            return Ok(());
        }
        let path = self.path(id);
        if head.stored > PART as u64 {
            return self.put_in_parts(&path, head, body).await;
        }
        let start = Ok(Bytes::copy_from_slice(&head.encode()));
        let parts: Vec<Bytes> = futures::stream::iter([start]).chain(body).try_collect().await?;
        self.store.put(&path, parts.into_iter().collect::<PutPayload>()).await?;
        Ok(())
    }

    async fn remove(&self, id: Id<'_>) -> Result<(), Error> {
        match self.store.delete(&self.path(id)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove_instance(&self, instance: &str) -> Result<(), Error> {
        let folder = self.folder(Content::Named, instance);
        let paths = self.store.list(Some(&folder)).map_ok(|object| object.location).boxed();
        self.store.delete_stream(paths).try_for_each(|_| async { Ok(()) }).await?;
        Ok(())
    }
}

fn open(scheme: ObjectStoreScheme, url: &Url, config: &UpstreamConfig) -> anyhow::Result<Arc<dyn ObjectStore>> {
    use object_store::{aws, azure, gcp, http, local, memory};
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: config.timeout.0,
        ..RetryConfig::default()
    };
    // Whole transfers have a time-out of ours, which grows with their size.
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(config.timeout.0)
        .with_allow_http(url.scheme() == "http");
    // One builder for each, all with the same methods.
    macro_rules! cloud {
        ($builder:expr) => {{
            use_our_tls();
            let mut builder = $builder.with_retry(retry).with_client_options(client);
            for (name, value) in &config.options {
                let key = name.to_ascii_lowercase().parse();
                let key = key.map_err(|_| anyhow::anyhow!("upstream.options has no {name:?} for {}", url.scheme()))?;
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build()?) as Arc<dyn ObjectStore>
        }};
    }
    let text = url.to_string();
    Ok(match scheme {
        ObjectStoreScheme::AmazonS3 => cloud!(aws::AmazonS3Builder::from_env().with_url(text)),
        ObjectStoreScheme::GoogleCloudStorage => cloud!(gcp::GoogleCloudStorageBuilder::from_env().with_url(text)),
        ObjectStoreScheme::MicrosoftAzure => cloud!(azure::MicrosoftAzureBuilder::from_env().with_url(text)),
        ObjectStoreScheme::Http => cloud!(http::HttpBuilder::new().with_url(&url[..url::Position::BeforePath])),
        ObjectStoreScheme::Local => Arc::new(local::LocalFileSystem::new()),
        ObjectStoreScheme::Memory => Arc::new(memory::InMemory::new()),
        other => anyhow::bail!("{other:?} is not built in"),
    })
}

/// The HTTP client takes the TLS provider of the process; that is the one that everything of ours uses.
fn use_our_tls() {
    let _is_set_already = rustls::crypto::ring::default_provider().install_default();
}
