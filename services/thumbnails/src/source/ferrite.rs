//! Values of a Ferrite cluster: `ferrite:///NAME` is the value under the configured prefix and the name behind it.

use std::sync::Arc;

use blob_store::Key;

use super::{Fetched, SourceError, Validators, Want};
use crate::cluster::Cluster;

/// What the cluster has below one prefix.
pub struct Ferrite {
    cluster: Arc<Cluster>,
    prefix: String,
}

impl Ferrite {
    /// Over keys that begin with `prefix`; none if that is empty.
    pub fn new(cluster: Option<Arc<Cluster>>, prefix: &str) -> Option<Ferrite> {
        let cluster = cluster.filter(|_| !prefix.is_empty())?;
        Some(Ferrite {
            cluster,
            prefix: prefix.to_owned(),
        })
    }

    /// Reads the value under `name`. It comes whole or not at all, so a wish for its start is none.
    pub async fn fetch(&self, name: &str, want: &Want<'_>) -> Result<Fetched, SourceError> {
        let name = name.trim_start_matches('/');
        if name.is_empty() {
            return Err(SourceError::Address("an empty name".into()));
        }
        let key = format!("{}{name}", self.prefix);
        let read = async { self.cluster.client().await?.get(key).await };
        let value = read
            .await
            .map_err(|error| SourceError::Down(base::log::chain(&error).to_string()))?;
        let bytes = value.ok_or(SourceError::NotFound)?;
        let total = bytes.len() as u64;
        if total > want.bytes_max {
            return Err(SourceError::TooLarge { max: want.bytes_max });
        }
        let validators = Validators {
            etag: Some(format!("\"{}\"", &Key::sha256(&bytes).to_string()[..32])),
            ..Validators::default()
        };
        if want.known.is_some_and(|known| known.etag == validators.etag) {
            return Ok(Fetched::Unchanged(validators));
        }
        Ok(Fetched::Found {
            bytes,
            validators,
            total: Some(total),
        })
    }
}
