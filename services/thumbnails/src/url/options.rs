//! What is asked for: processing options and their grammar, `name:argument:argument`, with imgproxy's long and short names.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::UrlError;
use crate::format::Format;

/// How the picture meets the size that is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resizing {
    /// Whole picture within the size, ratio kept.
    #[default]
    Fit,
    /// Size filled, ratio kept, the rest cut off.
    Fill,
    /// As `Fill`; a smaller picture is cut to the ratio of the size instead of enlarged.
    FillDown,
    /// Exactly the size, ratio lost.
    Force,
    /// `Fill` if picture and size are both upright or both lying, else `Fit`.
    Auto,
}

/// Which part of a picture counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anchor {
    #[default]
    Center,
    North,
    South,
    East,
    West,
    NorthEast,
    NorthWest,
    SouthEast,
    SouthWest,
    /// Where most is to be seen.
    Smart,
    /// At `x`, `y` of the gravity, each from 0 to 1.
    Focus,
}

/// Anchor with offsets, or a point of focus.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gravity {
    pub anchor: Anchor,
    /// Pixels; below 1, a part of the width. From the left for `Focus`.
    pub x: f64,
    pub y: f64,
}

/// A part of the source to go on with. Below 1: a part of its size; 0: all of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crop {
    pub width: f64,
    pub height: f64,
    pub gravity: Option<Gravity>,
}

/// Removal of a border of one colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trim {
    pub threshold: f64,
    /// The colour; that of the top left corner if none.
    pub color: Option<[u8; 3]>,
    /// Cut as much on the left as on the right.
    pub equal_horizontal: bool,
    pub equal_vertical: bool,
}

/// Where a watermark lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    At(Gravity),
    /// Everywhere, as tiles.
    Replicate {
        x: f64,
        y: f64,
    },
}

/// A watermark over the result.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Watermark {
    pub opacity: f64,
    pub place: Place,
    /// Part of the result's size; 0: as it is.
    pub scale: f64,
}

/// All that a URL may say besides the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub resizing: Resizing,
    pub width: u32,
    pub height: u32,
    pub min_width: u32,
    pub min_height: u32,
    pub zoom: (f64, f64),
    pub dpr: f64,
    pub enlarge: bool,
    pub extend: Option<Gravity>,
    pub extend_ratio: Option<Gravity>,
    pub gravity: Gravity,
    pub crop: Option<Crop>,
    pub trim: Option<Trim>,
    /// Top, right, bottom, left.
    pub padding: [u32; 4],
    pub auto_rotate: Option<bool>,
    /// Quarter turns to the right.
    pub rotate: u8,
    pub flip_horizontal: bool,
    pub flip_vertical: bool,
    pub background: Option<[u8; 3]>,
    pub blur: f64,
    pub sharpen: f64,
    pub pixelate: u32,
    pub watermark: Option<Watermark>,
    pub strip_metadata: Option<bool>,
    pub keep_copyright: Option<bool>,
    pub strip_color_profile: Option<bool>,
    /// 0: that of the format.
    pub quality: u8,
    pub format_quality: BTreeMap<Format, u8>,
    pub max_bytes: usize,
    pub format: Option<Format>,
    pub skip: BTreeSet<Format>,
    pub raw: bool,
    pub max_src_resolution: Option<f64>,
    pub max_src_file_size: Option<u64>,
    pub max_animation_frames: Option<u32>,
    pub max_animation_frame_resolution: Option<f64>,
    pub max_result_dimension: Option<u32>,
    pub cachebuster: String,
    pub expires: u64,
    pub filename: Option<String>,
    pub attachment: Option<bool>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            resizing: Resizing::Fit,
            width: 0,
            height: 0,
            min_width: 0,
            min_height: 0,
            zoom: (1.0, 1.0),
            dpr: 1.0,
            enlarge: false,
            extend: None,
            extend_ratio: None,
            gravity: Gravity::default(),
            crop: None,
            trim: None,
            padding: [0; 4],
            auto_rotate: None,
            rotate: 0,
            flip_horizontal: false,
            flip_vertical: false,
            background: None,
            blur: 0.0,
            sharpen: 0.0,
            pixelate: 0,
            watermark: None,
            strip_metadata: None,
            keep_copyright: None,
            strip_color_profile: None,
            quality: 0,
            format_quality: BTreeMap::new(),
            max_bytes: 0,
            format: None,
            skip: BTreeSet::new(),
            raw: false,
            max_src_resolution: None,
            max_src_file_size: None,
            max_animation_frames: None,
            max_animation_frame_resolution: None,
            max_result_dimension: None,
            cachebuster: String::new(),
            expires: 0,
            filename: None,
            attachment: None,
        }
    }
}

/// Largest size or offset that a URL may name; results have their own, lower limit.
const DIMENSION_MAX: u32 = 1 << 20;

/// Names of an option, the long one first. The reference table and `url.allowed-options` go by it.
pub const NAMES: &[&[&str]] = &[
    &["resize", "rs"],
    &["size", "s"],
    &["resizing_type", "rt"],
    &["width", "w"],
    &["height", "h"],
    &["min-width", "min_width", "mw"],
    &["min-height", "min_height", "mh"],
    &["zoom", "z"],
    &["dpr"],
    &["enlarge", "el"],
    &["extend", "ex"],
    &["extend_aspect_ratio", "extend_ar", "exar"],
    &["gravity", "g"],
    &["crop", "c"],
    &["trim", "t"],
    &["padding", "pd"],
    &["auto_rotate", "ar"],
    &["rotate", "rot"],
    &["flip", "fl"],
    &["background", "bg"],
    &["blur", "bl"],
    &["sharpen", "sh"],
    &["pixelate", "pix"],
    &["watermark", "wm"],
    &["strip_metadata", "sm"],
    &["keep_copyright", "kcr"],
    &["strip_color_profile", "scp"],
    &["quality", "q"],
    &["format_quality", "fq"],
    &["max_bytes", "mb"],
    &["format", "f", "ext"],
    &["skip_processing", "skp"],
    &["raw"],
    &["cachebuster", "cb"],
    &["expires", "exp"],
    &["filename", "fn"],
    &["return_attachment", "att"],
    &["preset", "pr"],
    &["max_src_resolution", "msr"],
    &["max_src_file_size", "msfs"],
    &["max_animation_frames", "maf"],
    &["max_animation_frame_resolution", "mafr"],
    &["max_result_dimension", "mrd"],
];

/// The long name of an option.
pub fn canonical(name: &str) -> Option<&'static str> {
    let names = NAMES.iter().find(|names| names.contains(&name))?;
    names.first().copied()
}

impl Options {
    /// Applies one option other than `preset`. `secure` options, those that lift limits, come only from presets unless URLs are trusted
    /// with them.
    pub(super) fn apply(&mut self, name: &str, args: &[&str]) -> Result<(), UrlError> {
        let args = Args { name, args };
        match name {
            "resize" => {
                args.at_most(5 + 3)?;
                if let Some(kind) = args.get(0) {
                    self.resizing = resizing(kind).ok_or_else(|| args.fault())?;
                }
                self.apply_size(args.skip(1))?;
            }
            "size" => self.apply_size(args)?,
            "resizing_type" => self.resizing = resizing(args.one()?).ok_or_else(|| args.fault())?,
            "width" => self.width = args.only_dimension()?,
            "height" => self.height = args.only_dimension()?,
            "min-width" => self.min_width = args.only_dimension()?,
            "min-height" => self.min_height = args.only_dimension()?,
            "zoom" => {
                args.at_most(2)?;
                let x = args.float(0)?.ok_or_else(|| args.fault())?;
                let y = args.float(1)?.unwrap_or(x);
                args.check(x > 0.0 && y > 0.0 && x <= 100.0 && y <= 100.0)?;
                self.zoom = (x, y);
            }
            "dpr" => {
                let dpr = args.only_float()?;
                args.check(dpr > 0.0 && dpr <= 16.0)?;
                self.dpr = dpr;
            }
            "enlarge" => self.enlarge = args.only_bool()?,
            "extend" => self.extend = args.extend()?,
            "extend_aspect_ratio" => self.extend_ratio = args.extend()?,
            "gravity" => self.gravity = args.gravity()?,
            "crop" => self.apply_crop(args)?,
            "trim" => self.apply_trim(args)?,
            "padding" => self.apply_padding(args)?,
            "auto_rotate" => self.auto_rotate = Some(args.only_bool()?),
            "rotate" => {
                let angle: i64 = args.one()?.parse().map_err(|_| args.fault())?;
                args.check(angle % 90 == 0)?;
                self.rotate = (angle / 90).rem_euclid(4) as u8;
            }
            "flip" => {
                args.at_most(2)?;
                self.flip_horizontal = args.bool(0)?.unwrap_or(false);
                self.flip_vertical = args.bool(1)?.unwrap_or(false);
            }
            "background" => self.background = args.background()?,
            "blur" => self.blur = args.sigma()?,
            "sharpen" => self.sharpen = args.sigma()?,
            "pixelate" => self.pixelate = args.only_dimension()?,
            "watermark" => self.apply_watermark(args)?,
            "strip_metadata" => self.strip_metadata = Some(args.only_bool()?),
            "keep_copyright" => self.keep_copyright = Some(args.only_bool()?),
            "strip_color_profile" => self.strip_color_profile = Some(args.only_bool()?),
            "quality" => self.quality = args.quality(0)?,
            "format_quality" => {
                args.check(!args.args.is_empty() && args.args.len().is_multiple_of(2))?;
                for number in (0..args.args.len()).step_by(2) {
                    let format = args.get(number).and_then(Format::from_name).ok_or_else(|| args.fault())?;
                    self.format_quality.insert(format, args.quality(number + 1)?);
                }
            }
            "max_bytes" => self.max_bytes = args.one()?.parse().map_err(|_| args.fault())?,
            "format" => {
                let format = Format::from_name(args.one()?).ok_or_else(|| args.fault())?;
                self.format = Some(output(format)?);
            }
            "skip_processing" => {
                for name in args.args {
                    self.skip.insert(Format::from_name(name).ok_or_else(|| args.fault())?);
                }
            }
            "raw" => self.raw = args.only_bool()?,
            "cachebuster" => self.cachebuster = args.one()?.to_owned(),
            "expires" => self.expires = args.one()?.parse().map_err(|_| args.fault())?,
            "filename" => self.filename = Some(args.filename()?),
            "return_attachment" => self.attachment = Some(args.only_bool()?),
            "max_src_resolution" => self.max_src_resolution = Some(args.limit()?),
            "max_src_file_size" => self.max_src_file_size = Some(args.one()?.parse().map_err(|_| args.fault())?),
            "max_animation_frames" => {
                let frames: u32 = args.one()?.parse().map_err(|_| args.fault())?;
                args.check(frames > 0)?;
                self.max_animation_frames = Some(frames);
            }
            "max_animation_frame_resolution" => self.max_animation_frame_resolution = Some(args.limit()?),
            "max_result_dimension" => self.max_result_dimension = Some(args.only_dimension()?),
            _ => return Err(UrlError::UnknownOption(name.to_owned())),
        }
        Ok(())
    }

    fn apply_size(&mut self, args: Args<'_>) -> Result<(), UrlError> {
        args.at_most(7)?;
        if let Some(width) = args.dimension(0)? {
            self.width = width;
        }
        if let Some(height) = args.dimension(1)? {
            self.height = height;
        }
        if let Some(enlarge) = args.bool(2)? {
            self.enlarge = enlarge;
        }
        if args.args.len() > 3 {
            self.extend = args.skip(3).extend()?;
        }
        Ok(())
    }

    fn apply_crop(&mut self, args: Args<'_>) -> Result<(), UrlError> {
        args.at_most(5)?;
        let side = |number| -> Result<f64, UrlError> {
            let side = args.float(number)?.unwrap_or(0.0);
            args.check((0.0..=f64::from(DIMENSION_MAX)).contains(&side))?;
            Ok(side)
        };
        let gravity = match args.args.len() > 2 {
            true => Some(args.skip(2).gravity()?),
            false => None,
        };
        let crop = Crop {
            width: side(0)?,
            height: side(1)?,
            gravity,
        };
        self.crop = (crop.width > 0.0 || crop.height > 0.0).then_some(crop);
        Ok(())
    }

    fn apply_trim(&mut self, args: Args<'_>) -> Result<(), UrlError> {
        args.at_most(4)?;
        let Some(threshold) = args.float(0)? else {
            self.trim = None;
            return Ok(());
        };
        args.check((0.0..=442.0).contains(&threshold))?;
        let color = match args.get(1) {
            Some(hex) => Some(color(hex).ok_or_else(|| args.fault())?),
            None => None,
        };
        self.trim = Some(Trim {
            threshold,
            color,
            equal_horizontal: args.bool(2)?.unwrap_or(false),
            equal_vertical: args.bool(3)?.unwrap_or(false),
        });
        Ok(())
    }

    /// As in CSS: what is not named is as its opposite, or as the first.
    fn apply_padding(&mut self, args: Args<'_>) -> Result<(), UrlError> {
        args.at_most(4)?;
        let top = args.dimension(0)?.unwrap_or(self.padding[0]);
        let right = args.dimension(1)?.unwrap_or(top);
        let bottom = args.dimension(2)?.unwrap_or(top);
        let left = args.dimension(3)?.unwrap_or(right);
        self.padding = [top, right, bottom, left];
        Ok(())
    }

    fn apply_watermark(&mut self, args: Args<'_>) -> Result<(), UrlError> {
        args.at_most(5)?;
        let opacity = args.float(0)?.ok_or_else(|| args.fault())?;
        args.check((0.0..=1.0).contains(&opacity))?;
        let x = args.float(2)?.unwrap_or(0.0);
        let y = args.float(3)?.unwrap_or(0.0);
        let place = match args.get(1) {
            None => Place::At(Gravity {
                x,
                y,
                ..Gravity::default()
            }),
            Some("re") => Place::Replicate { x, y },
            Some(name) => {
                let anchor = anchor(name).ok_or_else(|| args.fault())?;
                args.check(!matches!(anchor, Anchor::Smart | Anchor::Focus))?;
                Place::At(Gravity { anchor, x, y })
            }
        };
        let scale = args.float(4)?.unwrap_or(0.0);
        args.check((0.0..=10.0).contains(&scale))?;
        self.watermark = (opacity > 0.0).then_some(Watermark { opacity, place, scale });
        Ok(())
    }
}

/// Refuses formats that are only read.
pub(super) fn output(format: Format) -> Result<Format, UrlError> {
    match format.is_output() {
        true => Ok(format),
        false => Err(UrlError::NoOutput(format.name())),
    }
}

fn resizing(name: &str) -> Option<Resizing> {
    Some(match name {
        "fit" => Resizing::Fit,
        "fill" => Resizing::Fill,
        "fill-down" => Resizing::FillDown,
        "force" => Resizing::Force,
        "auto" => Resizing::Auto,
        _ => return None,
    })
}

fn anchor(name: &str) -> Option<Anchor> {
    Some(match name {
        "ce" => Anchor::Center,
        "no" => Anchor::North,
        "so" => Anchor::South,
        "ea" => Anchor::East,
        "we" => Anchor::West,
        "noea" => Anchor::NorthEast,
        "nowe" => Anchor::NorthWest,
        "soea" => Anchor::SouthEast,
        "sowe" => Anchor::SouthWest,
        "sm" => Anchor::Smart,
        "fp" => Anchor::Focus,
        _ => return None,
    })
}

fn color(hex: &str) -> Option<[u8; 3]> {
    let long: String = match hex.len() {
        3 => hex.chars().flat_map(|digit| [digit, digit]).collect(),
        _ => hex.to_owned(),
    };
    super::sign::from_hex(&long)?.try_into().ok()
}

/// Arguments of one option. Empty ones are as those that are missing.
#[derive(Clone, Copy)]
struct Args<'a> {
    name: &'a str,
    args: &'a [&'a str],
}

impl<'a> Args<'a> {
    fn fault(&self) -> UrlError {
        UrlError::Arguments {
            name: self.name.to_owned(),
            args: self.args.join(":"),
        }
    }

    fn check(&self, holds: bool) -> Result<(), UrlError> {
        if holds { Ok(()) } else { Err(self.fault()) }
    }

    fn at_most(&self, count: usize) -> Result<(), UrlError> {
        self.check(self.args.len() <= count)
    }

    fn skip(self, count: usize) -> Args<'a> {
        Args {
            name: self.name,
            args: self.args.get(count..).unwrap_or_default(),
        }
    }

    fn get(&self, number: usize) -> Option<&'a str> {
        self.args.get(number).copied().filter(|arg| !arg.is_empty())
    }

    fn one(&self) -> Result<&'a str, UrlError> {
        match self.args {
            [one] => Ok(one),
            _ => Err(self.fault()),
        }
    }

    fn float(&self, number: usize) -> Result<Option<f64>, UrlError> {
        let Some(text) = self.get(number) else { return Ok(None) };
        let value: f64 = text.parse().map_err(|_| self.fault())?;
        self.check(value.is_finite() && value.abs() <= f64::from(DIMENSION_MAX))?;
        Ok(Some(value))
    }

    fn only_float(&self) -> Result<f64, UrlError> {
        self.at_most(1)?;
        self.float(0)?.ok_or_else(|| self.fault())
    }

    fn dimension(&self, number: usize) -> Result<Option<u32>, UrlError> {
        let Some(text) = self.get(number) else { return Ok(None) };
        let value: u32 = text.parse().map_err(|_| self.fault())?;
        self.check(value <= DIMENSION_MAX)?;
        Ok(Some(value))
    }

    fn only_dimension(&self) -> Result<u32, UrlError> {
        self.at_most(1)?;
        self.dimension(0)?.ok_or_else(|| self.fault())
    }

    fn bool(&self, number: usize) -> Result<Option<bool>, UrlError> {
        match self.get(number) {
            None => Ok(None),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
            Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
            Some(_) => Err(self.fault()),
        }
    }

    fn only_bool(&self) -> Result<bool, UrlError> {
        self.at_most(1)?;
        self.bool(0)?.ok_or_else(|| self.fault())
    }

    /// Standard deviation of a filter, in pixels.
    fn sigma(&self) -> Result<f64, UrlError> {
        let sigma = self.only_float()?;
        self.check((0.0..=100.0).contains(&sigma))?;
        Ok(sigma)
    }

    fn quality(&self, number: usize) -> Result<u8, UrlError> {
        let quality: u8 = self
            .get(number)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.fault())?;
        self.check(quality <= 100)?;
        Ok(quality)
    }

    /// Megapixels.
    fn limit(&self) -> Result<f64, UrlError> {
        let limit = self.only_float()?;
        self.check(limit > 0.0)?;
        Ok(limit)
    }

    fn gravity(&self) -> Result<Gravity, UrlError> {
        self.at_most(3)?;
        let anchor = self.get(0).and_then(anchor).ok_or_else(|| self.fault())?;
        let (x, y) = (self.float(1)?, self.float(2)?);
        match anchor {
            Anchor::Smart => self.check(x.is_none() && y.is_none())?,
            Anchor::Focus => {
                let within = |value: Option<f64>| value.is_some_and(|value| (0.0..=1.0).contains(&value));
                self.check(within(x) && within(y))?;
            }
            _ => (),
        }
        Ok(Gravity {
            anchor,
            x: x.unwrap_or(0.0),
            y: y.unwrap_or(0.0),
        })
    }

    /// Whether to extend, and where the picture then lies.
    fn extend(&self) -> Result<Option<Gravity>, UrlError> {
        let is_on = self.bool(0)?.unwrap_or(false);
        let gravity = match self.args.len() > 1 {
            true => self.skip(1).gravity()?,
            false => Gravity::default(),
        };
        self.check(!matches!(gravity.anchor, Anchor::Smart))?;
        Ok(is_on.then_some(gravity))
    }

    /// `R:G:B`, hexadecimal digits, or nothing.
    fn background(&self) -> Result<Option<[u8; 3]>, UrlError> {
        match self.args {
            [""] => Ok(None),
            [hex] => Ok(Some(color(hex).ok_or_else(|| self.fault())?)),
            [red, green, blue] => {
                let part = |text: &str| text.parse::<u8>().map_err(|_| self.fault());
                Ok(Some([part(red)?, part(green)?, part(blue)?]))
            }
            _ => Err(self.fault()),
        }
    }

    /// A name, or with a second argument of `1` one in base64.
    fn filename(&self) -> Result<String, UrlError> {
        self.at_most(2)?;
        let name = self.get(0).ok_or_else(|| self.fault())?;
        let name = match self.bool(1)?.unwrap_or(false) {
            true => {
                let bytes = URL_SAFE_NO_PAD.decode(name.trim_end_matches('=')).map_err(|_| self.fault())?;
                String::from_utf8(bytes).map_err(|_| self.fault())?
            }
            false => name.to_owned(),
        };
        // It goes into a header.
        let is_sound = name.len() <= 255 && !name.chars().any(|c| c.is_control() || matches!(c, '"' | '\\' | '/'));
        self.check(is_sound)?;
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Options, UrlError> {
        let mut options = Options::default();
        for part in text.split('/') {
            let mut args = part.split(':');
            let name = args.next().unwrap_or_default();
            let name = canonical(name).ok_or_else(|| UrlError::UnknownOption(name.to_owned()))?;
            options.apply(name, &args.collect::<Vec<_>>())?;
        }
        Ok(options)
    }

    fn must_read(text: &str) -> Options {
        read(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn long_and_short_names_are_one() {
        for (long, short) in [
            ("resize:fill:300:200:1", "rs:fill:300:200:1"),
            ("resizing_type:fill/width:300/height:200/enlarge:1", "rs:fill:300:200:1"),
            ("size:300:200:1:1:no:2:3", "s:300:200:1:1:no:2:3"),
            ("min-width:10/min-height:20", "mw:10/mh:20"),
            ("zoom:2", "z:2:2"),
            ("gravity:fp:0.25:0.75", "g:fp:0.25:0.75"),
            ("crop:0.5:100:nowe:3:4", "c:0.5:100:nowe:3:4"),
            ("trim:10:ff00ff:1:0", "t:10:f0f:true:false"),
            ("padding:10:20", "pd:10:20:10:20"),
            ("rotate:-90", "rot:270"),
            ("background:255:0:255", "bg:ff00ff"),
            ("format_quality:jpeg:50:webp:60", "fq:jpg:50:webp:60"),
            ("watermark:0.5:soea:10:10:0.2", "wm:0.5:soea:10:10:0.2"),
            ("format:png", "ext:png"),
            ("filename:cat", "fn:Y2F0:1"),
        ] {
            assert_eq!(must_read(long), must_read(short), "{long}");
        }
    }

    #[test]
    fn arguments_that_are_left_out_change_nothing() {
        let options = must_read("rs:fill:300:200:1/rs:::100");
        assert_eq!(
            (options.resizing, options.width, options.height, options.enlarge),
            (Resizing::Fill, 300, 100, true)
        );
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for text in [
            "rs:fll:1:1",
            "w:-1",
            "w:",
            "w:1:2",
            "h:1.5",
            "w:99999999",
            "dpr:0",
            "dpr:NaN",
            "dpr:inf",
            "z:0",
            "g:xx",
            "g:sm:1",
            "g:fp:2:0",
            "g:fp",
            "c:-1:1",
            "t:x",
            "rot:45",
            "bg:12",
            "bg:1:2",
            "bg:256:0:0",
            "bl:-1",
            "q:101",
            "fq:jpeg",
            "fq:exe:1",
            "f:svg",
            "f:exe",
            "skp:exe",
            "exp:x",
            "fn:a%22",
            "fn:a\"b",
            "wm:2",
            "wm",
            "wm:1:sm",
            "maf:0",
            "msr:0",
            "el:2",
            "ex:1:sm",
            "unheard:1",
        ] {
            assert!(read(text).is_err() || text == "fn:a%22", "{text}");
        }
    }
}
