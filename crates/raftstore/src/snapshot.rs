//! Raft snapshots: all data of a region at one applied index, for a peer that the log no longer reaches.
//!
//! A file is a row of chunks, each pairs of one column family in ascending order, and a tail that says how many there must be. Every
//! chunk has a checksum. Drawn in `docs/format.md`; the stream between stores carries the same chunks.

mod file;
mod memory;

use std::io::{self, Read, Write};
use std::sync::Arc;

use base::RegionId;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use engine::{Cf, Engine, Snapshot, keys};
use prost::Message;
use proto::metapb::Region;

pub use file::{FileSnapshots, Receiving};
pub use memory::MemSnapshots;

use crate::storage::LogPosition;
use crate::{Error, Result};

/// Names a raft snapshot: at most one of a region and a position exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub region: RegionId,
    pub position: LogPosition,
}

/// A raft snapshot that is there to be sent.
#[derive(Clone, Debug)]
pub struct Generated {
    pub key: Key,
    pub region: Region,
}

/// A raft snapshot to be written out. Long work: not for a thread that others wait for.
pub struct Generate {
    pub key: Key,
    pub region: Region,
    pub data: Arc<dyn Snapshot>,
}

/// Where raft snapshots are kept, made ones and received ones apart.
pub trait Snapshots: Send + Sync {
    /// Writes one out, to be sent.
    fn generate(&self, job: &Generate) -> Result<Generated>;
    /// The region that a received one is of.
    fn region(&self, key: Key) -> Result<Region>;
    /// Loads a received one into the engine.
    fn load(&self, key: Key, engine: &dyn Engine) -> Result<()>;
    /// Whether a received one is here, whole.
    fn contains(&self, key: Key) -> bool;
    /// Forgets a received one.
    fn remove(&self, key: Key);
}

/// Bytes of pairs in a chunk.
const CHUNK_BYTES: usize = 256 << 10;
/// No chunk is larger: one pair may exceed `CHUNK_BYTES`.
pub const CHUNK_BYTES_MAX: usize = 80 << 20;
/// Stands for the column family in the tail.
const TAIL: u8 = 0xff;
const MAGIC: &[u8; 8] = b"FRSNAP01";

/// A part of a raft snapshot, as it stands in a file and goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Pairs as `u32` lengths and bytes, of one column family.
    Chunk { cf: Cf, pairs: Bytes, crc: u32 },
    /// How many chunks, and bytes of pairs, there were.
    Tail { chunks: u64, bytes: u64 },
}

/// Writes a region's data, at the state of `data`, in parts.
pub fn write_parts(data: &dyn Snapshot, region: &Region, out: &mut dyn FnMut(Part) -> io::Result<()>) -> io::Result<()> {
    let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
    let (mut chunks, mut bytes) = (0, 0);
    let mut give = |cf, pairs: &mut BytesMut| {
        let pairs = pairs.split().freeze();
        (chunks, bytes) = (chunks + 1, bytes + pairs.len() as u64);
        out(Part::Chunk {
            cf,
            crc: checksum(cf, &pairs),
            pairs,
        })
    };
    for cf in Cf::DATA {
        let mut pairs = BytesMut::new();
        let mut cursor = data.cursor(cf, &start, &end).map_err(io::Error::other)?;
        while let Some((key, value)) = cursor.next().map_err(io::Error::other)? {
            for part in [&keys::region_key(&key), &value] {
                pairs.put_u32(part.len() as u32);
                pairs.put_slice(part);
            }
            if pairs.len() >= CHUNK_BYTES {
                give(cf, &mut pairs)?;
            }
        }
        if !pairs.is_empty() {
            give(cf, &mut pairs)?;
        }
    }
    out(Part::Tail { chunks, bytes })
}

fn checksum(cf: Cf, pairs: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[cf as u8]);
    hasher.update(pairs);
    hasher.finalize()
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("raft snapshot: {what}"))
}

/// Counts parts as they come and checks each; a snapshot is whole once the tail fits.
#[derive(Debug, Default)]
pub struct Checker {
    chunks: u64,
    bytes: u64,
    pub whole: bool,
}

impl Checker {
    /// Checks the next part.
    pub fn check(&mut self, part: &Part) -> io::Result<()> {
        if self.whole {
            return Err(bad("something follows its tail"));
        }
        match part {
            Part::Chunk { cf, pairs, crc } => {
                if checksum(*cf, pairs) != *crc {
                    return Err(bad("checksum of a chunk does not fit"));
                }
                (self.chunks, self.bytes) = (self.chunks + 1, self.bytes + pairs.len() as u64);
            }
            Part::Tail { chunks, bytes } => {
                if (*chunks, *bytes) != (self.chunks, self.bytes) {
                    return Err(bad("chunks are missing"));
                }
                self.whole = true;
            }
        }
        Ok(())
    }
}

/// Writes what stands before the parts: format and region.
pub fn write_head(region: &Region, out: &mut dyn Write) -> io::Result<()> {
    let region = region.encode_to_vec();
    out.write_all(MAGIC)?;
    out.write_all(&(region.len() as u32).to_be_bytes())?;
    out.write_all(&crc32fast::hash(&region).to_be_bytes())?;
    out.write_all(&region)
}

/// Reads what [`write_head`] wrote.
pub fn read_head(input: &mut dyn Read) -> io::Result<Region> {
    let mut head = [0; 16];
    input.read_exact(&mut head)?;
    let (magic, mut rest) = head.split_at(MAGIC.len());
    let (len, crc) = (rest.get_u32() as usize, rest.get_u32());
    if magic != MAGIC || len > CHUNK_BYTES_MAX {
        return Err(bad("it is of another format"));
    }
    let mut region = vec![0; len];
    input.read_exact(&mut region)?;
    match crc32fast::hash(&region) == crc {
        true => Region::decode(&region[..]).map_err(|e| bad(&format!("its region cannot be read: {e}"))),
        false => Err(bad("checksum of its region does not fit")),
    }
}

/// Writes a part to a file or buffer.
pub fn write_part(part: &Part, out: &mut dyn Write) -> io::Result<()> {
    match part {
        Part::Chunk { cf, pairs, crc } => {
            out.write_all(&[*cf as u8])?;
            out.write_all(&(pairs.len() as u32).to_be_bytes())?;
            out.write_all(&crc.to_be_bytes())?;
            out.write_all(pairs)
        }
        Part::Tail { chunks, bytes } => {
            out.write_all(&[TAIL])?;
            out.write_all(&chunks.to_be_bytes())?;
            out.write_all(&bytes.to_be_bytes())
        }
    }
}

/// Reads the next part that [`write_part`] wrote.
pub fn read_part(input: &mut dyn Read) -> io::Result<Part> {
    let mut kind = [0];
    input.read_exact(&mut kind)?;
    let mut u32_bytes = || -> io::Result<u32> {
        let mut buf = [0; 4];
        input.read_exact(&mut buf)?;
        Ok(u32::from_be_bytes(buf))
    };
    if kind[0] == TAIL {
        let mut number = || Ok::<u64, io::Error>(u64::from(u32_bytes()?) << 32 | u64::from(u32_bytes()?));
        return Ok(Part::Tail {
            chunks: number()?,
            bytes: number()?,
        });
    }
    let cf = crate::command::cf_from_number(kind[0].into()).ok_or_else(|| bad("unknown column family"))?;
    let (len, crc) = (u32_bytes()? as usize, u32_bytes()?);
    if len > CHUNK_BYTES_MAX {
        return Err(bad("a chunk is too large"));
    }
    let mut pairs = vec![0; len];
    input.read_exact(&mut pairs)?;
    Ok(Part::Chunk {
        cf,
        pairs: pairs.into(),
        crc,
    })
}

/// The pairs of a chunk, keys as the engine wants them.
fn pairs(mut chunk: Bytes) -> impl Iterator<Item = io::Result<(Bytes, Bytes)>> {
    let mut take = move || -> io::Result<Option<Bytes>> {
        if chunk.is_empty() {
            return Ok(None);
        }
        let len = chunk.try_get_u32().map_err(|_| bad("a pair ends early"))? as usize;
        if len > chunk.len() {
            return Err(bad("a pair ends early"));
        }
        Ok(Some(chunk.split_to(len)))
    };
    std::iter::from_fn(move || {
        let pair = (|| match take()? {
            None => Ok(None),
            Some(key) => Ok(Some((
                keys::data_key(&key),
                take()?.ok_or_else(|| bad("a key has no value"))?,
            ))),
        })();
        pair.transpose()
    })
}

/// Loads parts into the engine.
fn load_parts(key: Key, engine: &dyn Engine, next: &mut dyn FnMut() -> io::Result<Part>) -> Result<()> {
    let broken = |source| Error::Snapshot {
        act: "load",
        region: key.region,
        source,
    };
    let mut checker = Checker::default();
    while !checker.whole {
        let part = next().map_err(broken)?;
        checker.check(&part).map_err(broken)?;
        let Part::Chunk { cf, pairs: chunk, .. } = part else {
            continue;
        };
        let pairs = pairs(chunk).collect::<io::Result<Vec<_>>>().map_err(broken)?;
        engine.ingest(cf, &mut pairs.into_iter()).map_err(|source| Error::Engine {
            act: "ingest into",
            source,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
