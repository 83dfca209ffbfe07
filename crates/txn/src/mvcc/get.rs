//! [`get`]: one key at one timestamp.

use engine::Cf;
use engine::kv::RegionSnapshot;

use super::reader::{self, Versions};
use super::{Found, ReadOptions};
use crate::error::Result;
use crate::key::Key;
use crate::lock::Lock;

/// The value of `key` as `options` see it.
pub fn get(snapshot: &dyn RegionSnapshot, key: &Key, options: &ReadOptions) -> Result<Option<Found>> {
    if options.looks_at_locks()
        && let Some(bytes) = snapshot.get(Cf::Lock, key.encoded())?
    {
        let lock = Lock::decode(&bytes)?;
        if let Err(locked) = options.check_lock(key, &lock) {
            return if options.accesses(&lock) {
                reader::value_of_lock(snapshot, key, &lock)
            } else {
                Err(locked)
            };
        }
    }
    let mut versions = Versions::open(snapshot, key, options.newest_looked_at())?;
    while let Some((commit_ts, write)) = versions.next()? {
        options.check_version(key, commit_ts, &write)?;
        if write.is_version() {
            return reader::value_of_write(snapshot, key, commit_ts, write);
        }
    }
    Ok(None)
}
