//! Files that our own encoders do not write, put together here byte by byte: inks with a profile, interlaced PNG.

use crate::common::quarters;
use crate::golden::{check, must_run};

/// Shade of each 8 by 8 block of a picture of four components.
type Inks = fn(x: u32, y: u32) -> [u8; 4];

/// A baseline JPEG of flat blocks: only the first coefficient of each is there, in steps of 8, which are steps of one of the samples.
fn ink_jpeg(blocks: u32, inks: Inks, profile: Option<&[u8]>) -> Vec<u8> {
    let mut file = b"\xff\xd8".to_vec();
    let mut segment = |marker: u8, body: &[u8]| {
        file.extend([0xff, marker]);
        file.extend((body.len() as u16 + 2).to_be_bytes());
        file.extend(body);
    };
    // Adobe's, without a transform: inks as they are.
    segment(0xee, b"Adobe\0\x64\0\0\0\0\0");
    if let Some(profile) = profile {
        segment(0xe2, &[&b"ICC_PROFILE\0\x01\x01"[..], profile].concat());
    }
    segment(0xdb, &[&[0][..], &[8; 64]].concat());
    let side = (blocks * 8) as u16;
    let [high, low] = side.to_be_bytes();
    let mut frame = vec![8, high, low, high, low, 4];
    (1..=4).for_each(|id| frame.extend([id, 0x11, 0]));
    segment(0xc0, &frame);
    // Twelve sizes of the first coefficient, in codes of four bits; the end of a block in one.
    let mut first = vec![0x00, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    first.extend(0..12);
    segment(0xc4, &first);
    segment(0xc4, &[0x10, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut scan = vec![4];
    (1..=4).for_each(|id| scan.extend([id, 0]));
    scan.extend([0, 63, 0]);
    segment(0xda, &scan);
    let mut bits = String::new();
    let mut before = [0i32; 4];
    for y in 0..blocks {
        for x in 0..blocks {
            for (ink, before) in inks(x, y).into_iter().zip(&mut before) {
                let level = i32::from(ink) - 128;
                let difference = level - std::mem::replace(before, level);
                let size = 32 - difference.unsigned_abs().leading_zeros();
                bits += &format!("{size:04b}");
                let raw = if difference < 0 {
                    difference + (1 << size) - 1
                } else {
                    difference
                };
                if size > 0 {
                    bits += &format!("{raw:0width$b}", width = size as usize);
                }
                bits.push('0');
            }
        }
    }
    while !bits.len().is_multiple_of(8) {
        bits.push('1');
    }
    for at in (0..bits.len()).step_by(8) {
        let byte = u8::from_str_radix(&bits[at..at + 8], 2).expect("eight bits");
        file.push(byte);
        if byte == 0xff {
            file.push(0);
        }
    }
    file.extend([0xff, 0xd9]);
    file
}

/// A profile of inks that no printer has: all of the first ink alone is red, of any other mixture green, and none is white. It is a table of
/// two steps for each ink (ICC.1:2010, 10.9).
fn odd_profile() -> Vec<u8> {
    let mut table = b"mft1\0\0\0\0\x04\x03\x02\0".to_vec();
    for row in [[1, 0, 0], [0, 1, 0], [0, 0, 1]] {
        row.iter().for_each(|one: &i32| table.extend((one << 16).to_be_bytes()));
    }
    let straight: Vec<u8> = (0..=255).collect();
    (0..4).for_each(|_| table.extend(&straight));
    for mixture in 0..16 {
        // Lightness, and a and b around 128.
        table.extend(match mixture {
            0 => [255u8, 128, 128],
            8 => [136, 208, 195],
            _ => [224, 42, 211],
        });
    }
    (0..3).for_each(|_| table.extend(&straight));
    let mut profile = vec![0; 128];
    let len = (128 + 4 + 12 + table.len()) as u32;
    profile[0..4].copy_from_slice(&len.to_be_bytes());
    profile[8..12].copy_from_slice(&0x0210_0000u32.to_be_bytes());
    profile[12..16].copy_from_slice(b"prtr");
    profile[16..20].copy_from_slice(b"CMYK");
    profile[20..24].copy_from_slice(b"Lab ");
    profile[36..40].copy_from_slice(b"acsp");
    for (at, part) in [(68, 0xf6d6u32), (72, 0x1_0000), (76, 0xd32d)] {
        profile[at..at + 4].copy_from_slice(&part.to_be_bytes());
    }
    profile.extend(1u32.to_be_bytes());
    profile.extend(b"A2B0");
    profile.extend((128u32 + 4 + 12).to_be_bytes());
    profile.extend((table.len() as u32).to_be_bytes());
    profile.extend(table);
    profile
}

/// On the left all of the first ink, on the right none of any; files of printers have 255 for none.
fn half_inked(x: u32, _: u32) -> [u8; 4] {
    if x < 8 { [0, 255, 255, 255] } else { [255; 4] }
}

#[test]
fn inks_become_light_by_their_profile_or_by_rule() {
    let near = |pixel: &[u8], wanted: [u8; 3]| {
        let is_near = pixel.iter().zip(wanted).all(|(sample, wanted)| sample.abs_diff(wanted) < 30);
        assert!(is_near, "{pixel:?}: wanted {wanted:?}");
    };
    for text in ["w:0/f:png", "w:32/f:png", "w:16/f:png"] {
        let plain = must_run(&ink_jpeg(16, half_inked, None), text);
        let (left, right) = (plain.width() / 4, plain.width() * 3 / 4);
        near(plain.pixel(left, 4), [0, 255, 255]);
        near(plain.pixel(right, 4), [255, 255, 255]);
        let profiled = must_run(&ink_jpeg(16, half_inked, Some(&odd_profile())), text);
        near(profiled.pixel(left, 4), [250, 0, 0]);
        near(profiled.pixel(right, 4), [255, 255, 255]);
        assert!(profiled.icc.is_none(), "it is of sRGB now");
    }
    let kept = must_run(&ink_jpeg(16, half_inked, Some(&odd_profile())), "w:32/scp:0/f:png");
    near(kept.pixel(8, 4), [250, 0, 0]);
    let damaged = must_run(&ink_jpeg(16, half_inked, Some(b"no profile")), "w:32/f:png");
    near(damaged.pixel(8, 4), [0, 255, 255]);
}

/// CRC-32 of chunks (ISO 3309).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }
        })
    })
}

fn adler(bytes: &[u8]) -> u32 {
    let (low, high) = bytes.iter().fold((1u32, 0u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], body: &[u8]) {
    file.extend((body.len() as u32).to_be_bytes());
    let all = [&kind[..], body].concat();
    file.extend(&all);
    file.extend(crc(&all).to_be_bytes());
}

/// Adam7: seven small pictures, each with every so many-th pixel (PNG, section 8.2). Not compressed.
fn interlaced(side: u32, depth: u8, pixel: impl Fn(u32, u32) -> Vec<u8>) -> Vec<u8> {
    let mut rows = Vec::new();
    for (left, top, across, down) in [
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ] {
        for y in (top..side).step_by(down).filter(|_| left < side) {
            rows.push(0);
            (left..side).step_by(across).for_each(|x| rows.extend(pixel(x, y)));
        }
    }
    let mut stream = vec![0x78, 0x01];
    let mut parts = rows.chunks(65_535).peekable();
    while let Some(part) = parts.next() {
        stream.push(u8::from(parts.peek().is_none()));
        stream.extend((part.len() as u16).to_le_bytes());
        stream.extend((!(part.len() as u16)).to_le_bytes());
        stream.extend(part);
    }
    stream.extend(adler(&rows).to_be_bytes());
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let side = side.to_be_bytes();
    chunk(&mut file, b"IHDR", &[&side[..], &side, &[depth, 2, 0, 0, 1]].concat());
    chunk(&mut file, b"IDAT", &stream);
    chunk(&mut file, b"IEND", &[]);
    file
}

#[test]
fn interlaced_png_is_read() {
    for side in [64, 37, 5] {
        let picture = quarters(side, side);
        let shallow = interlaced(side, 8, |x, y| picture.pixel(x, y).to_vec());
        let deep = interlaced(side, 16, |x, y| {
            picture.pixel(x, y).iter().flat_map(|sample| [*sample, 3]).collect()
        });
        for file in [&shallow, &deep] {
            let info = thumbnails::header::read(file, 1).expect("sound");
            assert!(info.progressive && info.width == side);
            let whole = must_run(file, "w:0");
            assert_eq!(
                whole.pixels(),
                picture.pixels(),
                "every pixel of {side} by {side} in its place"
            );
            if side > 5 {
                check(&must_run(file, "w:16"), "rgbw", "interlaced");
            }
        }
    }
}
