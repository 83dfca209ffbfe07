//! Image formats: their names on the wire.

use serde::{Deserialize, Serialize};

/// A format that is read, written, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// JPEG, baseline and progressive.
    Jpeg,
    /// PNG of every colour type and depth.
    Png,
    /// WebP, lossy, lossless and animated.
    Webp,
    /// AVIF still images.
    Avif,
    /// GIF, animated too.
    Gif,
    /// TIFF; read only.
    Tiff,
    /// BMP; read only.
    Bmp,
    /// ICO; read only.
    Ico,
    /// SVG; read only.
    Svg,
}

impl Format {
    /// Every format.
    pub const ALL: [Format; 9] = [
        Format::Jpeg,
        Format::Png,
        Format::Webp,
        Format::Avif,
        Format::Gif,
        Format::Tiff,
        Format::Bmp,
        Format::Ico,
        Format::Svg,
    ];

    /// By the name that users write in URLs.
    pub fn from_name(name: &str) -> Option<Format> {
        Some(match name.to_ascii_lowercase().as_str() {
            "jpg" | "jpeg" => Format::Jpeg,
            "png" => Format::Png,
            "webp" => Format::Webp,
            "avif" => Format::Avif,
            "gif" => Format::Gif,
            "tif" | "tiff" => Format::Tiff,
            "bmp" => Format::Bmp,
            "ico" => Format::Ico,
            "svg" => Format::Svg,
            _ => return None,
        })
    }

    /// The usual extension of files, and the name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Format::Jpeg => "jpg",
            Format::Png => "png",
            Format::Webp => "webp",
            Format::Avif => "avif",
            Format::Gif => "gif",
            Format::Tiff => "tiff",
            Format::Bmp => "bmp",
            Format::Ico => "ico",
            Format::Svg => "svg",
        }
    }

    /// Media type.
    pub fn mime(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::Webp => "image/webp",
            Format::Avif => "image/avif",
            Format::Gif => "image/gif",
            Format::Tiff => "image/tiff",
            Format::Bmp => "image/bmp",
            Format::Ico => "image/x-icon",
            Format::Svg => "image/svg+xml",
        }
    }

    /// Whether results can have this format in this build.
    pub fn is_output(self) -> bool {
        match self {
            Format::Jpeg | Format::Png | Format::Webp | Format::Gif => true,
            Format::Avif => cfg!(any(feature = "avif", feature = "rav1e")),
            Format::Tiff | Format::Bmp | Format::Ico | Format::Svg => false,
        }
    }

    /// Whether it can hold transparency.
    pub fn has_alpha(self) -> bool {
        self != Format::Jpeg
    }

    /// Whether it can hold several frames, and we write them.
    pub fn has_animation(self) -> bool {
        matches!(self, Format::Gif | Format::Webp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for format in Format::ALL {
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
        assert_eq!(Format::from_name("JPEG"), Some(Format::Jpeg));
        assert_eq!(Format::from_name("exe"), None);
    }
}
