//! Engines for the suites: opened, closed and opened again in one place.
#![allow(dead_code)] // each test binary uses a part

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base::ByteSize;
use bytes::Bytes;
use engine::{Cf, Cursor, Engine, EngineConfig, FjallEngine, MemEngine, Snapshot};
use tempfile::TempDir;

/// Memtables so small that a few hundred writes pass through flushes and compactions.
pub fn small() -> EngineConfig {
    EngineConfig {
        memtable_size: ByteSize::kib(64),
        cache_size: ByteSize::mib(4),
        ..EngineConfig::default()
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Memory,
    Fjall,
    #[cfg(feature = "rocksdb")]
    RocksDb,
}

/// An engine that can be closed and opened again over the same data.
pub struct Home {
    kind: Kind,
    dir: TempDir,
    memory: MemEngine,
    engine: Option<Arc<dyn Engine>>,
}

impl Home {
    pub fn new(kind: Kind) -> Home {
        let mut home = Home {
            kind,
            dir: tempfile::tempdir().unwrap(),
            memory: MemEngine::new(),
            engine: None,
        };
        home.engine = Some(home.open());
        home
    }

    fn open(&self) -> Arc<dyn Engine> {
        match self.kind {
            Kind::Memory => Arc::new(self.memory.clone()),
            Kind::Fjall => Arc::new(FjallEngine::open(self.dir.path(), &small()).unwrap()),
            #[cfg(feature = "rocksdb")]
            Kind::RocksDb => Arc::new(engine::RocksEngine::open(self.dir.path(), &small()).unwrap()),
        }
    }

    pub fn engine(&self) -> &Arc<dyn Engine> {
        self.engine.as_ref().expect("open")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Closes cleanly and opens again. Snapshots of before must be gone.
    pub fn reopen(&mut self) {
        self.engine = None;
        self.memory = self.memory.crash(usize::MAX);
        self.engine = Some(self.open());
    }
}

/// All families as plain maps.
pub type Model = [BTreeMap<Vec<u8>, Vec<u8>>; 4];

/// Everything that a cursor over the whole family gives.
pub fn contents(snapshot: &dyn Snapshot, cf: Cf) -> BTreeMap<Vec<u8>, Vec<u8>> {
    walk(&mut *snapshot.cursor(cf, b"", b"").unwrap())
        .into_iter()
        .map(|(k, v)| (k.to_vec(), v.to_vec()))
        .collect()
}

pub fn walk(cursor: &mut dyn Cursor) -> Vec<(Bytes, Bytes)> {
    std::iter::from_fn(|| cursor.next().unwrap()).collect()
}

pub fn assert_same(snapshot: &dyn Snapshot, model: &Model, what: &str) {
    for cf in Cf::ALL {
        let found = contents(snapshot, cf);
        let wanted = &model[cf as usize];
        if found != *wanted {
            let lost: Vec<_> = wanted
                .iter()
                .filter(|(k, v)| found.get(*k) != Some(v))
                .map(|(k, _)| k)
                .take(5)
                .collect();
            let extra: Vec<_> = found.keys().filter(|k| !wanted.contains_key(*k)).take(5).collect();
            panic!(
                "{what}: {} has {} keys, wanted {}; lost or wrong {lost:?}, extra {extra:?}",
                cf.name(),
                found.len(),
                wanted.len()
            );
        }
    }
}
