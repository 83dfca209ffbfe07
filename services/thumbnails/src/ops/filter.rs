//! Blur, sharpening and large pixels.

use crate::picture::{Picture, Samples};

/// Below, boxes are too coarse.
const SMALL: f64 = 3.0;

/// Blurs by a Gaussian of `sigma` pixels, as three box blurs (W. Wells, Efficient synthesis of Gaussian filters by cascaded uniform
/// filters, 1986): the time does not depend on `sigma`.
pub fn blur(picture: &mut Picture, sigma: f64) {
    premultiply(picture);
    if sigma < SMALL {
        small_blur(picture, sigma);
        return divide(picture);
    }
    for radius in boxes(sigma) {
        if radius > 0 {
            box_rows(picture, radius);
            box_columns(picture, radius);
        }
    }
    divide(picture);
}

/// Adds what a blur of `sigma` takes away.
pub fn sharpen(picture: &mut Picture, sigma: f64) {
    let mut soft = picture.clone();
    small_blur(&mut soft, sigma);
    let bytes = picture.samples().bytes();
    for (pixel, soft) in picture
        .pixels_mut()
        .chunks_exact_mut(bytes)
        .zip(soft.pixels().chunks_exact(bytes))
    {
        for (sample, soft) in pixel.iter_mut().zip(soft).take(3) {
            let sharp = i32::from(*sample) * 2 - i32::from(*soft);
            *sample = sharp.clamp(0, 255) as u8;
        }
    }
}

/// Pixels of `size` by `size`, each of the mean colour.
pub fn pixelate(picture: &mut Picture, size: u32) {
    let (width, height) = (picture.width(), picture.height());
    let small = super::resize::resize(picture, None, width.div_ceil(size), height.div_ceil(size));
    let bytes = picture.samples().bytes();
    for (row, y) in picture.rows_mut().zip(0u32..) {
        for (pixel, x) in row.chunks_exact_mut(bytes).zip(0u32..) {
            pixel.copy_from_slice(small.pixel(x / size, y / size));
        }
    }
}

/// A Gaussian of a few pixels, where boxes are too coarse: its own weights, in 16 bits.
fn small_blur(picture: &mut Picture, sigma: f64) {
    let radius = (sigma * 2.5).ceil().clamp(1.0, 30.0) as usize;
    let weights: Vec<f64> = (0..=radius)
        .map(|at| (-((at * at) as f64) / (2.0 * sigma * sigma).max(1e-6)).exp())
        .collect();
    let sum = weights[0] + 2.0 * weights[1..].iter().sum::<f64>();
    let weights: Vec<u32> = weights.iter().map(|weight| (weight / sum * 65536.0).round() as u32).collect();
    let bytes = picture.samples().bytes();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    for row in picture.rows_mut() {
        convolve(row, width, bytes, bytes, &weights);
    }
    let stride = width * bytes;
    for column in 0..stride {
        convolve(&mut picture.pixels_mut()[column..], height, stride, 1, &weights);
    }
}

/// Along `len` places that are `step` bytes apart, for `samples` samples at each.
fn convolve(line: &mut [u8], len: usize, step: usize, samples: usize, weights: &[u32]) {
    for sample in 0..samples {
        let old: Vec<u32> = (0..len).map(|at| u32::from(line[at * step + sample])).collect();
        for at in 0..len {
            let mut sum = old[at] * weights[0];
            for (distance, weight) in weights.iter().enumerate().skip(1) {
                let before = old[at.saturating_sub(distance)];
                let after = old[(at + distance).min(len - 1)];
                sum += (before + after) * weight;
            }
            line[at * step + sample] = ((sum + 32768) >> 16).min(255) as u8;
        }
    }
}

/// Radii of three boxes whose cascade has the variance of the Gaussian.
fn boxes(sigma: f64) -> [usize; 3] {
    let ideal = (12.0 * sigma * sigma / 3.0 + 1.0).sqrt();
    let mut low = ideal.floor() as usize;
    if low.is_multiple_of(2) {
        low = low.saturating_sub(1);
    }
    let wide = low as f64;
    let lows = (12.0 * sigma * sigma - 3.0 * wide * wide - 12.0 * wide - 9.0) / (-4.0 * wide - 4.0);
    let lows = lows.round().clamp(0.0, 3.0) as usize;
    std::array::from_fn(|number| if number < lows { low / 2 } else { low / 2 + 1 })
}

fn box_rows(picture: &mut Picture, radius: usize) {
    let bytes = picture.samples().bytes();
    let width = picture.width() as usize;
    let mut old = Vec::new();
    for row in picture.rows_mut() {
        for sample in 0..bytes {
            old.clear();
            old.extend((0..width).map(|x| row[x * bytes + sample]));
            slide(&old, radius, |x, value| row[x * bytes + sample] = value);
        }
    }
}

fn box_columns(picture: &mut Picture, radius: usize) {
    let (stride, height) = (picture.stride(), picture.height() as usize);
    let pixels = picture.pixels_mut();
    let mut old = Vec::new();
    for column in 0..stride {
        old.clear();
        old.extend((0..height).map(|y| pixels[y * stride + column]));
        slide(&old, radius, |y, value| pixels[y * stride + column] = value);
    }
}

/// The mean of the `2 * radius + 1` values around each; the ends go on as they are.
fn slide(old: &[u8], radius: usize, mut set: impl FnMut(usize, u8)) {
    let last = old.len() - 1;
    let count = 2 * radius as u64 + 1;
    let value = |at: usize| u64::from(old[at.min(last)]);
    let mut sum = u64::from(old[0]) * (radius as u64 + 1) + (1..=radius).map(value).sum::<u64>();
    for at in 0..old.len() {
        set(at, ((sum + count / 2) / count) as u8);
        sum += value(at + radius + 1);
        sum -= u64::from(old[at.saturating_sub(radius)]);
    }
}

fn premultiply(picture: &mut Picture) {
    if picture.samples() == Samples::Rgba {
        for pixel in picture.pixels_mut().chunks_exact_mut(4) {
            let alpha = u32::from(pixel[3]);
            pixel[..3]
                .iter_mut()
                .for_each(|sample| *sample = ((u32::from(*sample) * alpha + 127) / 255) as u8);
        }
    }
}

fn divide(picture: &mut Picture) {
    if picture.samples() == Samples::Rgba {
        for pixel in picture.pixels_mut().chunks_exact_mut(4) {
            let alpha = u32::from(pixel[3]);
            if alpha > 0 {
                pixel[..3]
                    .iter_mut()
                    .for_each(|sample| *sample = ((u32::from(*sample) * 255 + alpha / 2) / alpha).min(255) as u8);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge() -> Picture {
        let mut picture = Picture::filled(60, 40, &[20, 20, 20]);
        picture.put(&Picture::filled(30, 40, &[220, 220, 220]), 30, 0);
        picture
    }

    #[test]
    fn a_blur_has_its_sigma() {
        for sigma in [1.5, 2.5, 5.5] {
            let mut picture = edge();
            blur(&mut picture, sigma);
            // Over an edge the blur is the integral of the Gaussian: one sigma from the edge it has gone 84 % of the way.
            let at = |x: f64| f64::from(picture.pixel(x as u32, 20)[0] - 20) / 200.0;
            let beyond = at(29.5 + sigma);
            assert!((beyond - 0.84).abs() < 0.06, "sigma {sigma}: {beyond}");
            assert!(at(29.5 - sigma) < 0.25);
            assert_eq!(picture.pixel(0, 0), [20, 20, 20]);
        }
        let mut flat = Picture::filled(9, 3, &[9, 8, 7, 255]);
        blur(&mut flat, 50.0);
        assert_eq!(flat, Picture::filled(9, 3, &[9, 8, 7, 255]));
    }

    #[test]
    fn sharpening_makes_edges_steeper() {
        let mut picture = edge();
        blur(&mut picture, 1.5);
        let before = i32::from(picture.pixel(31, 20)[0]) - i32::from(picture.pixel(28, 20)[0]);
        sharpen(&mut picture, 2.0);
        let after = i32::from(picture.pixel(31, 20)[0]) - i32::from(picture.pixel(28, 20)[0]);
        assert!(after > before + 10, "{before} {after}");
        assert_eq!(picture.pixel(2, 2), [20, 20, 20]);
    }

    #[test]
    fn pixels_become_large() {
        let mut picture = edge();
        pixelate(&mut picture, 7);
        for y in 0..40 {
            for x in 0..60 {
                assert_eq!(picture.pixel(x, y), picture.pixel(x / 7 * 7, y / 7 * 7));
            }
        }
    }
}
