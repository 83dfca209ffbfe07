//! Raft snapshots in memory, for the simulator and tests. They outlive a crash of their store, as synced files do.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use engine::Engine;
use parking_lot::Mutex;
use proto::metapb::Region;

use super::{Generate, Generated, Key, Snapshots};
use crate::{Error, Result};

type Place = (u64, u64, u64);

fn place(key: Key) -> Place {
    (key.region.0, key.position.index, key.position.term)
}

#[derive(Debug, Default)]
pub struct MemSnapshots {
    made: Mutex<BTreeMap<Place, Bytes>>,
    received: Mutex<BTreeMap<Place, Bytes>>,
}

impl MemSnapshots {
    /// Bytes of a snapshot made here, to be carried to another store.
    pub fn made(&self, key: Key) -> Option<Bytes> {
        self.made.lock().get(&place(key)).cloned()
    }

    /// Region and parts of a received one.
    fn open(&self, key: Key) -> Result<(Region, Bytes)> {
        let broken = |source| Error::Snapshot {
            act: "read",
            region: key.region,
            source,
        };
        let bytes = self.received.lock().get(&place(key)).cloned();
        let bytes = bytes.ok_or_else(|| broken(io::ErrorKind::NotFound.into()))?;
        let mut rest = &bytes[..];
        let region = super::read_head(&mut rest).map_err(broken)?;
        let parts = bytes.slice(bytes.len() - rest.len()..);
        Ok((region, parts))
    }

    /// Takes in what another store made.
    pub fn receive(&self, key: Key, bytes: Bytes) {
        self.received.lock().insert(place(key), bytes);
    }
}

impl Snapshots for MemSnapshots {
    fn generate(&self, job: &Generate) -> Result<Generated> {
        let mut bytes = Vec::new();
        super::write_head(&job.region, &mut bytes)
            .and_then(|()| super::write_parts(&*job.data, &job.region, &mut |part| super::write_part(&part, &mut bytes)))
            .map_err(|source| Error::Snapshot {
                act: "make",
                region: job.key.region,
                source,
            })?;
        let mut made = self.made.lock();
        made.retain(|&(region, ..), _| region != job.key.region.0);
        made.insert(place(job.key), bytes.into());
        Ok(Generated {
            key: job.key,
            region: job.region.clone(),
        })
    }

    fn region(&self, key: Key) -> Result<Region> {
        Ok(self.open(key)?.0)
    }

    fn load(&self, key: Key, engine: &dyn Engine) -> Result<()> {
        let (_, bytes) = self.open(key)?;
        let mut input = &bytes[..];
        super::load_parts(key, engine, &mut || super::read_part(&mut input))
    }

    fn contains(&self, key: Key) -> bool {
        self.received.lock().contains_key(&place(key))
    }

    fn remove(&self, key: Key) {
        self.received.lock().remove(&place(key));
    }
}
