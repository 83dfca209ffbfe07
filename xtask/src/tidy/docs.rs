//! Rules over every text: no places that only exist on one machine, no dead links, clean ends of lines.

use std::path::Path;

use super::{Fault, File, Rule};
use crate::workspace;

pub fn rules() -> Vec<Rule> {
    vec![
        Rule {
            name: "machine-path",
            reason: "a path of one person's machine means nothing on the next; paths are relative, from HOME, or temporary",
            find: machine_path,
        },
        Rule {
            name: "private-host",
            reason: "a host of a private network means nothing elsewhere and tells others about ours",
            find: private_host,
        },
        Rule {
            name: "registry",
            reason: "every crate comes from the standard registry, so that the lock file works on every machine",
            find: registry,
        },
        Rule {
            name: "dead-link",
            reason: "a link into the checkout that leads nowhere costs each reader the same minute",
            find: dead_link,
        },
        Rule {
            name: "line-end",
            reason: "blanks at ends of lines, tabs for indent and files without a last newline make noise in every later diff",
            find: line_end,
        },
    ]
}

/// Home directories. Spelt in parts, so that this file passes its own rule.
fn machine_path(file: &File) -> Vec<Fault> {
    let homes = [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    file.lines()
        .filter_map(|(line, text)| homes.iter().find(|home| text.contains(**home)).map(|home| (line, home)))
        .map(|(line, home)| Fault {
            line,
            what: format!("path under {home}"),
        })
        .collect()
}

fn private_host(file: &File) -> Vec<Fault> {
    let endings = [".internal", ".corp", ".lan", ".intranet"];
    let mut found = vec![];
    for (line, text) in file.lines() {
        for rest in text.split("://").skip(1) {
            let host: &str = rest
                .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'))
                .next()
                .unwrap_or_default();
            if endings.iter().any(|ending| host.ends_with(ending)) {
                found.push(Fault {
                    line,
                    what: format!("host {host}"),
                });
            }
        }
    }
    found
}

fn registry(file: &File) -> Vec<Fault> {
    if !file.path.ends_with("Cargo.lock") && !file.path.ends_with("config.toml") {
        return vec![];
    }
    let standard = "registry+https://github.com/rust-lang/crates.io-index";
    file.lines()
        .filter(|(_, text)| (text.contains("registry+") || text.contains("replace-with")) && !text.contains(standard))
        .map(|(line, text)| Fault {
            line,
            what: text.trim().to_owned(),
        })
        .collect()
}

fn dead_link(file: &File) -> Vec<Fault> {
    if !file.path.ends_with(".md") {
        return vec![];
    }
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
    let mut found = vec![];
    let mut is_code = false;
    for (line, text) in file.lines() {
        is_code ^= text.starts_with("```");
        let links = if is_code { "" } else { text };
        for rest in links.split("](").skip(1) {
            let link = rest
                .split(')')
                .next()
                .unwrap_or_default()
                .split('#')
                .next()
                .unwrap_or_default();
            let outside = link.is_empty() || link.contains("://") || link.starts_with("mailto:");
            if !outside && !workspace::root().join(folder).join(link).exists() {
                found.push(Fault {
                    line,
                    what: format!("no file {link}"),
                });
            }
        }
    }
    found
}

fn line_end(file: &File) -> Vec<Fault> {
    let ours = [".rs", ".md", ".toml", ".proto", "run"]
        .iter()
        .any(|ending| file.path.ends_with(ending));
    if !ours || file.text.is_empty() {
        return vec![];
    }
    let mut found: Vec<Fault> = file
        .lines()
        .filter(|(_, text)| text.ends_with([' ', '\t']) || text.starts_with('\t'))
        .map(|(line, _)| Fault {
            line,
            what: "blank at the end or a tab at the start".into(),
        })
        .collect();
    if !file.text.ends_with('\n') {
        found.push(Fault {
            line: file.text.lines().count(),
            what: "no newline at the end".into(),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tests::must_find;

    #[test]
    fn home_directories_are_found() {
        let text = format!("fine\nsee {}ann/x\n", concat!("/ho", "me/"));
        assert_eq!(must_find(rules(), "machine-path", "README.md", &text), [2]);
    }

    #[test]
    fn private_hosts_are_found_and_public_ones_are_not() {
        let text = format!(
            "https://example.com/\nhttps://box{}/x\nhttp://127.0.0.1:20180/\n",
            concat!(".inter", "nal")
        );
        assert_eq!(must_find(rules(), "private-host", "README.md", &text), [2]);
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "[a](STYLE.md) [b](https://example.com) [c](#part)\n[d](docs/no-such-file.md)\n```\n[](int e) {}\n```\n";
        assert_eq!(must_find(rules(), "dead-link", "README.md", text), [2]);
    }

    #[test]
    fn other_registries_are_found() {
        let lock = "source = \"registry+https://github.com/rust-lang/crates.io-index\"\nsource = \"registry+https://example.com/index\"\n";
        assert_eq!(must_find(rules(), "registry", "Cargo.lock", lock), [2]);
    }

    #[test]
    fn untidy_ends_of_lines_are_found() {
        assert_eq!(must_find(rules(), "line-end", "a.md", "a \nb"), [1, 2]);
    }
}
