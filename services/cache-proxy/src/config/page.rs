//! The reference page of all options.

use super::{Config, PoolConfig, SECTIONS};

/// Made from the docs of the options.
pub fn reference_page() -> String {
    let mut page = String::from(
        "# Cache proxy: configuration\n\n<!-- Made from services/cache-proxy/src/config.rs; edit there. -->\n\nThe file of `--config` is \
         TOML. `--check-config` tells every fault, `--print-config` shows the outcome with all defaults. What changes on reload does so on \
         SIGHUP and when the file changes; a file with a fault is refused whole and the old one stays.\n",
    );
    let plain = Config {
        pools: vec![PoolConfig::default()],
        ..Config::default()
    };
    let defaults = toml::Value::try_from(plain).expect("options are plain values");
    for section in SECTIONS {
        page += &format!(
            "\n## [{}]\n\n{}\n\n| option | default | meaning |\n|---|---|---|\n",
            section.name,
            text(section.lines)
        );
        let values = match &defaults[section.name] {
            toml::Value::Array(list) => &list[0],
            table => table,
        };
        for option in section.options {
            let key = option.key();
            page += &format!(
                "| `{key}` | `{}` | {} |\n",
                values[&key],
                text(option.lines).replace('|', "\\|")
            );
        }
    }
    page
}

fn text(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_reference_page_is_fresh() {
        // Tests run in the directory of their package.
        let path = Path::new("../../docs/cache-proxy-configuration.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, reference_page()).expect("writes");
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == reference_page(),
            "docs/cache-proxy-configuration.md is stale; run: BLESS=1 cargo test -p ferrite-cache-proxy --lib page"
        );
    }

    #[test]
    fn every_option_tells_when_it_changes() {
        for section in SECTIONS {
            for option in section.options {
                let text = text(option.lines);
                let tells = ["Fixed at start", "Changes on reload", "Read again on reload"];
                assert!(
                    tells.iter().any(|when| text.contains(when)),
                    "{}.{}",
                    section.name,
                    option.key()
                );
            }
        }
    }
}
