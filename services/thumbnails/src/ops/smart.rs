//! Where most is to be seen: the place of a crop by edges, skin and saturation, in place of an anchor.
//!
//! Each pixel of a small copy gets a score: how much it differs from its neighbours (detail), how near its colour is to skin, how
//! saturated it is. The window with the highest sum wins, sums taken from a summed-area table (F. Crow, 1984); pixels near the middle of
//! the picture count a little more, so that flat pictures are cut in the middle.

use super::resize::resize;
use crate::picture::Picture;

/// The longer side of the copy that is looked at.
const LOOK: u32 = 160;
const DETAIL: f64 = 1.0;
const SKIN: f64 = 90.0;
const SATURATION: f64 = 0.15;
/// What the middle counts more than a corner, as a part of the mean score.
const MIDDLE: f64 = 0.25;

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
    let (window_x, window_y) = (side(width).min(small.width()), side(height).min(small.height()));
    let steps = |room: u32, small: u32, window: u32| if room == 0 { 0 } else { small - window };
    let (steps_x, steps_y) = (
        steps(room_x, small.width(), window_x),
        steps(room_y, small.height(), window_y),
    );
    let mut best = (f64::MIN, 0, 0);
    for y in 0..=steps_y {
        for x in 0..=steps_x {
            let score = sums.within(x, y, window_x, window_y);
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

/// Sums of scores of all that is left of and above a place.
struct Sums {
    width: usize,
    sums: Vec<f64>,
}

impl Sums {
    fn new(picture: &Picture) -> Sums {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let scores = scores(picture);
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        let mut sums = vec![0.0; (width + 1) * (height + 1)];
        for y in 0..height {
            let mut row = 0.0;
            for x in 0..width {
                row += scores[y * width + x] + mean.max(1.0) * MIDDLE * middle(x, width) * middle(y, height);
                sums[(y + 1) * (width + 1) + x + 1] = sums[y * (width + 1) + x + 1] + row;
            }
        }
        Sums { width: width + 1, sums }
    }

    fn within(&self, x: u32, y: u32, width: u32, height: u32) -> f64 {
        let at = |x: u32, y: u32| self.sums[y as usize * self.width + x as usize];
        at(x + width, y + height) - at(x, y + height) - at(x + width, y) + at(x, y)
    }
}

/// 1 in the middle, 0 at both ends.
fn middle(at: usize, len: usize) -> f64 {
    1.0 - ((at as f64 + 0.5) / len as f64 * 2.0 - 1.0).abs()
}

fn scores(picture: &Picture) -> Vec<f64> {
    let bytes = picture.samples().bytes();
    let width = picture.width() as usize;
    let pixels: Vec<&[u8]> = picture.pixels().chunks_exact(bytes).collect();
    let luma: Vec<f64> = pixels.iter().map(|pixel| luma(pixel)).collect();
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
        scores.push(opaque * (DETAIL * detail + SKIN * skin(pixel) + SATURATION * saturation(pixel)));
    }
    scores
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

fn saturation(pixel: &[u8]) -> f64 {
    let most = pixel[..3].iter().max().copied().unwrap_or(0);
    let least = pixel[..3].iter().min().copied().unwrap_or(0);
    f64::from(most - least)
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

    #[test]
    fn skin_draws_more_than_grass() {
        let mut picture = Picture::filled(400, 100, &[60, 140, 50]);
        picture.put(&Picture::filled(60, 100, &[220, 170, 140]), 320, 0);
        let (left, _) = place(&picture, 100, 100);
        assert!((280..=300).contains(&left) || left >= 260, "{left}");
    }
}
