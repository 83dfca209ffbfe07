//! [`Lock`]: what a running transaction leaves on a key. Stored in the family lock under the key itself.

use base::Ts;
use bytes::Bytes;

use crate::error::Result;
use crate::fields::{self, Fields};
use crate::key::Key;

/// What the transaction means to do with the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    Put,
    Delete,
    /// Nothing but keep others from writing; committed, it leaves a record without data.
    Lock,
    /// Held before the transaction knows what it will do; hides nothing from readers.
    Pessimistic,
}

/// A lock. Owned by the transaction `start_ts`, whose fate its primary key tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    pub kind: LockKind,
    /// User key of the transaction's primary.
    pub primary: Bytes,
    pub start_ts: Ts,
    /// Milliseconds from the physical part of `start_ts` after which others may roll the transaction back.
    pub ttl_ms: u64,
    /// The value of a put, if it is short.
    pub short_value: Option<Bytes>,
    /// Zero in optimistic transactions.
    pub for_update_ts: Ts,
    /// Keys of the transaction, as far as the client told; decides how others resolve it.
    pub txn_size: u64,
    /// Below this the transaction does not commit. Zero: not set.
    pub min_commit_ts: Ts,
    pub use_async_commit: bool,
    /// User keys of the other locks; on the primary of an async commit only.
    pub secondaries: Vec<Bytes>,
    /// A pessimistic lock that was granted although `for_update_ts` had been overtaken.
    pub locked_with_conflict: bool,
}

impl Lock {
    /// A lock with nothing but what every lock has.
    pub fn new(kind: LockKind, primary: Bytes, start_ts: Ts, ttl_ms: u64) -> Lock {
        Lock {
            kind,
            primary,
            start_ts,
            ttl_ms,
            short_value: None,
            for_update_ts: Ts(0),
            txn_size: 0,
            min_commit_ts: Ts(0),
            use_async_commit: false,
            secondaries: Vec::new(),
            locked_with_conflict: false,
        }
    }

    pub fn is_pessimistic(&self) -> bool {
        self.kind == LockKind::Pessimistic
    }

    /// Whether others may roll the transaction back at `current_ts`; at the greatest timestamp in any case.
    pub fn is_expired(&self, current_ts: Ts) -> bool {
        let until = self.start_ts.physical_ms().saturating_add(self.ttl_ms);
        current_ts == Ts::MAX || until < current_ts.physical_ms()
    }

    /// The stored form.
    pub fn encode(&self) -> Bytes {
        let short = self.short_value.as_ref().map_or(0, Bytes::len);
        let mut out = Vec::with_capacity(64 + self.primary.len() + short);
        out.push(self.kind.byte());
        fields::put_ts(&mut out, self.start_ts);
        fields::put_number(&mut out, self.ttl_ms);
        fields::put_bytes(&mut out, &self.primary);
        if self.use_async_commit {
            out.push(ASYNC_COMMIT);
            fields::put_number(&mut out, self.secondaries.len() as u64);
            self.secondaries.iter().for_each(|key| fields::put_bytes(&mut out, key));
        }
        for (tag, ts) in [(FOR_UPDATE_TS, self.for_update_ts), (MIN_COMMIT_TS, self.min_commit_ts)] {
            if ts.is_some() {
                out.push(tag);
                fields::put_ts(&mut out, ts);
            }
        }
        if self.txn_size > 0 {
            out.push(TXN_SIZE);
            fields::put_number(&mut out, self.txn_size);
        }
        if let Some(value) = &self.short_value {
            out.push(SHORT_VALUE);
            fields::put_bytes(&mut out, value);
        }
        if self.locked_with_conflict {
            out.push(WITH_CONFLICT);
        }
        out.into()
    }

    /// Reads the stored form; shares its bytes.
    pub fn decode(bytes: &Bytes) -> Result<Lock> {
        let mut fields = Fields::new(bytes, "lock");
        let kind = LockKind::from_byte(fields.byte()?).ok_or_else(|| fields.damaged())?;
        let (start_ts, ttl_ms, primary) = (fields.ts()?, fields.number()?, fields.bytes()?);
        let mut lock = Lock::new(kind, primary, start_ts, ttl_ms);
        let mut last = 0;
        while let Some(tag) = fields.tag() {
            if tag <= last {
                return Err(fields.damaged());
            }
            last = tag;
            match tag {
                ASYNC_COMMIT => {
                    lock.use_async_commit = true;
                    lock.secondaries = fields.list(Fields::bytes)?;
                }
                FOR_UPDATE_TS => lock.for_update_ts = fields.ts()?,
                MIN_COMMIT_TS => lock.min_commit_ts = fields.ts()?,
                TXN_SIZE => lock.txn_size = fields.number()?,
                SHORT_VALUE => lock.short_value = Some(fields.bytes()?),
                WITH_CONFLICT => lock.locked_with_conflict = true,
                _ => return Err(fields.damaged()),
            }
        }
        Ok(lock)
    }
}

const ASYNC_COMMIT: u8 = b'a';
const FOR_UPDATE_TS: u8 = b'f';
const MIN_COMMIT_TS: u8 = b'm';
const TXN_SIZE: u8 = b's';
const SHORT_VALUE: u8 = b'v';
const WITH_CONFLICT: u8 = b'w';

impl LockKind {
    fn byte(self) -> u8 {
        match self {
            LockKind::Put => b'P',
            LockKind::Delete => b'D',
            LockKind::Lock => b'L',
            LockKind::Pessimistic => b'S',
        }
    }

    fn from_byte(byte: u8) -> Option<LockKind> {
        [LockKind::Put, LockKind::Delete, LockKind::Lock, LockKind::Pessimistic]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// A key and the lock found on it: what clients are told to resolve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    pub key: Key,
    pub lock: Lock,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn put() -> Lock {
        Lock {
            short_value: Some("v".into()),
            ..Lock::new(LockKind::Put, "pk".into(), Ts(5), 3000)
        }
    }

    fn full() -> Lock {
        Lock {
            for_update_ts: Ts(6),
            txn_size: 300,
            min_commit_ts: Ts(7),
            use_async_commit: true,
            secondaries: vec!["k1".into(), "".into()],
            locked_with_conflict: true,
            ..put()
        }
    }

    /// What stands in `docs/format.md`. A change here must still read what older versions wrote.
    #[test]
    fn golden_bytes() {
        let golden = [
            (put(), "50 0000000000000005 b817 02706b 76 0176"),
            (
                Lock::new(LockKind::Delete, "pk".into(), Ts(5), 3000),
                "44 0000000000000005 b817 02706b",
            ),
            (
                Lock::new(LockKind::Lock, "".into(), Ts(1 << 60), 0),
                "4c 1000000000000000 00 00",
            ),
            (
                Lock {
                    for_update_ts: Ts(6),
                    ..Lock::new(LockKind::Pessimistic, "pk".into(), Ts(5), 3000)
                },
                "53 0000000000000005 b817 02706b 66 0000000000000006",
            ),
            (
                full(),
                "50 0000000000000005 b817 02706b 61 02 026b31 00 66 0000000000000006 6d 0000000000000007 \
                 73 ac02 76 0176 77",
            ),
        ];
        for (lock, bytes) in golden {
            assert_eq!(hex(&lock.encode()), bytes.replace(' ', ""), "{lock:?}");
            assert_eq!(Lock::decode(&lock.encode()).expect("own encoding"), lock);
        }
    }

    #[test]
    fn damaged_locks_are_errors_never_panics() {
        let bytes = full().encode();
        let whole: Vec<usize> = (0..bytes.len())
            .filter(|len| Lock::decode(&bytes.slice(..*len)).is_ok())
            .collect();
        // A field may miss as a whole; nothing else may.
        assert_eq!(whole, [14, 20, 29, 38, 41, 44], "of {}", bytes.len());
        let foreign: [&[u8]; 4] = [b"", b"X", b"P\0\0\0\0\0\0\0\x05\0\0vz", b"P\0\0\0\0\0\0\0\x05\0\0ww"];
        for bytes in foreign {
            assert!(Lock::decode(&Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
