//! The examples of all languages as their readers run them: against a database, in the clear and over TLS. What they left there is looked at by the
//! Rust client, and what an earlier run would have left is there before, so that each can be run again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::{MonoTime, Ts};
use client::{ClientOptions, KeyRange, RawClient, TlsOptions, TxnClient};
use futures::TryStreamExt;
use tokio::runtime::Runtime;

use crate::table::Table;

/// How long an example may run. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be run.
pub struct Setup {
    /// The binary `ferrite`.
    pub ferrite: PathBuf,
    pub programs: Vec<Program>,
}

/// An example in a language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    pub language: String,
    pub example: String,
    /// Words parted by spaces.
    pub command: String,
}

impl std::str::FromStr for Program {
    type Err = anyhow::Error;

    /// `language/example=command`.
    fn from_str(text: &str) -> Result<Program> {
        let parts = text.split_once('=').and_then(|(name, command)| {
            let (language, example) = name.split_once('/')?;
            Some([language, example, command].map(str::to_owned))
        });
        let [language, example, command] = parts.with_context(|| format!("{text}: wanted LANGUAGE/EXAMPLE=COMMAND"))?;
        Ok(Program {
            language,
            example,
            command,
        })
    }
}

/// What every language has an example of.
struct Example {
    name: &'static str,
    /// The first program takes the address alone, and is no more than a page's first lines; the others take flags, those of TLS among them.
    arguments: Option<&'static [&'static str]>,
    /// What an earlier run left behind: keys without transactions, and keys of transactions.
    left_behind: [&'static [&'static str]; 2],
    check: fn(&Runtime, &Clients) -> Result<()>,
}

static EXAMPLES: [Example; 4] = [
    Example {
        name: "first",
        arguments: None,
        left_behind: [&[], &[]],
        check: has_greeted,
    },
    Example {
        name: "bulk_load",
        arguments: Some(&["--pairs", "3000"]),
        left_behind: [&["bulk/000000007", "bulk/999999999"], &[]],
        check: has_loaded,
    },
    Example {
        name: "inventory",
        arguments: Some(&["--stock", "12", "--buyers", "20"]),
        left_behind: [&[], &["inventory/apples", "inventory/sold/000003", "inventory/sold/999999"]],
        check: has_sold,
    },
    Example {
        name: "task_queue",
        arguments: Some(&["--tasks", "60", "--workers", "6"]),
        left_behind: [&[], &["queue/todo/000003", "queue/todo/999999", "queue/done/999999"]],
        check: has_worked,
    },
];

type Row = BTreeMap<String, Option<String>>;

/// Runs all and prints a table, example by language; whether every language has every example and all did what they say.
pub fn run(setup: &Setup) -> Result<bool> {
    ensure!(!setup.programs.is_empty(), "no program was given");
    let begun = MonoTime::now();
    let runtime = Runtime::new()?;
    let mut languages: Vec<String> = setup.programs.iter().map(|program| program.language.clone()).collect();
    languages.dedup();
    let mut table = Table::new(languages.iter().cloned());
    for tls in [false, true] {
        let examples: Vec<&Example> = EXAMPLES
            .iter()
            .filter(|example| !tls || example.arguments.is_some())
            .collect();
        let mut rows: Vec<Row> = examples.iter().map(|_| Row::new()).collect();
        for language in &languages {
            let database = Database::start(&setup.ferrite, tls)?;
            let clients = runtime.block_on(database.clients())?;
            for (example, row) in examples.iter().zip(&mut rows) {
                let outcome = one(setup, &runtime, &database, &clients, language, example);
                row.insert(language.clone(), outcome.err().map(|error| format!("{error:#}")));
            }
        }
        let suffix = if tls { ", mTLS" } else { "" };
        for (example, row) in examples.iter().zip(rows) {
            table.add(&format!("{}{suffix}", example.name), row);
        }
    }
    let (passed, of) = table.counts();
    print!("{table}");
    println!(
        "{passed} of {of} passed: {} languages, {:.0}s",
        languages.len(),
        MonoTime::now().since(begun).as_secs_f64()
    );
    Ok(table.all_green())
}

fn one(
    setup: &Setup,
    runtime: &Runtime,
    database: &Database,
    clients: &Clients,
    language: &str,
    example: &Example,
) -> Result<()> {
    let of_language = |program: &&Program| program.language == language && program.example == example.name;
    let program = setup
        .programs
        .iter()
        .find(of_language)
        .context("the language has no such example")?;
    runtime.block_on(clients.leave_behind(&example.left_behind))?;
    let mut words = program.command.split_whitespace();
    let mut command = Command::new(words.next().context("the command is empty")?);
    command.args(words);
    match example.arguments {
        None => command.arg(&database.endpoint),
        Some(arguments) => command.args(database.flags()).args(arguments),
    };
    finish(&mut command)?;
    (example.check)(runtime, clients)
}

/// Runs a program to its end; told what it said if that is not a good one.
fn finish(command: &mut Command) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("ferrite-example").tempdir()?;
    let said = dir.path().join("said");
    let output = File::create(&said)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut process = Process(
        command
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?,
    );
    let deadline = MonoTime::now() + PATIENCE;
    let ended = loop {
        match process.0.try_wait()? {
            Some(status) => break Some(status),
            None if MonoTime::now() >= deadline => break None,
            None => std::thread::park_timeout(Duration::from_millis(5)),
        }
    };
    let text = || std::fs::read_to_string(&said).unwrap_or_default();
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("ended with {status}: {}", text()),
        None => bail!("has not ended within {PATIENCE:?}: {}", text()),
    }
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A playground in a process of its own.
struct Database {
    _process: Process,
    endpoint: String,
    /// Paths of the authority, of a client's certificate and of its key.
    tls: Option<[String; 3]>,
    /// Where its data lies, which it does not remove when it is killed.
    _dir: tempfile::TempDir,
}

impl Database {
    fn start(ferrite: &Path, tls: bool) -> Result<Database> {
        let dir = tempfile::Builder::new().prefix("ferrite-example").tempdir()?;
        let mut command = Command::new(ferrite);
        command
            .args([
                "playground",
                "--stores",
                "1",
                "--free-ports",
                "--json",
                "--log-level",
                "error",
                "--data-dir",
            ])
            .arg(dir.path().join("data"));
        command.args(tls.then_some("--tls")).env_remove("FERRITE_CONFIG");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = Process(child.with_context(|| format!("start {}", ferrite.display()))?);
        let out = process.0.stdout.take().context("standard output is a pipe")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let told: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("not where it listens: {line}"))?;
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned).context("a text");
        let files = || -> Result<[String; 3]> {
            let files = &told["tls"];
            Ok([text(&files["ca"])?, text(&files["cert"])?, text(&files["key"])?])
        };
        Ok(Database {
            _process: process,
            endpoint: text(&told["pd"])?,
            tls: tls.then(files).transpose()?,
            _dir: dir,
        })
    }

    /// As programs take them.
    fn flags(&self) -> Vec<&str> {
        let mut flags = vec!["--pd", &self.endpoint];
        if let Some([ca, cert, key]) = &self.tls {
            flags.extend(["--ca", ca, "--cert", cert, "--key", key]);
        }
        flags
    }

    /// Clients of Rust. Over TLS one without a certificate must be refused, or nothing would be shown of those that have one.
    async fn clients(&self) -> Result<Clients> {
        let options = |tls, deadline| ClientOptions {
            tls,
            deadline: Duration::from_secs(deadline),
            ..Default::default()
        };
        let tls = match &self.tls {
            None => None,
            Some([ca, cert, key]) => {
                let anonymous = TlsOptions::of_options(ca, "", "").map_err(anyhow::Error::msg)?;
                let connected = RawClient::connect(&[&self.endpoint], options(anonymous, 1)).await;
                ensure!(connected.is_err(), "the database takes clients without a certificate");
                TlsOptions::of_options(ca, cert, key).map_err(anyhow::Error::msg)?
            }
        };
        Ok(Clients {
            raw: RawClient::connect(&[&self.endpoint], options(tls.clone(), 20)).await?,
            txns: TxnClient::connect(&[&self.endpoint], options(tls, 20)).await?,
        })
    }
}

/// How the database is looked at.
struct Clients {
    raw: RawClient,
    txns: TxnClient,
}

type Pairs = Vec<(String, String)>;

impl Clients {
    async fn leave_behind(&self, [raw, txn]: &[&'static [&'static str]; 2]) -> Result<()> {
        self.raw.batch_put(raw.iter().map(|key| (*key, "old"))).await?;
        let mut transaction = self.txns.begin(Default::default()).await?;
        transaction.batch_put(txn.iter().map(|key| (*key, "7"))).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn raw_pairs(&self, prefix: &'static str) -> Result<Pairs> {
        let pairs = self.raw.scan(KeyRange::prefix(prefix), Default::default());
        Ok(texts(pairs.try_collect().await?))
    }

    async fn txn_pairs(&self, prefix: &'static str) -> Result<Pairs> {
        let pairs = self.txns.snapshot(Ts::MAX).scan(KeyRange::prefix(prefix), Default::default());
        Ok(texts(pairs.try_collect().await?))
    }
}

fn texts(pairs: Vec<client::Pair>) -> Pairs {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    pairs.iter().map(|(key, value)| (text(key), text(value))).collect()
}

fn has_greeted(runtime: &Runtime, clients: &Clients) -> Result<()> {
    let found = runtime.block_on(clients.raw.get("greeting"))?;
    ensure!(found.as_deref() == Some(b"hello"), "the greeting is {found:?}");
    Ok(())
}

fn has_loaded(runtime: &Runtime, clients: &Clients) -> Result<()> {
    let found = runtime.block_on(clients.raw_pairs("bulk/"))?;
    let wanted = (0..3000).map(|number| (format!("bulk/{number:09}"), format!("value of {number}")));
    are_same(&found, wanted.collect())
}

fn has_sold(runtime: &Runtime, clients: &Clients) -> Result<()> {
    let found = runtime.block_on(clients.txn_pairs("inventory/"))?;
    let (sold, left): (Pairs, Pairs) = found.into_iter().partition(|(key, _)| key.starts_with("inventory/sold/"));
    // Twelve of twenty buyers are served; which, is chance.
    ensure!(sold.len() == 12, "{} sold of 12: {sold:?}", sold.len());
    for (key, value) in &sold {
        let buyer: u32 = key["inventory/sold/".len()..]
            .parse()
            .with_context(|| format!("no buyer: {key}"))?;
        ensure!(buyer < 20 && value == "one of each", "{key} is {value}");
    }
    let none_left = ["apples", "pears"].map(|item| (format!("inventory/{item}"), "0".to_owned()));
    are_same(&left, none_left.into())
}

fn has_worked(runtime: &Runtime, clients: &Clients) -> Result<()> {
    let found = runtime.block_on(clients.txn_pairs("queue/"))?;
    // By whom, is chance.
    let results = found.into_iter().map(|(key, value)| match value.split_once(" by worker ") {
        Some((result, worker)) if worker.parse().is_ok_and(|worker: u32| worker < 6) => (key, result.to_owned()),
        _ => (key, value),
    });
    let wanted = (0..60).map(|task: u32| (format!("queue/done/{task:06}"), task.pow(2).to_string()));
    are_same(&results.collect::<Pairs>(), wanted.collect())
}

/// Tells the first difference.
fn are_same(found: &[(String, String)], wanted: Pairs) -> Result<()> {
    for at in 0..found.len().max(wanted.len()) {
        ensure!(
            found.get(at) == wanted.get(at),
            "pair {at} of {} is {:?}, wanted {:?}",
            found.len(),
            found.get(at),
            wanted.get(at)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_read() {
        let program: Program = "java/task_queue=java -Dx=y TaskQueue.java".parse().expect("good");
        assert_eq!(
            (program.language.as_str(), program.example.as_str(), program.command.as_str()),
            ("java", "task_queue", "java -Dx=y TaskQueue.java")
        );
        assert!("java=java".parse::<Program>().is_err());
    }

    #[test]
    fn a_program_that_fails_or_says_why_is_told() {
        assert!(finish(&mut Command::new("true")).is_ok());
        let error = finish(Command::new("sh").args(["-c", "echo because; exit 3"])).expect_err("it fails");
        assert!(error.to_string().contains("because"), "{error:#}");
    }

    #[test]
    fn the_first_difference_is_told() {
        let pairs = |letters: &str| -> Pairs { letters.chars().map(|key| (key.to_string(), "v".to_owned())).collect() };
        assert!(are_same(&pairs("ab"), pairs("ab")).is_ok());
        for (found, wanted) in [("a", "ab"), ("ab", "a"), ("a", "b")] {
            assert!(are_same(&pairs(found), pairs(wanted)).is_err());
        }
    }
}
