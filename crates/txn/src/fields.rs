//! Bytes of stored locks and records: a head that every one has, then optional fields, each behind its tag, tags ascending. Drawn in
//! `docs/format.md`.

use base::Ts;
use bytes::{Buf, BufMut, Bytes};

use crate::error::{Error, Result};

/// Appends seven bits a byte, low ones first; bit 7: more follow.
pub fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub fn put_ts(out: &mut Vec<u8>, ts: Ts) {
    out.put_u64(ts.0);
}

/// Appends bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes stored bytes apart, front to back, sharing them. Whatever is missing or too much is damage.
pub struct Fields {
    rest: Bytes,
    what: &'static str,
}

impl Fields {
    /// `what` names the whole in errors.
    pub fn new(bytes: &Bytes, what: &'static str) -> Fields {
        Fields {
            rest: bytes.clone(),
            what,
        }
    }

    pub fn damaged(&self) -> Error {
        Error::Damaged { what: self.what }
    }

    pub fn byte(&mut self) -> Result<u8> {
        self.rest.try_get_u8().map_err(|_| self.damaged())
    }

    /// The tag of the next field; `None` at the end.
    pub fn tag(&mut self) -> Option<u8> {
        self.rest.try_get_u8().ok()
    }

    pub fn ts(&mut self) -> Result<Ts> {
        self.rest.try_get_u64().map(Ts).map_err(|_| self.damaged())
    }

    pub fn number(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                break; // too great, or not the shortest form
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.damaged())
    }

    pub fn bytes(&mut self) -> Result<Bytes> {
        let len = self.number()?;
        if len > self.rest.len() as u64 {
            return Err(self.damaged());
        }
        Ok(self.rest.split_to(len as usize))
    }

    /// As many items as a number says that stands before them.
    pub fn list<T>(&mut self, item: fn(&mut Fields) -> Result<T>) -> Result<Vec<T>> {
        let len = self.number()?;
        // Every item takes a byte at least, so a damaged length allocates nothing great.
        if len > self.rest.len() as u64 {
            return Err(self.damaged());
        }
        (0..len).map(|_| item(self)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_form() {
        for number in [0, 1, 127, 128, 300, 1 << 32, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_number(&mut bytes, number);
            let mut fields = Fields::new(&bytes.into(), "test");
            assert_eq!(fields.number().expect("own encoding"), number);
            assert_eq!(fields.tag(), None, "nothing is left of {number}");
        }
        let bad: [&[u8]; 5] = [
            &[],
            &[0x80],
            &[0x80, 0],
            &[0xff; 10],
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 2],
        ];
        for bytes in bad {
            assert!(Fields::new(&Bytes::from_static(bytes), "test").number().is_err(), "{bytes:?}");
        }
    }
}
