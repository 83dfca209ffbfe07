//! A border of one colour, cut off.

use crate::picture::Picture;
use crate::url::options::Trim;

/// The part within the border; the whole picture if all of it is border.
pub fn trim(picture: Picture, trim: &Trim) -> Picture {
    let (width, height) = (picture.width(), picture.height());
    let color = match trim.color {
        Some([red, green, blue]) => [red, green, blue, 255],
        None => rgba(picture.pixel(0, 0)),
    };
    let differs = |x: u32, y: u32| distance(rgba(picture.pixel(x, y)), color) > trim.threshold;
    let row = |y: &u32| (0..width).any(|x| differs(x, *y));
    let Some(mut top) = (0..height).find(row) else {
        return picture;
    };
    let mut bottom = height - 1 - (0..height).rev().find(row).unwrap_or(height - 1);
    let column = |x: &u32| (top..height - bottom).any(|y| differs(*x, y));
    let mut left = (0..width).find(column).unwrap_or(0);
    let mut right = width - 1 - (0..width).rev().find(column).unwrap_or(width - 1);
    if trim.equal_horizontal {
        left = left.min(right);
        right = left;
    }
    if trim.equal_vertical {
        top = top.min(bottom);
        bottom = top;
    }
    picture.cut(left, top, width - left - right, height - top - bottom)
}

fn rgba(pixel: &[u8]) -> [u8; 4] {
    [pixel[0], pixel[1], pixel[2], pixel.get(3).copied().unwrap_or(255)]
}

/// In the space of colours; between holes there is none.
fn distance(one: [u8; 4], other: [u8; 4]) -> f64 {
    if one[3] == 0 && other[3] == 0 {
        return 0.0;
    }
    let squares = one
        .iter()
        .zip(other)
        .map(|(one, other)| f64::from(one.abs_diff(other)).powi(2));
    squares.sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed() -> Picture {
        let mut picture = Picture::filled(20, 12, &[250, 250, 250]);
        picture.put(&Picture::filled(10, 4, &[10, 20, 30]), 3, 5);
        picture
    }

    const TRIM: Trim = Trim {
        threshold: 10.0,
        color: None,
        equal_horizontal: false,
        equal_vertical: false,
    };

    #[test]
    fn borders_go() {
        assert_eq!(trim(framed(), &TRIM), Picture::filled(10, 4, &[10, 20, 30]));
        let equal = Trim {
            equal_horizontal: true,
            equal_vertical: true,
            ..TRIM
        };
        let picture = trim(framed(), &equal);
        assert_eq!((picture.width(), picture.height()), (14, 6));
        let other = Trim {
            color: Some([0, 0, 255]),
            ..TRIM
        };
        assert_eq!(trim(framed(), &other), framed());
        let flat = Picture::filled(5, 5, &[1, 2, 3, 4]);
        assert_eq!(trim(flat.clone(), &TRIM), flat);
    }
}
