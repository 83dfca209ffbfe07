//! Where most is to be seen: the place of a crop by what stands out, in place of an anchor.
//!
//! Each pixel of a small copy gets a score: how rare its colour is in the picture, weighed by how far other colours are from it (global
//! contrast, M. Cheng and others, CVPR 2011), how much it differs from its neighbours, how near its colour is to skin. What is above the mean
//! stands out: sky, lawn and walls, of which there is much, do not, however strong their colour is. The window that holds most of it wins,
//! less what its borders cut through; sums are taken from a summed-area table (F. Crow, 1984). Of windows that are as good, that
//! nearest to the middle.

use super::resize::resize;
use crate::picture::Picture;

/// The longer side of the copy that is looked at.
const LOOK: u32 = 160;
const CONTRAST: f64 = 1.0;
const DETAIL: f64 = 1.0;
const SKIN: f64 = 60.0;
/// Bits of each sample by which colours are told apart.
const SHADES: u32 = 3;
/// Scores below this part of the mean beyond it are noise.
const STANDS_OUT: f64 = 1.2;
/// Pixels beside a border that count as cut through, and how many times.
const BORDER: u32 = 2;
const CUT: f64 = 3.0;
/// What the middle counts more than the ends, as a part of all that stands out.
const MIDDLE: f64 = 0.02;

/// Left and top of the best window of `width` by `height`, which must fit in.
pub fn place(picture: &Picture, width: u32, height: u32) -> (u32, u32) {
    let (room_x, room_y) = (picture.width().saturating_sub(width), picture.height().saturating_sub(height));
    if room_x == 0 && room_y == 0 {
        return (0, 0);
    }
    let scale = (f64::from(LOOK) / f64::from(picture.width().max(picture.height()))).min(1.0);
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let small = resize(picture, None, side(picture.width()), side(picture.height()));
    let sums = Sums::new(&small);
    let window = (side(width).min(small.width()), side(height).min(small.height()));
    let steps = |room: u32, small: u32, window: u32| if room == 0 { 0 } else { small - window };
    let (steps_x, steps_y) = (
        steps(room_x, small.width(), window.0),
        steps(room_y, small.height(), window.1),
    );
    let mut best = (f64::MIN, 0, 0);
    for y in 0..=steps_y {
        for x in 0..=steps_x {
            let score = sums.value(x, y, window) + MIDDLE * sums.all() * (middle(x, steps_x) + middle(y, steps_y));
            if score > best.0 {
                best = (score, x, y);
            }
        }
    }
    let back = |at: u32, steps: u32, room: u32| match steps {
        0 => room / 2,
        steps => ((f64::from(at) * f64::from(room) / f64::from(steps)).round() as u32).min(room),
    };
    (back(best.1, steps_x, room_x), back(best.2, steps_y, room_y))
}

/// 1 in the middle, 0 at both ends.
fn middle(at: u32, steps: u32) -> f64 {
    match steps {
        0 => 0.0,
        steps => 1.0 - (f64::from(at) / f64::from(steps) * 2.0 - 1.0).abs(),
    }
}

/// Sums of what stands out of all that is left of and above a place.
struct Sums {
    width: u32,
    height: u32,
    sums: Vec<f64>,
}

impl Sums {
    fn new(picture: &Picture) -> Sums {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let scores = scores(picture);
        let mean = scores.iter().sum::<f64>() / scores.len().max(1) as f64;
        let mut sums = vec![0.0; (width + 1) * (height + 1)];
        for y in 0..height {
            let mut row = 0.0;
            for x in 0..width {
                row += (scores[y * width + x] - mean * STANDS_OUT).max(0.0);
                sums[(y + 1) * (width + 1) + x + 1] = sums[y * (width + 1) + x + 1] + row;
            }
        }
        Sums {
            width: picture.width(),
            height: picture.height(),
            sums,
        }
    }

    fn within(&self, left: u32, top: u32, right: u32, bottom: u32) -> f64 {
        let at = |x: u32, y: u32| self.sums[y as usize * (self.width as usize + 1) + x as usize];
        at(right, bottom) - at(left, bottom) - at(right, top) + at(left, top)
    }

    /// Not nothing, so that a picture where nothing stands out has a middle.
    fn all(&self) -> f64 {
        self.within(0, 0, self.width, self.height).max(1.0)
    }

    /// What a window is worth: what is in it, less what goes on beyond its borders.
    fn value(&self, left: u32, top: u32, (width, height): (u32, u32)) -> f64 {
        let (right, bottom) = (left + width, top + height);
        let mut cut = 0.0;
        // The least of what lies on both sides of a border: a thing that ends there is not cut.
        let mut border = |inside: f64, outside: f64| cut += inside.min(outside);
        if left > 0 {
            border(
                self.within(left, top, (left + BORDER).min(right), bottom),
                self.within(left.saturating_sub(BORDER), top, left, bottom),
            );
        }
        if right < self.width {
            border(
                self.within(right.saturating_sub(BORDER).max(left), top, right, bottom),
                self.within(right, top, (right + BORDER).min(self.width), bottom),
            );
        }
        if top > 0 {
            border(
                self.within(left, top, right, (top + BORDER).min(bottom)),
                self.within(left, top.saturating_sub(BORDER), right, top),
            );
        }
        if bottom < self.height {
            border(
                self.within(left, bottom.saturating_sub(BORDER).max(top), right, bottom),
                self.within(left, bottom, right, (bottom + BORDER).min(self.height)),
            );
        }
        self.within(left, top, right, bottom) - CUT * cut
    }
}

fn scores(picture: &Picture) -> Vec<f64> {
    let bytes = picture.samples().bytes();
    let width = picture.width() as usize;
    let pixels: Vec<&[u8]> = picture.pixels().chunks_exact(bytes).collect();
    let luma: Vec<f64> = pixels.iter().map(|pixel| luma(pixel)).collect();
    let contrast = Contrast::new(&pixels);
    let mut scores = Vec::with_capacity(pixels.len());
    for (at, pixel) in pixels.iter().enumerate() {
        let x = at % width;
        let around = [
            (x > 0).then(|| at - 1),
            (x + 1 < width).then_some(at + 1),
            at.checked_sub(width),
            (at + width < luma.len()).then_some(at + width),
        ];
        let (sum, count) = around
            .iter()
            .flatten()
            .fold((0.0, 0.0), |(sum, count), other| (sum + luma[*other], count + 1.0));
        let detail = if count > 0.0 { (luma[at] - sum / count).abs() } else { 0.0 };
        let opaque = if bytes == 4 { f64::from(pixel[3]) / 255.0 } else { 1.0 };
        scores.push(opaque * (CONTRAST * contrast.of(pixel) + DETAIL * detail + SKIN * skin(pixel)));
    }
    scores
}

/// How far each colour is from all others of the picture, in the mean.
struct Contrast(Vec<f64>);

impl Contrast {
    fn new(pixels: &[&[u8]]) -> Contrast {
        let mut shades = vec![(0.0, [0.0; 3]); 1 << (3 * SHADES)];
        for pixel in pixels {
            let (count, sums) = &mut shades[shade(pixel)];
            *count += 1.0;
            sums.iter_mut()
                .zip(*pixel)
                .for_each(|(sum, sample)| *sum += f64::from(*sample));
        }
        let present: Vec<(f64, [f64; 3])> = shades
            .iter()
            .filter(|(count, _)| *count > 0.0)
            .map(|(count, sums)| (*count, sums.map(|sum| sum / count)))
            .collect();
        let contrast = |(count, sums): &(f64, [f64; 3])| {
            let color = sums.map(|sum| sum / count.max(1.0));
            let far = |other: &[f64; 3]| {
                color
                    .iter()
                    .zip(other)
                    .map(|(one, other)| (one - other).powi(2))
                    .sum::<f64>()
                    .sqrt()
            };
            let sum: f64 = present.iter().map(|(count, other)| count * far(other)).sum();
            sum / pixels.len().max(1) as f64
        };
        Contrast(
            shades
                .iter()
                .map(|shade| if shade.0 > 0.0 { contrast(shade) } else { 0.0 })
                .collect(),
        )
    }

    fn of(&self, pixel: &[u8]) -> f64 {
        self.0[shade(pixel)]
    }
}

fn shade(pixel: &[u8]) -> usize {
    pixel[..3]
        .iter()
        .fold(0, |shade, sample| shade << SHADES | usize::from(sample >> (8 - SHADES)))
}

fn luma(pixel: &[u8]) -> f64 {
    0.2126 * f64::from(pixel[0]) + 0.7152 * f64::from(pixel[1]) + 0.0722 * f64::from(pixel[2])
}

/// How near the direction of a colour is to that of skin, whatever its light: 0 far, 1 at it. Dark and glaring pixels tell nothing.
fn skin(pixel: &[u8]) -> f64 {
    const TONE: [f64; 3] = [0.78, 0.57, 0.44];
    const NEAR: f64 = 0.92;
    let [red, green, blue] = [0, 1, 2].map(|sample| f64::from(pixel[sample]));
    let len = (red * red + green * green + blue * blue).sqrt();
    let tone_len = TONE.iter().map(|part| part * part).sum::<f64>().sqrt();
    let light = luma(pixel);
    if len < 1.0 || !(50.0..=242.0).contains(&light) {
        return 0.0;
    }
    let distance = [
        red / len - TONE[0] / tone_len,
        green / len - TONE[1] / tone_len,
        blue / len - TONE[2] / tone_len,
    ];
    let nearness = 1.0 - distance.iter().map(|part| part * part).sum::<f64>().sqrt();
    ((nearness - NEAR) / (1.0 - NEAR)).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_detail(at: (i64, i64)) -> Picture {
        let mut picture = Picture::filled(600, 200, &[120, 120, 120]);
        for y in 0..40 {
            for x in 0..40 {
                let color = if (x / 4 + y / 4) % 2 == 0 {
                    [230, 40, 30]
                } else {
                    [20, 30, 200]
                };
                picture.put(&Picture::filled(1, 1, &color), at.0 + x, at.1 + y);
            }
        }
        picture
    }

    #[test]
    fn the_window_goes_to_the_detail() {
        for x in [10, 150, 300, 540] {
            let (left, top) = place(&with_detail((x, 100)), 200, 200);
            assert_eq!(top, 0);
            let left = i64::from(left);
            assert!(left <= x + 8 && x + 32 <= left + 200, "detail at {x}, window at {left}");
        }
    }

    #[test]
    fn a_flat_picture_is_cut_in_the_middle() {
        let (left, top) = place(&Picture::filled(600, 200, &[90, 90, 90]), 200, 200);
        assert!(left.abs_diff(200) <= 6 && top == 0, "{left},{top}");
        assert_eq!(place(&Picture::filled(3, 1, &[1, 1, 1, 0]), 1, 1).1, 0);
    }

    /// A strong sky and a lawn with grain are much of the picture; the sun and the house are what is to be seen, and the house is more.
    #[test]
    fn what_stands_out_is_not_cut_though_all_is_colourful() {
        let mut picture = Picture::filled(160, 100, &[90, 150, 240]);
        for y in 60..100 {
            for x in 0..160 {
                let grain = (x * 7 + y * 13) % 11;
                picture.put(
                    &Picture::filled(1, 1, &[50 + grain as u8 * 3, 120 + grain as u8 * 3, 40]),
                    x,
                    y,
                );
            }
        }
        picture.put(&Picture::filled(16, 16, &[255, 235, 140]), 24, 14);
        for (house, kept) in [(108, 108..=140), (2, 2..=34)] {
            let mut picture = picture.clone();
            picture.put(&Picture::filled(32, 40, &[170, 50, 40]), house, 36);
            let (left, top) = place(&picture, 100, 100);
            assert_eq!(top, 0);
            let left = i64::from(left);
            assert!(
                left <= *kept.start() && *kept.end() <= left + 100,
                "house at {house}, window at {left}"
            );
        }
    }

    #[test]
    fn skin_draws_more_than_grass() {
        let mut picture = Picture::filled(400, 100, &[60, 140, 50]);
        picture.put(&Picture::filled(60, 100, &[220, 170, 140]), 320, 0);
        let (left, _) = place(&picture, 100, 100);
        assert!((280..=300).contains(&left) || left >= 260, "{left}");
    }
}
