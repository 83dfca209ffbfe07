//! Numbers of operations, with their arguments in order. They never change their meaning.

/// `endpoints: text, options: text` without a handle; gives a handle.
pub const RAW_CONNECT: u8 = 1;
/// `endpoints: text, options: text` without a handle; gives a handle.
pub const TXNS_CONNECT: u8 = 2;
/// `milliseconds: u64`; gives a handle. Of both clients.
pub const WITH_DEADLINE: u8 = 3;
/// `key`. Of the raw client, snapshots and transactions.
pub const GET: u8 = 4;
/// `key, value`, of the raw client also `ttl milliseconds: u64` (0: for ever).
pub const PUT: u8 = 5;
/// `key`.
pub const DELETE: u8 = 6;
/// `keys`.
pub const BATCH_GET: u8 = 7;
/// `pairs`, of the raw client also `ttl milliseconds: u64`.
pub const BATCH_PUT: u8 = 8;
/// `keys`.
pub const BATCH_DELETE: u8 = 9;
/// `start, end`.
pub const DELETE_RANGE: u8 = 10;
/// `key, expected: optional, new: optional`.
pub const COMPARE_AND_SWAP: u8 = 11;
/// `key`.
pub const TTL: u8 = 12;
/// `start, end`.
pub const CHECKSUM: u8 = 13;
/// `start, end, limit: u64 (0: all), reverse: u8, keys only: u8`; gives the number of a handle. Of the raw client, snapshots and transactions.
pub const SCAN: u8 = 14;
/// `most pairs: u32 (0: a page)`. Of scans.
pub const NEXT: u8 = 15;
/// `options: text`; gives a handle. Of the client for transactions, as the next ones.
pub const BEGIN: u8 = 16;
/// Nothing.
pub const TIMESTAMP: u8 = 17;
/// `ts: u64`; gives the number of a handle.
pub const SNAPSHOT: u8 = 18;
/// `safe point: u64`.
pub const GC: u8 = 19;
/// `start, end, ts: u64`.
pub const RESOLVE_LOCKS: u8 = 20;
/// `key`. Of transactions, as the next ones.
pub const GET_FOR_UPDATE: u8 = 21;
/// `keys`.
pub const BATCH_GET_FOR_UPDATE: u8 = 22;
/// `key, value`.
pub const INSERT: u8 = 23;
/// `keys`.
pub const LOCK_KEYS: u8 = 24;
/// Nothing.
pub const SAVEPOINT: u8 = 25;
/// `savepoint: u64`.
pub const ROLLBACK_TO: u8 = 26;
/// Nothing.
pub const COMMIT: u8 = 27;
/// Nothing.
pub const ROLLBACK: u8 = 28;
/// Nothing; gives a text as a value. Of both clients.
pub const METRICS: u8 = 29;
