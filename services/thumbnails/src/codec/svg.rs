//! SVG: drawn at the size that is wanted, with nothing loaded from elsewhere and no text (which would need fonts).

mod cost;
mod reach;

use std::sync::Arc;

use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::roxmltree::{Document, ParsingOptions};
use resvg::usvg::{ImageHrefResolver, ImageKind, Options, Tree};

use self::cost::TooMuch;
use super::CodecError;
use crate::picture::{Picture, Samples};

const NAME: &str = "SVG";
/// Larger files are refused: time to draw is not known from the header.
pub const BYTES_MAX: usize = 2 << 20;

/// A drawing that was read.
pub struct Drawing(Tree);

impl Drawing {
    /// Reads it. References to other files and to pictures within are left out.
    pub fn new(bytes: &[u8]) -> Result<Drawing, CodecError> {
        if bytes.len() > BYTES_MAX {
            return Err(CodecError::decode(NAME, format!("longer than {BYTES_MAX} bytes")));
        }
        let options = Options {
            resources_dir: None,
            image_href_resolver: ImageHrefResolver {
                resolve_data: Box::new(|_: &str, _: Arc<Vec<u8>>, _: &Options<'_>| -> Option<ImageKind> { None }),
                resolve_string: Box::new(|_: &str, _: &Options<'_>| -> Option<ImageKind> { None }),
            },
            ..Options::default()
        };
        let text = str::from_utf8(bytes).map_err(|_| CodecError::decode(NAME, "wanted UTF-8"))?;
        let document = Document::parse_with_options(
            text,
            ParsingOptions {
                // As programs write it. One with entities was refused by its header.
                allow_dtd: true,
                ..ParsingOptions::default()
            },
        );
        let document = document.map_err(|error| CodecError::decode(NAME, error))?;
        if !reach::is_bounded(&document) {
            return Err(CodecError::decode(NAME, "its references come to too many elements"));
        }
        let tree = Tree::from_xmltree(&document, &options).map_err(|error| CodecError::decode(NAME, error))?;
        Ok(Drawing(tree))
    }

    /// Its own size, rounded, at least one.
    pub fn size(&self) -> (u32, u32) {
        let size = self.0.size();
        let side = |side: f32| (side.round() as u32).max(1);
        (side(size.width()), side(size.height()))
    }

    /// Draws it `scale` times its size, over nothing. Refuses what would take too long or too much memory (`cost`).
    pub fn draw(&self, scale: f64) -> Result<Picture, CodecError> {
        let size = self.0.size();
        let side = |side: f32| ((f64::from(side) * scale).round() as u32).max(1);
        let (width, height) = (side(size.width()), side(size.height()));
        let transform = Transform::from_scale(width as f32 / size.width(), height as f32 / size.height());
        cost::check(&self.0, transform, width, height).map_err(|too_much| {
            let why = match too_much {
                TooMuch::Work => "drawing it would take too long",
                TooMuch::Memory => "drawing it would take too much memory",
            };
            CodecError::decode(NAME, why)
        })?;
        let mut pixmap = Pixmap::new(width, height).ok_or_else(|| CodecError::decode(NAME, "too large"))?;
        resvg::render(&self.0, transform, &mut pixmap.as_mut());
        Picture::new(width, height, Samples::Rgba, pixmap.take_demultiplied())
            .ok_or_else(|| CodecError::decode(NAME, "no pixels"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(inner: &str) -> Vec<u8> {
        format!("<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' width='20' height='10'>{inner}</svg>").into_bytes()
    }

    #[test]
    fn it_is_drawn_at_any_scale() {
        let drawing = Drawing::new(&svg("<rect width='10' height='10' fill='#f00'/>")).expect("sound");
        assert_eq!(drawing.size(), (20, 10));
        for scale in [0.5, 1.0, 4.0] {
            let picture = drawing.draw(scale).expect("draws");
            assert_eq!(
                (picture.width(), picture.height()),
                ((20.0 * scale) as u32, (10.0 * scale) as u32)
            );
            assert_eq!(picture.pixel(0, 0), [255, 0, 0, 255]);
            assert_eq!(picture.pixel(picture.width() - 1, 0), [0; 4]);
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret.svg");
        std::fs::write(&path, svg("<rect width='20' height='10' fill='#0f0'/>")).expect("writes");
        for href in [
            path.display().to_string(),
            format!("file://{}", path.display()),
            "http://127.0.0.1:1/x.png".into(),
        ] {
            let drawing = Drawing::new(&svg(&format!("<image width='20' height='10' xlink:href='{href}'/>"))).expect("sound");
            assert_eq!(drawing.draw(1.0).expect("draws").pixel(5, 5), [0; 4], "{href}");
        }
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        // Ten levels of ten references: ten thousand million rectangles.
        let mut inner = "<defs><g id='a0'><rect width='1' height='1'/></g>".to_owned();
        for level in 1..=10 {
            let uses = format!("<use xlink:href='#a{}'/>", level - 1).repeat(10);
            inner += &format!("<g id='a{level}'>{uses}</g>");
        }
        inner += "</defs><use xlink:href='#a10'/>";
        assert!(Drawing::new(&svg(&inner)).is_err());
        assert!(Drawing::new(&vec![b' '; BYTES_MAX + 1]).is_err());
        assert!(Drawing::new(&svg(&"<g>".repeat(5000))).is_err());
    }
}
