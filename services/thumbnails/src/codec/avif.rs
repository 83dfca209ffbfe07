//! AVIF: pictures of AV1 in boxes, with colours turned from and to planes. libaom reads and writes; in builds without C (feature `rav1e`
//! in place of `avif`) rav1e writes, and nothing reads.

use avif_serialize::Aviffy;
use avif_serialize::constants::MatrixCoefficients;

use super::{CodecError, Meta};
use crate::picture::{Picture, Samples};

#[cfg(feature = "avif")]
mod aom;
#[cfg(feature = "avif")]
pub mod heif;
#[cfg(all(feature = "rav1e", any(test, not(feature = "avif"))))]
mod rav1e;
#[cfg(feature = "avif")]
mod read;

#[cfg(feature = "avif")]
use aom as av1;
#[cfg(not(feature = "avif"))]
use rav1e as av1;
#[cfg(feature = "avif")]
pub use read::decode;

const NAME: &str = "AVIF";

/// One picture for an encoder: 8 bits a sample, full range, BT.601, colour at half resolution both ways.
struct Planes {
    width: u32,
    height: u32,
    /// Luma, then both of colour, rows without gaps; colour is left out where the picture is grey.
    samples: Vec<u8>,
    is_grey: bool,
}

impl Planes {
    /// Columns and rows of a plane of colour.
    fn half(&self) -> (usize, usize) {
        (self.width.div_ceil(2) as usize, self.height.div_ceil(2) as usize)
    }

    /// Samples of luma, and of a plane of colour.
    fn lens(&self) -> (usize, usize) {
        let (columns, rows) = self.half();
        (self.width as usize * self.height as usize, columns * rows)
    }
}

/// How an AVIF is written.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub quality: u8,
    /// 9 is fast, 0 is small.
    pub speed: u8,
}

/// Encodes. There is no room for a profile: colours must be sRGB.
pub fn encode(picture: &Picture, settings: Settings, meta: Meta<'_>) -> Result<Vec<u8>, CodecError> {
    encode_by(av1::encode, picture, settings, meta)
}

type Encode = fn(&mut Planes, Settings) -> Result<Vec<u8>, CodecError>;

fn encode_by(encode: Encode, picture: &Picture, settings: Settings, meta: Meta<'_>) -> Result<Vec<u8>, CodecError> {
    if picture.samples() == Samples::Cmyk {
        return Err(CodecError::encode(NAME, "wanted red, green and blue"));
    }
    let color = encode(&mut planes(picture), settings)?;
    let alpha = match picture.samples() {
        // Edges of holes are seen more than noise in colours.
        Samples::Rgba => Some(encode(
            &mut alpha(picture),
            Settings {
                quality: settings.quality.max(80),
                ..settings
            },
        )?),
        _ => None,
    };
    let mut writer = Aviffy::new();
    writer
        .set_matrix_coefficients(MatrixCoefficients::Bt601)
        .set_full_color_range(true)
        .set_chroma_subsampling((true, true));
    if let Some(exif) = meta.exif {
        writer.set_exif(exif.to_vec());
    }
    Ok(writer.to_vec(&color, alpha.as_deref(), picture.width(), picture.height(), 8))
}

/// BT.601 in full range, in 16 bits of fraction.
fn planes(picture: &Picture) -> Planes {
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let bytes = picture.samples().bytes();
    let mut samples = Vec::with_capacity(width * height * 3 / 2 + width + height + 1);
    for pixel in picture.pixels().chunks_exact(bytes) {
        let [red, green, blue] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
        samples.push(((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16) as u8);
    }
    let (mut blue_plane, mut red_plane) = (Vec::new(), Vec::new());
    let rows: Vec<&[u8]> = picture.rows().collect();
    for pair in rows.chunks(2) {
        for x in (0..width).step_by(2) {
            let mut sums = [0i32; 3];
            let mut count = 0;
            for row in pair {
                for pixel in row.chunks_exact(bytes).skip(x).take(2) {
                    sums.iter_mut()
                        .zip(pixel)
                        .for_each(|(sum, sample)| *sum += i32::from(*sample));
                    count += 1;
                }
            }
            let [red, green, blue] = sums;
            let scaled = |sum: i32| ((sum / count + 32768) >> 16) + 128;
            blue_plane.push(scaled(-11059 * red - 21709 * green + 32768 * blue).clamp(0, 255) as u8);
            red_plane.push(scaled(32768 * red - 27439 * green - 5329 * blue).clamp(0, 255) as u8);
        }
    }
    samples.extend(blue_plane);
    samples.extend(red_plane);
    Planes {
        width: picture.width(),
        height: picture.height(),
        samples,
        is_grey: false,
    }
}

fn alpha(picture: &Picture) -> Planes {
    Planes {
        width: picture.width(),
        height: picture.height(),
        samples: picture.pixels().chunks_exact(4).map(|pixel| pixel[3]).collect(),
        is_grey: true,
    }
}

#[cfg(all(test, feature = "avif"))]
mod tests {
    use super::*;
    use crate::header;

    fn picture(alpha: bool) -> Picture {
        let pixels = (0..45u32).flat_map(|y| {
            (0..61u32).flat_map(move |x| {
                let pixel = [(x * 4) as u8, (y * 5) as u8, 100, if x < 20 { 0 } else { 255 }];
                pixel.into_iter().take(if alpha { 4 } else { 3 })
            })
        });
        Picture::new(61, 45, if alpha { Samples::Rgba } else { Samples::Rgb }, pixels.collect()).expect("fits")
    }

    /// By every encoder that is built.
    const ENCODERS: &[Encode] = &[
        aom::encode,
        #[cfg(feature = "rav1e")]
        rav1e::encode,
    ];
    const SETTINGS: Settings = Settings { quality: 90, speed: 9 };

    #[test]
    fn what_is_written_is_read() {
        for (encode, alpha) in ENCODERS.iter().flat_map(|encode| [(encode, false), (encode, true)]) {
            let file = encode_by(*encode, &picture(alpha), SETTINGS, Meta::default()).expect("encodes");
            let info = header::read(&file, 1).expect("sound");
            assert_eq!((info.width, info.height, info.alpha, info.orientation), (61, 45, alpha, 1));
            let read = decode(&file).expect("decodes");
            for (x, y) in [(30, 20), (45, 30), (58, 2)] {
                let near = read
                    .pixel(x, y)
                    .iter()
                    .zip(picture(alpha).pixel(x, y))
                    .all(|(read, wanted)| read.abs_diff(*wanted) < 16);
                assert!(near, "{x},{y}: {:?}", read.pixel(x, y));
            }
            if alpha {
                assert!(read.pixel(5, 5)[3] < 10);
            }
            for cut in [file.len() / 2, file.len() - 20] {
                assert!(decode(&file[..cut]).is_err());
            }
        }
    }

    #[test]
    fn the_smallest_pictures_are_written() {
        for encode in ENCODERS {
            for (width, height) in [(1, 1), (2, 17), (16, 3)] {
                let picture = Picture::filled(width, height, &[200, 30, 60]);
                let file = encode_by(*encode, &picture, SETTINGS, Meta::default()).expect("encodes");
                let read = decode(&file).expect("decodes");
                assert_eq!((read.width(), read.height()), (width, height));
                assert!(
                    read.pixel(0, 0)
                        .iter()
                        .zip([200, 30, 60])
                        .all(|(read, wanted)| read.abs_diff(wanted) < 12)
                );
            }
        }
    }
}
