//! Scaling, by convolution with Lanczos3.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use crate::picture::{Picture, Samples};

/// A part of a picture, in its pixels; fractions are weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part {
    pub left: f64,
    pub top: f64,
    pub width: f64,
    pub height: f64,
}

/// Scales `part` of `source`, or all of it, to `width` by `height`. Colour under transparent pixels does not bleed out.
pub fn resize(source: &Picture, part: Option<Part>, width: u32, height: u32) -> Picture {
    let (width, height) = (width.max(1), height.max(1));
    let whole = Part {
        left: 0.0,
        top: 0.0,
        width: source.width().into(),
        height: source.height().into(),
    };
    let part = part.map_or(whole, |part| part.within(&whole));
    if part == whole && (width, height) == (source.width(), source.height()) {
        return source.clone();
    }
    if let Some(cut) = part.as_pixels(width, height) {
        return source.cut(cut.0, cut.1, width, height);
    }
    if part != whole {
        // The filter would look beyond the part, where what was cut off lies.
        let (cut, part) = part.cut_out(source);
        return scale(&cut, part, width, height);
    }
    scale(source, part, width, height)
}

fn scale(source: &Picture, part: Part, width: u32, height: u32) -> Picture {
    let kind = match source.samples() {
        Samples::Rgb => PixelType::U8x3,
        Samples::Rgba | Samples::Cmyk => PixelType::U8x4,
    };
    let from = ImageRef::new(source.width(), source.height(), source.pixels(), kind).expect("a picture has all of its pixels");
    let mut to = Image::new(width, height, kind);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3))
        .use_alpha(source.samples() == Samples::Rgba)
        .crop(part.left, part.top, part.width, part.height);
    Resizer::new()
        .resize(&from, &mut to, &options)
        .expect("both are of one kind, and the part lies within");
    let mut picture = Picture::new(width, height, source.samples(), to.into_vec()).expect("the buffer was made for this size");
    picture.icc = source.icc.clone();
    picture
}

impl Part {
    /// Moved and cut so that it lies within, and is not empty.
    fn within(&self, whole: &Part) -> Part {
        let width = self.width.clamp(1.0_f64.min(whole.width), whole.width);
        let height = self.height.clamp(1.0_f64.min(whole.height), whole.height);
        Part {
            left: self.left.clamp(0.0, whole.width - width),
            top: self.top.clamp(0.0, whole.height - height),
            width,
            height,
        }
    }

    /// The smallest picture of whole pixels around it, and its place in that.
    fn cut_out(&self, source: &Picture) -> (Picture, Part) {
        let (left, top) = (self.left.floor(), self.top.floor());
        let width = ((self.left + self.width).ceil() - left).min(f64::from(source.width()) - left);
        let height = ((self.top + self.height).ceil() - top).min(f64::from(source.height()) - top);
        let part = Part {
            left: self.left - left,
            top: self.top - top,
            ..*self
        };
        let cut = source.cut(left as u32, top as u32, width as u32, height as u32);
        let whole = Part {
            left: 0.0,
            top: 0.0,
            width,
            height,
        };
        (cut, part.within(&whole))
    }

    /// Left and top, if the part has whole pixels and needs no scaling.
    fn as_pixels(&self, width: u32, height: u32) -> Option<(u32, u32)> {
        let is_whole = self.left.fract() == 0.0
            && self.top.fract() == 0.0
            && self.width == f64::from(width)
            && self.height == f64::from(height);
        is_whole.then_some((self.left as u32, self.top as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_sizes_come_out() {
        let mut source = Picture::filled(40, 20, &[10, 10, 10]);
        source.put(&Picture::filled(20, 20, &[200, 200, 200]), 20, 0);
        let right = Part {
            left: 20.0,
            top: 0.0,
            width: 20.0,
            height: 20.0,
        };
        assert_eq!(resize(&source, Some(right), 5, 5), Picture::filled(5, 5, &[200, 200, 200]));
        assert_eq!(
            resize(&source, Some(right), 20, 20),
            Picture::filled(20, 20, &[200, 200, 200])
        );
        assert_eq!(resize(&source, None, 40, 20), source);
        let beyond = Part {
            left: 35.0,
            top: -5.0,
            width: 10.0,
            height: 500.0,
        };
        assert_eq!(resize(&source, Some(beyond), 3, 7), Picture::filled(3, 7, &[200, 200, 200]));
        assert_eq!(resize(&source, None, 80, 1).width(), 80);
    }

    #[test]
    fn colour_under_holes_does_not_bleed() {
        let mut source = Picture::filled(16, 16, &[0, 255, 0, 0]);
        source.put(&Picture::filled(8, 16, &[255, 0, 0, 255]), 0, 0);
        let small = resize(&source, None, 4, 4);
        for pixel in small.pixels().chunks_exact(4).filter(|pixel| pixel[3] > 8) {
            assert!(pixel[0] > 240 && pixel[1] < 15, "{pixel:?}");
        }
    }
}
