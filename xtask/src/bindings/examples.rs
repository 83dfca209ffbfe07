//! The examples of each language, run one after the other against a database of their own; each looks at what it did.

use std::process::Command;

use anyhow::{Context, Result};

use super::database::Database;
use super::languages::{self, Language};
use crate::stage::{self, Outcome};
use crate::workspace::{self, Profile};

/// Runs the examples of a language, which was built.
pub fn run(profile: Profile, language: Language) -> Result<Outcome> {
    let folder = workspace::root().join("bindings").join(language.name()).join("examples");
    let mut examples = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
        examples.push(entry?.path());
    }
    examples.sort();
    let built = languages::out(profile).join(language.name());
    for example in examples {
        let mut command = match language {
            Language::C | Language::Cpp => {
                let program = built.join("example");
                languages::compile(profile, language, &example, &program)?;
                Command::new(program)
            }
            Language::Python => {
                let mut command = Command::new("python3");
                command.arg(&example).env("PYTHONPATH", &built);
                command
            }
            Language::Java => {
                let mut command = Command::new("java");
                command.arg("-cp").arg(built.join("ferrite-client.jar")).arg(&example);
                command
            }
            Language::Node => {
                // A package is found by its name in the folders above the program.
                let modules = built.join("examples/node_modules");
                languages::node_package(profile, &modules.join("ferrite-client"))?;
                let program = built.join("examples").join(example.file_name().context("a file has a name")?);
                languages::copy(&example, &program)?;
                let mut command = Command::new("node");
                command.arg(program);
                command
            }
        };
        let database = Database::start(profile)?;
        stage::must(command.arg(&database.endpoint))?;
    }
    Ok(Outcome::Passed)
}
