//! Rules over Rust source.

use super::{Fault, File, Rule};

/// Beyond this, a file holds a second idea.
const LINES_MAX: usize = 800;
/// Tests that stand in a file of their own may be longer: a row of cases is read one by one.
const TEST_LINES_MAX: usize = 1000;

/// Markers of work left undone, and macros that end a process where a feature should be. Spelt in parts, so that this file
/// passes its own rule.
const OPEN_ENDS: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("HA", "CK"),
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
];

pub fn rules() -> Vec<Rule> {
    vec![
        Rule {
            name: "file-size",
            reason: "a file near 800 lines holds a second idea; find it and give it a file of its own",
            find: file_size,
        },
        Rule {
            name: "module-doc",
            reason: "a file opens with what it is for (`//!`), so that a newcomer can decide whether to read on",
            find: module_doc,
        },
        Rule {
            name: "open-end",
            reason: "an open end in the code is forgotten; finish it, or write an issue and say in prose what is not there",
            find: open_end,
        },
        Rule {
            name: "unwrap",
            reason: "`unwrap()` does not say why it holds, and on bytes from outside it is a crash that others trigger; return an \
                     error or write `expect(\"why it holds\")`",
            find: unwrap,
        },
        Rule {
            name: "allow-reason",
            reason: "a lint is switched off, or a test ignored, for a reason, and the reason stands beside it",
            find: allow_reason,
        },
        Rule {
            name: "safety",
            reason: "`unsafe` is a promise to the compiler; the `SAFETY:` comment above is where the promise is made",
            find: safety,
        },
        Rule {
            name: "bounded-queue",
            reason: "an unbounded queue is an outage with a delay; where one is right, a comment says what bounds it",
            find: bounded_queue,
        },
        Rule {
            name: "print",
            reason: "libraries log through tracing; data on stdout belongs to the binaries alone",
            find: print,
        },
        Rule {
            name: "glossary",
            reason: "one word per thing: the list is docs/glossary.md (region, peer, store and no others)",
            find: glossary,
        },
    ]
}

fn file_size(file: &File) -> Vec<Fault> {
    let lines = file.text.lines().count();
    let max = if file.path.ends_with("tests.rs") {
        TEST_LINES_MAX
    } else {
        LINES_MAX
    };
    match file.is_rust() && lines > max {
        true => vec![Fault {
            line: lines,
            what: format!("{lines} lines, wanted at most {max}"),
        }],
        false => vec![],
    }
}

fn module_doc(file: &File) -> Vec<Fault> {
    let is_module =
        file.is_rust() && file.path.contains("src/") && !file.path.ends_with("tests.rs") && !file.path.contains("/tests/");
    match is_module && !file.text.starts_with("//!") {
        true => vec![Fault {
            line: 1,
            what: "does not open with `//!`".into(),
        }],
        false => vec![],
    }
}

fn open_end(file: &File) -> Vec<Fault> {
    if !file.is_rust() {
        return vec![];
    }
    faults(file, |line| {
        OPEN_ENDS
            .iter()
            .find(|mark| line.contains(**mark))
            .map(|mark| format!("`{mark}`"))
    })
}

/// Only what ships: tests may unwrap. A poisoned lock means a panic elsewhere, which already ends the process.
fn unwrap(file: &File) -> Vec<Fault> {
    let poison = [
        ".lock().unwrap()",
        ".read().unwrap()",
        ".write().unwrap()",
        ".join().unwrap()",
    ];
    if !ships(file) {
        return vec![];
    }
    shipped_lines(file)
        .filter(|(_, line)| {
            line.contains(".unwrap()") && !poison.iter().any(|allowed| line.contains(allowed)) && !is_comment(line)
        })
        .map(|(line, _)| Fault {
            line,
            what: "`unwrap()`".into(),
        })
        .collect()
}

fn allow_reason(file: &File) -> Vec<Fault> {
    if !file.is_rust() {
        return vec![];
    }
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = vec![];
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let silences = ["#[allow(", "#![allow(", "#[ignore"]
            .iter()
            .any(|start| code.starts_with(start));
        let explained = line.contains("//") || line.contains("reason =") || line.contains("ignore =");
        let above = index > 0 && is_comment(lines[index - 1]);
        if silences && !explained && !above {
            found.push(Fault {
                line: index + 1,
                what: "no reason beside it".into(),
            });
        }
    }
    found
}

fn safety(file: &File) -> Vec<Fault> {
    if !file.is_rust() {
        return vec![];
    }
    let block = concat!("unsa", "fe {");
    commented(file, |line| line.contains(block), &["SAFETY:"], "no `SAFETY:` comment above")
}

fn bounded_queue(file: &File) -> Vec<Fault> {
    let makers = [
        concat!("unbounded", "_channel("),
        concat!("unbounded", "()"),
        concat!("mpsc::chan", "nel()"),
    ];
    if !ships(file) {
        return vec![];
    }
    commented(
        file,
        |line| makers.iter().any(|maker| line.contains(maker)),
        &["ounded by", "bounds it", "at most"],
        "no comment says what bounds it",
    )
}

fn print(file: &File) -> Vec<Fault> {
    let libraries = ["base", "proto", "engine", "raftstore", "pd", "client", "txn", "copr"];
    if !libraries
        .iter()
        .any(|name| file.path.starts_with(&format!("crates/{name}/src/")))
        || file.path.contains("/bin/")
    {
        return vec![];
    }
    shipped_lines(file)
        .filter(|(_, line)| (line.contains("println!(") || line.contains("print!(")) && !is_comment(line))
        .map(|(line, _)| Fault {
            line,
            what: "prints".into(),
        })
        .collect()
}

fn glossary(file: &File) -> Vec<Fault> {
    // There the word is of Redis Cluster's wire.
    if !file.is_rust() || file.path.starts_with("services/cache-proxy/") {
        return vec![];
    }
    let words = [concat!("sha", "rd"), concat!("sha", "rds")];
    faults(file, |line| {
        let mut found = line
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|word| words.contains(word));
        found.next().map(|word| format!("`{word}`"))
    })
}

/// Code that ends up in a binary of ours.
fn ships(file: &File) -> bool {
    let test = file.path.contains("/tests/") || file.path.ends_with("tests.rs") || file.path.contains("/examples/");
    file.is_rust()
        && (file.path.starts_with("crates/") || file.path.starts_with("services/"))
        && file.path.contains("/src/")
        && !test
}

/// Lines before the unit tests, which stand at the end of a file.
fn shipped_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    file.lines()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]") && !line.starts_with("mod tests {"))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// A fault wherever `judge` finds something to say about a line.
fn faults(file: &File, judge: impl Fn(&str) -> Option<String>) -> Vec<Fault> {
    file.lines()
        .filter_map(|(line, text)| judge(text).map(|what| Fault { line, what }))
        .collect()
}

/// A fault at each shipped line that `matches` and has none of `words` on it or in the four lines above.
fn commented(file: &File, matches: impl Fn(&str) -> bool, words: &[&str], what: &str) -> Vec<Fault> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = vec![];
    for (line, text) in shipped_lines(file) {
        let above = &lines[line.saturating_sub(5)..line];
        let said = above.iter().any(|near| words.iter().any(|word| near.contains(word)));
        if matches(text) && !is_comment(text) && !said {
            found.push(Fault {
                line,
                what: what.to_owned(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::must_find;

    const PATH: &str = "crates/engine/src/x.rs";

    #[test]
    fn unwrap_is_a_fault_in_code_that_ships_only() {
        let text =
            "//! x\nfn f() {\n  a.unwrap();\n  b.lock().unwrap();\n  // a.unwrap()\n}\n#[cfg(test)]\nmod tests { c.unwrap() }\n";
        assert_eq!(must_find(rules(), "unwrap", PATH, text), [3]);
        assert!(must_find(rules(), "unwrap", "crates/engine/tests/x.rs", text).is_empty());
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(must_find(rules(), "module-doc", PATH, "use x;\n"), [1]);
        assert!(must_find(rules(), "module-doc", PATH, "//! Holds x.\n").is_empty());
    }

    #[test]
    fn a_silenced_lint_has_its_reason() {
        let text = "#[allow(dead_code)]\nfn f() {}\n#[allow(dead_code)] // used by the other feature\nfn g() {}\n";
        assert_eq!(must_find(rules(), "allow-reason", PATH, text), [1]);
    }

    #[test]
    fn unsafe_blocks_make_their_promise() {
        let block = concat!("unsa", "fe { x() }");
        let text = format!("fn f() {{\n {block}\n}}\n\n\n\n\n// SAFETY: x has no precondition.\n{block}\n");
        assert_eq!(must_find(rules(), "safety", PATH, &text), [2]);
    }

    #[test]
    fn unbounded_queues_say_what_bounds_them() {
        let maker = concat!("unbounded", "_channel();");
        let text = format!("let a = {maker}\n\n\n\n\n// Bounded by the callers, one message each.\nlet b = {maker}\n");
        assert_eq!(must_find(rules(), "bounded-queue", PATH, &text), [1]);
    }

    #[test]
    fn open_ends_and_long_files_are_found() {
        let text = format!("//! x\n// {} later\n", OPEN_ENDS[0]);
        assert_eq!(must_find(rules(), "open-end", PATH, &text), [2]);
        assert_eq!(
            must_find(rules(), "file-size", PATH, &"x\n".repeat(LINES_MAX + 1)),
            [LINES_MAX + 1]
        );
    }

    #[test]
    fn other_words_for_a_region_are_found() {
        let text = format!("let {}_count = 1;\nlet sharded = 2;\n", concat!("sha", "rd"));
        assert_eq!(must_find(rules(), "glossary", PATH, &text), [1]);
    }
}
