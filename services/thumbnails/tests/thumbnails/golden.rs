//! The golden set: every kind of picture that people have, through the whole pipeline, compared with what it must look like.

use thumbnails::codec::{Meta, gif, webp};
use thumbnails::format::Format;
use thumbnails::limits::Limits;
use thumbnails::picture::{Frame, Picture, Samples};
use thumbnails::pipeline::{Defaults, Error, Job, Output};
use thumbnails::url::options::Options;
use thumbnails::url::sign::Signer;
use thumbnails::url::{Asked, Grammar};
use thumbnails::{exif, header};

use crate::common::{quarters, to_jpeg, to_png};

pub fn defaults() -> Defaults {
    Defaults {
        limits: Limits {
            source_bytes: 32 << 20,
            resolution: 50.0,
            frames: 20,
            frames_file: 1000,
            frames_resolution: 50.0,
            result_side: 4096,
            decoded_bytes: 256 << 20,
        },
        quality_jpeg: 90,
        quality_webp: 90,
        quality_avif: 80,
        jpeg_progressive: false,
        webp_method: 2,
        avif_speed: 9,
        png_colors: 0,
        decode_margin: 2.0,
        auto_rotate: true,
        strip_metadata: true,
        keep_copyright: true,
        strip_color_profile: true,
        watermark: Some(std::sync::Arc::new(Picture::filled(10, 10, &[0, 0, 0, 255]))),
    }
}

/// What the options of a URL say.
pub fn options(text: &str) -> Options {
    let grammar = Grammar {
        signer: Signer::new(&[], &[], 32, &[]).expect("valid"),
        presets: Default::default(),
        only_presets: false,
        allowed: Default::default(),
        allows_limits: true,
        base_url: String::new(),
    };
    let Asked { options, .. } = grammar
        .read(&format!("/_/{text}/plain/x"), 0)
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    options
}

pub fn run(bytes: &[u8], text: &str) -> Result<Output, Error> {
    let job = Job {
        bytes,
        options: &options(text),
        defaults: &defaults(),
        accepted: &[],
        cancelled: &|| false,
    };
    job.run()
}

/// The result, decoded.
pub fn must_run(bytes: &[u8], text: &str) -> Picture {
    let output = run(bytes, text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let info = header::read(&output.bytes, 100).expect("sound");
    assert_eq!(
        (info.width, info.height, info.format),
        (output.width, output.height, output.format)
    );
    decode(&output.bytes)
}

fn decode(bytes: &[u8]) -> Picture {
    let job = Job {
        bytes,
        options: &Options::default(),
        defaults: &defaults(),
        accepted: &[],
        cancelled: &|| false,
    };
    job.picture().expect("decodes")
}

/// Whether the four quarters of a picture have the colours of [`quarters`], in the order that `letters` tells.
pub fn check(picture: &Picture, letters: &str, what: &str) {
    let (width, height) = (picture.width(), picture.height());
    let places = [
        (width / 4, height / 4),
        (width * 3 / 4, height / 4),
        (width / 4, height * 3 / 4),
        (width * 3 / 4, height * 3 / 4),
    ];
    for ((x, y), letter) in places.into_iter().zip(letters.chars()) {
        let wanted = match letter {
            'r' => [220, 30, 30],
            'g' => [30, 200, 30],
            'b' => [30, 30, 220],
            _ => [250, 250, 250],
        };
        let near = picture
            .pixel(x, y)
            .iter()
            .zip(wanted)
            .all(|(sample, wanted)| sample.abs_diff(wanted) < 24);
        assert!(near, "{what}: {letter} at {x},{y} is {:?}", picture.pixel(x, y));
    }
}

/// EXIF with an orientation, as cameras write it.
fn turned(orientation: u8) -> Vec<u8> {
    exif::with_orientation(orientation)
}

#[test]
fn all_orientations_come_upright_with_and_without_scaling() {
    for orientation in 1..=8 {
        // Stored so that the orientation makes it upright again.
        let inverse = match orientation {
            6 => 8,
            8 => 6,
            other => other,
        };
        let stored = quarters(320, 200).oriented(inverse);
        let exif = turned(orientation);
        let meta = Meta {
            exif: Some(&exif),
            ..Meta::default()
        };
        let jpeg = to_jpeg(&stored, meta, false);
        for (text, width, height) in [
            ("w:0", 320, 200),
            ("w:80", 80, 50),
            ("rs:fill:60:60", 60, 60),
            ("c:160:100:no/w:40", 40, 25),
        ] {
            let picture = must_run(&jpeg, &format!("{text}/f:png"));
            assert_eq!((picture.width(), picture.height()), (width, height), "{orientation} {text}");
            if !text.starts_with('c') {
                check(&picture, "rgbw", &format!("{orientation} {text}"));
            }
        }
        let as_stored = must_run(&jpeg, "ar:0/f:png");
        assert_eq!((as_stored.width(), as_stored.height()), (stored.width(), stored.height()));
    }
}

#[test]
fn turns_and_flips_are_done_after_the_orientation() {
    let png = to_png(&quarters(80, 40));
    for (text, letters) in [
        ("rot:90", "brwg"),
        ("rot:180", "wbgr"),
        ("rot:270", "gwrb"),
        ("fl:1", "grwb"),
        ("fl:0:1", "bwrg"),
    ] {
        check(&must_run(&png, text), letters, text);
    }
    assert_eq!(must_run(&png, "rot:90/w:20").height(), 40);
}

#[test]
fn gravities_keep_their_part() {
    let png = to_png(&quarters(200, 200));
    for (anchor, letters) in [
        ("nowe", "rrrr"),
        ("noea", "gggg"),
        ("sowe", "bbbb"),
        ("soea", "wwww"),
        ("fp:0:0", "rrrr"),
        ("fp:1:1", "wwww"),
    ] {
        check(&must_run(&png, &format!("c:80:80:{anchor}")), letters, anchor);
        let tall = to_png(&quarters(200, 200));
        check(&must_run(&tall, &format!("c:0.4:0.4:{anchor}/w:40")), letters, anchor);
    }
    check(&must_run(&png, "rs:fill:100:50/g:no"), "rgrg", "fill at the top");
    check(&must_run(&png, "c:100:100:ce"), "rgbw", "the middle");
}

#[test]
fn every_kind_of_jpeg_is_read() {
    let picture = quarters(160, 120);
    for progressive in [false, true] {
        check(
            &must_run(&to_jpeg(&picture, Meta::default(), progressive), "w:40/f:png"),
            "rgbw",
            "progressive",
        );
    }
    let whole = to_jpeg(&picture, Meta::default(), false);
    let cut = must_run(&whole[..whole.len() * 3 / 4], "w:40/f:png");
    check(&cut, "rg", "a file that breaks off");
    let wide = moxcms::ColorProfile::new_display_p3().encode().expect("encodes");
    let meta = Meta {
        icc: Some(&wide),
        ..Meta::default()
    };
    let p3 = to_jpeg(&Picture::filled(64, 64, &[200, 100, 100]), meta, false);
    let srgb = must_run(&p3, "w:32/f:png");
    assert!(srgb.pixel(9, 9)[0] > 204 && srgb.icc.is_none(), "{:?}", srgb.pixel(9, 9));
    let kept = run(&p3, "w:32/scp:0").expect("works");
    assert_eq!(header::read(&kept.bytes, 1).expect("sound").icc.as_deref(), Some(&wide[..]));
}

#[test]
fn every_kind_of_png_is_read() {
    use png::{BitDepth, ColorType};
    let write = |color, depth, data: &[u8], palette: Option<Vec<u8>>| {
        let mut info = png::Info::with_size(64, 64);
        (info.color_type, info.bit_depth) = (color, depth);
        info.palette = palette.map(Into::into);
        let mut out = Vec::new();
        let encoder = png::Encoder::with_info(&mut out, info).expect("sound");
        let mut writer = encoder.write_header().expect("writes");
        writer.write_image_data(data).expect("writes");
        writer.finish().expect("writes");
        out
    };
    let picture = quarters(64, 64);
    let deep: Vec<u8> = picture.pixels().iter().flat_map(|sample| [*sample, 7]).collect();
    let quarter = |at: usize| (u8::from(at % 64 >= 32)) + 2 * u8::from(at / 64 >= 32);
    let indices: Vec<u8> = (0..64 * 64).map(quarter).collect();
    let palette = vec![220, 30, 30, 30, 200, 30, 30, 30, 220, 250, 250, 250];
    for file in [
        write(ColorType::Rgb, BitDepth::Eight, picture.pixels(), None),
        write(ColorType::Rgb, BitDepth::Sixteen, &deep, None),
        write(ColorType::Indexed, BitDepth::Eight, &indices, Some(palette)),
    ] {
        check(&must_run(&file, "w:16"), "rgbw", "png");
        assert!(run(&file[..file.len() / 2], "w:16").is_err(), "half a PNG is none");
    }
    let grey = write(ColorType::Grayscale, BitDepth::Sixteen, &[128; 64 * 64 * 2], None);
    assert_eq!(must_run(&grey, "w:16").pixel(3, 3), [128, 128, 128]);
}

#[test]
fn transparency_is_kept_or_laid_over_the_background() {
    let mut picture = Picture::filled(64, 64, &[0, 0, 0, 0]);
    picture.put(&Picture::filled(32, 64, &[220, 30, 30, 255]), 0, 0);
    let png = to_png(&picture);
    assert_eq!(must_run(&png, "w:32").pixel(30, 10)[3], 0);
    assert_eq!(must_run(&png, "w:32/f:webp").pixel(30, 10)[3], 0);
    let near = |picture: &Picture, wanted: [u8; 3]| {
        picture
            .pixel(28, 10)
            .iter()
            .zip(wanted)
            .all(|(sample, wanted)| sample.abs_diff(wanted) < 8)
    };
    assert!(near(&must_run(&png, "w:32/f:jpg"), [255, 255, 255]));
    assert!(near(&must_run(&png, "w:32/f:jpg/bg:0000ff"), [0, 0, 255]));
    assert!(near(&must_run(&png, "w:32/bg:00ff00"), [0, 255, 0]));
    #[cfg(feature = "avif")]
    assert!(must_run(&png, "w:32/f:avif").pixel(28, 10)[3] < 10);
}

#[test]
fn canvases_grow_by_extension_and_padding() {
    let png = to_png(&quarters(40, 40));
    let picture = must_run(&png, "rs:fit:100:60:0:1:so/f:png");
    assert_eq!((picture.width(), picture.height()), (100, 60));
    assert_eq!(picture.pixel(5, 5)[3], 0);
    assert_eq!(&picture.pixel(35, 30)[..3], [220, 30, 30]);
    let picture = must_run(&png, "pd:1:2:3:4/bg:010203");
    assert_eq!((picture.width(), picture.height()), (46, 44));
    assert_eq!(
        (picture.pixel(3, 5), picture.pixel(4, 1)),
        (&[1, 2, 3][..], &[220, 30, 30][..])
    );
    let picture = must_run(&png, "rs:fit:80:40/exar:1");
    assert_eq!((picture.width(), picture.height()), (80, 40));
}

#[test]
fn borders_are_trimmed_and_marks_are_laid_over() {
    let mut framed = Picture::filled(100, 80, &[255, 255, 255]);
    framed.put(&quarters(60, 40).cut(0, 0, 60, 40), 10, 20);
    let picture = must_run(&to_png(&framed), "t:10/f:png");
    assert_eq!((picture.width(), picture.height()), (60, 40));
    let marked = must_run(&to_png(&quarters(100, 100)), "wm:1:soea:5:5");
    assert_eq!(marked.pixel(90, 90), [0, 0, 0]);
    assert_eq!(marked.pixel(96, 96), [250, 250, 250]);
}

#[test]
fn filters_do_what_they_say() {
    let png = to_png(&quarters(64, 64));
    let soft = must_run(&png, "bl:5");
    assert!(soft.pixel(32, 10)[0] > 60 && soft.pixel(32, 10)[1] > 60);
    let coarse = must_run(&png, "pix:10");
    assert_eq!(coarse.pixel(0, 0), coarse.pixel(9, 9));
    assert_ne!(
        run(&png, "sh:2").expect("works").bytes,
        run(&png, "w:0").expect("works").bytes
    );
}

#[test]
fn sizes_in_bytes_are_kept_to() {
    let noisy = Picture::new(
        200,
        200,
        Samples::Rgb,
        (0..120_000u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect(),
    )
    .expect("fits");
    let png = to_png(&noisy);
    let large = run(&png, "f:jpg/q:95").expect("works").bytes.len();
    for format in ["jpg", "webp"] {
        let small = run(&png, &format!("f:{format}/q:95/mb:{}", large / 2))
            .expect("works")
            .bytes
            .len();
        assert!(small <= large / 2, "{format}: {small} of {large}");
    }
}

#[test]
fn animations_stay_animations() {
    let frames: Vec<Frame> = [[220, 30, 30, 255], [30, 200, 30, 255], [30, 30, 220, 255]]
        .map(|color| Frame {
            picture: Picture::filled(60, 40, &color),
            delay_ms: 100,
        })
        .into();
    let settings = webp::Settings {
        quality: 90,
        method: 2,
        lossless: true,
    };
    let gif = gif::encode_frames(&frames, 0).expect("encodes");
    let webp = webp::encode_frames(&frames, 0, settings).expect("encodes");
    for source in [&gif, &webp] {
        for format in ["gif", "webp"] {
            let output = run(source, &format!("w:30/f:{format}")).expect("works");
            let info = header::read(&output.bytes, 100).expect("sound");
            assert_eq!((info.frames, info.width, info.height), (3, 30, 20), "{format}");
        }
        let still = run(source, "w:30/f:jpg").expect("works");
        assert_eq!(header::read(&still.bytes, 100).expect("sound").frames, 1);
        assert!(decode(&still.bytes).pixel(5, 5)[0] > 200, "the first frame");
        let two = run(source, "w:30/maf:2").expect("works");
        assert_eq!(header::read(&two.bytes, 100).expect("sound").frames, 2);
    }
    // A client that takes AVIF and WebP gets what can move.
    let (options, defaults) = (options("w:30"), defaults());
    let job = Job {
        bytes: &gif,
        options: &options,
        defaults: &defaults,
        accepted: &[Format::Avif, Format::Webp],
        cancelled: &|| false,
    };
    assert_eq!(job.run().expect("works").format, Format::Webp);
}

#[test]
fn drawings_are_sharp_at_any_size() {
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg' width='20' height='20'><rect width='10' height='10' fill='#dc1e1e'/>\
                <rect x='10' width='10' height='10' fill='#1ec81e'/><rect y='10' width='10' height='10' fill='#1e1edc'/>\
                <rect x='10' y='10' width='10' height='10' fill='#fafafa'/></svg>";
    let picture = must_run(svg, "w:400");
    assert_eq!((picture.width(), picture.height()), (400, 400));
    check(&picture, "rgbw", "svg");
    assert_eq!(picture.pixel(199, 10), [220, 30, 30], "the edge is sharp");
}

#[test]
fn metadata_goes_but_for_the_copyright() {
    let exif = turned(6);
    let meta = Meta {
        exif: Some(&exif),
        xmp: Some(b"<a tiff:Orientation='6'/>"),
        iptc: Some(b"\x1c\x02\x74\0\x02me"),
        icc: None,
    };
    let jpeg = to_jpeg(&quarters(64, 32), meta, false);
    let stripped = header::read(&run(&jpeg, "w:16").expect("works").bytes, 1).expect("sound");
    assert_eq!((stripped.exif, stripped.xmp, stripped.iptc), (None, None, None));
    for format in ["jpg", "webp", "png"] {
        let kept = run(&jpeg, &format!("w:16/sm:0/f:{format}")).expect("works").bytes;
        let kept_again = header::read(&run(&kept, "sm:0/f:jpg").expect("works").bytes, 1).expect("sound");
        let kept = header::read(&kept, 1).expect("sound");
        for kept in [&kept, &kept_again] {
            assert_eq!(kept.xmp.as_deref(), Some(&b"<a tiff:Orientation='1'/>"[..]), "{format}");
        }
        let is_jpeg = format == "jpg";
        assert_eq!(kept.iptc.as_deref(), meta.iptc.filter(|_| is_jpeg), "{format}");
        let as_it_was = run(&jpeg, &format!("w:16/sm:0/ar:0/f:{format}")).expect("works").bytes;
        let as_it_was = header::read(&as_it_was, 1).expect("sound");
        assert_eq!(
            (as_it_was.orientation, as_it_was.xmp.as_deref()),
            (6, meta.xmp),
            "{format}: not turned"
        );
        assert_eq!(
            (kept.exif.is_some(), kept.orientation),
            (true, 1),
            "{format}: turned, and told so"
        );
    }
}

/// A TIFF of four pixels in each direction with words, a packet and records, as scanners write them.
fn tiff_with_words() -> Vec<u8> {
    let (words, packet, records) = (b"somebody\0", b"<a/>x", b"\x1c\x02\x74\0\x03him");
    let mut file = b"II*\0\x08\0\0\0\x0d\0".to_vec();
    let data = 10 + 13 * 12 + 4u32;
    let entries: [(u16, u16, u32, u32); 13] = [
        (256, 4, 1, 4),
        (257, 4, 1, 4),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, 1, data + 22),
        (274, 3, 1, 6),
        (277, 3, 1, 1),
        (278, 4, 1, 4),
        (279, 4, 1, 16),
        (700, 1, packet.len() as u32, data + 9),
        (33_432, 2, words.len() as u32, data),
        (33_723, 7, records.len() as u32, data + 14),
    ];
    for (tag, kind, count, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file.extend_from_slice(words);
    file.extend_from_slice(packet);
    file.extend_from_slice(records);
    file.extend([200; 16]);
    file
}

#[test]
fn a_tiff_tells_who_made_it() {
    let file = tiff_with_words();
    let kept = header::read(&run(&file, "sm:0/f:jpg").expect("works").bytes, 1).expect("sound");
    assert_eq!((kept.orientation, kept.xmp.as_deref()), (1, Some(&b"<a/>x"[..])));
    assert_eq!(kept.iptc.as_deref(), Some(&b"\x1c\x02\x74\0\x03him"[..]));
    assert_eq!(exif::copyright(&kept.exif.expect("is there")), exif::copyright(&file));
    let stripped = header::read(&run(&file, "sm:1/kcr:1/f:jpg").expect("works").bytes, 1).expect("sound");
    assert_eq!(stripped.exif, exif::copyright(&file), "the copyright alone");
}

#[test]
fn work_stops_when_nobody_waits() {
    let png = to_png(&quarters(64, 64));
    let options = options("w:16");
    let job = Job {
        bytes: &png,
        options: &options,
        defaults: &defaults(),
        accepted: &[],
        cancelled: &|| true,
    };
    assert!(matches!(job.run(), Err(Error::Cancelled)));
}
