//! The bits of a scan, and what codes and numbers are in them.

/// Bits that the table of whole codes looks at. More reach further but miss the caches of the processor more often.
const LOOK: u32 = 11;
/// Bits in which most codes lie together with their number.
const NEAR: u32 = 11;
/// Bits of the longest Huffman code.
const CODE_MAX: u32 = 16;

/// What a code of a Huffman table stands for, whose length is known.
#[derive(Clone, Copy, Default)]
struct Code {
    /// Bits; 0: there is no such code.
    len: u8,
    symbol: u8,
}

/// A code and the number behind it.
#[derive(Clone, Copy, Default)]
struct Number {
    /// Bits of both; 0: more than were looked at.
    bits: u8,
    /// Coefficients that are passed, this one too; 0: the block ends.
    passed: u8,
    /// 0: all that are passed are zero. At an end, in how many bits is told for how many blocks that holds.
    value: i16,
}

/// A Huffman table, looked up by the next bits.
pub(super) struct Codes {
    /// By as many as most codes with their numbers have.
    near: Box<[Number; 1 << NEAR]>,
    /// By as many as the longest code has.
    far: Box<[Code; 1 << CODE_MAX]>,
}

impl Codes {
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Codes> {
        let mut far: Box<[Code; 1 << CODE_MAX]> = vec![Code::default(); 1 << CODE_MAX].try_into().ok()?;
        let (mut code, mut symbols) = (0usize, symbols.iter());
        for (len, count) in (1u8..).zip(counts) {
            for _ in 0..*count {
                let span = 1usize << (CODE_MAX - u32::from(len));
                let symbol = *symbols.next()?;
                far.get_mut(code..code + span)?.fill(Code { len, symbol });
                code += span;
            }
        }
        let near: Vec<Number> = (0..1u64 << NEAR)
            .map(|next| {
                let code = far[(next << (CODE_MAX - NEAR)) as usize];
                let size = u32::from(code.symbol & 15);
                let bits = u32::from(code.len) + size;
                if code.len == 0 || bits > NEAR {
                    return Number::default();
                }
                let raw = (next >> (NEAR - bits)) as i32 & ((1 << size) - 1);
                let (passed, value) = meaning(code.symbol, signed(raw, size));
                Number {
                    bits: bits as u8,
                    passed: passed as u8,
                    value: value as i16,
                }
            })
            .collect();
        Some(Codes {
            near: near.try_into().ok()?,
            far,
        })
    }
}

/// Of a symbol and the number behind it: the coefficients that it passes, its own too, and the value of that; as [`Number`] has them (T.81,
/// F.1.2.2.1 and G.1.2.2).
#[inline(always)]
fn meaning(symbol: u8, value: i32) -> (usize, i32) {
    match symbol {
        0xf0 => (16, 0),
        _ if symbol & 15 == 0 => (0, i32::from(symbol >> 4)),
        _ => (usize::from(symbol >> 4) + 1, value),
    }
}

/// The number of which `size` bits are `raw` (T.81, F.2.2.1).
#[inline(always)]
fn signed(raw: i32, size: u32) -> i32 {
    let is_low = size > 0 && raw >> (size - 1) == 0;
    if is_low { raw - (1 << size) + 1 } else { raw }
}

/// How far the whole codes reach that lie in the next [`LOOK`] bits.
#[derive(Clone, Copy, Default)]
pub(super) struct Reach {
    /// Bits of them; 0: the first code is longer.
    pub(super) bits: u8,
    /// Coefficients that they pass; [`Reach::ENDS`] more if the last one ends the block.
    pub(super) passed: u8,
    /// What the first coefficients behind the mean are, if the bits are the first behind that.
    pub(super) values: [i8; 4],
}

pub(super) struct Reaches(Box<[Reach; 1 << LOOK]>);

impl Reach {
    pub(super) const ENDS: u8 = 128;
}

impl Reaches {
    pub(super) fn new(codes: &Codes) -> Option<Reaches> {
        let table: Vec<Reach> = (0..1u32 << LOOK).map(|bits| Reaches::reach(codes, bits)).collect();
        Some(Reaches(table.try_into().ok()?))
    }

    #[inline(always)]
    pub(super) fn next(&self, bits: &Bits<'_>) -> Reach {
        self.0[(bits.word >> (64 - LOOK)) as usize]
    }

    fn reach(codes: &Codes, bits: u32) -> Reach {
        let mut reach = Reach::default();
        loop {
            // All are passed: what comes belongs to the next block.
            if reach.passed == 63 {
                return reach;
            }
            let left = LOOK - u32::from(reach.bits);
            let code = codes.far[usize::from((bits << (CODE_MAX - left)) as u16)];
            let taken = u32::from(code.len) + u32::from(code.symbol & 15);
            if code.len == 0 || taken > left {
                return reach;
            }
            let size = u32::from(code.symbol & 15);
            let raw = (bits >> (left - taken)) as i32 & ((1 << size) - 1);
            let (step, value) = meaning(code.symbol, signed(raw, size));
            let passed = reach.passed + step as u8;
            if step == 0 {
                reach.bits += taken as u8;
                reach.passed += Reach::ENDS;
                return reach;
            }
            match (reach.values.get_mut(usize::from(passed) - 1), i8::try_from(value)) {
                (Some(place), Ok(value)) => *place = value,
                (None, _) if passed <= 63 => (),
                _ => return reach,
            }
            reach.bits += taken as u8;
            reach.passed = passed;
        }
    }
}

/// Bits of a scan, with stuffed bytes taken out. Behind a marker, or the end, come zeros. It is copied where it must leave the processor's
/// registers, so that it stays in them elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
    /// From the highest on; those beyond `count` are what comes next, or zero.
    pub(super) word: u64,
    pub(super) count: u32,
    /// How many of `count` are behind the end.
    pub(super) padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Bits<'a> {
        Bits {
            bytes,
            at: 0,
            word: 0,
            count: 0,
            padding: 0,
        }
    }

    /// Afterwards there are enough for a code and its number.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(Ok(eight)) = self.bytes.get(self.at..self.at + 8).map(<[u8; 8]>::try_from) {
            let next = u64::from_be_bytes(eight);
            let inverse = !next;
            // Whether one of the bytes is 0xff (H. Warren, Hacker's Delight, section 6-1).
            let full = inverse.wrapping_sub(0x0101_0101_0101_0101) & !inverse & 0x8080_8080_8080_8080;
            if full == 0 {
                self.word |= next >> self.count;
                let bytes = (63 - self.count) / 8;
                self.at += bytes as usize;
                self.count += bytes * 8;
                return;
            }
        }
        *self = self.refilled();
    }

    #[cold]
    #[inline(never)]
    fn refilled(mut self) -> Bits<'a> {
        while self.count <= 48 {
            let byte = match (self.bytes.get(self.at), self.bytes.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                (Some(byte), _) if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                _ => {
                    self.padding += 8;
                    0
                }
            };
            self.word |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    #[inline(always)]
    pub(super) fn skip(&mut self, bits: u32) {
        self.word <<= bits;
        self.count -= bits;
    }

    /// The next code and its number, as [`Number`] has them.
    #[inline(always)]
    pub(super) fn coefficient(&mut self, codes: &Codes) -> Option<(usize, i32)> {
        let near = codes.near[(self.word >> (64 - NEAR)) as usize];
        if near.bits > 0 {
            self.skip(u32::from(near.bits));
            return Some((usize::from(near.passed), i32::from(near.value)));
        }
        let code = codes.far[(self.word >> (64 - CODE_MAX)) as usize];
        if code.len == 0 {
            return None;
        }
        self.skip(u32::from(code.len));
        let size = u32::from(code.symbol & 15);
        // In two steps, as none of the bits may be wanted.
        let raw = (self.word >> 32 >> (32 - size)) as i32;
        self.skip(size);
        Some(meaning(code.symbol, signed(raw, size)))
    }

    /// The next bits, up to 16 of them, as a number.
    #[inline(always)]
    pub(super) fn number(&mut self, bits: u32) -> u32 {
        self.refill();
        // In two steps, as none of the bits may be wanted.
        let number = (self.word >> 32 >> (32 - bits)) as u32;
        self.skip(bits);
        number
    }

    /// Whether more was taken than there is.
    pub(super) fn is_over(self) -> bool {
        self.count < self.padding
    }

    /// The marker that comes now; none if there is something before it.
    pub(super) fn marker(self) -> Option<u8> {
        if self.is_over() || self.count - self.padding >= 8 {
            return None;
        }
        match self.bytes.get(self.at..self.at + 2)? {
            [0xff, marker] if *marker != 0 => Some(*marker),
            _ => None,
        }
    }

    /// Behind the marker that must come now.
    pub(super) fn restarted(self, number: u32) -> Option<Bits<'a>> {
        let is_next = self.marker()? == 0xd0 + (number % 8) as u8;
        is_next.then(|| Bits {
            at: self.at + 2,
            ..Bits::new(self.bytes)
        })
    }
}
