//! The hostile set: what was made to take memory, time or secrets. Each is refused from its header, with the right status, at once.

use std::io::Write as _;

use base::MonoTime;
use thumbnails::codec::{Meta, png};
use thumbnails::error::Error;
use thumbnails::picture::Picture;
use thumbnails::pipeline::Job;

use crate::common::{Server, quarters, to_png};
use crate::golden::{defaults, options};

/// Time for one refusal. The test profile is several times slower than a release.
const REFUSAL_MS: u128 = 5;

/// Status and time of the best of three tries; others use the machine too.
fn refuse(bytes: &[u8], text: &str) -> (u16, u128) {
    let options = options(text);
    let defaults = defaults();
    let job = Job {
        bytes,
        options: &options,
        defaults: &defaults,
        accepted: &[],
        cancelled: &|| false,
    };
    let tries = (0..3).map(|_| {
        let start = MonoTime::now();
        let refused = job.estimate().err().unwrap_or_else(|| panic!("was not refused: {text}"));
        (
            Error::from(refused).status().as_u16(),
            MonoTime::now().since(start).as_millis(),
        )
    });
    tries.min_by_key(|(_, time)| *time).expect("three tries")
}

fn png_of(width: u32, height: u32) -> Vec<u8> {
    let mut png = to_png(&quarters(8, 8));
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    png
}

/// As CRC-32 of PNG and zip has it, a bit at a time.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// Rows of 75 MB in a few kilobytes, and a header that tells of a picture of 8 by 8.
fn png_that_inflates() -> Vec<u8> {
    let mut png = to_png(&Picture::filled(5000, 5000, &[7, 7, 7]));
    png[16..20].copy_from_slice(&8u32.to_be_bytes());
    png[20..24].copy_from_slice(&8u32.to_be_bytes());
    let crc = crc(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

/// A profile of 64 MiB in as many kilobytes.
fn png_with_a_profile_that_inflates() -> Vec<u8> {
    let profile = vec![0; 64 << 20];
    let meta = Meta {
        icc: Some(&profile),
        ..Meta::default()
    };
    png::encode(&quarters(8, 8), png::Settings { colors: 0 }, meta).expect("encodes")
}

fn jpeg_of(width: u16, height: u16, marker: u8) -> Vec<u8> {
    let mut jpeg = b"\xff\xd8\xff".to_vec();
    jpeg.extend([marker, 0, 17, 8]);
    jpeg.extend(height.to_be_bytes());
    jpeg.extend(width.to_be_bytes());
    jpeg.extend([3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0, 0xff, 0xda, 0, 2]);
    jpeg
}

fn gif_of(width: u16, height: u16, frames: usize) -> Vec<u8> {
    let mut gif = b"GIF89a".to_vec();
    gif.extend(width.to_le_bytes());
    gif.extend(height.to_le_bytes());
    gif.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
    for _ in 0..frames {
        gif.extend(b"\x2c\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0");
    }
    gif.push(0x3b);
    gif
}

fn webp_of(width: u32, height: u32) -> Vec<u8> {
    let mut webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    webp.extend(&(width - 1).to_le_bytes()[..3]);
    webp.extend(&(height - 1).to_le_bytes()[..3]);
    webp
}

#[test]
fn bombs_are_refused_from_their_header() {
    let bmp = [
        &b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0"[..],
        &60_000u32.to_le_bytes(),
        &60_000u32.to_le_bytes(),
        &[1, 0, 24, 0],
    ]
    .concat();
    let tiff = b"II*\0\x08\0\0\0\x02\0\0\x01\x04\0\x01\0\0\0\xff\xff\0\0\x01\x01\x04\0\x01\0\0\0\xff\xff\0\0\0\0\0\0".to_vec();
    let mut svg = b"<svg xmlns='http://www.w3.org/2000/svg'>".to_vec();
    svg.splice(
        0..0,
        b"<!DOCTYPE svg [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>".iter().copied(),
    );
    for (name, bytes) in [
        ("png of 4 gigapixels each way", png_of(u32::MAX, u32::MAX)),
        ("png of 100 megapixels", png_of(10_000, 10_000)),
        ("png that overflows", png_of(0x8000_0001, 2)),
        ("jpeg", jpeg_of(65_535, 65_535, 0xc0)),
        ("progressive jpeg beyond memory", jpeg_of(7_000, 7_000, 0xc2)),
        ("gif of a huge canvas", gif_of(65_535, 65_535, 1)),
        ("gif of 100,000 frames", gif_of(10, 10, 100_000)),
        ("gif of many large frames", gif_of(4000, 4000, 20)),
        ("webp", webp_of(16_777_216, 16_777_216)),
        ("bmp", bmp),
        ("tiff", tiff),
        ("svg with entities", svg),
        ("nothing", Vec::new()),
        ("text", b"hello".to_vec()),
        ("a page", b"<html><svg></svg></html>"[..6].to_vec()),
        ("a document", b"%PDF-1.4 \xff\xd8\xff".to_vec()),
        ("a program", b"\x7fELF\x89PNG\r\n\x1a\n".to_vec()),
        ("zeros", vec![0; 1 << 20]),
    ] {
        let (status, time) = refuse(&bytes, "w:100");
        assert_eq!(status, 422, "{name}");
        assert!(time < REFUSAL_MS, "{name}: {time} ms");
    }
    let (status, _) = refuse(&to_png(&quarters(10, 10)), "w:100000/h:100000/el:1");
    assert_eq!(status, 422, "a result beyond all bounds");
}

/// A file that says to be small and is not must fail in the decoder, within the memory of what it says.
#[test]
fn liars_fail_in_the_decoder() {
    for bytes in [png_of(8, 4), png_of(9, 8), gif_of(1, 1, 1)[..20].to_vec(), webp_of(8, 8)] {
        let options = options("w:4");
        let defaults = defaults();
        let job = Job {
            bytes: &bytes,
            options: &options,
            defaults: &defaults,
            accepted: &[],
            cancelled: &|| false,
        };
        if let Err(error) = job.run() {
            assert_eq!(Error::from(error).status().as_u16(), 422);
        }
    }
}

/// Random damage of sound files of every format: a result or an error, never a panic.
#[test]
fn damaged_files_never_panic() {
    let picture = quarters(24, 16);
    let mut state = 0x9e37_79b9_u32;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize
    };
    let defaults = defaults();
    let (small, whole) = (options("w:5"), options("f:png"));
    for format in [
        "jpg",
        "png",
        "webp",
        "gif",
        #[cfg(feature = "avif")]
        "avif",
    ] {
        let source = crate::golden::run(&to_png(&picture), &format!("f:{format}"))
            .expect("works")
            .bytes;
        for round in 0..150 {
            let mut bytes = source.clone();
            for _ in 0..1 + round % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            if round % 5 == 0 {
                bytes.truncate(random() % bytes.len());
            }
            let job = Job {
                bytes: &bytes,
                options: if round % 2 == 0 { &small } else { &whole },
                defaults: &defaults,
                accepted: &[],
                cancelled: &|| false,
            };
            let _any = job.run();
        }
    }
}

#[test]
fn the_service_refuses_them_without_growing() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, bytes: &[u8]| {
        std::fs::File::create(folder.path().join(name))
            .and_then(|mut file| file.write_all(bytes))
            .expect("writes")
    };
    write("good.png", &to_png(&quarters(64, 64)));
    write("bomb.png", &png_of(60_000, 60_000));
    write("bomb.jpg", &jpeg_of(65_535, 65_535, 0xc2));
    write("bomb.gif", &gif_of(100, 100, 100_000));
    write("page.svg", b"<!DOCTYPE svg [<!ENTITY a 'x'>]><svg/>");
    write("flat.png", &to_png(&Picture::filled(3000, 3000, &[7, 7, 7])));
    let server = Server::start(folder.path(), "[limits]\nresolution-max = 5.0\n");
    assert_eq!(server.get("/_/w:10/plain/local:///good.png").status, 200);
    let before = server.rss();
    for _ in 0..20 {
        for name in ["bomb.png", "bomb.jpg", "bomb.gif", "page.svg", "flat.png"] {
            assert_eq!(server.get(&format!("/_/w:10/plain/local:///{name}")).status, 422, "{name}");
        }
    }
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 24 << 20, "{grown} bytes more after refusals alone");
    assert_eq!(server.get("/_/w:10/plain/local:///good.png").status, 200);
}

/// What a small file inflates to is never held: rows beyond those of the header are not read, and a profile has its bound.
#[test]
fn what_inflates_costs_no_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = [
        ("rows.png", png_that_inflates()),
        ("profile.png", png_with_a_profile_that_inflates()),
    ];
    for (name, bytes) in &files {
        assert!(bytes.len() < 1 << 20, "{name} is {} bytes", bytes.len());
        std::fs::write(folder.path().join(name), bytes).expect("writes");
    }
    std::fs::write(folder.path().join("good.png"), to_png(&quarters(64, 64))).expect("writes");
    let server = Server::start(folder.path(), "");
    assert_eq!(server.get("/_/w:10/plain/local:///good.png").status, 200);
    let before = server.rss();
    for number in 0..20 {
        for (name, _) in &files {
            // Each time another result, or it would be known already.
            let answer = server.get(&format!("/_/w:10/cb:{number}/plain/local:///{name}"));
            assert!(matches!(answer.status, 200 | 422), "{name}: {}", answer.status);
        }
    }
    let grown = server.rss().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    assert_eq!(server.get("/_/w:11/plain/local:///good.png").status, 200);
}
