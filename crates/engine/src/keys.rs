//! Layout of engine keys. Drawn in `docs/format.md`.
//!
//! Users' data in the column families default, lock and write: `z` + region key, where the region key is what region borders
//! speak of (raw V1: the user's key as it is; everything else: memcomparable, with a timestamp behind where versions are kept).
//! The family local: `s` store identity; `r` + region id (big endian) + `m` region state, `a` apply state.

use base::RegionId;
use bytes::Bytes;

const DATA: u8 = b'z';

/// Engine key of a region key.
pub fn data_key(region_key: &[u8]) -> Bytes {
    let mut key = Vec::new();
    data_key_to(region_key, &mut key);
    key.into()
}

/// Appends the engine key of a region key to `out`.
pub fn data_key_to(region_key: &[u8], out: &mut Vec<u8>) {
    out.reserve(region_key.len() + 1);
    out.push(DATA);
    out.extend_from_slice(region_key);
}

/// Calls `f` with the engine key of a region key, without allocating when it is short. For reads.
pub fn with_data_key<T>(region_key: &[u8], f: impl FnOnce(&[u8]) -> T) -> T {
    let mut short = [DATA; 128];
    match short.get_mut(1..=region_key.len()) {
        Some(rest) => {
            rest.copy_from_slice(region_key);
            f(&short[..=region_key.len()])
        }
        None => f(&data_key(region_key)),
    }
}

/// Engine key of a region's exclusive end, where an empty end means "no end".
pub fn data_end_key(region_end: &[u8]) -> Bytes {
    if region_end.is_empty() {
        Bytes::from_static(&[DATA + 1])
    } else {
        data_key(region_end)
    }
}

/// Region key of an engine key in a data family; shares the bytes.
pub fn region_key(data_key: &Bytes) -> Bytes {
    assert_eq!(data_key.first(), Some(&DATA), "not a data key");
    data_key.slice(1..)
}

/// Key of the store's identity in the local family.
pub const STORE_IDENT: &[u8] = b"s";

fn region_local(region: RegionId, what: u8) -> Bytes {
    let mut key = [0u8; 10];
    key[0] = b'r';
    key[1..9].copy_from_slice(&region.0.to_be_bytes());
    key[9] = what;
    Bytes::copy_from_slice(&key)
}

/// Key of a region's state (its range, epoch, peers, and whether this store still holds it).
pub fn region_state(region: RegionId) -> Bytes {
    region_local(region, b'm')
}

/// Key of a region's apply state (last applied index and term).
pub fn apply_state(region: RegionId) -> Bytes {
    region_local(region, b'a')
}

/// Range of all region keys in the local family.
pub const REGION_LOCAL: (&[u8], &[u8]) = (b"r", b"s");

/// Which region a key of [`REGION_LOCAL`] belongs to, and which of its two records it is (`m` or `a`).
pub fn parse_region_local(key: &[u8]) -> Option<(RegionId, u8)> {
    match key {
        [b'r', id @ .., what] => Some((RegionId(u64::from_be_bytes(id.try_into().ok()?)), *what)),
        _ => None,
    }
}
