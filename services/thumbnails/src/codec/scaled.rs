//! JPEG at an eighth, a quarter or a half of its size, without the work on what is not seen at that size.
//!
//! Of the 64 coefficients of a block such a picture needs 1, 4 or 16, those of the lowest frequencies (the scaled transform of libjpeg 7).
//! The others still lie between in the bits, so they are read over: a table over the next bits tells how many whole codes are in them, and
//! how far these reach. That takes a fraction of the time that decoding them one by one does, which is most of the time of a thumbnail.
//! Progressive files are read one by one (`progressive`), but no more is kept of them than is needed, a quarter of what the library keeps.
//!
//! Files of every other kind, and all that are damaged, are none of ours: [`planes`] returns nothing, and libjpeg-turbo decides.
//! Names of tables and procedures are those of ITU-T T.81.

mod codes;
mod progressive;

use self::codes::{Bits, Codes, Reach, Reaches};
use crate::bytes::Reader;

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
        false => {
            let decoder = Decoder::new(&file, &layout, &scan)?;
            match eighths {
                1 => decoder.scan::<1>()?,
                2 => decoder.scan::<2>()?,
                _ => decoder.scan::<4>()?,
            }
        }
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
                    ended(&body)?;
                    let mut rest = *reader;
                    scan.bytes = rest.rest();
                    return Some(Some(scan));
                }
                // Adobe's, which may say that colours are red, green and blue.
                0xee if segment.starts_with(b"Adobe") && segment.get(11).is_none_or(|transform| *transform == 0) => return None,
                0xe0..=0xef | 0xfe => continue,
                _ => return None,
            }
            ended(&body)?;
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
            let symbols = body.take(count)?;
            let codes = Codes::new(&counts, symbols)?;
            let tables = match kind >> 4 {
                // Samples of 8 bits have differences of at most 11.
                0 if symbols.iter().any(|size| *size > 11) => return None,
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

/// A segment that is longer than what it says is damaged.
fn ended(segment: &Reader<'_>) -> Option<()> {
    (segment.left() == 0).then_some(())
}

/// How the planes lie.
struct Layout {
    chroma: Chroma,
    /// Units of the file, across and down: the blocks of all components that belong together.
    units: (usize, usize),
    /// Of each component: blocks of a unit, across and down.
    shapes: Vec<(usize, usize)>,
    /// Samples of a block on each side: 1, 2 or 4.
    side: usize,
}

impl Layout {
    fn new(file: &File, side: usize) -> Option<Layout> {
        let sampling = |at: usize| file.components.get(at).map(|component| (component.1, component.2));
        let chroma = match sampling(1) {
            // A component alone is stored block by block, whatever its sampling says (T.81, A.2.2).
            None => Chroma::None,
            Some((1, 1)) if sampling(2) == Some((1, 1)) => match sampling(0)? {
                (1, 1) => Chroma::Full,
                (2, 1) => Chroma::HalfAcross,
                (1, 2) => Chroma::HalfDown,
                (2, 2) => Chroma::HalfBoth,
                _ => return None,
            },
            Some(_) => return None,
        };
        let (across, down) = if chroma == Chroma::None { (1, 1) } else { sampling(0)? };
        let shapes = (0..file.components.len()).map(|at| if at == 0 { (across, down) } else { (1, 1) });
        Some(Layout {
            chroma,
            units: (
                (file.width as usize).div_ceil(8 * across),
                (file.height as usize).div_ceil(8 * down),
            ),
            shapes: shapes.collect(),
            side,
        })
    }

    fn plane(&self, at: usize) -> Plane {
        let (across, down) = self.shapes[at];
        let stride = self.units.0 * across * self.side;
        Plane {
            stride,
            samples: vec![0; stride * self.units.1 * down * self.side],
        }
    }
}

struct Component<'a> {
    /// Blocks of each unit, across and down.
    across: usize,
    down: usize,
    steps: [i32; 64],
    first: &'a Codes,
    others: &'a Codes,
    /// Which of the decoder's tables goes with `others`.
    reaches: usize,
    /// Of the block before.
    level: i32,
    plane: Plane,
}

/// Decodes the one scan of a baseline file to `SIDE` by `SIDE` samples of each block.
struct Decoder<'a> {
    bytes: &'a [u8],
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
            let (across, down) = layout.shapes[at];
            components.push(Component {
                across,
                down,
                steps: **file.quantizers.get(file.components[at].3)?.as_ref()?,
                first: file.firsts.get(first)?.as_ref()?,
                others,
                reaches: reach,
                level: 0,
                plane: layout.plane(at),
            });
        }
        Some(Decoder {
            bytes: scan.bytes,
            components,
            reaches,
            units: layout.units,
            restart: file.restart,
        })
    }

    fn scan<const SIDE: usize>(mut self) -> Option<Vec<Plane>> {
        let mut bits = Bits::new(self.bytes);
        let (mut left, mut restarts) = (self.restart, 0);
        for down in 0..self.units.1 {
            for across in 0..self.units.0 {
                if self.restart > 0 && left == 0 {
                    bits = bits.restarted(restarts)?;
                    self.components.iter_mut().for_each(|component| component.level = 0);
                    (left, restarts) = (self.restart, restarts + 1);
                }
                left = left.wrapping_sub(1);
                for component in &mut self.components {
                    let reaches = &self.reaches[component.reaches].1;
                    for row in 0..component.down {
                        for column in 0..component.across {
                            let block = component.block::<SIDE>(&mut bits, reaches)?;
                            let top = (down * component.down + row) * SIDE;
                            let left = (across * component.across + column) * SIDE;
                            component.plane.put::<SIDE>(&block, top, left);
                        }
                    }
                }
            }
            if bits.is_over() {
                return None;
            }
        }
        // What else comes, a scan or damage, the library must see.
        (bits.marker()? == 0xd9).then(|| self.components.into_iter().map(|component| component.plane).collect())
    }
}

impl Component<'_> {
    /// Reads a block: those of its coefficients that are needed, in steps of a sample's 8.
    #[inline(always)]
    fn block<const SIDE: usize>(&mut self, bits: &mut Bits<'_>, reaches: &Reaches) -> Option<[i32; 17]> {
        let mut block = [0; 17];
        bits.refill();
        let (_, difference) = bits.coefficient(self.first)?;
        self.level = (self.level + difference).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX);
        block[0] = self.level * self.steps[0];
        let mut at = 0;
        if SIDE == 2 {
            bits.refill();
            let reach = reaches.next(bits);
            let ends = reach.passed >= Reach::ENDS;
            at = usize::from(reach.passed % Reach::ENDS);
            bits.skip(u32::from(reach.bits));
            let [first, second, _, fourth] = reach.values.map(i32::from);
            (block[1], block[4], block[5]) = (first * self.steps[1], second * self.steps[2], fourth * self.steps[4]);
            if ends {
                return Some(block);
            }
        }
        while at < needed(SIDE) {
            bits.refill();
            let (passed, value) = bits.coefficient(self.others)?;
            if passed == 0 {
                return Some(block);
            }
            at += passed;
            let place = *PLACES.get(at)?;
            block[usize::from(place)] = value * self.steps[at];
        }
        while at < 63 {
            bits.refill();
            let reach = reaches.next(bits);
            let next = at + usize::from(reach.passed % Reach::ENDS);
            let ends = reach.passed >= Reach::ENDS;
            // At 63 the block is over by itself: what would end it belongs to the next.
            if reach.bits > 0 && next + usize::from(ends) <= 63 {
                bits.skip(u32::from(reach.bits));
                if ends {
                    return Some(block);
                }
                at = next;
                continue;
            }
            let (passed, _) = bits.coefficient(self.others)?;
            if passed == 0 {
                return Some(block);
            }
            at += passed;
        }
        (at == 63).then_some(block)
    }
}

impl Plane {
    /// Transforms a block to samples.
    #[inline(always)]
    fn put<const SIDE: usize>(&mut self, block: &[i32; 17], top: usize, left: usize) {
        let start = top * self.stride + left;
        match SIDE {
            1 => self.put_rows([[bounded(block[0])]], start),
            2 => self.put_rows(two([block[0], block[1], block[4], block[5]]), start),
            _ => self.put_rows(four(block), start),
        }
    }

    #[inline(always)]
    fn put_rows<const N: usize>(&mut self, rows: [[i32; N]; N], mut start: usize) {
        for row in rows {
            if let Some(target) = self.samples.get_mut(start..start + N) {
                for (sample, value) in target.iter_mut().zip(row) {
                    // A block's mean is an eighth of its first coefficient.
                    *sample = (((value + 4) >> 3) + 128).clamp(0, 255) as u8;
                }
            }
            start += self.stride;
        }
    }
}

/// The last coefficient that is needed for so many samples on each side.
#[inline(always)]
fn needed(side: usize) -> usize {
    match side {
        1 => 0,
        2 => 4,
        _ => 24,
    }
}

#[inline(always)]
fn bounded(coefficient: i32) -> i32 {
    coefficient.clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX)
}

/// The transform over two frequencies each way.
#[inline(always)]
fn two([mean, across, down, both]: [i32; 4]) -> [[i32; 2]; 2] {
    let (mean, across, down, both) = (bounded(mean), bounded(across), bounded(down), bounded(both));
    let (high, low) = (mean + down, mean - down);
    let (high_part, low_part) = (across + both, across - both);
    [[high + high_part, high - high_part], [low + low_part, low - low_part]]
}

/// The same over four.
#[inline(always)]
fn four(block: &[i32; 17]) -> [[i32; 4]; 4] {
    let mut rows = [[0; 4]; 4];
    for (row, values) in rows.iter_mut().enumerate() {
        let at = |column: usize| bounded(block[row * 4 + column]);
        *values = wave(at(0), at(1), at(2), at(3));
    }
    let mut out = [[0; 4]; 4];
    for column in 0..4 {
        let values = wave(rows[0][column], rows[1][column], rows[2][column], rows[3][column]);
        for (row, value) in values.into_iter().enumerate() {
            out[row][column] = value;
        }
    }
    out
}

/// Four samples of four frequencies, by cosines of eighths of a half turn times the root of two.
#[inline(always)]
fn wave(mean: i32, first: i32, second: i32, third: i32) -> [i32; 4] {
    const LONG: i32 = 5352;
    const SHORT: i32 = 2217;
    let outer = (first * LONG + third * SHORT + 2048) >> 12;
    let inner = (first * SHORT - third * LONG + 2048) >> 12;
    let (high, low) = (mean + second, mean - second);
    [high + outer, low + inner, low - inner, high - outer]
}
