//! A picture over the result.

use super::resize::resize;
use crate::geometry;
use crate::picture::{Picture, Samples, blend};
use crate::url::options::{Place, Watermark};

/// Puts `mark` over `picture` as `watermark` says; offsets are multiplied by `dpr`.
pub fn draw(picture: Picture, mark: &Picture, watermark: &Watermark, dpr: f64) -> Picture {
    let has_alpha = picture.samples() == Samples::Rgba;
    let mut canvas = picture.to_rgba();
    let mark = scaled(mark, watermark.scale, &canvas);
    match watermark.place {
        Place::At(gravity) => {
            let gravity = geometry::scaled(gravity, dpr);
            let (left, top) = geometry::position(canvas.width(), canvas.height(), mark.width(), mark.height(), gravity);
            lay(&mut canvas, &mark, left, top, watermark.opacity);
        }
        Place::Replicate { x, y } => {
            let gap = |gap: f64| ((gap * dpr).round() as i64).max(0);
            let (step_x, step_y) = (i64::from(mark.width()) + gap(x), i64::from(mark.height()) + gap(y));
            for row in 0..=i64::from(canvas.height()) / step_y {
                for column in 0..=i64::from(canvas.width()) / step_x {
                    lay(&mut canvas, &mark, column * step_x, row * step_y, watermark.opacity);
                }
            }
        }
    }
    if has_alpha { canvas } else { canvas.over([255; 3]) }
}

/// To a part of the result's size, or smaller where it would stick out.
fn scaled(mark: &Picture, scale: f64, canvas: &Picture) -> Picture {
    let mark = mark.clone().to_rgba();
    let room = (f64::from(canvas.width()), f64::from(canvas.height()));
    let room = if scale > 0.0 { (room.0 * scale, room.1 * scale) } else { room };
    let fit = (room.0 / f64::from(mark.width())).min(room.1 / f64::from(mark.height()));
    if scale == 0.0 && fit >= 1.0 {
        return mark;
    }
    let side = |side: u32| ((f64::from(side) * fit).round() as u32).max(1);
    resize(&mark, None, side(mark.width()), side(mark.height()))
}

/// Blends `mark` in, with what is outside cut off (T. Porter and T. Duff, Compositing digital images, 1984: over).
fn lay(canvas: &mut Picture, mark: &Picture, left: i64, top: i64, opacity: f64) {
    let width = i64::from(canvas.width());
    let height = i64::from(canvas.height());
    let stride = canvas.stride() as i64;
    for (row, y) in mark.rows().zip(top..) {
        if !(0..height).contains(&y) {
            continue;
        }
        for (over, x) in row.chunks_exact(4).zip(left..) {
            if !(0..width).contains(&x) {
                continue;
            }
            let at = (y * stride + x * 4) as usize;
            let pixel = &mut canvas.pixels_mut()[at..at + 4];
            let alpha = (f64::from(over[3]) * opacity).round() as u32;
            let below = u32::from(pixel[3]);
            let all = alpha + below * (255 - alpha) / 255;
            if all == 0 {
                continue;
            }
            // Of what is seen of both, the part of the upper one.
            let share = (alpha * 255 / all).min(255);
            for (sample, over) in pixel.iter_mut().zip(over).take(3) {
                *sample = blend(u32::from(*over), u32::from(*sample), share);
            }
            pixel[3] = all.min(255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::url::options::{Anchor, Gravity};

    #[test]
    fn a_mark_lies_where_it_is_asked_for() {
        let white = Picture::filled(40, 20, &[255, 255, 255]);
        let mark = Picture::filled(4, 4, &[0, 0, 0, 255]);
        let watermark = Watermark {
            opacity: 0.5,
            place: Place::At(Gravity {
                anchor: Anchor::SouthEast,
                x: 2.0,
                y: 1.0,
            }),
            scale: 0.0,
        };
        let marked = draw(white.clone(), &mark, &watermark, 1.0);
        assert_eq!(marked.samples(), Samples::Rgb);
        let at: Vec<(u32, u32)> = (0..20)
            .flat_map(|y| (0..40).map(move |x| (x, y)))
            .filter(|(x, y)| marked.pixel(*x, *y)[0] < 255)
            .collect();
        assert_eq!((at.first(), at.last(), at.len()), (Some(&(34, 15)), Some(&(37, 18)), 16));
        assert!(marked.pixel(35, 16)[0].abs_diff(127) <= 1);
        let half = Watermark { scale: 0.5, ..watermark };
        let marked = draw(white.clone(), &mark, &half, 1.0);
        assert_eq!(marked.pixels().chunks_exact(3).filter(|pixel| pixel[0] < 255).count(), 100);
        let tiles = Watermark {
            place: Place::Replicate { x: 4.0, y: 0.0 },
            ..watermark
        };
        let marked = draw(white, &mark, &tiles, 1.0);
        assert_eq!(marked.pixels().chunks_exact(3).filter(|pixel| pixel[0] < 255).count(), 400);
    }

    #[test]
    fn over_a_hole_a_mark_keeps_its_colour() {
        let mark = Picture::filled(2, 2, &[200, 100, 0, 255]);
        let watermark = Watermark {
            opacity: 0.5,
            place: Place::At(Gravity::default()),
            scale: 0.0,
        };
        let marked = draw(Picture::filled(2, 2, &[0, 0, 0, 0]), &mark, &watermark, 1.0);
        assert_eq!(marked.pixel(0, 0), [200, 100, 0, 128]);
    }
}
