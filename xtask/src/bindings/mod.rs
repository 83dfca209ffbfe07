//! `bindings`: the clients of all languages, built, taken through one suite, and packed for users.

mod database;
mod examples;
mod languages;
mod package;
mod tools;

use anyhow::Result;

use self::database::Database;
pub use self::languages::Language;
use crate::stage::{self, Outcome, Report};
use crate::workspace::{self, Profile};

/// Calls after which a leak of Java's would show.
const LEAKS_CALLS: u32 = 1_000_000;

/// Build the clients of all languages and run the conformance suite in each.
///
///   cargo xtask bindings test                    all languages, against a cluster of real processes; and their examples
///   cargo xtask bindings test --language python  one of them, beside Rust
///   cargo xtask bindings build                   only build: all lies in target/bindings/debug
///   cargo xtask bindings package                 wheel, jar, npm and CMake packages in target/bindings/packages, each installed
///                                                in an empty folder and tried
///   cargo xtask bindings soak                    load with a store restarted again and again
///
/// The cases are in tests/conformance; the table that is printed has a row for each and a column
/// for each language. Exit code 1 if it is not all green, 2 if the machine lacks something, which
/// is named (and installed first, where that needs nobody's leave).
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Build them.
    Build(Which),
    /// Build them, run the suite and the examples, and check the types.
    Test {
        #[command(flatten)]
        which: Which,
        /// Only cases whose name holds this.
        #[arg(long)]
        case: Option<String>,
        /// Leave out mypy and tsc, which come from the registries of Python and npm.
        #[arg(long)]
        no_types: bool,
    },
    /// Build what users install, in release, and try each package from an empty folder.
    Package(Which),
    /// 64 calls in flight with every answer checked, while a store is restarted again and again: no wrong answer, no hang, no leak.
    Soak {
        #[command(flatten)]
        which: Which,
        /// Operations of each language.
        #[arg(long, default_value_t = 200_000)]
        operations: u64,
        /// The long form: 10 million operations of each language.
        #[arg(long, conflicts_with = "operations")]
        long: bool,
        /// Seconds from one restart of a store to the next.
        #[arg(long, default_value_t = 30)]
        restart_every: u64,
        /// Build without optimisation, as the tests do.
        #[arg(long)]
        dev: bool,
    },
}

#[derive(clap::Args)]
struct Which {
    /// Only these languages.
    #[arg(long = "language")]
    languages: Vec<Language>,
}

impl Which {
    fn languages(&self) -> &[Language] {
        match self.languages.is_empty() {
            true => &Language::ALL,
            false => &self.languages,
        }
    }
}

pub fn run(args: &Args) -> Result<bool> {
    let mut report = Report::new("bindings");
    match &args.verb {
        Verb::Build(which) => {
            build(&mut report, Profile::Dev, which.languages())?;
        }
        Verb::Test { which, case, no_types } => {
            if !no_types {
                Language::require_all(which.languages())?;
            }
            test(&mut report, which.languages(), case.as_deref(), LEAKS_CALLS)?;
            for language in which.languages().iter().filter(|_| !no_types) {
                types(&mut report, *language);
            }
        }
        Verb::Package(which) => {
            Language::require_all(which.languages())?;
            for language in which.languages() {
                report.stage(&format!("package of {}", language.name()), || {
                    package::make_and_try(*language)
                });
            }
        }
        Verb::Soak {
            which,
            operations,
            long,
            restart_every,
            dev,
        } => {
            let profile = if *dev { Profile::Dev } else { Profile::Release };
            let operations = if *long { 10_000_000 } else { *operations };
            if build(&mut report, profile, which.languages())? {
                report.stage("soak", || soak(profile, which.languages(), operations, *restart_every));
            }
        }
    }
    Ok(report.finish())
}

/// Builds the server, the suite and the clients of `languages` with their programs; whether all could be built.
pub fn build(report: &mut Report, profile: Profile, languages: &[Language]) -> Result<bool> {
    Language::require(languages)?;
    let mut is_built = false;
    report.stage("build the clients", || {
        languages::build(profile, languages)?;
        is_built = true;
        Ok(Outcome::Passed)
    });
    Ok(is_built)
}

/// Builds the clients of all languages and takes them through what continuous integration runs. A language that the machine cannot be given is told, and
/// left out: the database must not go untested for want of a compiler of Java.
pub fn short_test(report: &mut Report) -> Result<()> {
    let mut found = Vec::new();
    for language in Language::ALL {
        match Language::require(&[language]) {
            Ok(()) => found.push(language),
            Err(error) => report.stage(&format!("client of {}", language.name()), || {
                Ok(Outcome::Skipped(format!("{error:#}")))
            }),
        }
    }
    test(report, &found, None, LEAKS_CALLS / 10)
}

/// Builds the clients of languages and takes them through the suite and their examples, and that of Java through calls enough to see a leak.
fn test(report: &mut Report, languages: &[Language], case: Option<&str>, leaks_calls: u32) -> Result<()> {
    if build(report, Profile::Dev, languages)? {
        report.stage("conformance of the clients", || conformance(languages, case));
        report.stage("examples of the clients", || examples::run(Profile::Dev, languages));
        if languages.contains(&Language::Java) {
            report.stage("leaks of java", || leaks(leaks_calls));
        }
    }
    Ok(())
}

/// Whether Java's heap and the handles that it holds are as they were, after so many calls.
fn leaks(calls: u32) -> Result<Outcome> {
    let built = languages::out(Profile::Dev).join("java");
    let database = Database::start(Profile::Dev)?;
    let class_path = format!("{0}/ferrite-client.jar:{0}/tests", built.display());
    let mut command = std::process::Command::new("java");
    command.args([
        "-cp",
        &class_path,
        "io.ferrite.client.Leaks",
        &database.endpoint,
        &calls.to_string(),
    ]);
    stage::run(&mut command)
}

/// Arguments that tell a program of ours how to start `program` of each language: `--runner python=python3 …`.
pub fn runners(profile: Profile, languages: &[Language], program: &str) -> Vec<String> {
    let runner = |language: &Language| format!("{}={}", language.name(), language.command(profile, program));
    languages
        .iter()
        .flat_map(|language| ["--runner".to_owned(), runner(language)])
        .collect()
}

fn conformance(languages: &[Language], case: Option<&str>) -> Result<Outcome> {
    let mut command = suite(Profile::Dev, "run");
    command.args(runners(Profile::Dev, languages, "conformance"));
    if let Some(case) = case {
        command.args(["--only", case]);
    }
    stage::run(&mut command)
}

fn soak(profile: Profile, languages: &[Language], operations: u64, restart_every: u64) -> Result<Outcome> {
    let mut command = suite(profile, "soak");
    command.args(["--operations", &operations.to_string()]);
    command.args(["--restart-every", &format!("{restart_every}s")]);
    command.args(runners(profile, languages, "load"));
    stage::run(&mut command)
}

/// The program that drives runners against a cluster of real processes.
fn suite(profile: Profile, verb: &str) -> std::process::Command {
    let mut command = std::process::Command::new(workspace::binary(profile, "ferrite-conformance"));
    command.current_dir(workspace::root()).arg(verb);
    command.arg("--ferrite").arg(workspace::binary(profile, "ferrite"));
    command
}

/// Type stubs by the checkers of their languages. Without a network these cannot be had: then it is said.
fn types(report: &mut Report, language: Language) {
    let lacking = |error: anyhow::Error| Ok(Outcome::Skipped(format!("{error:#}")));
    match language {
        Language::Python => report.stage("types of python", || match tools::python("mypy") {
            Ok(mypy) => stage::run(std::process::Command::new(mypy).current_dir(workspace::root().join("bindings/python"))),
            Err(error) => lacking(error),
        }),
        Language::Node => report.stage("types of node", || match tools::node() {
            Ok(modules) => stage::run(&mut tools::tsc(&modules, Profile::Dev)),
            Err(error) => lacking(error),
        }),
        Language::C | Language::Cpp | Language::Java => {}
    }
}
