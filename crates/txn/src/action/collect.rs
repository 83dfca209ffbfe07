//! Garbage collection: drops the records that no read at or above a safe point can tell from absent ones.
//!
//! At or below the safe point a key needs its newest version and nothing else, and not even that if it is a delete. It goes in two steps,
//! as a sweep over locks does: the first looks for keys with garbage, the second reads them again under their latches, since a late
//! rollback may rewrite a record that it met (an overlapped one) and must not bring back what is collected.
//!
//! Locks protect nothing here: the value of a running transaction has no record yet, and the safe point moves only after all locks
//! below it are resolved.

use base::Ts;
use bytes::Bytes;
use engine::Cf;
use engine::kv::Modify;

use super::Action;
use crate::command::{Command, Output};
use crate::error::Result;
use crate::key::Key;
use crate::mvcc::Versions;
use crate::write::{Write, WriteKind};

/// Keys with garbage that one step does.
const BATCH: usize = 256;
/// Records that one step looks at.
const LOOKED_AT_MAX: usize = 4096;
/// Bytes of keys that one step deletes, about.
const DELETED_BYTES_MAX: usize = 256 << 10;
/// Records above the safe point that are passed one by one before the rest of them is jumped over.
const NEWER_MAX: usize = 8;

/// Goes over the records of one key, newest first.
struct Sieve {
    safe_point: Ts,
    /// The newest version at or below the safe point was met.
    covered: bool,
}

#[derive(PartialEq, Eq)]
enum Verdict {
    Keep,
    Drop,
    /// To be dropped, but only after all that it hides.
    DropLast,
}

impl Sieve {
    fn new(safe_point: Ts) -> Sieve {
        let covered = false;
        Sieve { safe_point, covered }
    }

    fn judge(&mut self, ts: Ts, write: &Write) -> Verdict {
        if ts > self.safe_point {
            return Verdict::Keep;
        }
        if self.covered {
            return Verdict::Drop;
        }
        self.covered = write.is_version();
        match write.kind {
            WriteKind::Put => Verdict::Keep,
            WriteKind::Delete => Verdict::DropLast,
            WriteKind::Lock | WriteKind::Rollback => Verdict::Drop,
        }
    }
}

impl Action<'_> {
    pub(super) fn collect(&mut self, safe_point: Ts, keys: &[Key], scan: Option<&Bytes>) -> Result<Output> {
        if !keys.is_empty() {
            return self.collect_keys(safe_point, keys, scan);
        }
        let (keys, scan) = self.look_for_garbage(safe_point, scan)?;
        if !keys.is_empty() {
            let scan = scan.clone();
            self.next = Some(Command::Collect { safe_point, keys, scan });
        }
        Ok(Output::Collected { deleted: 0, next: scan })
    }

    fn collect_keys(&mut self, safe_point: Ts, keys: &[Key], scan: Option<&Bytes>) -> Result<Output> {
        let mut bytes = 0;
        for key in keys {
            let mut versions = Versions::open(self.input.snapshot, key, safe_point)?;
            let (mut sieve, mut last) = (Sieve::new(safe_point), None);
            while let Some((ts, write)) = versions.next()? {
                match sieve.judge(ts, &write) {
                    Verdict::Keep => {}
                    Verdict::Drop => bytes += self.drop_record(key, ts, &write),
                    Verdict::DropLast => last = Some((ts, write)),
                }
                if bytes > DELETED_BYTES_MAX {
                    return Ok(self.collected(Some(key.encoded())));
                }
            }
            if let Some((ts, write)) = last {
                bytes += self.drop_record(key, ts, &write);
            }
        }
        Ok(self.collected(scan))
    }

    fn collected(&self, next: Option<&Bytes>) -> Output {
        let is_record = |change: &&Modify| matches!(change, Modify::Delete { cf: Cf::Write, .. });
        Output::Collected {
            deleted: self.changes.iter().filter(is_record).count() as u64,
            next: next.cloned(),
        }
    }

    /// Returns the bytes of the keys deleted.
    fn drop_record(&mut self, key: &Key, ts: Ts, write: &Write) -> usize {
        let record = (Cf::Write, key.at(ts));
        let long = write.kind == WriteKind::Put && write.short_value.is_none();
        let value = long.then(|| (Cf::Default, key.at(write.start_ts)));
        let mut bytes = 0;
        for (cf, key) in std::iter::once(record).chain(value) {
            bytes += key.len();
            self.changes.push(Modify::Delete { cf, key });
        }
        bytes
    }

    /// Some of the keys with garbage, and where to look on if that is not all.
    fn look_for_garbage(&self, safe_point: Ts, from: Option<&Bytes>) -> Result<(Vec<Key>, Option<Bytes>)> {
        let from = from.cloned().unwrap_or_default();
        let mut cursor = self.input.snapshot.cursor(Cf::Write, &from, b"")?;
        let mut found: Vec<Key> = Vec::new();
        let mut at: Option<(Key, Sieve)> = None;
        let mut newer = 0;
        let mut looked_at = 0;
        let mut next = cursor.next()?;
        while let Some((versioned, record)) = next {
            let (key, ts) = Key::split(&versioned)?;
            let same = at.take().filter(|(last, _)| *last == key);
            if same.is_none() {
                if found.len() == BATCH || looked_at >= LOOKED_AT_MAX {
                    return Ok((found, Some(key.encoded().clone())));
                }
                newer = 0;
            }
            looked_at += 1;
            newer += usize::from(ts > safe_point);
            let mut sieve = same.map_or(Sieve::new(safe_point), |(_, sieve)| sieve);
            let garbage = sieve.judge(ts, &Write::decode(&record)?) != Verdict::Keep;
            next = if garbage {
                let next = cursor.seek(&key.versions_end())?;
                found.push(key);
                next
            } else if newer > NEWER_MAX && ts > safe_point {
                let next = cursor.seek(&key.at(safe_point))?;
                at = Some((key, sieve));
                next
            } else {
                at = Some((key, sieve));
                cursor.next()?
            };
        }
        Ok((found, None))
    }
}
