//! What drawing an SVG will take, before anything is drawn: a file of a kilobyte can ask for hours (filters over filters, patterns of patterns)
//! and for all memory (layers within layers, tiles larger than the picture). Walks the tree as the renderer does, with the same boxes.

use resvg::tiny_skia::{NonZeroRect, Rect, Transform};
use resvg::usvg::filter::{Filter, Kind};
use resvg::usvg::{ClipPath, Group, Mask, Node, Paint, Path, Pattern, Tree};

/// Work beyond this is refused. About five seconds of one core.
pub const WORK_MAX: u64 = 2 << 30;
/// Memory beyond this is refused.
pub const BYTES_MAX: u64 = 128 << 20;

/// Work that a node costs before a pixel is touched.
const NODE: f64 = 500.0;
/// Dashes of one line that the renderer makes at most.
const DASHES_MAX: f32 = 1e6;
/// And the work of one.
const DASH: f64 = 200.0;

/// Why a drawing is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMuch {
    Work,
    Memory,
}

/// Refuses a drawing of `tree` on `width` times `height` pixels that would take more work or memory than there may be.
pub fn check(tree: &Tree, transform: Transform, width: u32, height: u32) -> Result<(), TooMuch> {
    let mut cost = Cost { work: 0.0 };
    let (width, height) = (width as f32, height as f32);
    // Layers may be larger than the picture, as what lies beside it can be blurred into it.
    let bounds = Rect::from_xywh(-2.0 * width, -2.0 * height, 5.0 * width, 5.0 * height);
    let canvas = Canvas {
        bounds: bounds.ok_or(TooMuch::Memory)?,
        width,
        height,
        held: 0.0,
    };
    let canvas = canvas.holding(canvas.pixels() * 4.0)?;
    cost.children(tree.root(), transform, canvas)
}

/// What is drawn on.
#[derive(Clone, Copy)]
struct Canvas {
    width: f32,
    height: f32,
    /// Layers are cut to it.
    bounds: Rect,
    /// Bytes that it and those below it take.
    held: f64,
}

impl Canvas {
    fn pixels(&self) -> f64 {
        f64::from(self.width) * f64::from(self.height)
    }

    fn holding(self, more: f64) -> Result<Canvas, TooMuch> {
        let held = self.held + more;
        match held <= BYTES_MAX as f64 {
            true => Ok(Canvas { held, ..self }),
            // A length that is no number is refused as well.
            false => Err(TooMuch::Memory),
        }
    }

    /// Width and height of the part of a box that lies within.
    fn visible(&self, rect: Option<Rect>) -> (f64, f64) {
        let Some(rect) = rect else {
            return (f64::from(self.width), f64::from(self.height));
        };
        let width = rect.right().min(self.width) - rect.left().max(0.0);
        let height = rect.bottom().min(self.height) - rect.top().max(0.0);
        // Lines have no width, and edges touch pixels beside them.
        (f64::from(width.max(0.0)) + 2.0, f64::from(height.max(0.0)) + 2.0)
    }
}

struct Cost {
    /// In pixels touched once, a few nanoseconds each.
    work: f64,
}

impl Cost {
    /// Ends the walk too, which is as long as the drawing where patterns hold patterns.
    fn add(&mut self, work: f64) -> Result<(), TooMuch> {
        self.work += work;
        match self.work <= WORK_MAX as f64 {
            true => Ok(()),
            false => Err(TooMuch::Work),
        }
    }

    fn children(&mut self, group: &Group, transform: Transform, canvas: Canvas) -> Result<(), TooMuch> {
        for node in group.children() {
            self.add(NODE)?;
            match node {
                Node::Group(group) => self.group(group, transform.pre_concat(group.transform()), canvas)?,
                Node::Path(path) => self.path(path, transform, canvas)?,
                // Neither is drawn: pictures are not loaded, and there are no fonts.
                Node::Image(_) | Node::Text(_) => (),
            }
        }
        Ok(())
    }

    fn group(&mut self, group: &Group, transform: Transform, canvas: Canvas) -> Result<(), TooMuch> {
        if !group.should_isolate() {
            return self.children(group, transform, canvas);
        }
        let Some((place, layer)) = layer(group.layer_bounding_box(), transform, canvas)? else {
            return Ok(());
        };
        let transform = Transform::from_translate(-place.left(), -place.top()).pre_concat(transform);
        // Cleared, filled, and laid over what is below.
        self.add(layer.pixels() * 5.0)?;
        self.children(group, transform, layer)?;
        for filter in group.filters() {
            self.filter(filter, transform, layer)?;
        }
        if let Some(clip) = group.clip_path() {
            self.clip(clip, transform, layer)?;
        }
        if let Some(mask) = group.mask() {
            self.mask(mask, transform, layer)?;
        }
        Ok(())
    }

    /// What each primitive gives is held until the last one is done.
    fn filter(&mut self, filter: &Filter, transform: Transform, layer: Canvas) -> Result<(), TooMuch> {
        let count = filter.primitives().len() as f64;
        let layer = layer.holding(layer.pixels() * 4.0 * (count + 3.0))?;
        for primitive in filter.primitives() {
            if let Kind::Image(image) = primitive.kind() {
                self.children(image.root(), transform, layer)?;
            }
            self.add(layer.pixels() * weight(primitive.kind(), transform, layer))?;
        }
        Ok(())
    }

    fn clip(&mut self, clip: &ClipPath, transform: Transform, layer: Canvas) -> Result<(), TooMuch> {
        let layer = layer.holding(layer.pixels() * 5.0)?;
        self.add(layer.pixels() * 4.0)?;
        self.clip_children(clip.root(), transform.pre_concat(clip.transform()), layer)?;
        match clip.clip_path() {
            Some(clip) => self.clip(clip, transform, layer),
            None => Ok(()),
        }
    }

    /// Within a clip a group takes a layer only to be clipped itself.
    fn clip_children(&mut self, group: &Group, transform: Transform, layer: Canvas) -> Result<(), TooMuch> {
        for node in group.children() {
            self.add(NODE)?;
            match node {
                Node::Group(group) => {
                    let transform = transform.pre_concat(group.transform());
                    let layer = match group.clip_path() {
                        Some(clip) => {
                            let layer = layer.holding(layer.pixels() * 4.0)?;
                            self.add(layer.pixels() * 5.0)?;
                            self.clip(clip, transform, layer)?;
                            layer
                        }
                        None => layer,
                    };
                    self.clip_children(group, transform, layer)?;
                }
                Node::Path(path) => self.path(path, transform, layer)?,
                Node::Image(_) | Node::Text(_) => (),
            }
        }
        Ok(())
    }

    fn mask(&mut self, mask: &Mask, transform: Transform, layer: Canvas) -> Result<(), TooMuch> {
        let layer = layer.holding(layer.pixels() * 6.0)?;
        self.add(layer.pixels() * 6.0)?;
        self.children(mask.root(), transform, layer)?;
        match mask.mask() {
            Some(mask) => self.mask(mask, transform, layer),
            None => Ok(()),
        }
    }

    fn path(&mut self, path: &Path, transform: Transform, canvas: Canvas) -> Result<(), TooMuch> {
        let edges = Edges::new(path, transform, canvas);
        if let Some(fill) = path.fill() {
            self.paint(fill.paint(), transform, canvas)?;
            self.scan(canvas.visible(path.bounding_box().transform(transform)), edges)?;
        }
        if let Some(stroke) = path.stroke() {
            self.paint(stroke.paint(), transform, canvas)?;
            let dashes = stroke.dasharray().map_or(0.0, |dashes| {
                let mean = dashes.iter().sum::<f32>() / dashes.len() as f32;
                f64::from((length(path) / mean).min(DASHES_MAX))
            });
            self.add(dashes * DASH)?;
            // Each side of a line, with its joins and caps.
            let sides = Edges {
                count: edges.count * 6.0,
                rows: edges.rows * 3.0,
            };
            self.scan(canvas.visible(path.stroke_bounding_box().transform(transform)), sides)?;
        }
        Ok(())
    }

    /// Pixels, the rows of every edge, and where an edge begins its place among those that cross the same row.
    fn scan(&mut self, (width, height): (f64, f64), edges: Edges) -> Result<(), TooMuch> {
        let in_a_row = edges.rows / height;
        self.add(width * height * 1.5 + edges.rows * 10.0 + edges.count * (20.0 + in_a_row * 4.0))
    }

    fn paint(&mut self, paint: &Paint, transform: Transform, canvas: Canvas) -> Result<(), TooMuch> {
        match paint {
            Paint::Pattern(pattern) => self.pattern(pattern, transform, canvas),
            _ => Ok(()),
        }
    }

    /// The tile is drawn whole, for each path anew.
    fn pattern(&mut self, pattern: &Pattern, transform: Transform, canvas: Canvas) -> Result<(), TooMuch> {
        let (x, y) = transform.pre_concat(pattern.transform()).get_scale();
        let tile = Canvas {
            width: (pattern.rect().width() * x).round(),
            height: (pattern.rect().height() * y).round(),
            ..canvas
        };
        let tile = tile.holding(tile.pixels() * 4.0)?;
        self.add(tile.pixels() * 2.0)?;
        self.children(pattern.root(), Transform::from_scale(x, y), tile)
    }
}

/// The lines that a path is made of.
#[derive(Clone, Copy)]
struct Edges {
    count: f64,
    /// Rows of pixels that they cross, all together.
    rows: f64,
}

impl Edges {
    fn new(path: &Path, transform: Transform, canvas: Canvas) -> Edges {
        let row = |x: f32, y: f32| (transform.ky * x + transform.sy * y + transform.ty).clamp(0.0, canvas.height);
        let points = path.data().points();
        let rows = points
            .windows(2)
            .map(|pair| f64::from((row(pair[0].x, pair[0].y) - row(pair[1].x, pair[1].y)).abs()));
        Edges {
            count: path.data().len() as f64,
            rows: rows.sum(),
        }
    }
}

/// The layer of a group and where it lies, if any of it is within what is drawn.
fn layer(rect: NonZeroRect, transform: Transform, canvas: Canvas) -> Result<Option<(Rect, Canvas)>, TooMuch> {
    let Some(rect) = rect.transform(transform) else {
        return Ok(None);
    };
    let bounds = canvas.bounds;
    let place = Rect::from_ltrb(
        (rect.left() - 3.0).max(bounds.left()),
        (rect.top() - 3.0).max(bounds.top()),
        (rect.right() + 3.0).min(bounds.right()),
        (rect.bottom() + 3.0).min(bounds.bottom()),
    );
    let Some(place) = place else { return Ok(None) };
    let layer = Canvas {
        width: place.width(),
        height: place.height(),
        ..canvas
    };
    Ok(Some((place, layer.holding(layer.pixels() * 4.0)?)))
}

/// Work of a primitive for each pixel.
fn weight(kind: &Kind, transform: Transform, layer: Canvas) -> f64 {
    let (x, y) = transform.get_scale();
    match kind {
        Kind::Turbulence(turbulence) => 40.0 * f64::from(turbulence.num_octaves()),
        Kind::ConvolveMatrix(convolve) => 4.0 * convolve.matrix().data().len() as f64,
        // Every pixel looks at all around it.
        Kind::Morphology(morphology) => {
            let columns = (morphology.radius_x().get() * x * 2.0 + 1.0).min(layer.width);
            let rows = (morphology.radius_y().get() * y * 2.0 + 1.0).min(layer.height);
            2.0 * f64::from(columns) * f64::from(rows)
        }
        Kind::DiffuseLighting(_) | Kind::SpecularLighting(_) => 40.0,
        Kind::GaussianBlur(blur) => blurring(blur.std_dev_x().get() * x, blur.std_dev_y().get() * y),
        Kind::DropShadow(shadow) => 10.0 + blurring(shadow.std_dev_x().get() * x, shadow.std_dev_y().get() * y),
        Kind::Merge(merge) => 5.0 * (1.0 + merge.inputs().len() as f64),
        _ => 15.0,
    }
}

/// Narrow blurs are filtered exactly, wide ones by boxes.
fn blurring(deviation_x: f32, deviation_y: f32) -> f64 {
    if deviation_x.min(deviation_y) < 2.0 { 130.0 } else { 40.0 }
}

/// At most the length of a path, by its points, in its own units.
fn length(path: &Path) -> f32 {
    let points = path.data().points();
    points.windows(2).map(|pair| pair[0].distance(pair[1])).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(inner: &str, side: u32) -> Result<(), TooMuch> {
        let svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink' width='100' height='100'>{inner}</svg>"
        );
        let tree = Tree::from_str(&svg, &Default::default()).expect("sound");
        let scale = side as f32 / 100.0;
        check(&tree, Transform::from_scale(scale, scale), side, side)
    }

    /// Each of a few hundred bytes to a few kilobytes.
    #[test]
    fn what_would_take_hours_or_all_memory_is_refused() {
        let filter = |primitive: &str, count: usize| {
            format!(
                "<filter id='f'>{}</filter><rect width='100' height='100' filter='url(#f)'/>",
                primitive.repeat(count)
            )
        };
        let nested = |attribute: &str, depth: usize| {
            let open = format!("<g {attribute}>").repeat(depth);
            format!(
                "{open}<rect x='-300' y='-300' width='900' height='900'/>{}",
                "</g>".repeat(depth)
            )
        };
        let mut patterns = String::new();
        // What would be more levels is refused before (`reach`).
        for level in 0..18 {
            let part = format!("<rect width='9' height='9' fill='url(#p{})'/>", level + 1).repeat(2);
            patterns += &format!("<pattern id='p{level}' width='9' height='9' patternUnits='userSpaceOnUse'>{part}</pattern>");
        }
        patterns += "<pattern id='p18' width='9' height='9' patternUnits='userSpaceOnUse'><rect width='5' height='5'/></pattern>\
                     <rect width='9' height='9' fill='url(#p0)'/>";
        let tile = "<pattern id='t' width='60000' height='60000' patternUnits='userSpaceOnUse'><rect width='60000' height='60000'/></pattern>\
                    <rect width='9' height='9' fill='url(#t)'/>";
        let crossing: String = (0..60_000u32)
            .map(|number| number.wrapping_mul(2_654_435_761))
            .map(|number| format!("L{} {}", (number >> 8) % 100, (number >> 20) % 100))
            .collect();
        let crossing = format!("<path d='M0 0{crossing}'/>");
        let dashes = "<path d='M0 0L100 100' stroke='#000' stroke-dasharray='0.000001'/>".repeat(30);
        for (name, inner, side, wanted) in [
            (
                "octaves",
                filter("<feTurbulence baseFrequency='0.1' numOctaves='5000'/>", 1),
                100,
                TooMuch::Work,
            ),
            (
                "noise over noise",
                filter("<feTurbulence baseFrequency='0.1' numOctaves='10'/>", 20),
                600,
                TooMuch::Work,
            ),
            (
                "wide dilation",
                filter("<feMorphology operator='dilate' radius='90'/>", 1),
                600,
                TooMuch::Work,
            ),
            ("many results", filter("<feFlood/>", 40), 1500, TooMuch::Memory),
            ("layers within layers", nested("opacity='0.5'", 100), 300, TooMuch::Memory),
            (
                "layers one after the other",
                nested("opacity='0.5'", 1).repeat(3000),
                400,
                TooMuch::Work,
            ),
            ("patterns of patterns", patterns, 1000, TooMuch::Work),
            ("a tile larger than memory", tile.into(), 100, TooMuch::Memory),
            ("lines across lines", crossing, 1000, TooMuch::Work),
            ("dashes", dashes, 100, TooMuch::Work),
            ("picture", String::new(), 6000, TooMuch::Memory),
        ] {
            assert_eq!(cost(&inner, side), Err(wanted), "{name}");
        }
    }

    /// As drawing programs write them: a few thousand paths, blurred shadows, masks and patterns.
    #[test]
    fn what_people_draw_is_far_from_it() {
        let paths: String = (0..5000)
            .map(|number| {
                format!(
                    "<path d='M{0} 1c3 {0} 5 9 9 9l4 {0}z' fill='#123' stroke='#456'/>",
                    number % 90
                )
            })
            .collect();
        let shadows =
            "<filter id='f'><feGaussianBlur in='SourceAlpha' stdDeviation='2'/><feOffset dx='2' dy='2'/><feMerge><feMergeNode/>\
                       <feMergeNode in='SourceGraphic'/></feMerge></filter>"
                .to_owned()
                + &"<rect x='10' y='10' width='40' height='30' filter='url(#f)'/>".repeat(30);
        let masks = "<mask id='m'><rect width='80' height='80' fill='#fff'/></mask><clipPath id='c'><circle cx='50' cy='50' r='40'/></clipPath>\
                     <pattern id='p' width='10' height='10' patternUnits='userSpaceOnUse'><circle cx='5' cy='5' r='3'/></pattern>"
            .to_owned()
            + &"<g mask='url(#m)' clip-path='url(#c)' opacity='0.7'><rect width='100' height='100' fill='url(#p)'/></g>".repeat(10);
        let coast: String = (0..100_000u32)
            .map(|number| {
                format!(
                    "L{} {}",
                    number / 1000,
                    (number % 1000) as f32 / 10.0 + (number % 7) as f32 / 50.0
                )
            })
            .collect();
        let coast = format!("<path d='M0 0{coast}' stroke='#456'/>");
        for (name, inner) in [("paths", paths), ("coast", coast), ("shadows", shadows), ("masks", masks)] {
            assert_eq!(cost(&inner, 1000), Ok(()), "{name}");
        }
    }
}
