//! Sizes and places: what the options make of a picture's size, in imgproxy's way. Numbers only, no pixels.

use crate::url::options::{Anchor, Crop, Gravity, Options, Resizing};

/// What is to be done to a picture of a known size. Sizes are of the upright picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Part of the source that is used.
    pub crop: (u32, u32),
    pub crop_gravity: Gravity,
    /// That part is scaled to this.
    pub scaled: (u32, u32),
    /// Then cut to this, around the gravity.
    pub cut: (u32, u32),
    pub gravity: Gravity,
    /// Then put on a canvas of at least this.
    pub extend: Option<((u32, u32), Gravity)>,
    /// Top, right, bottom, left.
    pub padding: [u32; 4],
    /// What the size was multiplied with in the end; offsets and padding too.
    pub dpr: f64,
}

impl Plan {
    /// Of an upright picture of `width` by `height`; `is_vector` ones may grow.
    pub fn new(width: u32, height: u32, options: &Options, is_vector: bool) -> Plan {
        let crop = options.crop.map_or((width, height), |crop| crop_size(width, height, crop));
        let crop_gravity = options.crop.and_then(|crop| crop.gravity).unwrap_or(options.gravity);
        let scale = Scale::new(crop, options, is_vector);
        let scaled = (round(f64::from(crop.0) * scale.x), round(f64::from(crop.1) * scale.y));
        let target = |side: u32, zoom: f64| match side {
            0 => 0,
            side => round(f64::from(side) * zoom * scale.dpr),
        };
        let target = (target(options.width, options.zoom.0), target(options.height, options.zoom.1));
        let cut = cut_size(scaled, target, options);
        let is_target = target.0 > 0 || target.1 > 0;
        let extend = match (options.extend, options.extend_ratio) {
            (Some(gravity), _) if is_target => Some(((target.0.max(cut.0), target.1.max(cut.1)), gravity)),
            (None, Some(gravity)) if target.0 > 0 && target.1 > 0 => Some((ratio_size(cut, target), gravity)),
            _ => None,
        };
        Plan {
            crop,
            crop_gravity,
            scaled,
            cut,
            gravity: self::scaled(options.gravity, scale.dpr),
            extend: extend.map(|(size, gravity)| (size, self::scaled(gravity, scale.dpr))),
            padding: options.padding.map(|side| (f64::from(side) * scale.dpr).round() as u32),
            dpr: scale.dpr,
        }
    }

    /// The size of the result.
    pub fn result(&self) -> (u64, u64) {
        let (width, height) = self.extend.map_or(self.cut, |(size, _)| size);
        let [top, right, bottom, left] = self.padding.map(u64::from);
        (u64::from(width) + left + right, u64::from(height) + top + bottom)
    }
}

struct Scale {
    x: f64,
    y: f64,
    dpr: f64,
}

impl Scale {
    fn new((width, height): (u32, u32), options: &Options, is_vector: bool) -> Scale {
        let (width, height) = (f64::from(width), f64::from(height));
        let wanted = |side: u32, own: f64| if side == 0 { own } else { f64::from(side) };
        let (to_x, to_y) = (wanted(options.width, width), wanted(options.height, height));
        // How much smaller each side becomes.
        let (mut x, mut y) = (width / to_x, height / to_y);
        if x != 1.0 || y != 1.0 {
            let is_upright = |x: f64, y: f64| x < y;
            let resizing = match options.resizing {
                Resizing::Auto if is_upright(width, height) == is_upright(to_x, to_y) => Resizing::Fill,
                Resizing::Auto => Resizing::Fit,
                other => other,
            };
            match resizing {
                Resizing::Force => (),
                _ if options.width == 0 => x = y,
                _ if options.height == 0 => y = x,
                Resizing::Fill | Resizing::FillDown => (x, y) = (x.min(y), x.min(y)),
                Resizing::Fit | Resizing::Auto => (x, y) = (x.max(y), x.max(y)),
            }
        }
        x /= options.zoom.0;
        y /= options.zoom.1;
        let mut dpr = options.dpr;
        if !options.enlarge && !is_vector {
            let least = x.min(y);
            if least < 1.0 {
                x /= least;
                y /= least;
            }
            // More pixels than the source has are not made.
            dpr = dpr.min(x.min(y)).max(f64::MIN_POSITIVE);
        }
        for (side, min, is_x) in [(width, options.min_width, true), (height, options.min_height, false)] {
            let current = if is_x { x } else { y };
            if min > 0 && side / f64::from(min) < current {
                let by = current * f64::from(min) / side;
                x /= by;
                y /= by;
            }
        }
        x /= dpr;
        y /= dpr;
        Scale {
            x: 1.0 / x.min(width),
            y: 1.0 / y.min(height),
            dpr,
        }
    }
}

fn round(side: f64) -> u32 {
    (side.round() as u32).max(1)
}

fn crop_size(width: u32, height: u32, crop: Crop) -> (u32, u32) {
    let side = |wanted: f64, own: u32| {
        let side = match wanted {
            0.0 => own,
            part if part < 1.0 => round(part * f64::from(own)),
            pixels => round(pixels),
        };
        side.min(own)
    };
    (side(crop.width, width), side(crop.height, height))
}

fn cut_size(scaled: (u32, u32), target: (u32, u32), options: &Options) -> (u32, u32) {
    let is_down = options.resizing == Resizing::FillDown && !options.enlarge && target.0 > 0 && target.1 > 0;
    let missing = (
        f64::from(target.0) / f64::from(scaled.0),
        f64::from(target.1) / f64::from(scaled.1),
    );
    let wanted = match () {
        // Smaller than asked: the largest part of the same ratio.
        () if is_down && missing.0 > missing.1 && missing.0 > 1.0 => (
            scaled.0,
            round(f64::from(scaled.0) * f64::from(target.1) / f64::from(target.0)),
        ),
        () if is_down && missing.1 > missing.0 && missing.1 > 1.0 => (
            round(f64::from(scaled.1) * f64::from(target.0) / f64::from(target.1)),
            scaled.1,
        ),
        () => target,
    };
    let side = |wanted: u32, own: u32| if wanted == 0 { own } else { wanted.min(own) };
    (side(wanted.0, scaled.0), side(wanted.1, scaled.1))
}

/// The smallest canvas of the ratio of `target` around `size`.
fn ratio_size(size: (u32, u32), target: (u32, u32)) -> (u32, u32) {
    let ratio = f64::from(target.0) / f64::from(target.1);
    match f64::from(size.0) / f64::from(size.1) < ratio {
        true => (round(f64::from(size.1) * ratio).max(size.0), size.1),
        false => (size.0, round(f64::from(size.0) / ratio).max(size.1)),
    }
}

/// A gravity whose offsets in pixels are multiplied by `dpr`.
pub fn scaled(gravity: Gravity, dpr: f64) -> Gravity {
    if gravity.anchor == Anchor::Focus {
        return gravity;
    }
    let offset = |offset: f64| if offset.abs() < 1.0 { offset } else { offset * dpr };
    Gravity {
        anchor: gravity.anchor,
        x: offset(gravity.x),
        y: offset(gravity.y),
    }
}

/// Left and top of something of `inner` size within `outer`; it stays within where it fits. `Smart` is as the centre: who can look at
/// pixels asks [`crate::ops::smart`].
pub fn position(outer_width: u32, outer_height: u32, width: u32, height: u32, gravity: Gravity) -> (i64, i64) {
    let x = axis(outer_width, width, gravity.x, sides(gravity.anchor).0);
    let y = axis(outer_height, height, gravity.y, sides(gravity.anchor).1);
    (x, y)
}

#[derive(Clone, Copy)]
enum Side {
    Start,
    Middle,
    End,
    Focus,
}

fn sides(anchor: Anchor) -> (Side, Side) {
    use Side::{End, Focus, Middle, Start};
    match anchor {
        Anchor::Center | Anchor::Smart => (Middle, Middle),
        Anchor::North => (Middle, Start),
        Anchor::South => (Middle, End),
        Anchor::East => (End, Middle),
        Anchor::West => (Start, Middle),
        Anchor::NorthEast => (End, Start),
        Anchor::NorthWest => (Start, Start),
        Anchor::SouthEast => (End, End),
        Anchor::SouthWest => (Start, End),
        Anchor::Focus => (Focus, Focus),
    }
}

fn axis(outer: u32, inner: u32, offset: f64, side: Side) -> i64 {
    let (outer, inner) = (i64::from(outer), i64::from(inner));
    let pixels = if offset.abs() < 1.0 { offset * outer as f64 } else { offset };
    let pixels = pixels.round() as i64;
    let at = match side {
        Side::Start => pixels,
        Side::End => outer - inner - pixels,
        Side::Middle => (outer - inner + 1) / 2 + pixels,
        // The whole of the offset is a part of the outer size, 1 included.
        Side::Focus => (offset * outer as f64).round() as i64 - inner / 2,
    };
    at.clamp(0, (outer - inner).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(size: (u32, u32), set: impl FnOnce(&mut Options)) -> Plan {
        let mut options = Options::default();
        set(&mut options);
        Plan::new(size.0, size.1, &options, false)
    }

    fn sizes(size: (u32, u32), resizing: Resizing, width: u32, height: u32, enlarge: bool) -> ((u32, u32), (u32, u32)) {
        let plan = plan(size, |options| {
            (options.resizing, options.width, options.height, options.enlarge) = (resizing, width, height, enlarge);
        });
        (plan.scaled, plan.cut)
    }

    #[test]
    fn each_way_of_resizing_has_its_size() {
        use Resizing::{Auto, Fill, FillDown, Fit, Force};
        for (size, resizing, width, height, enlarge, scaled, cut) in [
            ((400, 200), Fit, 100, 100, false, (100, 50), (100, 50)),
            ((400, 200), Fit, 100, 0, false, (100, 50), (100, 50)),
            ((400, 200), Fit, 0, 100, false, (200, 100), (200, 100)),
            ((400, 200), Fit, 0, 0, false, (400, 200), (400, 200)),
            ((40, 20), Fit, 100, 100, false, (40, 20), (40, 20)),
            ((40, 20), Fit, 100, 100, true, (100, 50), (100, 50)),
            ((400, 200), Fill, 100, 100, false, (200, 100), (100, 100)),
            ((40, 20), Fill, 100, 100, false, (40, 20), (40, 20)),
            ((40, 20), Fill, 100, 100, true, (200, 100), (100, 100)),
            ((400, 200), Fill, 100, 0, false, (100, 50), (100, 50)),
            ((40, 20), FillDown, 100, 100, false, (40, 20), (20, 20)),
            ((400, 200), FillDown, 100, 100, false, (200, 100), (100, 100)),
            ((400, 200), Force, 100, 100, false, (100, 100), (100, 100)),
            ((400, 200), Force, 100, 0, false, (100, 200), (100, 200)),
            ((400, 200), Auto, 200, 100, false, (200, 100), (200, 100)),
            ((400, 200), Auto, 100, 60, false, (120, 60), (100, 60)),
            ((400, 200), Auto, 60, 100, false, (60, 30), (60, 30)),
            ((10_000, 1), Fit, 10, 10, false, (10, 1), (10, 1)),
        ] {
            assert_eq!(
                sizes(size, resizing, width, height, enlarge),
                (scaled, cut),
                "{size:?} {resizing:?} {width}x{height} {enlarge}"
            );
        }
    }

    #[test]
    fn dpr_zoom_and_minima_multiply() {
        let fit = |set: fn(&mut Options)| {
            plan((400, 200), |options| {
                options.width = 50;
                set(options);
            })
        };
        assert_eq!(fit(|options| options.dpr = 2.0).scaled, (100, 50));
        assert_eq!(fit(|options| options.zoom = (2.0, 2.0)).scaled, (100, 50));
        assert_eq!(fit(|options| options.min_height = 100).scaled, (200, 100));
        let limited = fit(|options| options.dpr = 10.0);
        assert_eq!((limited.scaled, limited.dpr), ((400, 200), 8.0));
        assert_eq!(
            fit(|options| (options.dpr, options.padding) = (2.0, [1, 2, 3, 4])).padding,
            [2, 4, 6, 8]
        );
    }

    #[test]
    fn canvases_are_extended() {
        let extended = plan((40, 20), |options| {
            (options.width, options.height, options.extend) = (100, 50, Some(Gravity::default()));
        });
        assert_eq!((extended.scaled, extended.result()), ((40, 20), (100, 50)));
        let ratio = plan((40, 20), |options| {
            (options.width, options.height, options.extend_ratio) = (100, 100, Some(Gravity::default()));
        });
        assert_eq!(ratio.result(), (40, 40));
    }

    #[test]
    fn crops_are_pixels_or_parts() {
        let crop = |width, height| {
            plan((400, 200), |options| {
                options.crop = Some(Crop {
                    width,
                    height,
                    gravity: None,
                })
            })
            .crop
        };
        assert_eq!(crop(100.0, 0.0), (100, 200));
        assert_eq!(crop(0.5, 0.25), (200, 50));
        assert_eq!(crop(1000.0, 1.0), (400, 1));
    }

    #[test]
    fn places_follow_the_gravity() {
        let at = |anchor, x, y| position(100, 50, 20, 10, Gravity { anchor, x, y });
        assert_eq!(at(Anchor::Center, 0.0, 0.0), (40, 20));
        assert_eq!(at(Anchor::North, 0.0, 5.0), (40, 5));
        assert_eq!(at(Anchor::SouthEast, 3.0, 4.0), (77, 36));
        assert_eq!(at(Anchor::West, 0.1, 0.0), (10, 20));
        assert_eq!(at(Anchor::Focus, 1.0, 0.5), (80, 20));
        assert_eq!(at(Anchor::NorthWest, -50.0, 500.0), (0, 40));
    }
}
