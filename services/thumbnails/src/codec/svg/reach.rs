//! How many elements a document comes to once every reference is followed, counted before that is done: `use` copies its target, patterns,
//! masks and clips are walked for each that names them, and may name others, so that a kilobyte stands for more than can ever be read.

use std::collections::HashMap;

use resvg::usvg::roxmltree::{Document, Node};
use simplecss::{AttributeOperator, DeclarationTokenizer, PseudoClass, StyleSheet};

/// Elements beyond this are refused. About a second of one core.
const ELEMENTS_MAX: f64 = 1e6;
/// Bytes of attributes that count as one element more.
const TEXT: f64 = 32.0;
/// Elements within elements, references followed.
const DEPTH_MAX: usize = 500;
/// Elements times what is compared with each of them: rules of style, sheets of them, and references in a circle, after each of which that is cut
/// the reader begins anew.
const MATCHES_MAX: usize = 20_000_000;

/// Whether it comes to no more than what there may be.
pub fn is_bounded(document: &Document<'_>) -> bool {
    let elements = document.descendants().count();
    let are_few = |count: usize| count.saturating_mul(elements) <= MATCHES_MAX;
    let sheets = document.descendants().filter(|node| node.has_tag_name("style"));
    // All rules are sorted again for each sheet.
    if !are_few(sheets.clone().count()) {
        return false;
    }
    let mut styles = StyleSheet::new();
    for text in sheets.filter_map(|node| node.text()) {
        styles.parse_more(text);
    }
    if !are_few(styles.rules.len()) {
        return false;
    }
    // Those that name something are all that counts here.
    styles
        .rules
        .retain(|rule| rule.declarations.iter().any(|declaration| declaration.value.contains("url(")));
    let named = document.descendants().filter_map(|node| Some((node.attribute("id")?, node)));
    let mut reach = Reach {
        styles,
        named: named.collect(),
        known: HashMap::new(),
        circles: 0,
    };
    let count = reach.of(document.root_element(), 0);
    count.is_some_and(|count| count <= ELEMENTS_MAX) && are_few(reach.circles)
}

struct Reach<'a, 'input> {
    styles: StyleSheet<'a>,
    named: HashMap<&'a str, Node<'a, 'input>>,
    /// By number of the element; nothing while it is being counted, as what names itself is read once.
    known: HashMap<u32, f64>,
    /// References to an element that is being counted.
    circles: usize,
}

/// What the elements that an element names come to.
#[derive(Default)]
struct Named {
    /// Patterns and markers: for the element and, as that is inherited, for each within it.
    paints: f64,
    /// Copied in its place.
    copies: f64,
    /// Walked once.
    others: f64,
}

impl<'a, 'input> Reach<'a, 'input> {
    /// `None` if it is nested too deeply.
    fn of(&mut self, node: Node<'a, 'input>, depth: usize) -> Option<f64> {
        if let Some(known) = self.known.get(&node.id().get()) {
            self.circles += usize::from(*known == 0.0);
            return Some(*known);
        }
        if depth > DEPTH_MAX {
            return None;
        }
        self.known.insert(node.id().get(), 0.0);
        let mut count = 1.0 + node.attributes().map(|attribute| attribute.value().len() as f64).sum::<f64>() / TEXT;
        for child in node.children().filter(Node::is_element) {
            count += self.of(child, depth + 1)?;
        }
        let named = self.named_by(node, depth)?;
        let count = (count + named.copies) * (1.0 + named.paints) + named.others;
        self.known.insert(node.id().get(), count);
        Some(count)
    }

    fn named_by(&mut self, node: Node<'a, 'input>, depth: usize) -> Option<Named> {
        let mut values: Vec<(&str, &str)> = Vec::new();
        for attribute in node.attributes() {
            values.push((attribute.name(), attribute.value()));
            if attribute.name() == "style" {
                let declarations = DeclarationTokenizer::from(attribute.value());
                values.extend(declarations.map(|declaration| (declaration.name, declaration.value)));
            }
        }
        for rule in self.styles.rules.iter().filter(|rule| rule.selector.matches(&Styled(node))) {
            values.extend(
                rule.declarations
                    .iter()
                    .map(|declaration| (declaration.name, declaration.value)),
            );
        }
        let values: Vec<(String, Node<'a, 'input>)> = values
            .into_iter()
            .flat_map(|(name, value)| references(name, value).map(move |id| (name, id)))
            .filter_map(|(name, id)| Some((name.to_owned(), *self.named.get(id)?)))
            .collect();
        let mut named = Named::default();
        for (name, target) in values {
            let count = self.of(target, depth + 1)?;
            match (&name[..], target.tag_name().name()) {
                ("href", _) => named.copies += count,
                // One gradient is shared by all that name it.
                (_, "linearGradient" | "radialGradient") => (),
                (_, "pattern" | "marker") => named.paints += count,
                _ => named.others += count,
            }
        }
        Some(named)
    }
}

/// Names of elements in a value: all of a link, or those within `url(#…)`.
fn references<'v>(name: &str, value: &'v str) -> impl Iterator<Item = &'v str> + use<'v> {
    let link = (name == "href").then(|| value.trim().strip_prefix('#')).flatten();
    let within = value.split("url(").skip(1).filter_map(|rest| {
        let rest = rest
            .trim_start()
            .trim_start_matches(['"', '\''])
            .trim_start()
            .strip_prefix('#')?;
        let end = rest.find([')', '"', '\''])?;
        Some(rest[..end].trim_end())
    });
    link.into_iter().chain(within)
}

/// An element as rules of style look at it.
struct Styled<'a, 'input>(Node<'a, 'input>);

impl simplecss::Element for Styled<'_, '_> {
    fn parent_element(&self) -> Option<Self> {
        self.0.parent_element().map(Styled)
    }

    fn prev_sibling_element(&self) -> Option<Self> {
        self.0.prev_sibling_element().map(Styled)
    }

    fn has_local_name(&self, name: &str) -> bool {
        self.0.tag_name().name() == name
    }

    fn attribute_matches(&self, name: &str, operator: AttributeOperator<'_>) -> bool {
        self.0.attribute(name).is_some_and(|value| operator.matches(value))
    }

    fn pseudo_class_matches(&self, class: PseudoClass<'_>) -> bool {
        matches!(class, PseudoClass::FirstChild) && self.prev_sibling_element().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(inner: &str) -> bool {
        let svg = format!("<svg xmlns='http://www.w3.org/2000/svg' xmlns:xlink='http://www.w3.org/1999/xlink'>{inner}</svg>");
        is_bounded(&Document::parse(&svg).expect("sound"))
    }

    /// Thirty levels, each of which names the next one twice: thousands of millions of elements of a few kilobytes.
    #[test]
    fn what_names_others_that_name_others_is_refused() {
        let levels = |level: &dyn Fn(usize) -> String| (0..30).map(level).collect::<String>();
        let pattern = |attribute: &'static str| {
            move |level: usize| {
                let part = format!(
                    "<rect class='c{level}' {}/>",
                    attribute.replace('N', &(level + 1).to_string())
                )
                .repeat(2);
                format!("<pattern id='p{level}' width='9' height='9'>{part}</pattern>")
            }
        };
        let rules = levels(&|level| format!(".c{level}{{fill:url(#p{})}}", level + 1));
        for (name, inner) in [
            ("fill", levels(&pattern("fill='url(#pN)'"))),
            ("stroke", levels(&pattern("stroke='url( \"#pN\" )'"))),
            ("style", levels(&pattern("style='fill : url(#pN) none'"))),
            ("rules", format!("<style>{rules}</style>{}", levels(&pattern("")))),
            (
                "inherited",
                levels(&|level| {
                    format!(
                        "<pattern id='p{level}'><g fill='url(#p{})'><rect/><rect/></g></pattern>",
                        level + 1
                    )
                }),
            ),
            (
                "copies",
                levels(&|level| {
                    format!(
                        "<g id='p{level}'>{}</g>",
                        format!("<use xlink:href='#p{}'/>", level + 1).repeat(2)
                    )
                }),
            ),
            (
                "masks",
                levels(&|level| {
                    format!(
                        "<mask id='p{level}'>{}</mask>",
                        format!("<rect mask='url(#p{})'/>", level + 1).repeat(2)
                    )
                }),
            ),
            (
                "filters",
                levels(&|level| {
                    format!(
                        "<g id='p{level}' filter='url(#f{level})'/><filter id='f{level}'>{}</filter>",
                        format!("<feImage href='#p{}'/>", level + 1).repeat(2)
                    )
                }),
            ),
        ] {
            assert!(!check(&inner), "{name}");
        }
        let long = format!(
            "<path id='a' d='{}'/>{}",
            "M0 0L9 9".repeat(10_000),
            "<use href='#a'/>".repeat(1000)
        );
        assert!(!check(&long), "a long path copied often");
        let circles: String = (0..5000)
            .map(|number| format!("<pattern id='p{number}'><rect fill='url(#p{number})'/></pattern>"))
            .collect();
        assert!(!check(&circles), "thousands of circles");
        let rules: String = (0..3000).map(|number| format!(".c{number}{{fill:red}}")).collect();
        let elements = "<rect class='a'/>".repeat(10_000);
        assert!(
            !check(&format!("<style>{rules}</style>{elements}")),
            "every rule with every element"
        );
        assert!(!check(&"<style>a{fill:red}</style>".repeat(5000)), "thousands of sheets");
        assert!(
            !check(
                &"<g>"
                    .repeat(600)
                    .chars()
                    .chain("</g>".repeat(600).chars())
                    .collect::<String>()
            ),
            "deep"
        );
    }

    #[test]
    fn what_people_draw_is_far_from_it() {
        let patterns: String = (0..50)
            .map(|number| format!("<pattern id='p{number}'><circle r='3'/><circle r='4'/></pattern>"))
            .collect();
        let shapes: String = (0..10_000)
            .map(|number| {
                format!(
                    "<path class='c' d='M1 2c3 4 5 6 7 8z' fill='url(#p{})' clip-path='url(#q)'/>",
                    number % 50
                )
            })
            .collect();
        let gradients = "<linearGradient id='l'><stop/><stop/></linearGradient><clipPath id='q'><rect/></clipPath>";
        assert!(check(&format!(
            "<style>.c{{stroke:url(#l)}}</style>{gradients}{patterns}<g fill='url(#l)'>{shapes}</g>"
        )));
        assert!(
            check("<g id='a'><use href='#a'/><rect fill='url(#none)'/></g>"),
            "what names itself is read once"
        );
    }
}
