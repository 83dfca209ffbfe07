//! The reference page and the example file, made from the docs of the options.

use std::fmt::Write;

use base::options::{OptionDoc, SectionDoc};
use toml::{Table, Value};

use super::{Config, SECTIONS};

/// `config.example.toml`: every option with its doc and its default, commented out.
pub fn example_toml() -> String {
    let mut out = String::from(
        "# Ferrite's configuration with every option at its default. Made from the options' docs by `cargo xtask codegen`.\n\
         # Uncomment what you change; check with `ferrite server --config FILE --check-config`.\n",
    );
    let defaults = defaults();
    for section in SECTIONS {
        let _ = write!(out, "\n# {}\n[{}]\n", paragraph(section.lines), section.name);
        for option in section.options {
            let _ = writeln!(out);
            for line in option.lines {
                let _ = writeln!(out, "#{line}");
            }
            let _ = writeln!(out, "#{} = {}", option.key(), default_of(&defaults, &section, option));
        }
    }
    out
}

/// `docs/configuration.md`: the reference page.
pub fn reference_page() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Made from the options' docs by `cargo xtask codegen`; change them in crates/server/src/config. -->\n\n\
         Ferrite runs without a configuration file. What it reads, later over earlier: defaults, the TOML file of `--config` (or of the\n\
         variable `FERRITE_CONFIG`), command line flags. Values carry their unit (`\"100ms\"`, `\"64MiB\"`). Unknown keys are refused, so check\n\
         a file ahead of a rollout: `ferrite server --config FILE --check-config` tells every fault and exits 1 if there is one.\n\
         `ferrite server --print-config` prints what a process would run with. [`config.example.toml`](../config.example.toml) lists\n\
         every option with its default.\n",
    );
    let defaults = defaults();
    for section in SECTIONS {
        let _ = write!(
            out,
            "\n## `[{}]`\n\n{}\n\n| option | default | meaning |\n|---|---|---|\n",
            section.name,
            paragraph(section.lines)
        );
        for option in section.options {
            let meaning = paragraph(option.lines).replace('|', "\\|");
            let _ = writeln!(
                out,
                "| `{}` | `{}` | {meaning} |",
                option.key(),
                default_of(&defaults, &section, option)
            );
        }
    }
    out
}

fn paragraph(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

fn defaults() -> Table {
    Table::try_from(Config::default()).expect("every option has a TOML form")
}

fn default_of<'a>(defaults: &'a Table, section: &SectionDoc, option: &OptionDoc) -> &'a Value {
    defaults
        .get(section.name)
        .and_then(|options| options.get(option.key()))
        .expect("every documented option has a default")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Tests run in the directory of their package.
    const ROOT: &str = "../..";

    /// With `BLESS=1` writes the files instead (what `cargo xtask codegen` does).
    fn check_fresh(path: &str, wanted: &str) {
        let file = Path::new(ROOT).join(path);
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, wanted).expect("write a generated file");
            return;
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == wanted,
            "{path} is stale; run: BLESS=1 cargo test -p ferrite-server --lib config::docs"
        );
    }

    #[test]
    fn generated_files_are_fresh() {
        check_fresh("config.example.toml", &example_toml());
        check_fresh("docs/configuration.md", &reference_page());
    }

    #[test]
    fn the_example_uncommented_is_the_default() {
        let text: String = example_toml()
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(option) if !option.starts_with(' ') => format!("{option}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        assert_eq!(Config::parse("example", &text).expect("the example reads"), Config::default());
    }

    #[test]
    fn every_option_tells_when_it_changes() {
        for section in SECTIONS {
            for option in section.options {
                let doc = paragraph(option.lines).to_lowercase();
                assert!(
                    doc.contains("fixed "),
                    "{}.{} does not tell whether it changes at run time",
                    section.name,
                    option.key()
                );
            }
        }
    }
}
