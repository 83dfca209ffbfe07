//! Decoded pixels: eight bits a sample, rows without gaps, from the top left.

use std::sync::Arc;

/// What a pixel is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Samples {
    /// Red, green, blue.
    Rgb,
    /// The same with alpha, not multiplied.
    Rgba,
    /// Inks, inverted as JPEG files of printers have them: 255 is none.
    Cmyk,
}

impl Samples {
    /// Bytes of a pixel.
    pub fn bytes(self) -> usize {
        match self {
            Samples::Rgb => 3,
            Samples::Rgba | Samples::Cmyk => 4,
        }
    }
}

/// A picture in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    samples: Samples,
    pixels: Vec<u8>,
    /// Colour profile of the pixels; sRGB if none.
    pub icc: Option<Arc<[u8]>>,
}

/// One frame of an animation, on the whole canvas.
#[derive(Clone, Debug)]
pub struct Frame {
    pub picture: Picture,
    pub delay_ms: u32,
}

impl Picture {
    /// Of pixels that are there. `None` if they are not `width * height` of `samples`.
    pub fn new(width: u32, height: u32, samples: Samples, pixels: Vec<u8>) -> Option<Picture> {
        let len = bytes_of(width, height, samples)?;
        (width > 0 && height > 0 && pixels.len() == len).then_some(Picture {
            width,
            height,
            samples,
            pixels,
            icc: None,
        })
    }

    /// Every pixel the same, as many bytes as `samples` has. Sizes beyond memory were refused before.
    pub fn filled(width: u32, height: u32, pixel: &[u8]) -> Picture {
        let samples = if pixel.len() == 3 { Samples::Rgb } else { Samples::Rgba };
        let (width, height) = (width.max(1), height.max(1));
        Picture {
            width,
            height,
            samples,
            pixels: pixel.repeat(width as usize * height as usize),
            icc: None,
        }
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    pub fn samples(&self) -> Samples {
        self.samples
    }

    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Bytes of one row.
    pub fn stride(&self) -> usize {
        self.width as usize * self.samples.bytes()
    }

    /// The rows, from the top.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.pixels.chunks_exact(self.stride())
    }

    pub fn rows_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut [u8]> {
        let stride = self.stride();
        self.pixels.chunks_exact_mut(stride)
    }

    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// The pixel at `x`, `y`, which must be within.
    pub fn pixel(&self, x: u32, y: u32) -> &[u8] {
        assert!(
            x < self.width && y < self.height,
            "{x},{y} beyond {}x{}",
            self.width,
            self.height
        );
        let bytes = self.samples.bytes();
        let at = y as usize * self.stride() + x as usize * bytes;
        &self.pixels[at..at + bytes]
    }

    /// Whether any pixel lets something through.
    pub fn is_translucent(&self) -> bool {
        self.samples == Samples::Rgba && self.pixels.chunks_exact(4).any(|pixel| pixel[3] != 255)
    }

    /// With alpha, opaque where there was none.
    pub fn to_rgba(self) -> Picture {
        match self.samples {
            Samples::Rgb => {
                let mut pixels = Vec::with_capacity(self.pixels.len() / 3 * 4);
                for pixel in self.pixels.chunks_exact(3) {
                    pixels.extend([pixel[0], pixel[1], pixel[2], 255]);
                }
                Picture {
                    samples: Samples::Rgba,
                    pixels,
                    ..self
                }
            }
            Samples::Rgba | Samples::Cmyk => self,
        }
    }

    /// Without alpha, whose pixels must all be opaque; over `background` where they are not.
    pub fn over(self, background: [u8; 3]) -> Picture {
        if self.samples != Samples::Rgba {
            return self;
        }
        let mut pixels = Vec::with_capacity(self.pixels.len() / 4 * 3);
        for pixel in self.pixels.chunks_exact(4) {
            let alpha = u32::from(pixel[3]);
            for (sample, below) in pixel.iter().zip(background) {
                pixels.push(blend(u32::from(*sample), u32::from(below), alpha));
            }
        }
        Picture {
            samples: Samples::Rgb,
            pixels,
            ..self
        }
    }

    /// The part from `left`, `top`, which must lie within.
    pub fn cut(&self, left: u32, top: u32, width: u32, height: u32) -> Picture {
        assert!(left + width <= self.width && top + height <= self.height && width > 0 && height > 0);
        let bytes = self.samples.bytes();
        let range = left as usize * bytes..(left + width) as usize * bytes;
        let rows = self.rows().skip(top as usize).take(height as usize);
        let mut pixels = Vec::with_capacity(range.len() * height as usize);
        rows.for_each(|row| pixels.extend_from_slice(&row[range.clone()]));
        Picture {
            width,
            height,
            samples: self.samples,
            pixels,
            icc: self.icc.clone(),
        }
    }

    /// Puts `other`, of the same samples, with its top left corner at `left`, `top`; what is outside is cut off.
    pub fn put(&mut self, other: &Picture, left: i64, top: i64) {
        assert!(self.samples == other.samples);
        let bytes = self.samples.bytes() as i64;
        let from = (-left).clamp(0, i64::from(other.width));
        let until = (i64::from(self.width) - left).clamp(from, i64::from(other.width));
        let stride = self.stride();
        for (y, row) in (top..).zip(other.rows()) {
            if y < 0 || y >= i64::from(self.height) || until == from {
                continue;
            }
            let at = y as usize * stride + ((left + from) * bytes) as usize;
            let part = &row[(from * bytes) as usize..(until * bytes) as usize];
            self.pixels[at..at + part.len()].copy_from_slice(part);
        }
    }

    /// Mirrored and turned as the EXIF orientation says, so that it stands upright.
    pub fn oriented(self, orientation: u8) -> Picture {
        let picture = match orientation {
            2 | 4 | 5 | 7 => self.mirrored(),
            _ => self,
        };
        // After the mirror: turns to the right.
        match orientation {
            3 | 4 => picture.turned(2),
            6 | 7 => picture.turned(1),
            5 | 8 => picture.turned(3),
            _ => picture,
        }
    }

    /// Left and right exchanged.
    pub fn mirrored(mut self) -> Picture {
        let bytes = self.samples.bytes();
        for row in self.rows_mut() {
            let (mut left, mut right) = (0, row.len() - bytes);
            while left < right {
                for sample in 0..bytes {
                    row.swap(left + sample, right + sample);
                }
                left += bytes;
                right -= bytes;
            }
        }
        self
    }

    /// Turned to the right by quarters.
    pub fn turned(self, quarters: u8) -> Picture {
        match quarters % 4 {
            1 => self.quarter(|x, y, _, height| (height - 1 - y, x)),
            2 => {
                let mut picture = self.mirrored();
                picture.flip();
                picture
            }
            3 => self.quarter(|x, y, width, _| (y, width - 1 - x)),
            _ => self,
        }
    }

    /// Top and bottom exchanged.
    pub fn flip(&mut self) {
        let stride = self.stride();
        let half = self.pixels.len() / stride / 2 * stride;
        let end = self.pixels.len();
        let (above, below) = self.pixels.split_at_mut(end - half);
        for (upper, lower) in above.chunks_exact_mut(stride).zip(below.chunks_exact_mut(stride).rev()) {
            upper.swap_with_slice(lower);
        }
    }

    fn quarter(self, place: impl Fn(usize, usize, usize, usize) -> (usize, usize)) -> Picture {
        let bytes = self.samples.bytes();
        let (width, height) = (self.width as usize, self.height as usize);
        let mut pixels = vec![0; self.pixels.len()];
        for (y, row) in self.pixels.chunks_exact(width * bytes).enumerate() {
            for (x, pixel) in row.chunks_exact(bytes).enumerate() {
                let (to_x, to_y) = place(x, y, width, height);
                let at = (to_y * height + to_x) * bytes;
                pixels[at..at + bytes].copy_from_slice(pixel);
            }
        }
        Picture {
            width: self.height,
            height: self.width,
            samples: self.samples,
            pixels,
            icc: self.icc,
        }
    }
}

/// Bytes of a picture; `None` beyond what can be addressed.
pub fn bytes_of(width: u32, height: u32, samples: Samples) -> Option<usize> {
    (width as usize).checked_mul(height as usize)?.checked_mul(samples.bytes())
}

/// `sample` of `alpha` in 255 over `below`, rounded.
pub fn blend(sample: u32, below: u32, alpha: u32) -> u8 {
    ((sample * alpha + below * (255 - alpha) + 127) / 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of three pixels, `abc` over `def`.
    fn sample() -> Picture {
        let pixels = b"abcdef".iter().flat_map(|letter| [*letter; 3]).collect();
        Picture::new(3, 2, Samples::Rgb, pixels).expect("fits")
    }

    fn text(picture: &Picture) -> String {
        let rows = picture
            .rows()
            .map(|row| row.chunks_exact(3).map(|pixel| pixel[0] as char).collect::<String>());
        rows.collect::<Vec<_>>().join("/")
    }

    #[test]
    fn every_orientation_comes_upright() {
        // What each orientation looks like when stored, for `abc/def` upright.
        for (orientation, stored_turns) in [(1, "abc/def"), (3, "fed/cba"), (6, "da/eb/fc"), (8, "cf/be/ad")] {
            assert_eq!(text(&sample().oriented(orientation)), stored_turns, "{orientation}");
        }
        assert_eq!(text(&sample().oriented(2)), "cba/fed");
        assert_eq!(text(&sample().oriented(4)), "def/abc");
        assert_eq!(text(&sample().oriented(5)), "ad/be/cf");
        assert_eq!(text(&sample().oriented(7)), "fc/eb/da");
        assert_eq!(text(&sample().turned(2)), "fed/cba");
    }

    #[test]
    fn parts_are_cut_and_put() {
        assert_eq!(text(&sample().cut(1, 0, 2, 2)), "bc/ef");
        let mut picture = sample();
        picture.put(&sample().cut(0, 0, 2, 1), -1, 1);
        assert_eq!(text(&picture), "abc/bef");
        picture.put(&sample(), 2, -1);
        assert_eq!(text(&picture), "abd/bef");
        picture.put(&sample(), 5, 5);
        picture.put(&sample(), -5, 0);
        assert_eq!(text(&picture), "abd/bef");
    }

    #[test]
    fn alpha_is_flattened_over_the_background() {
        let picture = Picture::new(2, 1, Samples::Rgba, vec![255, 0, 0, 128, 9, 9, 9, 0]).expect("fits");
        assert!(picture.is_translucent());
        assert_eq!(picture.over([0, 0, 255]).pixels(), [128, 0, 127, 0, 0, 255]);
        assert!(!sample().to_rgba().is_translucent());
    }
}
