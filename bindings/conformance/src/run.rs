//! Takes all runners through all cases, step by step.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base::MonoTime;

use crate::case::{Case, Fails, Gives, Lifetime, Step, load};
use crate::cluster::Cluster;
use crate::protocol::{Line, hex, hex_pairs, unhex};
use crate::runner::Runner;
use crate::table::Table;

/// What is to be run.
pub struct Setup {
    /// The binary `ferrite`.
    pub ferrite: PathBuf,
    /// Folder of the cases.
    pub cases: PathBuf,
    /// Languages and the commands of their runners.
    pub runners: Vec<(String, String)>,
    /// Only cases whose name holds this.
    pub only: Option<String>,
    /// The binary that can be a client which dies: `<it> victim <endpoint> <keys>`.
    pub victim: PathBuf,
}

/// A runner within a case.
struct Player {
    runner: Runner,
    /// Of all its keys in this case.
    prefix: String,
    saved: BTreeMap<String, u64>,
    started: BTreeMap<String, (u64, MonoTime)>,
    fault: Option<String>,
}

/// Runs the suite and prints the table; whether all is green.
pub fn run(setup: &Setup) -> Result<bool> {
    let mut cases = load(&setup.cases)?;
    if let Some(only) = &setup.only {
        cases.retain(|case| case.name.contains(only.as_str()));
    }
    ensure!(!cases.is_empty(), "no case in {}", setup.cases.display());
    ensure!(!setup.runners.is_empty(), "no runner was given");
    let begun = MonoTime::now();
    // Each language's keys of a case that spans regions lie on both sides of a border.
    let spans = |case: &&Case| case.name.contains("spans-regions");
    let borders = cases
        .iter()
        .filter(spans)
        .flat_map(|case| setup.runners.iter().map(|(language, _)| prefix(case, language) + "m"));
    let mut cluster = Cluster::start(&setup.ferrite, &borders.collect::<Vec<_>>())?;
    let mut players = Vec::new();
    for (language, command) in &setup.runners {
        players.push(Player {
            runner: Runner::start(language, command)?,
            prefix: String::new(),
            saved: BTreeMap::new(),
            started: BTreeMap::new(),
            fault: None,
        });
    }
    let mut table = Table::new(setup.runners.iter().map(|(language, _)| language.clone()));
    for case in &cases {
        let outcomes = play(setup, &mut cluster, &mut players, case)?;
        let failed = outcomes.values().flatten().count();
        match failed {
            0 => eprintln!("ok   {}", case.name),
            _ => eprintln!("FAIL {}: not so: {}", case.name, case.shows),
        }
        table.add(&case.name, outcomes);
    }
    let mut ended = true;
    for player in players {
        if let Err(error) = player.runner.stop(Duration::from_secs(20)) {
            eprintln!("{error:#}");
            ended = false;
        }
    }
    let (passed, all) = table.counts();
    print!("{table}");
    println!(
        "{passed} of {all} passed: {} cases, {} languages, {} processes of the cluster, {:.0?}",
        cases.len(),
        setup.runners.len(),
        4,
        MonoTime::now().since(begun)
    );
    Ok(ended && table.all_green())
}

fn prefix(case: &Case, language: &str) -> String {
    format!("{}/{language}/", case.name)
}

/// One case in all languages; what went wrong in each.
fn play(setup: &Setup, cluster: &mut Cluster, players: &mut [Player], case: &Case) -> Result<BTreeMap<String, Option<String>>> {
    for player in players.iter_mut() {
        player.prefix = prefix(case, &player.runner.language);
        player.saved.clear();
        player.started.clear();
        player.fault = None;
    }
    for (number, step) in case.steps.iter().enumerate() {
        if let Some(fault) = &step.fault {
            strike(setup, cluster, players, fault, step).with_context(|| format!("step {number} of {}", case.name))?;
        } else if let Some(time) = step.sleep {
            std::thread::park_timeout(time.0);
        } else {
            take(cluster, players, step, number);
        }
    }
    cluster.heal()?;
    let outcomes = players
        .iter_mut()
        .map(|player| (player.runner.language.clone(), player.fault.take()));
    Ok(outcomes.collect())
}

fn strike(setup: &Setup, cluster: &mut Cluster, players: &[Player], fault: &str, step: &Step) -> Result<()> {
    let key = step.key.as_deref().unwrap_or("");
    if fault != "dead-client" {
        return cluster.fault(fault, &[players[0].prefix.as_bytes(), key.as_bytes()].concat());
    }
    let keys = players
        .iter()
        .map(|player| hex(&[player.prefix.as_bytes(), key.as_bytes()].concat()));
    let mut victim = Command::new(&setup.victim);
    victim.args(["victim", &cluster.endpoint, &keys.collect::<Vec<_>>().join(",")]);
    let mut victim = Victim(victim.stdout(Stdio::piped()).spawn()?);
    let mut told = String::new();
    BufReader::new(victim.0.stdout.take().context("standard output is a pipe")?).read_line(&mut told)?;
    ensure!(told == "locked\n", "the client that is to die took no lock: {told}");
    Ok(())
}

/// Killed when dropped.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A step of all languages that have not failed yet: first it is sent to all, then the answers are looked at.
fn take(cluster: &Cluster, players: &mut [Player], step: &Step, number: usize) {
    let mut sent = Vec::new();
    for player in players.iter_mut().filter(|player| player.fault.is_none()) {
        match begin(cluster, player, step) {
            Ok(call) => sent.push((player, call)),
            Err(error) => player.fault = Some(format!("step {number}: {error:#}")),
        }
    }
    for (player, (id, at)) in sent {
        if let Err(error) = finish(cluster, player, step, id, at) {
            player.fault = Some(format!("step {number}: {error:#}"));
        }
    }
}

/// Sends the step's operation; the id of that whose answer is wanted, and since when.
fn begin(cluster: &Cluster, player: &mut Player, step: &Step) -> Result<(u64, MonoTime)> {
    if let Some(name) = &step.r#await {
        return player
            .started
            .remove(name)
            .with_context(|| format!("`{name}` was not started"));
    }
    let line = line(cluster, player, step)?;
    let at = MonoTime::now();
    Ok((player.runner.send(line)?, at))
}

fn finish(cluster: &Cluster, player: &mut Player, step: &Step, mut id: u64, begun: MonoTime) -> Result<()> {
    if let Some(name) = &step.start {
        player.started.insert(name.clone(), (id, begun));
        return Ok(());
    }
    loop {
        // The runner may be slower than the client under it; that an answer came too late is told below.
        let patience = step.patience() + Duration::from_secs(30);
        let (at, answer) = player.runner.answer(id, patience)?;
        let took = at.since(begun);
        ensure!(
            took <= step.patience(),
            "took {took:.1?}, wanted {:?}: {answer}",
            step.patience()
        );
        match check(player, step, &answer) {
            Err(_) if step.until && took < step.patience() => {
                std::thread::park_timeout(Duration::from_millis(20));
                id = player.runner.send(line(cluster, player, step)?)?;
            }
            outcome => return outcome,
        }
    }
}

/// The line of a step's operation.
fn line(cluster: &Cluster, player: &Player, step: &Step) -> Result<Line> {
    let operation = step.r#do.as_deref().context("not an operation")?;
    let mut line = Line::new(0, operation);
    let mut set = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            line.parts.insert(name.to_owned(), value);
        }
    };
    let key = |key: &String| player.key(key).map(|key| hex(&key));
    set("on", step.on.clone());
    set("as", step.r#as.clone());
    set("options", step.options.clone());
    set("key", step.key.as_ref().map(key).transpose()?);
    set(
        "value",
        step.value_bytes.map(|count| "2a".repeat(count)).or(hexed(&step.value)?),
    );
    set("expected", hexed(&step.expected)?);
    set("new", hexed(&step.new)?);
    if let Some(keys) = &step.keys {
        let keys: Result<Vec<String>> = keys.iter().map(key).collect();
        set("keys", Some(keys?.join(",")));
    }
    if let Some(wanted) = pairs(player, step)? {
        set(
            "pairs",
            Some(hex_pairs(wanted.iter().map(|(key, value)| (&key[..], &value[..])))),
        );
    }
    set("limit", step.limit.map(|limit| limit.to_string()));
    set("stop", step.stop.map(|stop| stop.to_string()));
    set("ttl_ms", step.ttl_ms.map(|ttl| ttl.to_string()));
    set("reverse", step.reverse.map(|reverse| reverse.to_string()));
    set("keys_only", step.keys_only.map(|keys_only| keys_only.to_string()));
    set(
        "ts",
        step.ts
            .as_ref()
            .map(|ts| player.number(ts).map(|ts| ts.to_string()))
            .transpose()?,
    );
    let savepoint = step
        .savepoint
        .as_ref()
        .map(|name| player.number(name).map(|number| number.to_string()));
    set("savepoint", savepoint.transpose()?);
    if let Some(name) = &step.call {
        let (call, _) = player
            .started
            .get(name)
            .with_context(|| format!("`{name}` was not started"))?;
        set("call", Some(call.to_string()));
    }
    if operation.ends_with(".connect") {
        // All keys lie in a keyspace: the cluster runs API V2.
        let options = [step.options.as_deref(), Some("keyspace=DEFAULT")];
        set("options", Some(options.into_iter().flatten().collect::<Vec<_>>().join(",")));
        set(
            "endpoints",
            Some(step.value.clone().unwrap_or_else(|| cluster.endpoint.clone())),
        );
    }
    if operation.ends_with(".scan") || operation.ends_with("_range") || operation.ends_with(".checksum") {
        set("start", Some(hex(&player.key(step.start_key.as_deref().unwrap_or(""))?)));
        let end = match &step.end_key {
            Some(end) => player.key(end)?,
            // The prefix ends with a slash, and nothing else of the case begins with what follows it.
            None => [&player.prefix.as_bytes()[..player.prefix.len() - 1], b"0"].concat(),
        };
        set("end", Some(hex(&end)));
    }
    Ok(line)
}

fn hexed(value: &Option<String>) -> Result<Option<String>> {
    value.as_ref().map(|value| bytes(value).map(|value| hex(&value))).transpose()
}

/// Keys with their values.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

fn pairs(player: &Player, step: &Step) -> Result<Option<Pairs>> {
    if let Some(numbered) = &step.pairs_numbered {
        let pair = |number| {
            let key = player.key(&format!("{}{number:05}", numbered.prefix))?;
            Ok((key, bytes(&numbered.value)?))
        };
        return (0..numbered.count).map(pair).collect::<Result<_>>().map(Some);
    }
    let Some(pairs) = &step.pairs else { return Ok(None) };
    player.pairs(pairs).map(Some)
}

/// Whether an answer is what the step wants.
fn check(player: &mut Player, step: &Step, answer: &Line) -> Result<()> {
    let failed = answer.what == "error";
    let class = answer.text("class");
    let told = || -> Result<String> {
        let message = String::from_utf8_lossy(&answer.bytes("message")?).into_owned();
        Ok(format!("{class}: {message}"))
    };
    let wanted = match &step.fails {
        None if failed => bail!("failed with {}", told()?),
        None => None,
        Some(Fails::One(class)) => Some(vec![class.clone()]),
        Some(Fails::Any(classes)) => Some(classes.clone()),
    };
    if let Some(wanted) = wanted {
        ensure!(failed, "wanted it to fail with {}, but: {answer}", wanted.join(" or "));
        ensure!(
            wanted.iter().any(|wanted| wanted == class),
            "failed with {}, wanted {}",
            told()?,
            wanted.join(" or ")
        );
        if let Some(retryable) = step.retryable {
            ensure!(
                answer.flag("retryable") == retryable,
                "wanted retryable={retryable}: {answer}"
            );
        }
        return Ok(());
    }
    match &step.gives {
        None => {}
        Some(Gives::Nothing(_)) => ensure!(!answer.parts.contains_key("value"), "wanted no value: {answer}"),
        Some(Gives::Value(value)) => {
            let value = hex(&bytes(value)?);
            ensure!(answer.parts.get("value") == Some(&value), "wanted value={value}: {answer}");
        }
        Some(Gives::Pairs(pairs)) => {
            let pairs = player.pairs(pairs)?;
            let pairs = hex_pairs(pairs.iter().map(|(key, value)| (&key[..], &value[..])));
            ensure!(answer.text("pairs") == pairs, "wanted pairs={pairs}: {answer}");
        }
    }
    if let Some(wanted) = &step.gives_line {
        let text = String::from_utf8_lossy(&answer.bytes("value")?).into_owned();
        ensure!(
            text.lines().any(|line| line == wanted),
            "wanted the line {wanted} in:\n{text}"
        );
    }
    if let Some(count) = step.gives_count {
        let found = answer.pairs("pairs")?.len();
        ensure!(found == count, "gave {found} pairs, wanted {count}");
    }
    if let Some(swapped) = step.swapped {
        ensure!(
            answer.text("swapped") == swapped.to_string(),
            "wanted swapped={swapped}: {answer}"
        );
    }
    match (&step.ttl, answer.text("ttl")) {
        (None, _) => {}
        (Some(Lifetime::Word(word)), told) => ensure!(told == word, "wanted ttl={word}: {answer}"),
        (Some(Lifetime::AtMost(most)), told) => {
            let left: u64 = told.parse().with_context(|| format!("wanted seconds: {answer}"))?;
            ensure!((1..=*most).contains(&left), "wanted 1 to {most} seconds: {answer}");
        }
    }
    if let Some(name) = &step.save {
        ensure!(answer.parts.contains_key("number"), "wanted a number: {answer}");
        player.saved.insert(name.clone(), answer.number("number")?);
    }
    Ok(())
}

impl Player {
    /// A key of the case as this language has it.
    fn key(&self, key: &str) -> Result<Vec<u8>> {
        Ok([self.prefix.as_bytes(), &bytes(key)?].concat())
    }

    fn pairs(&self, pairs: &[(String, String)]) -> Result<Pairs> {
        pairs.iter().map(|(key, value)| Ok((self.key(key)?, bytes(value)?))).collect()
    }

    /// `max`, a number, or a saved one with a distance: `committed-1`.
    fn number(&self, text: &str) -> Result<u64> {
        if text == "max" {
            return Ok(u64::MAX);
        }
        if let Ok(number) = text.parse() {
            return Ok(number);
        }
        let at = text.find(['+', '-']).unwrap_or(text.len());
        let saved = self
            .saved
            .get(&text[..at])
            .with_context(|| format!("`{}` was not saved", &text[..at]))?;
        let distance: i64 = match &text[at..] {
            "" => 0,
            distance => distance.parse().with_context(|| format!("{text}: not a distance"))?,
        };
        saved
            .checked_add_signed(distance)
            .with_context(|| format!("{text} is out of range"))
    }
}

/// `hex:00ff` stands for bytes, all else for itself.
fn bytes(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix("hex:") {
        Some(digits) => unhex(digits),
        None => Ok(text.as_bytes().to_vec()),
    }
}
