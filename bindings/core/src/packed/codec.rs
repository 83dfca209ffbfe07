//! Bytes of arguments and of frames. All numbers are little-endian.
//!
//! Arguments: bytes and texts are `length: u32` and the bytes; optional ones begin with a byte 0 or 1; lists with `count: u32`.
//! A frame: `length: u32` of what follows, `id: u64`, `status: u8`. Status 0: `kind: u8` and what [`Writer::reply`] says. Else the class of the failure:
//! `message: text, hint: text, retryable: u8, key: optional bytes`.

use std::time::Duration;

use bytes::Bytes;
use client::{KeyRange, Pair};

use crate::{Ask, Failure, Reply};

/// Reads arguments.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    fn some(&mut self, count: usize) -> Result<&'a [u8], Failure> {
        let (some, rest) = self.0.split_at_checked(count).ok_or_else(faulty)?;
        self.0 = rest;
        Ok(some)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        Ok(self.some(N)?.try_into().expect("as many as were asked for"))
    }

    pub fn u8(&mut self) -> Result<u8, Failure> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Failure> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Failure> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn slice(&mut self) -> Result<&'a [u8], Failure> {
        let length = self.u32()? as usize;
        self.some(length)
    }

    pub fn bytes(&mut self) -> Result<Bytes, Failure> {
        self.slice().map(Bytes::copy_from_slice)
    }

    pub fn optional_bytes(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.u8()? {
            0 => Ok(None),
            _ => self.bytes().map(Some),
        }
    }

    pub fn text(&mut self) -> Result<String, Failure> {
        let text = std::str::from_utf8(self.slice()?).map_err(|_| faulty())?;
        Ok(text.to_owned())
    }

    pub fn keys(&mut self) -> Result<Vec<Bytes>, Failure> {
        (0..self.u32()?).map(|_| self.bytes()).collect()
    }

    pub fn pairs(&mut self) -> Result<Vec<Pair>, Failure> {
        (0..self.u32()?).map(|_| Ok((self.bytes()?, self.bytes()?))).collect()
    }

    pub fn range(&mut self) -> Result<KeyRange, Failure> {
        Ok(crate::range(self.bytes()?, self.bytes()?))
    }

    pub fn ask(&mut self) -> Result<Ask, Failure> {
        let (start, end, limit) = (self.bytes()?, self.bytes()?, self.u64()?);
        Ok(Ask::new(start, end, limit, self.u8()? != 0, self.u8()? != 0))
    }

    pub fn time(&mut self) -> Result<Duration, Failure> {
        self.u64().map(Duration::from_millis)
    }

    /// Handle, number, id and arguments of an operation among others.
    pub fn operation(&mut self) -> Result<(u64, u8, u64, &'a [u8]), Failure> {
        Ok((self.u64()?, self.u8()?, self.u64()?, self.slice()?))
    }

    /// `None` for 0.
    pub fn optional_time(&mut self) -> Result<Option<Duration>, Failure> {
        Ok(Some(self.time()?).filter(|time| !time.is_zero()))
    }

    /// Fails if something is left.
    pub fn end(&self) -> Result<(), Failure> {
        if self.0.is_empty() { Ok(()) } else { Err(faulty()) }
    }
}

fn faulty() -> Failure {
    Failure::configuration("the arguments are not what the operation wants: do library and binding have one version?".into())
}

/// Writes one frame.
pub(crate) struct Writer<'a> {
    frames: &'a mut Vec<u8>,
    /// Where its length goes.
    at: usize,
}

impl<'a> Writer<'a> {
    pub fn begin(frames: &'a mut Vec<u8>, id: u64) -> Writer<'a> {
        let at = frames.len();
        frames.extend_from_slice(&[0; 4]);
        frames.extend_from_slice(&id.to_le_bytes());
        Writer { frames, at }
    }

    pub fn end(self) {
        let length = (self.frames.len() - self.at - 4) as u32;
        self.frames[self.at..self.at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn u8(&mut self, value: u8) {
        self.frames.push(value);
    }

    fn u64(&mut self, value: u64) {
        self.frames.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.frames.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.frames.extend_from_slice(bytes);
    }

    fn optional_bytes(&mut self, bytes: Option<&[u8]>) {
        self.u8(u8::from(bytes.is_some()));
        if let Some(bytes) = bytes {
            self.bytes(bytes);
        }
    }

    fn pairs(&mut self, pairs: &[Pair]) {
        self.frames.extend_from_slice(&(pairs.len() as u32).to_le_bytes());
        for (key, value) in pairs {
            self.bytes(key);
            self.bytes(value);
        }
    }

    /// Kind 7: `handle: u64, start_ts: u64` (0 unless a transaction).
    pub fn handle(&mut self, handle: u64, start_ts: u64) {
        self.u8(0);
        self.u8(7);
        self.u64(handle);
        self.u64(start_ts);
    }

    /// Kinds: 0 done, 1 `value: optional`, 2 `pairs`, 3 `done: u8, previous: optional`, 4 `kind: u8 (0 missing, 1 for ever, 2 seconds), seconds: u64`,
    /// 5 `crc: u64, pairs: u64, bytes: u64`, 6 `there: u8, number: u64`.
    pub fn reply(&mut self, reply: Reply) {
        self.u8(0);
        match reply {
            Reply::Done => self.u8(0),
            Reply::Value(value) => {
                self.u8(1);
                self.optional_bytes(value.as_deref());
            }
            Reply::Pairs(pairs) | Reply::Page(pairs) => {
                self.u8(2);
                self.pairs(&pairs);
            }
            Reply::Swap(swap) => {
                self.u8(3);
                self.u8(u8::from(swap.done));
                self.optional_bytes(swap.previous.as_deref());
            }
            Reply::Ttl(ttl) => {
                self.u8(4);
                let (kind, seconds) = match ttl.map(crate::ttl_seconds) {
                    None => (0, 0),
                    Some(None) => (1, 0),
                    Some(Some(seconds)) => (2, seconds),
                };
                self.u8(kind);
                self.u64(seconds);
            }
            Reply::Checksum(sum) => {
                self.u8(5);
                [sum.crc64_xor, sum.pairs, sum.bytes]
                    .into_iter()
                    .for_each(|part| self.u64(part));
            }
            Reply::Ts(number) => self.number(number),
            Reply::Count(number) => self.number(Some(number)),
            Reply::Raw(_) | Reply::Txns(_) | Reply::Txn(_) => unreachable!("handles are kept by the hub"),
        }
    }

    fn number(&mut self, number: Option<u64>) {
        self.u8(6);
        self.u8(u8::from(number.is_some()));
        self.u64(number.unwrap_or(0));
    }

    pub fn failure(&mut self, failure: &Failure) {
        self.u8(failure.class as u8);
        self.bytes(failure.message.as_bytes());
        self.bytes(failure.hint.as_bytes());
        self.u8(u8::from(failure.retryable));
        self.optional_bytes(failure.key.as_deref());
    }
}
