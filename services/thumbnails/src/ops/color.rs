//! Colours: profiles to sRGB, inks to light.

use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};

use crate::picture::{Picture, Samples};

/// Larger profiles are not looked at; those of printers have a few megabytes.
const PROFILE_MAX: usize = 4 << 20;

/// To sRGB, and without a profile. One that is damaged or does not fit the pixels is left aside.
pub fn to_srgb(picture: Picture) -> Picture {
    let profile = picture
        .icc
        .as_deref()
        .filter(|icc| icc.len() <= PROFILE_MAX)
        .and_then(|icc| ColorProfile::new_from_slice(icc).ok());
    let done = match picture.samples() {
        Samples::Cmyk => Some(
            profile
                .and_then(|profile| inks(&picture, &profile))
                .unwrap_or_else(|| plain_inks(&picture)),
        ),
        _ => profile
            .filter(|profile| profile.color_space == DataColorSpace::Rgb)
            .and_then(|profile| light(&picture, &profile)),
    };
    let mut picture = done.unwrap_or(picture);
    picture.icc = None;
    picture
}

fn light(picture: &Picture, profile: &ColorProfile) -> Option<Picture> {
    let layout = match picture.samples() {
        Samples::Rgba => Layout::Rgba,
        _ => Layout::Rgb,
    };
    let transform = profile
        .create_transform_8bit(layout, &ColorProfile::new_srgb(), layout, TransformOptions::default())
        .ok()?;
    let mut pixels = vec![0; picture.pixels().len()];
    transform.transform(picture.pixels(), &mut pixels).ok()?;
    Picture::new(picture.width(), picture.height(), picture.samples(), pixels)
}

fn inks(picture: &Picture, profile: &ColorProfile) -> Option<Picture> {
    if profile.color_space != DataColorSpace::Cmyk {
        return None;
    }
    let transform = profile
        .create_transform_8bit(
            Layout::Rgba,
            &ColorProfile::new_srgb(),
            Layout::Rgb,
            TransformOptions::default(),
        )
        .ok()?;
    // Profiles have 255 for all of an ink, the files for none of it.
    let inks: Vec<u8> = picture.pixels().iter().map(|ink| 255 - ink).collect();
    let mut pixels = vec![0; inks.len() / 4 * 3];
    transform.transform(&inks, &mut pixels).ok()?;
    Picture::new(picture.width(), picture.height(), Samples::Rgb, pixels)
}

/// Without a profile: what paper reflects after each ink took its part.
fn plain_inks(picture: &Picture) -> Picture {
    let light = picture.pixels().chunks_exact(4).flat_map(|inks| {
        let black = u32::from(inks[3]);
        [inks[0], inks[1], inks[2]].map(|ink| ((u32::from(ink) * black + 127) / 255) as u8)
    });
    Picture::new(picture.width(), picture.height(), Samples::Rgb, light.collect()).expect("three samples for each four")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_colours_are_brought_to_srgb() {
        let mut picture = Picture::filled(2, 2, &[200, 100, 100]);
        picture.icc = Some(ColorProfile::new_display_p3().encode().expect("encodes").into());
        let srgb = to_srgb(picture.clone());
        let [red, green, _] = srgb.pixel(0, 0) else {
            panic!("three samples")
        };
        // The same colour has more red and less green in the smaller space.
        assert!(*red > 205 && *green < 98, "{:?}", srgb.pixel(0, 0));
        assert_eq!(srgb.icc, None);
        picture.icc = Some(ColorProfile::new_srgb().encode().expect("encodes").into());
        let same = to_srgb(picture.clone());
        assert!(same.pixel(0, 0)[0].abs_diff(200) <= 1);
        picture.icc = Some(b"no profile at all".as_slice().into());
        assert_eq!(to_srgb(picture).pixel(0, 0), [200, 100, 100]);
    }

    #[test]
    fn inks_without_a_profile_become_light() {
        let pixels = vec![255, 255, 255, 255, 0, 255, 255, 255, 255, 255, 255, 0];
        let picture = Picture::new(3, 1, Samples::Cmyk, pixels).expect("fits");
        assert_eq!(to_srgb(picture).pixels(), [255, 255, 255, 0, 255, 255, 0, 0, 0]);
    }
}
