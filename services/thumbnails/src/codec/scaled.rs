//! JPEG at an eighth, a quarter or a half of its size, without the work on what is not seen at that size.
//!
//! Of the 64 coefficients of a block such a picture needs 1, 4 or 16, those of the lowest frequencies (the scaled transform of libjpeg 7).
//! The others still lie between in the bits, so they are read over: a table over the next bits tells how many whole codes are in them, and
//! how far these reach. That takes a fraction of the time that decoding them one by one does, which is most of the time of a thumbnail.
//! Progressive files are read one by one (`progressive`), but no more is kept of them than is needed, a quarter of what the library keeps.
//!
//! Files of every other kind, and all that are damaged, are none of ours: [`planes`] returns nothing, and libjpeg-turbo decides.
//! Names of tables and procedures are those of ITU-T T.81.

mod progressive;

use crate::bytes::Reader;

/// Bits that the table of whole codes looks at. More reach further but miss the caches of the processor more often.
const LOOK: u32 = 13;
/// Bits of the longest Huffman code.
const CODE_MAX: u32 = 16;
/// Largest magnitude of a coefficient that an honest file has, 8 times that of a sample.
const COEFFICIENT_MAX: i32 = 1 << 14;

/// Where the first coefficients, in the order of the file, lie among the 4 by 4 lowest. 16: not there.
const PLACES: [u8; 64] = {
    let mut places = [16; 64];
    let near: [(usize, u8); 16] = [
        (0, 0),
        (1, 1),
        (2, 4),
        (3, 8),
        (4, 5),
        (5, 2),
        (6, 3),
        (7, 6),
        (8, 9),
        (9, 12),
        (11, 13),
        (12, 10),
        (13, 7),
        (17, 11),
        (18, 14),
        (24, 15),
    ];
    let mut at = 0;
    while at < near.len() {
        places[near[at].0] = near[at].1;
        at += 1;
    }
    places
};

/// How colour is sampled, as what makes pixels of planes names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chroma {
    None,
    Full,
    HalfAcross,
    HalfDown,
    HalfBoth,
}

/// Luma, and both of colour where there are any.
#[derive(Debug)]
pub struct Planes {
    pub width: u32,
    pub height: u32,
    pub chroma: Chroma,
    pub planes: Vec<Plane>,
}

/// One of them; rows are longer than the picture is wide.
#[derive(Debug)]
pub struct Plane {
    pub stride: usize,
    pub samples: Vec<u8>,
}

/// Decodes to `eighths` (1, 2 or 4) of the size, each side rounded up. The file must be of the size that met the limits.
pub fn planes(bytes: &[u8], width: u32, height: u32, eighths: u32) -> Option<Planes> {
    if !matches!(eighths, 1 | 2 | 4) {
        return None;
    }
    let mut reader = Reader::new(bytes);
    reader.take(2)?;
    let mut file = File::default();
    let scan = file.read(&mut reader)??;
    if (file.width, file.height) != (width, height) {
        return None;
    }
    let layout = Layout::new(&file, eighths as usize)?;
    let planes = match file.is_progressive {
        true => progressive::planes(&mut file, &layout, scan, reader)?,
        false => Decoder::new(&file, &layout, &scan)?.scan()?,
    };
    let side = |side: u32| (side * eighths).div_ceil(8);
    Some(Planes {
        width: side(width),
        height: side(height),
        chroma: layout.chroma,
        planes,
    })
}

/// What the segments before a scan tell.
#[derive(Default)]
struct File {
    width: u32,
    height: u32,
    is_progressive: bool,
    /// Name, across, down, number of the quantizers.
    components: Vec<(u8, usize, usize, usize)>,
    quantizers: [Option<Quantizers>; 4],
    firsts: [Option<Codes>; 4],
    others: [Option<Codes>; 4],
    restart: u32,
}

type Quantizers = Box<[i32; 64]>;

/// What a scan is of, and its bits.
struct Scan<'a> {
    /// Number of the component, of its Huffman tables for the first coefficient and for the others.
    parts: Vec<(usize, usize, usize)>,
    /// First and last coefficient.
    band: (usize, usize),
    /// Bits that were known before and that are left, of a progressive file.
    before: u32,
    left: u32,
    bytes: &'a [u8],
}

impl File {
    /// Reads segments up to the next scan, and its header. `Some(None)` at the end of the file.
    fn read<'a>(&mut self, reader: &mut Reader<'a>) -> Option<Option<Scan<'a>>> {
        loop {
            if reader.u8()? != 0xff {
                return None;
            }
            let marker = reader.u8()?;
            if marker == 0xd9 {
                return Some(None);
            }
            let len = usize::from(reader.u16()?);
            let segment = reader.take(len.checked_sub(2)?)?;
            let mut body = Reader::new(segment);
            match marker {
                0xdb => self.quantizers(&mut body)?,
                0xc4 => self.codes(&mut body)?,
                0xc0..=0xc2 => self.frame(&mut body, marker == 0xc2)?,
                0xdd => self.restart = u32::from(body.u16()?),
                0xda => {
                    let mut scan = self.scan(&mut body)?;
                    let mut rest = *reader;
                    scan.bytes = rest.rest();
                    return Some(Some(scan));
                }
                // Adobe's, which may say that colours are red, green and blue.
                0xee if segment.starts_with(b"Adobe") && segment.get(11).is_none_or(|transform| *transform == 0) => return None,
                0xe0..=0xef | 0xfe => (),
                _ => return None,
            }
        }
    }

    fn quantizers(&mut self, body: &mut Reader<'_>) -> Option<()> {
        while let Some(kind) = body.u8() {
            let table = self.quantizers.get_mut(usize::from(kind & 15))?;
            let mut steps = Box::new([0; 64]);
            for step in steps.iter_mut() {
                *step = match kind >> 4 {
                    0 => i32::from(body.u8()?),
                    1 => i32::from(body.u16()?),
                    _ => return None,
                };
            }
            *table = Some(steps);
        }
        Some(())
    }

    fn codes(&mut self, body: &mut Reader<'_>) -> Option<()> {
        while let Some(kind) = body.u8() {
            let counts: [u8; 16] = body.take(16)?.try_into().ok()?;
            let count: usize = counts.iter().map(|count| usize::from(*count)).sum();
            let codes = Codes::new(&counts, body.take(count)?)?;
            let tables = match kind >> 4 {
                0 => &mut self.firsts,
                1 => &mut self.others,
                _ => return None,
            };
            *tables.get_mut(usize::from(kind & 15))? = Some(codes);
        }
        Some(())
    }

    fn frame(&mut self, body: &mut Reader<'_>, is_progressive: bool) -> Option<()> {
        if !self.components.is_empty() || body.u8()? != 8 {
            return None;
        }
        self.is_progressive = is_progressive;
        self.height = u32::from(body.u16()?);
        self.width = u32::from(body.u16()?);
        let count = body.u8()?;
        for _ in 0..count {
            let name = body.u8()?;
            let sampling = body.u8()?;
            let quantizers = usize::from(body.u8()?);
            let (across, down) = (usize::from(sampling >> 4), usize::from(sampling & 15));
            self.components.push((name, across, down, quantizers));
        }
        let is_known = match count {
            1 => true,
            // Red, green and blue under their letters.
            3 => self.components.iter().map(|component| component.0).ne(*b"RGB"),
            _ => false,
        };
        (is_known && self.width > 0 && self.height > 0).then_some(())
    }

    fn scan<'a>(&self, body: &mut Reader<'_>) -> Option<Scan<'a>> {
        let count = body.u8()?;
        let mut parts: Vec<(usize, usize, usize)> = Vec::new();
        for _ in 0..count {
            let name = body.u8()?;
            let component = self.components.iter().position(|component| component.0 == name)?;
            let tables = body.u8()?;
            if parts.iter().any(|(known, ..)| *known >= component) {
                return None;
            }
            parts.push((component, usize::from(tables >> 4), usize::from(tables & 15)));
        }
        let band = (usize::from(body.u8()?), usize::from(body.u8()?));
        let bits = u32::from(body.u8()?);
        (!parts.is_empty()).then_some(Scan {
            parts,
            band,
            before: bits >> 4,
            left: bits & 15,
            bytes: &[],
        })
    }
}

/// How the planes lie.
struct Layout {
    chroma: Chroma,
    /// Units of the file, across and down: the blocks of all components that belong together.
    units: (usize, usize),
    /// Of each component: blocks of a unit, across and down, and samples of a block on each side.
    shapes: Vec<(usize, usize, usize)>,
}

impl Layout {
    fn new(file: &File, eighths: usize) -> Option<Layout> {
        let sampling = |at: usize| file.components.get(at).map(|component| (component.1, component.2));
        let (chroma, sides) = match sampling(1) {
            // A component alone is stored block by block, whatever its sampling says (T.81, A.2.2).
            None => (Chroma::None, [eighths; 2]),
            Some((1, 1)) if sampling(2) == Some((1, 1)) => match sampling(0)? {
                (1, 1) => (Chroma::Full, [eighths; 2]),
                (2, 1) => (Chroma::HalfAcross, [eighths; 2]),
                (1, 2) => (Chroma::HalfDown, [eighths; 2]),
                // Colour has samples to spare at these sizes.
                (2, 2) if eighths < 4 => (Chroma::Full, [eighths, 2 * eighths]),
                (2, 2) => (Chroma::HalfBoth, [eighths; 2]),
                _ => return None,
            },
            Some(_) => return None,
        };
        let (across, down) = if chroma == Chroma::None { (1, 1) } else { sampling(0)? };
        let shapes = (0..file.components.len()).map(|at| match at {
            0 => (across, down, sides[0]),
            _ => (1, 1, sides[1]),
        });
        Some(Layout {
            chroma,
            units: (
                (file.width as usize).div_ceil(8 * across),
                (file.height as usize).div_ceil(8 * down),
            ),
            shapes: shapes.collect(),
        })
    }

    fn plane(&self, at: usize) -> Plane {
        let (across, down, side) = self.shapes[at];
        let stride = self.units.0 * across * side;
        Plane {
            stride,
            samples: vec![0; stride * self.units.1 * down * side],
        }
    }
}

/// A Huffman table, looked up by the next 16 bits: the length of the code in them, and what it stands for.
struct Codes {
    table: Box<[(u8, u8); 1 << CODE_MAX]>,
}

impl Codes {
    fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Codes> {
        let mut table: Box<[(u8, u8); 1 << CODE_MAX]> = vec![(0, 0); 1 << CODE_MAX].try_into().ok()?;
        let (mut code, mut symbols) = (0usize, symbols.iter());
        for (len, count) in (1u8..).zip(counts) {
            for _ in 0..*count {
                let span = 1usize << (CODE_MAX - u32::from(len));
                table.get_mut(code..code + span)?.fill((len, *symbols.next()?));
                code += span;
            }
        }
        Some(Codes { table })
    }
}

/// How far the whole codes reach that lie in the next [`LOOK`] bits.
#[derive(Clone, Copy, Default)]
struct Reach {
    /// Bits of them; 0: the first code is longer.
    bits: u8,
    /// Coefficients that they pass.
    passed: u8,
    /// Whether the last one ends the block.
    ends: bool,
}

struct Reaches(Box<[Reach; 1 << LOOK]>);

impl Reaches {
    fn new(codes: &Codes) -> Option<Reaches> {
        let table: Vec<Reach> = (0..1u32 << LOOK).map(|bits| Reaches::reach(codes, bits)).collect();
        Some(Reaches(table.try_into().ok()?))
    }

    fn reach(codes: &Codes, bits: u32) -> Reach {
        let mut reach = Reach::default();
        loop {
            let left = LOOK - u32::from(reach.bits);
            let next = (bits << (CODE_MAX - left)) as u16;
            let (len, symbol) = codes.table[usize::from(next)];
            let taken = u32::from(len) + u32::from(symbol & 15);
            let passed = reach.passed + (symbol >> 4) + 1;
            if len == 0 || taken > left || passed > 63 {
                return reach;
            }
            reach.bits += taken as u8;
            if symbol & 15 == 0 && symbol != 0xf0 {
                reach.ends = true;
                return reach;
            }
            reach.passed = passed;
        }
    }
}

/// Bits of a scan, with stuffed bytes taken out. Behind a marker, or the end, come zeros.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// From the highest on; those beyond `count` are what comes next, or zero.
    word: u64,
    count: u32,
    /// How many of `count` are behind the end.
    padding: u32,
}

impl<'a> Bits<'a> {
    fn new(bytes: &'a [u8]) -> Bits<'a> {
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
    fn refill(&mut self) {
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
        self.refill_slowly();
    }

    #[cold]
    fn refill_slowly(&mut self) {
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
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.word <<= bits;
        self.count -= bits;
    }

    /// The next code, and the bits behind it that make up its number (T.81, F.2.2.1).
    #[inline(always)]
    fn symbol(&mut self, codes: &Codes) -> Option<(u8, i32)> {
        let (len, symbol) = codes.table[(self.word >> (64 - CODE_MAX)) as usize];
        if len == 0 {
            return None;
        }
        self.skip(u32::from(len));
        let size = u32::from(symbol & 15);
        if size == 0 {
            return Some((symbol, 0));
        }
        let raw = (self.word >> (64 - size)) as i32;
        self.skip(size);
        let is_low = raw >> (size - 1) == 0;
        Some((symbol, if is_low { raw - (1 << size) + 1 } else { raw }))
    }

    /// The next bits, up to 16 of them, as a number.
    #[inline(always)]
    fn number(&mut self, bits: u32) -> u32 {
        self.refill();
        // In two steps, as none of the bits may be wanted.
        let number = (self.word >> 32 >> (32 - bits)) as u32;
        self.skip(bits);
        number
    }

    /// Whether more was taken than there is.
    fn is_over(&self) -> bool {
        self.count < self.padding
    }

    /// The marker that comes now; none if there is something before it.
    fn marker(&self) -> Option<u8> {
        if self.is_over() || self.count - self.padding >= 8 {
            return None;
        }
        match self.bytes.get(self.at..self.at + 2)? {
            [0xff, marker] if *marker != 0 => Some(*marker),
            _ => None,
        }
    }

    /// Goes to behind the marker that must come now.
    fn restart(&mut self, number: u32) -> Option<()> {
        if self.marker()? != 0xd0 + (number % 8) as u8 {
            return None;
        }
        self.at += 2;
        (self.word, self.count, self.padding) = (0, 0, 0);
        Some(())
    }
}

struct Component<'a> {
    /// Blocks of each unit, across and down.
    across: usize,
    down: usize,
    /// Samples of a block on each side: 1, 2 or 4.
    side: usize,
    steps: [i32; 64],
    first: &'a Codes,
    others: &'a Codes,
    /// Which of the decoder's tables goes with `others`.
    reaches: usize,
    /// Of the block before.
    level: i32,
    plane: Plane,
}

struct Decoder<'a> {
    bits: Bits<'a>,
    components: Vec<Component<'a>>,
    reaches: Vec<(usize, Reaches)>,
    units: (usize, usize),
    restart: u32,
}

impl<'a> Decoder<'a> {
    fn new(file: &'a File, layout: &Layout, scan: &Scan<'a>) -> Option<Decoder<'a>> {
        // All components must be in one scan; others come again and again.
        if scan.parts.len() != file.components.len() {
            return None;
        }
        let mut reaches: Vec<(usize, Reaches)> = Vec::new();
        let mut components = Vec::new();
        for (at, &(_, first, other)) in scan.parts.iter().enumerate() {
            let others = file.others.get(other)?.as_ref()?;
            let known = reaches.iter().position(|(number, _)| *number == other);
            let reach = match known {
                Some(known) => known,
                None => {
                    reaches.push((other, Reaches::new(others)?));
                    reaches.len() - 1
                }
            };
            let (across, down, side) = layout.shapes[at];
            components.push(Component {
                across,
                down,
                side,
                steps: **file.quantizers.get(file.components[at].3)?.as_ref()?,
                first: file.firsts.get(first)?.as_ref()?,
                others,
                reaches: reach,
                level: 0,
                plane: layout.plane(at),
            });
        }
        Some(Decoder {
            bits: Bits::new(scan.bytes),
            components,
            reaches,
            units: layout.units,
            restart: file.restart,
        })
    }

    fn scan(mut self) -> Option<Vec<Plane>> {
        let (mut left, mut restarts) = (self.restart, 0);
        for down in 0..self.units.1 {
            for across in 0..self.units.0 {
                if self.restart > 0 && left == 0 {
                    self.bits.restart(restarts)?;
                    self.components.iter_mut().for_each(|component| component.level = 0);
                    (left, restarts) = (self.restart, restarts + 1);
                }
                left = left.wrapping_sub(1);
                self.unit(across, down)?;
            }
            if self.bits.is_over() {
                return None;
            }
        }
        Some(self.components.into_iter().map(|component| component.plane).collect())
    }

    #[inline(always)]
    fn unit(&mut self, across: usize, down: usize) -> Option<()> {
        for component in &mut self.components {
            let reaches = &self.reaches[component.reaches].1;
            for row in 0..component.down {
                for column in 0..component.across {
                    let mut block = [0; 17];
                    component.block(&mut self.bits, reaches, &mut block)?;
                    let top = (down * component.down + row) * component.side;
                    let left = (across * component.across + column) * component.side;
                    component.plane.put(&block, component.side, top, left);
                }
            }
        }
        Some(())
    }
}

impl Component<'_> {
    /// Reads a block: those of its coefficients that are needed into their place, in steps of a sample's 8.
    #[inline(always)]
    fn block(&mut self, bits: &mut Bits<'_>, reaches: &Reaches, block: &mut [i32; 17]) -> Option<()> {
        bits.refill();
        let (size, difference) = bits.symbol(self.first)?;
        if size > 11 {
            return None;
        }
        self.level = (self.level + difference).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX);
        block[0] = self.level * self.steps[0];
        let needed = needed(self.side);
        let mut at = 0;
        while at < needed {
            bits.refill();
            let (symbol, value) = bits.symbol(self.others)?;
            if symbol & 15 == 0 && symbol != 0xf0 {
                return Some(());
            }
            at += usize::from(symbol >> 4) + 1;
            let place = *PLACES.get(at)?;
            block[usize::from(place)] = value * self.steps[at];
        }
        while at < 63 {
            bits.refill();
            let reach = reaches.0[(bits.word >> (64 - LOOK)) as usize];
            let next = at + usize::from(reach.passed);
            // At 63 the block is over by itself: what would end it belongs to the next.
            if reach.bits > 0 && next + usize::from(reach.ends) <= 63 {
                bits.skip(u32::from(reach.bits));
                if reach.ends {
                    return Some(());
                }
                at = next;
                continue;
            }
            let (symbol, _) = bits.symbol(self.others)?;
            if symbol & 15 == 0 && symbol != 0xf0 {
                return Some(());
            }
            at += usize::from(symbol >> 4) + 1;
        }
        (at == 63).then_some(())
    }
}

impl Plane {
    /// Transforms a block to samples.
    #[inline(always)]
    fn put(&mut self, block: &[i32; 17], side: usize, top: usize, left: usize) {
        let samples = self.samples.get_mut(top * self.stride + left..).unwrap_or_default();
        match side {
            1 => put_rows([[bounded(block[0])]], samples, self.stride),
            2 => put_rows(two([block[0], block[1], block[4], block[5]]), samples, self.stride),
            _ => put_rows(four(block), samples, self.stride),
        }
    }
}

fn put_rows<const N: usize>(rows: [[i32; N]; N], samples: &mut [u8], stride: usize) {
    for (row, target) in rows.iter().zip(samples.chunks_mut(stride)) {
        for (value, sample) in row.iter().zip(target) {
            // A block's mean is an eighth of its first coefficient.
            *sample = (((value + 4) >> 3) + 128).clamp(0, 255) as u8;
        }
    }
}

/// The last coefficient that is needed for so many samples on each side.
fn needed(side: usize) -> usize {
    match side {
        1 => 0,
        2 => 4,
        _ => 24,
    }
}

fn bounded(coefficient: i32) -> i32 {
    coefficient.clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX)
}

/// The transform over two frequencies each way.
fn two(block: [i32; 4]) -> [[i32; 2]; 2] {
    let [mean, across, down, both] = block.map(bounded);
    [
        [mean + across + down + both, mean - across + down - both],
        [mean + across - down - both, mean - across - down + both],
    ]
}

/// The same over four.
fn four(block: &[i32; 17]) -> [[i32; 4]; 4] {
    let mut rows = [[0; 4]; 4];
    for (row, values) in rows.iter_mut().enumerate() {
        *values = wave([0, 1, 2, 3].map(|column| bounded(block[row * 4 + column])));
    }
    let mut out = [[0; 4]; 4];
    for column in 0..4 {
        let values = wave([0, 1, 2, 3].map(|row: usize| rows[row][column]));
        for (row, value) in values.into_iter().enumerate() {
            out[row][column] = value;
        }
    }
    out
}

/// Four samples of four frequencies, by cosines of eighths of a half turn times the root of two.
fn wave([mean, first, second, third]: [i32; 4]) -> [i32; 4] {
    const LONG: i32 = 5352;
    const SHORT: i32 = 2217;
    let scaled = |value: i32| (value + 2048) >> 12;
    let outer = scaled(first * LONG + third * SHORT);
    let inner = scaled(first * SHORT - third * LONG);
    let (high, low) = (mean + second, mean - second);
    [high + outer, low + inner, low - inner, high - outer]
}
