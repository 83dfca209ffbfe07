//! The examples of each language: built, and run by `ferrite-conformance examples`, which looks at what they did.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::languages::{self, Language};
use crate::stage::{self, Outcome};
use crate::workspace::{self, Profile};

/// Runs the examples of languages that were built.
pub fn run(profile: Profile, languages: &[Language]) -> Result<Outcome> {
    let mut command = super::suite(profile, "examples");
    for language in languages {
        for (example, start) in commands(profile, *language)? {
            command.arg("--program").arg(format!("{}/{example}={start}", language.name()));
        }
    }
    stage::run(&mut command)
}

/// Builds the examples of a language; names and commands.
fn commands(profile: Profile, language: Language) -> Result<Vec<(String, String)>> {
    let folder = folder(language);
    let built = languages::out(profile).join(language.name());
    let to = languages::empty(built.join("examples"))?;
    match language {
        Language::Java => {
            let jar = built.join("ferrite-client.jar");
            languages::javac(&[&folder], &jar, &to)?;
        }
        // A package is found by its name in the folders above the program.
        Language::Node => languages::node_package(profile, &to.join("node_modules/ferrite-client"))?,
        _ => {}
    }
    let mut commands = Vec::new();
    for source in sources(&folder, language)? {
        let stem = source.file_stem().context("a file has a name")?.to_string_lossy();
        let program = to.join(&*stem);
        let start = match language {
            Language::C | Language::Cpp => {
                languages::compile(profile, language, &source, &program)?;
                program.display().to_string()
            }
            Language::Python => {
                let path = format!("PYTHONPATH={}", built.display());
                format!("env {path} python3 {}", source.display())
            }
            Language::Java => {
                let jar = built.join("ferrite-client.jar");
                format!("java -cp {}:{} {stem}", jar.display(), to.display())
            }
            Language::Node => {
                let program = program.with_extension("js");
                languages::copy(&source, &program)?;
                format!("node {}", program.display())
            }
        };
        commands.push((snake_case(&stem), start));
    }
    Ok(commands)
}

/// Where a language's examples lie.
pub fn folder(language: Language) -> PathBuf {
    workspace::root().join("bindings").join(language.name()).join("examples")
}

/// Files that are programs; beside them may lie what they share.
fn sources(folder: &Path, language: Language) -> Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        sources.push(entry?.path());
    }
    sources.retain(|path| path.extension().is_some_and(|ending| ending == language.ending()));
    sources.sort();
    Ok(sources)
}

/// One name for an example whatever the habits of its language: `TaskQueue` is `task_queue`.
fn snake_case(stem: &str) -> String {
    let mut name = String::new();
    for letter in stem.chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_have_one_name_in_all_languages() {
        let [one, other] = ["TaskQueue", "task_queue"].map(snake_case);
        assert_eq!((one.as_str(), other.as_str()), ("task_queue", "task_queue"));
    }

    #[test]
    fn every_language_has_the_same_examples() {
        for language in Language::ALL {
            let sources = sources(&folder(language), language).expect("they are there");
            let names = sources
                .iter()
                .map(|path| snake_case(&path.file_stem().expect("a name").to_string_lossy()));
            let mut names: Vec<String> = names.collect();
            names.sort();
            assert_eq!(
                names,
                ["bulk_load", "first", "inventory", "task_queue"],
                "{}",
                language.name()
            );
        }
    }
}
