//! Golden pictures that a person can look at: `cargo xtask gallery thumbnails` runs it. Writes a page with source, result, time and size side by
//! side to the folder that is named.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use base::MonoTime;
use thumbnails::codec::{Meta, gif, jpeg, png};
use thumbnails::config::Config;
use thumbnails::format::Format;
use thumbnails::picture::{Frame, Picture, Samples};
use thumbnails::pipeline::{Defaults, Job};
use thumbnails::{exif, service};

/// What is shown: a title, the source and the options of a URL.
const SHOWN: &[(&str, &str, &str)] = &[
    ("fit", "scene.jpg", "rs:fit:300:300"),
    ("fill, centre", "scene.jpg", "rs:fill:300:300"),
    ("fill, smart", "scene.jpg", "rs:fill:300:300/g:sm"),
    ("fill, focus point", "scene.jpg", "rs:fill:300:300/g:fp:0.1:0.9"),
    ("force", "scene.jpg", "rs:force:300:120"),
    ("crop, south-east", "scene.jpg", "c:0.3:0.3:soea/w:300"),
    ("WebP", "scene.jpg", "w:300/f:webp"),
    ("AVIF", "scene.jpg", "w:300/f:avif"),
    ("PNG", "scene.jpg", "w:300/f:png"),
    ("quality 20", "scene.jpg", "w:300/q:20"),
    ("4000 bytes at most", "scene.jpg", "w:300/mb:4000"),
    ("orientation 6", "turned.jpg", "w:300"),
    ("orientation 6, left alone", "turned.jpg", "w:300/ar:0"),
    ("quarter turn, mirrored", "scene.jpg", "w:300/rot:90/fl:1"),
    ("blur", "scene.jpg", "w:300/bl:6"),
    ("sharpen", "scene.jpg", "w:300/sh:1.5"),
    ("pixelate", "scene.jpg", "w:300/pix:12"),
    ("watermark", "scene.jpg", "w:300/wm:0.8:soea:10:10:0.25"),
    ("watermark, tiles", "scene.jpg", "w:300/wm:0.4:re:20:20:0.15"),
    ("extend", "scene.jpg", "rs:fit:300:300:0:1/bg:dddddd"),
    ("padding", "scene.jpg", "w:260/pd:20:20:40:20/bg:ffffff"),
    ("transparent to JPEG", "holes.png", "w:300/f:jpg/bg:ffcc00"),
    ("transparent to WebP", "holes.png", "w:300/f:webp"),
    ("trim", "framed.png", "t:10/w:300"),
    ("animation to WebP", "moving.gif", "w:200/f:webp"),
    ("animation to GIF", "moving.gif", "w:200"),
    ("drawing", "drawing.svg", "w:300"),
];

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("wanted: the folder to write to")?;
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for (name, bytes) in sources()? {
        std::fs::write(folder.join(name), bytes).with_context(|| format!("write {name}"))?;
    }
    let mut config = Config::default();
    config.url.allow_unsigned = true;
    let mut defaults = service::defaults(&config);
    defaults.watermark = Some(std::sync::Arc::new(mark()));
    let mut rows = String::new();
    // Builds without AVIF leave its row out.
    let is_shown = |options: &str| Format::Avif.is_output() || !options.contains("f:avif");
    for (number, (title, source, options)) in SHOWN.iter().enumerate().filter(|(_, (.., options))| is_shown(options)) {
        rows += &row(folder, &config, &defaults, number, (title, source, options))?;
    }
    let page = format!(
        "<!doctype html><meta charset=utf-8><title>Thumbnails</title><style>body{{font:14px sans-serif;margin:1em;background:#fafafa}}\
         td{{padding:.5em;border-bottom:1px solid #ccc;vertical-align:top}}img{{max-width:320px;background:repeating-conic-gradient(#ccc 0 25%,#fff 0 50%) 0/16px 16px}}\
         code{{background:#eee}}</style><h1>Thumbnails</h1><table><tr><th>what<th>source<th>result</tr>{rows}</table>\n"
    );
    let path = folder.join("index.html");
    std::fs::write(&path, page).context("write the page")?;
    println!("{}", path.display());
    Ok(())
}

fn row(folder: &Path, config: &Config, defaults: &Defaults, number: usize, shown: (&str, &str, &str)) -> anyhow::Result<String> {
    let (title, source, text) = shown;
    let grammar = config.url.grammar().map_err(anyhow::Error::msg)?;
    let asked = grammar
        .read(&format!("/_/{text}/plain/x"), 0)
        .with_context(|| text.to_owned())?;
    let bytes = std::fs::read(folder.join(source)).context("read a source")?;
    let job = Job {
        bytes: &bytes,
        options: &asked.options,
        defaults,
        accepted: &[],
        cancelled: &|| false,
    };
    let start = MonoTime::now();
    let output = job.run().with_context(|| format!("{source} {text}"))?;
    let time = MonoTime::now().since(start);
    let name = format!("{number:02}.{}", output.format.name());
    std::fs::write(folder.join(&name), &output.bytes).context("write a result")?;
    let mut row = String::new();
    write!(
        row,
        "<tr><td><b>{title}</b><br><code>{text}</code><br>{:.1} ms, {} × {}, {} bytes<td><img src={source}><td><img src={name}></tr>",
        time.as_secs_f64() * 1e3,
        output.width,
        output.height,
        output.bytes.len(),
    )?;
    Ok(row)
}

fn sources() -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let settings = jpeg::Settings {
        quality: 92,
        progressive: false,
        full_chroma: false,
    };
    let scene = scene(1600, 1000);
    let exif = exif::with_orientation(6);
    let meta = Meta {
        exif: Some(&exif),
        ..Meta::default()
    };
    let plain = png::Settings { colors: 0 };
    let mut framed = Picture::filled(900, 700, &[250, 250, 250]);
    framed.put(&scene.cut(600, 300, 500, 400), 120, 200);
    let svg = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 60'><defs><linearGradient id='g'><stop stop-color='#08c'/>\
               <stop offset='1' stop-color='#c08'/></linearGradient></defs><rect width='100' height='60' rx='8' fill='url(#g)'/>\
               <path d='M10 50 Q50 -20 90 50' stroke='#fff' stroke-width='3' fill='none'/></svg>";
    Ok(vec![
        ("scene.jpg", jpeg::encode(&scene, settings, Meta::default())?),
        ("turned.jpg", jpeg::encode(&scene.clone().turned(3), settings, meta)?),
        ("holes.png", png::encode(&holes(&scene), plain, Meta::default())?),
        ("framed.png", png::encode(&framed, plain, Meta::default())?),
        ("moving.gif", gif::encode_frames(&moving(), 0)?),
        ("drawing.svg", svg.as_bytes().to_vec()),
    ])
}

/// Sky, hills and a house: something with an up and a down, flat parts and detail.
fn scene(width: u32, height: u32) -> Picture {
    let pixels = (0..height).flat_map(|y| {
        (0..width).flat_map(move |x| {
            let (fx, fy) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
            let noise = f64::from((x.wrapping_mul(73_856_093) ^ y.wrapping_mul(19_349_663)) >> 7 & 15);
            let hill = 0.62 + 0.08 * (fx * 9.0).sin() + 0.04 * (fx * 23.0).sin();
            let sun = ((fx - 0.2).powi(2) + ((fy - 0.22) * 0.625).powi(2)).sqrt();
            let is_wall = (0.68..0.84).contains(&fx) && (0.5..0.72).contains(&fy);
            let is_roof = (fy - 0.36) * 0.8 > (fx - 0.76).abs() && (0.36..0.5).contains(&fy);
            let is_window = is_wall && ((fx - 0.68) * 25.0) as u32 % 2 == 1 && ((fy - 0.5) * 18.0) as u32 % 2 == 1;
            let color = if is_window {
                [250.0, 240.0, 150.0]
            } else if is_roof {
                [170.0, 50.0, 40.0]
            } else if is_wall {
                [220.0, 190.0 - noise, 150.0]
            } else if fy > hill {
                [50.0 + noise * 2.0, 120.0 + 60.0 * (fy - hill) + noise * 2.0, 40.0]
            } else if sun < 0.06 {
                [255.0, 235.0, 140.0]
            } else {
                [100.0 + 120.0 * fy, 160.0 + 70.0 * fy, 235.0]
            };
            color.map(|part| part.clamp(0.0, 255.0) as u8)
        })
    });
    Picture::new(width, height, Samples::Rgb, pixels.collect()).expect("three samples for each place")
}

fn holes(scene: &Picture) -> Picture {
    let mut picture = scene.clone().to_rgba();
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    for (row, y) in picture.rows_mut().zip(0u32..) {
        for (pixel, x) in row.chunks_exact_mut(4).zip(0u32..) {
            let distance = ((f64::from(x) / width - 0.5).powi(2) + (f64::from(y) / height - 0.5).powi(2)).sqrt();
            pixel[3] = ((0.5 - distance) * 4.0 * 255.0).clamp(0.0, 255.0) as u8;
        }
    }
    picture
}

fn moving() -> Vec<Frame> {
    let frames = (0..12).map(|step| {
        let mut picture = Picture::filled(320, 200, &[30, 40, 60, 255]);
        picture.put(&Picture::filled(40, 40, &[240, 180, 40, 255]), step * 25, 80);
        Frame { picture, delay_ms: 80 }
    });
    frames.collect()
}

fn mark() -> Picture {
    let mut mark = Picture::filled(120, 60, &[255, 255, 255, 200]);
    mark.put(&Picture::filled(100, 40, &[200, 30, 60, 255]), 10, 10);
    mark
}
