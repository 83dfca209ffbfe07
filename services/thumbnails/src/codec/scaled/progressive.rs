//! Progressive files (T.81, annex G): each scan brings some coefficients of all blocks, or one more bit of them.
//!
//! Of each block the needed coefficients are kept, and of all others one bit: whether there is something, as later scans depend on that.

use super::codes::{Bits, Codes};
use super::{COEFFICIENT_MAX, File, Layout, PLACES, Plane, Scan, needed};
use crate::bytes::Reader;

/// Honest files have about ten; each costs as the first.
const SCANS_MAX: usize = 100;
/// Bits that a coefficient may lack in a scan.
const LEFT_MAX: u32 = 13;

/// Reads all scans, the first of which is at hand. `reader` stands where the bits of that begin.
pub(super) fn planes<'a>(file: &mut File, layout: &Layout, first: Scan<'a>, mut reader: Reader<'a>) -> Option<Vec<Plane>> {
    let mut components: Vec<Blocks> = (0..file.components.len()).map(|at| Blocks::new(file, layout, at)).collect();
    let mut scan = first;
    for _ in 0..SCANS_MAX {
        let read = match is_needed(&scan, layout) {
            _ if !is_sound(&scan, file) => return None,
            true => read(file, layout, &mut components, &scan)?,
            false => next_marker(scan.bytes)?,
        };
        reader.take(read)?;
        match file.read(&mut reader)? {
            Some(next) => scan = next,
            None => return finish(file, layout, &components),
        }
    }
    None
}

/// Whether a scan is of a kind that there is (T.81, G.1.1.1), and its tables are at hand.
fn is_sound(scan: &Scan<'_>, file: &File) -> bool {
    let (start, end) = scan.band;
    let is_first = scan.before == 0;
    let has_tables = match (start, &scan.parts[..]) {
        (0, parts) => parts
            .iter()
            .all(|(_, table, _)| !is_first || matches!(file.firsts.get(*table), Some(Some(_)))),
        (_, [(.., table)]) => matches!(file.others.get(*table), Some(Some(_))),
        _ => false,
    };
    let is_band = start <= end && end <= 63 && (start > 0 || end == 0);
    has_tables && is_band && scan.left <= LEFT_MAX && (is_first || scan.before == scan.left + 1)
}

/// Whether a scan, or a later one that depends on it, brings what is needed.
fn is_needed(scan: &Scan<'_>, layout: &Layout) -> bool {
    scan.band.0 == 0 || layout.side > 1
}

fn next_marker(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(2)
        .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7))
}

/// The blocks of a component.
struct Blocks {
    across: usize,
    side: usize,
    /// Without those that only fill up units.
    own: (usize, usize),
    /// Coefficients that are kept, a block after the other.
    kept: Vec<i16>,
    /// Of each block the coefficients, by number, that are not zero.
    known: Vec<u64>,
    /// Bits that each coefficient lacks; 255: all.
    lacks: [u8; 64],
}

impl Blocks {
    fn new(file: &File, layout: &Layout, at: usize) -> Blocks {
        let ((across, down), side) = (layout.shapes[at], layout.side);
        let (across_max, down_max) = layout.shapes[0];
        let own = |length: u32, own: usize, max: usize| (length as usize * own).div_ceil(max).div_ceil(8);
        let (width, height) = (layout.units.0 * across, layout.units.1 * down);
        Blocks {
            across: width,
            side,
            own: (own(file.width, across, across_max), own(file.height, down, down_max)),
            kept: vec![0; width * height * side * side],
            // Nothing depends on those of a component of which only the means are read.
            known: vec![0; if side > 1 { width * height } else { 0 }],
            lacks: [255; 64],
        }
    }

    /// The place of a coefficient among those that are kept.
    #[inline(always)]
    fn place(&self, block: usize, coefficient: usize) -> Option<usize> {
        let place = usize::from(*PLACES.get(coefficient)?);
        let (row, column) = (place / 4, place % 4);
        (row < self.side && column < self.side).then(|| (block * self.side + row) * self.side + column)
    }

    #[inline(always)]
    fn set(&mut self, block: usize, coefficient: usize, value: i32) {
        if let Some(kept) = self.place(block, coefficient).and_then(|place| self.kept.get_mut(place)) {
            *kept = value.clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX) as i16;
        }
    }

    /// One more bit of a coefficient that is not zero, away from it.
    #[inline(always)]
    fn refine(&mut self, block: usize, coefficient: usize, bit: i32) {
        if let Some(kept) = self.place(block, coefficient).and_then(|place| self.kept.get_mut(place))
            && i32::from(*kept) & bit == 0
        {
            let step = if *kept < 0 { -bit } else { bit };
            *kept = (i32::from(*kept) + step).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX) as i16;
        }
    }
}

/// Reads the bits of a scan; how many bytes they are.
fn read(file: &File, layout: &Layout, components: &mut [Blocks], scan: &Scan<'_>) -> Option<usize> {
    let (start, end) = scan.band;
    let is_first = scan.before == 0;
    for (component, ..) in &scan.parts {
        for lacks in &mut components[*component].lacks[start..=end] {
            let wanted = if is_first { 255 } else { scan.before as u8 };
            if std::mem::replace(lacks, scan.left as u8) != wanted {
                return None;
            }
        }
    }
    let mut bits = Bits::new(scan.bytes);
    if start > 0 {
        let [(component, _, table)] = scan.parts[..] else {
            return None;
        };
        let codes = file.others.get(table)?.as_ref()?;
        let band = Band {
            start,
            end,
            left: scan.left,
        };
        band.read(&mut bits, codes, &mut components[component], is_first, file.restart)?;
    } else {
        means(&mut bits, file, layout, components, scan)?;
    }
    bits.marker()?;
    Some(bits.at)
}

/// The first coefficient of every block, or one more bit of it.
fn means(bits: &mut Bits<'_>, file: &File, layout: &Layout, components: &mut [Blocks], scan: &Scan<'_>) -> Option<()> {
    let mut levels = [0i32; 4];
    let mut restarts = Restarts::new(file.restart);
    // A component alone comes block by block, without those that fill up units.
    let is_alone = scan.parts.len() == 1;
    let (across, down) = match is_alone {
        true => components[scan.parts[0].0].own,
        false => layout.units,
    };
    for y in 0..down {
        for x in 0..across {
            if restarts.is_due(bits)? {
                levels = [0; 4];
            }
            for &(at, table, _) in &scan.parts {
                let blocks = &mut components[at];
                let (wide, high) = if is_alone { (1, 1) } else { layout.shapes[at] };
                for row in 0..high {
                    for column in 0..wide {
                        let block = (y * high + row) * blocks.across + x * wide + column;
                        let place = block * blocks.side * blocks.side;
                        bits.refill();
                        if scan.before == 0 {
                            let (_, difference) = bits.coefficient(file.firsts.get(table)?.as_ref()?)?;
                            levels[at] = (levels[at] + difference).clamp(-COEFFICIENT_MAX, COEFFICIENT_MAX);
                            blocks.set(block, 0, levels[at] << scan.left);
                        } else {
                            *blocks.kept.get_mut(place)? |= (bits.number(1) << scan.left) as i16;
                        }
                    }
                }
            }
        }
        if bits.is_over() {
            return None;
        }
    }
    Some(())
}

/// Counts units up to the next restart.
struct Restarts {
    every: u32,
    left: u32,
    number: u32,
}

impl Restarts {
    fn new(every: u32) -> Restarts {
        Restarts {
            every,
            left: every,
            number: 0,
        }
    }

    /// Whether a restart comes before this unit; goes behind its marker.
    fn is_due(&mut self, bits: &mut Bits<'_>) -> Option<bool> {
        if self.every == 0 {
            return Some(false);
        }
        if self.left > 0 {
            self.left -= 1;
            return Some(false);
        }
        *bits = bits.restarted(self.number)?;
        self.number += 1;
        self.left = self.every - 1;
        Some(true)
    }
}

/// Coefficients of a scan, and the bits that they lack after it.
struct Band {
    start: usize,
    end: usize,
    left: u32,
}

/// Bits from `start` up to below `end`.
fn mask(start: usize, end: usize) -> u64 {
    let below = |end: usize| if end >= 64 { u64::MAX } else { (1 << end) - 1 };
    below(end) & !below(start)
}

impl Band {
    fn read(&self, bits: &mut Bits<'_>, codes: &Codes, blocks: &mut Blocks, is_first: bool, restart: u32) -> Option<()> {
        let mut restarts = Restarts::new(restart);
        // Blocks that follow in which nothing new comes.
        let mut run = 0u32;
        for y in 0..blocks.own.1 {
            for x in 0..blocks.own.0 {
                if restarts.is_due(bits)? {
                    run = 0;
                }
                let block = y * blocks.across + x;
                match is_first {
                    true if run > 0 => run -= 1,
                    true => run = self.first(bits, codes, blocks, block)?,
                    false => run = self.more(bits, codes, blocks, block, run)?,
                }
            }
            if bits.is_over() {
                return None;
            }
        }
        Some(())
    }

    /// Coefficients that come for the first time. Returns how many further blocks have none.
    #[inline(always)]
    fn first(&self, bits: &mut Bits<'_>, codes: &Codes, blocks: &mut Blocks, block: usize) -> Option<u32> {
        let mut at = self.start;
        let mut known = 0;
        let mut run = 0;
        while at <= self.end {
            bits.refill();
            let (passed, value) = bits.coefficient(codes)?;
            if passed == 0 {
                run = (1 << value) - 1 + bits.number(value as u32);
                break;
            }
            at += passed - 1;
            if value == 0 {
                at += 1;
                continue;
            }
            if at > self.end {
                return None;
            }
            known |= 1 << at;
            if at <= needed(blocks.side) {
                blocks.set(block, at, value << self.left);
            }
            at += 1;
        }
        *blocks.known.get_mut(block)? |= known;
        Some(run)
    }

    /// One more bit of those that are known, and new ones between them. Returns the rest of the run.
    #[inline(always)]
    fn more(&self, bits: &mut Bits<'_>, codes: &Codes, blocks: &mut Blocks, block: usize, mut run: u32) -> Option<u32> {
        let mut at = self.start;
        let old = *blocks.known.get(block)?;
        let mut new = 0;
        while run == 0 && at <= self.end {
            bits.refill();
            let (passed, value) = bits.coefficient(codes)?;
            if passed == 0 {
                run = (1 << value) + bits.number(value as u32);
                break;
            }
            if value.abs() > 1 {
                return None;
            }
            // The place behind so many that are zero still, or the end.
            let mut free = !old & mask(at, self.end + 1);
            for _ in 1..passed {
                free &= free.wrapping_sub(1);
            }
            let place = if free == 0 {
                self.end + 1
            } else {
                free.trailing_zeros() as usize
            };
            self.corrections(bits, blocks, block, old & mask(at, place));
            if value != 0 {
                if place > self.end {
                    return None;
                }
                new |= 1 << place;
                blocks.set(block, place, value << self.left);
            }
            at = place + 1;
        }
        if run > 0 {
            self.corrections(bits, blocks, block, old & mask(at, self.end + 1));
            run -= 1;
        }
        *blocks.known.get_mut(block)? |= new;
        Some(run)
    }

    /// A bit for each of these: does it grow?
    #[inline(always)]
    fn corrections(&self, bits: &mut Bits<'_>, blocks: &mut Blocks, block: usize, which: u64) {
        let mut near = which & mask(0, needed(blocks.side) + 1);
        let mut far = (which ^ near).count_ones();
        while near != 0 {
            let coefficient = near.trailing_zeros() as usize;
            near &= near - 1;
            if bits.number(1) == 1 {
                blocks.refine(block, coefficient, 1 << self.left);
            }
        }
        while far > 0 {
            let some = far.min(16);
            bits.number(some);
            far -= some;
        }
    }
}

/// Transforms what was kept. A file that does not bring all bits is none of ours: the library smoothes it.
fn finish(file: &File, layout: &Layout, components: &[Blocks]) -> Option<Vec<Plane>> {
    let mut planes = Vec::new();
    for (at, blocks) in components.iter().enumerate() {
        let side = blocks.side;
        let steps = file.quantizers.get(file.components[at].3)?.as_ref()?;
        let mut kept_steps = [0; 16];
        for (coefficient, step) in steps.iter().enumerate() {
            if let Some(place) = blocks.place(0, coefficient) {
                kept_steps[place] = *step;
                if blocks.lacks[coefficient] != 0 {
                    return None;
                }
            }
        }
        let mut plane = layout.plane(at);
        for (number, kept) in blocks.kept.chunks_exact(side * side).enumerate() {
            let mut block = [0; 17];
            for (place, (value, step)) in kept.iter().zip(kept_steps).enumerate() {
                block[place / side * 4 + place % side] = i32::from(*value) * step;
            }
            let (top, left) = (number / blocks.across * side, number % blocks.across * side);
            match side {
                1 => plane.put::<1>(&block, top, left),
                2 => plane.put::<2>(&block, top, left),
                _ => plane.put::<4>(&block, top, left),
            }
        }
        planes.push(plane);
    }
    Some(planes)
}
