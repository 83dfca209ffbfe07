//! Object stores: `s3://BUCKET/KEY`, `gs://BUCKET/KEY`, and `abs://CONTAINER/KEY` of Azure. Only buckets that are configured are read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use bytes::BytesMut;
use futures::StreamExt as _;
use object_store::path::Path;
use object_store::{Attribute, ClientOptions, GetOptions, GetRange, GetResult, ObjectStore, RetryConfig};

use super::{Fetched, SourceError, Validators, Want};
use crate::config::ObjectsConfig;

/// Times that the client of the store tries again by itself, for what is over in a moment.
const RETRIES: usize = 1;

/// Kinds of stores, by the scheme of their sources and by what their options begin with.
const KINDS: [(&str, &str); 3] = [("s3", "aws_"), ("gs", "google_"), ("abs", "azure_")];

/// The buckets.
pub struct Objects {
    /// By scheme and name.
    buckets: BTreeMap<(&'static str, String), Bucket>,
}

struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// What is read lies below one of these.
    folders: Vec<Path>,
}

impl Objects {
    /// As configured; nothing is dialled. None if there are no buckets.
    pub fn new(config: &ObjectsConfig) -> anyhow::Result<Option<Objects>> {
        if let Some(name) = config.options.keys().find(|name| kind_of_option(name).is_none()) {
            anyhow::bail!("objects.options has {name:?}: wanted names that start with aws_, google_ or azure_");
        }
        let mut buckets: BTreeMap<(&'static str, String), Bucket> = BTreeMap::new();
        for address in &config.buckets {
            let wanted = || format!("objects.buckets has {address:?}: wanted s3://BUCKET, gs://BUCKET or abs://CONTAINER");
            let (scheme, rest) = address.split_once("://").with_context(wanted)?;
            let scheme = scheme_of(scheme).with_context(wanted)?;
            let (name, folder) = rest.split_once('/').unwrap_or((rest, ""));
            anyhow::ensure!(!name.is_empty(), wanted());
            let folder = Path::parse(folder).with_context(wanted)?;
            match buckets.get_mut(&(scheme, name.to_owned())) {
                Some(bucket) => bucket.folders.push(folder),
                None => {
                    let bucket = Bucket {
                        store: open(scheme, name, config).with_context(|| format!("open {address}"))?,
                        folders: vec![folder],
                    };
                    buckets.insert((scheme, name.to_owned()), bucket);
                }
            }
        }
        Ok(Some(Objects { buckets }).filter(|objects| !objects.buckets.is_empty()))
    }

    /// Whether a source of `scheme` is one of an object store.
    pub fn has_scheme(scheme: &str) -> bool {
        scheme_of(scheme).is_some()
    }

    /// Brings what is at `rest`, which starts with the bucket's name.
    pub async fn fetch(&self, scheme: &str, rest: &str, want: &Want<'_>) -> Result<Fetched, SourceError> {
        let (name, key) = rest.split_once('/').unwrap_or((rest, ""));
        let scheme = scheme_of(scheme).ok_or_else(|| SourceError::Scheme(scheme.to_owned()))?;
        let bucket = self.buckets.get(&(scheme, name.to_owned()));
        let bucket = bucket.ok_or_else(|| SourceError::Refused(format!("the bucket {name}")))?;
        let path = Path::parse(key).map_err(|error| SourceError::Address(error.to_string()))?;
        if path.as_ref().is_empty() {
            return Err(SourceError::Address("no key behind the bucket".into()));
        }
        if !bucket.folders.iter().any(|folder| path.prefix_matches(folder)) {
            return Err(SourceError::Refused(format!("the folder of {key}")));
        }
        let options = GetOptions {
            if_none_match: want.known.and_then(|known| known.etag.clone()),
            range: want.start.map(|len| GetRange::Bounded(0..len)),
            ..GetOptions::default()
        };
        match bucket.store.get_opts(&path, options).await {
            Ok(found) => read(found, want).await,
            Err(object_store::Error::NotModified { .. }) => Ok(Fetched::Unchanged(Validators::default())),
            Err(error) => Err(failure(&error)),
        }
    }
}

fn scheme_of(scheme: &str) -> Option<&'static str> {
    // Both are in use for Azure.
    let scheme = if scheme == "az" { "abs" } else { scheme };
    KINDS.iter().map(|(known, _)| *known).find(|known| *known == scheme)
}

fn kind_of_option(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    KINDS
        .iter()
        .find(|(_, start)| name.starts_with(start))
        .map(|(scheme, _)| *scheme)
}

async fn read(found: GetResult, want: &Want<'_>) -> Result<Fetched, SourceError> {
    let total = found.meta.size;
    if total > want.bytes_max {
        return Err(SourceError::TooLarge { max: want.bytes_max });
    }
    let control = found.attributes.get(&Attribute::CacheControl);
    let validators = Validators {
        etag: found.meta.e_tag.clone(),
        last_modified: Some(httpdate::fmt_http_date(SystemTime::from(found.meta.last_modified))),
        cache_control: control.map(|control| control.as_ref().to_owned()),
        expires: None,
    };
    let mut bytes = BytesMut::with_capacity((found.range.end - found.range.start).min(want.bytes_max) as usize);
    let mut body = found.into_stream();
    while let Some(part) = body.next().await {
        let part = part.map_err(|error| failure(&error))?;
        if (bytes.len() + part.len()) as u64 > want.bytes_max {
            return Err(SourceError::TooLarge { max: want.bytes_max });
        }
        bytes.extend_from_slice(&part);
    }
    Ok(Fetched::Found {
        bytes: bytes.freeze(),
        validators,
        total: Some(total),
    })
}

fn failure(error: &object_store::Error) -> SourceError {
    match error {
        object_store::Error::NotFound { .. } => SourceError::NotFound,
        object_store::Error::PermissionDenied { .. } => SourceError::Status(403),
        object_store::Error::Unauthenticated { .. } => SourceError::Status(401),
        object_store::Error::InvalidPath { source } => SourceError::Address(source.to_string()),
        error => SourceError::Down(base::log::chain(error).to_string()),
    }
}

fn open(scheme: &str, name: &str, config: &ObjectsConfig) -> anyhow::Result<Arc<dyn ObjectStore>> {
    use object_store::{aws, azure, gcp};
    // The process may have one already, from another client.
    let _is_set_already = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        max_retries: RETRIES,
        ..RetryConfig::default()
    };
    // Whole downloads have the time-out of every source.
    let client = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(config.connect_timeout.0);
    // One builder for each, all with the same methods.
    macro_rules! cloud {
        ($builder:expr) => {{
            let mut builder = $builder.with_retry(retry).with_client_options(client);
            for (name, value) in config.options.iter().filter(|(name, _)| kind_of_option(name) == Some(scheme)) {
                let key = name.to_ascii_lowercase().parse();
                let key = key.map_err(|_| anyhow::anyhow!("objects.options has {name:?}: there is no such option"))?;
                builder = builder.with_config(key, value);
            }
            Arc::new(builder.build()?) as Arc<dyn ObjectStore>
        }};
    }
    Ok(match scheme {
        "s3" => cloud!(aws::AmazonS3Builder::from_env().with_bucket_name(name)),
        "gs" => cloud!(gcp::GoogleCloudStorageBuilder::from_env().with_bucket_name(name)),
        _ => cloud!(azure::MicrosoftAzureBuilder::from_env().with_container_name(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(buckets: &[&str], options: &[(&str, &str)]) -> ObjectsConfig {
        ObjectsConfig {
            buckets: buckets.iter().map(|bucket| (*bucket).to_owned()).collect(),
            options: options
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..ObjectsConfig::default()
        }
    }

    #[test]
    fn faults_of_a_configuration_are_told() {
        let azure = [("azure_storage_account_name", "me")];
        let all = config(&["s3://a", "s3://a/b", "gs://c", "abs://d/e"], &azure);
        assert_eq!(Objects::new(&all).expect("valid").expect("is on").buckets.len(), 3);
        assert!(Objects::new(&config(&[], &[])).expect("valid").is_none());
        for (buckets, options, wanted) in [
            (&["photos"][..], &[][..], "s3://BUCKET"),
            (&["ftp://photos"], &[], "s3://BUCKET"),
            (&["s3://"], &[], "s3://BUCKET"),
            (&["s3://a/../b"], &[], "s3://BUCKET"),
            (&["s3://a"], &[("region", "x")], "aws_"),
            (&["s3://a"], &[("aws_nonsense", "x")], "no such option"),
        ] {
            let error = Objects::new(&config(buckets, options)).err().expect("a fault");
            assert!(format!("{error:#}").contains(wanted), "{error:#}");
        }
    }

    #[tokio::test]
    async fn other_buckets_and_folders_are_refused_before_anything_is_dialled() {
        let objects = Objects::new(&config(
            &["s3://a/public", "s3://all"],
            &[("aws_endpoint", "http://127.0.0.1:1")],
        ));
        let objects = objects.expect("valid").expect("is on");
        for (scheme, rest) in [
            ("s3", "b/x.jpg"),
            ("s3", "a/private/x.jpg"),
            ("s3", "a/publicity/x.jpg"),
            ("gs", "a/public/x.jpg"),
            ("s3", "A/public/x.jpg"),
        ] {
            let refused = objects.fetch(scheme, rest, &Want::whole(100)).await;
            assert!(matches!(refused, Err(SourceError::Refused(_))), "{rest}: {refused:?}");
        }
        for rest in ["a", "a/", "all/", "a/public/../private/x", "all/a//b"] {
            let refused = objects.fetch("s3", rest, &Want::whole(100)).await;
            assert!(
                refused.as_ref().is_err_and(|error| error.status().is_client_error()),
                "{rest}: {refused:?}"
            );
        }
    }
}
