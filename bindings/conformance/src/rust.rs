//! The runner of Rust: `client` itself, without a binding.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::Ts;
use bytes::Bytes;
use client::{
    Api, ClientOptions, Error, Hint, KeyRange, LockWait, Pair, RawClient, Savepoint, ScanOptions, Snapshot, Transaction, Ttl,
    TxnClient, TxnOptions,
};
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::BoxStream;
use tokio::runtime::Runtime;

use crate::protocol::{Line, hex, hex_pairs};

#[derive(Clone)]
enum Handle {
    Raw(RawClient),
    Txns(TxnClient),
    Snapshot(Snapshot),
    Txn(Arc<tokio::sync::Mutex<Option<Open>>>),
}

struct Open {
    transaction: Transaction,
    savepoints: Vec<Savepoint>,
}

#[derive(Default)]
struct State {
    handles: Mutex<BTreeMap<String, Handle>>,
    calls: Mutex<BTreeMap<u64, AbortHandle>>,
}

/// Why an operation failed: by the client, or a fault of the case.
enum Failure {
    Client(Error),
    Used,
    Case(anyhow::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Client(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Case(error)
    }
}

/// Serves operations from standard input until it ends.
pub fn run(runtime: &Runtime) -> Result<()> {
    let state = Arc::new(State::default());
    for text in std::io::stdin().lines() {
        let line = Line::parse(&text?)?;
        if line.what == "cancel" {
            if let Some(call) = state.calls.lock().unwrap().remove(&line.number("call")?) {
                call.abort();
            }
            say(&Line::new(line.id, "ok"));
            continue;
        }
        let (abort, registration) = AbortHandle::new_pair();
        state.calls.lock().unwrap().insert(line.id, abort);
        let state = state.clone();
        runtime.spawn(async move {
            let id = line.id;
            let done = Abortable::new(operate(&state, &line), registration).await;
            state.calls.lock().unwrap().remove(&id);
            say(&match done {
                Ok(Ok(answer)) => answer,
                Ok(Err(failure)) => told(id, failure),
                Err(_aborted) => Line::new(id, "error").with("class", "cancelled").with("retryable", "false"),
            });
        });
    }
    Ok(())
}

fn say(line: &Line) {
    println!("{line}");
}

fn told(id: u64, failure: Failure) -> Line {
    let line = Line::new(id, "error");
    match failure {
        Failure::Client(error) => line
            .with("class", class(&error))
            .with(
                "retryable",
                matches!(error.hint(), Hint::Retry | Hint::RetryTransaction).to_string(),
            )
            .with("hint", hex(error.hint().advice().as_bytes()))
            .with("message", hex(base::log::chain(&error).to_string().as_bytes())),
        Failure::Used => line.with("class", "closed").with("retryable", "false"),
        Failure::Case(error) => line
            .with("class", "case")
            .with("retryable", "false")
            .with("message", hex(format!("{error:#}").as_bytes())),
    }
}

/// The words of the bindings for the kinds of Rust's errors, as a user of the crate would match them.
fn class(error: &Error) -> &'static str {
    match error {
        Error::DeadlineExceeded { .. } => "deadline",
        Error::WriteConflict { .. } => "conflict",
        Error::Locked { .. } => "locked",
        Error::Deadlock { .. } => "deadlock",
        Error::RolledBack { .. } | Error::Aborted { .. } => "aborted",
        Error::AlreadyExists { .. } => "exists",
        Error::Undetermined { .. } => "undetermined",
        other => match other.hint() {
            Hint::Retry | Hint::RetryTransaction => "retryable",
            Hint::Configuration => "configuration",
            Hint::Undetermined => "undetermined",
            Hint::Refused => "refused",
        },
    }
}

async fn operate(state: &State, line: &Line) -> Result<Line, Failure> {
    let (object, verb) = line.what.split_once('.').unwrap_or((&line.what, ""));
    let on = || -> Result<Handle> {
        let handles = state.handles.lock().unwrap();
        handles
            .get(line.text("on"))
            .cloned()
            .with_context(|| format!("there is no {}", line.text("on")))
    };
    let keep = |handle| {
        state.handles.lock().unwrap().insert(line.text("as").to_owned(), handle);
        Ok(Line::new(line.id, "ok"))
    };
    match (object, verb) {
        ("raw", "connect") => {
            let client = RawClient::connect(&endpoints(line), client_options(line)?).await?;
            keep(Handle::Raw(client))
        }
        ("txns", "connect") => {
            let client = TxnClient::connect(&endpoints(line), client_options(line)?).await?;
            keep(Handle::Txns(client))
        }
        ("drop", _) => {
            state.handles.lock().unwrap().remove(line.text("on"));
            Ok(Line::new(line.id, "ok"))
        }
        ("raw", verb) => match on()? {
            Handle::Raw(client) => raw(&client, verb, line).await,
            _ => Err(wrong(line)),
        },
        ("snapshot", verb) => match on()? {
            Handle::Snapshot(snapshot) => read_snapshot(&snapshot, verb, line).await,
            _ => Err(wrong(line)),
        },
        ("txns", verb) => match (on()?, verb) {
            (Handle::Txns(client), "begin") => {
                let transaction = client.begin(txn_options(line)?).await?;
                keep(Handle::Txn(Arc::new(tokio::sync::Mutex::new(Some(Open {
                    transaction,
                    savepoints: Vec::new(),
                })))))
            }
            (Handle::Txns(client), "metrics") => Ok(value(line, Some(client.metrics().to_string().into()))),
            (Handle::Txns(client), "timestamp") => Ok(number(line, client.pd().timestamp().await?.0)),
            (Handle::Txns(client), "snapshot") => keep(Handle::Snapshot(client.snapshot(Ts(line.number("ts")?)))),
            _ => Err(wrong(line)),
        },
        ("txn", verb) => match on()? {
            Handle::Txn(open) => transact(&open, verb, line).await,
            _ => Err(wrong(line)),
        },
        _ => Err(wrong(line)),
    }
}

async fn raw(client: &RawClient, verb: &str, line: &Line) -> Result<Line, Failure> {
    let ttl = Some(line.number("ttl_ms")?).filter(|ttl| *ttl > 0).map(Duration::from_millis);
    match (verb, ttl) {
        ("get", _) => return Ok(value(line, client.get(line.bytes("key")?).await?)),
        ("put", None) => client.put(line.bytes("key")?, line.bytes("value")?).await?,
        ("put", Some(ttl)) => client.put_with_ttl(line.bytes("key")?, line.bytes("value")?, ttl).await?,
        ("delete", _) => client.delete(line.bytes("key")?).await?,
        ("batch_get", _) => return Ok(pairs(line, client.batch_get(line.keys("keys")?).await?)),
        ("batch_put", None) => client.batch_put(line.pairs("pairs")?).await?,
        ("batch_put", Some(ttl)) => client.batch_put_with_ttl(line.pairs("pairs")?, ttl).await?,
        ("batch_delete", _) => client.batch_delete(line.keys("keys")?).await?,
        ("delete_range", _) => client.delete_range(range(line)?).await?,
        ("checksum", _) => return Ok(number(line, client.checksum(range(line)?).await?.pairs)),
        ("metrics", _) => return Ok(value(line, Some(client.metrics().to_string().into()))),
        ("compare_and_swap", _) => {
            let (expected, new) = (line.optional_bytes("expected")?, line.optional_bytes("new")?);
            let swap = client
                .compare_and_swap(line.bytes("key")?, expected.map(Bytes::from), new.map(Bytes::from))
                .await?;
            return Ok(value(line, swap.previous).with("swapped", swap.done.to_string()));
        }
        ("ttl", _) => {
            let ttl = match client.ttl(line.bytes("key")?).await? {
                None => "missing".to_owned(),
                Some(Ttl::Forever) => "forever".to_owned(),
                Some(Ttl::Left(left)) => left.as_secs().to_string(),
            };
            return Ok(Line::new(line.id, "ok").with("ttl", ttl));
        }
        ("scan", _) => return read(line, client.scan(range(line)?, scan_options(line)?)).await,
        _ => return Err(wrong(line)),
    }
    Ok(Line::new(line.id, "ok"))
}

async fn read_snapshot(snapshot: &Snapshot, verb: &str, line: &Line) -> Result<Line, Failure> {
    match verb {
        "get" => Ok(value(line, snapshot.get(line.bytes("key")?).await?)),
        "batch_get" => Ok(pairs(line, snapshot.batch_get(line.keys("keys")?).await?)),
        "scan" => read(line, snapshot.scan(range(line)?, scan_options(line)?)).await,
        _ => Err(wrong(line)),
    }
}

async fn transact(open: &tokio::sync::Mutex<Option<Open>>, verb: &str, line: &Line) -> Result<Line, Failure> {
    let mut open = open.lock().await;
    if let "commit" | "rollback" = verb {
        let transaction = open.take().ok_or(Failure::Used)?.transaction;
        drop(open);
        if verb == "rollback" {
            transaction.rollback().await?;
            return Ok(Line::new(line.id, "ok"));
        }
        let committed = transaction.commit().await?;
        let answer = Line::new(line.id, "ok");
        return Ok(committed
            .into_iter()
            .fold(answer, |answer, ts| answer.with("number", ts.0.to_string())));
    }
    let Open { transaction, savepoints } = open.as_mut().ok_or(Failure::Used)?;
    match verb {
        "get" => return Ok(value(line, transaction.get(line.bytes("key")?).await?)),
        "batch_get" => return Ok(pairs(line, transaction.batch_get(line.keys("keys")?).await?)),
        "get_for_update" => return Ok(value(line, transaction.get_for_update(line.bytes("key")?).await?)),
        "batch_get_for_update" => return Ok(pairs(line, transaction.batch_get_for_update(line.keys("keys")?).await?)),
        "put" => transaction.put(line.bytes("key")?, line.bytes("value")?).await?,
        "batch_put" => transaction.batch_put(line.pairs("pairs")?).await?,
        "insert" => transaction.insert(line.bytes("key")?, line.bytes("value")?).await?,
        "delete" => transaction.delete(line.bytes("key")?).await?,
        "lock_keys" => transaction.lock_keys(line.keys("keys")?).await?,
        "scan" => return read(line, transaction.scan(range(line)?, scan_options(line)?)).await,
        "savepoint" => {
            savepoints.push(transaction.savepoint());
            return Ok(number(line, savepoints.len() as u64 - 1));
        }
        "rollback_to" => {
            let savepoint = savepoints.get(line.number("savepoint")? as usize);
            transaction.rollback_to(savepoint.context("there is no such savepoint")?);
        }
        _ => return Err(wrong(line)),
    }
    Ok(Line::new(line.id, "ok"))
}

/// Reads a scan to its end, or until as many pairs came as the case wants.
async fn read(line: &Line, mut scan: BoxStream<'static, Result<Pair, Error>>) -> Result<Line, Failure> {
    let stop = line.number("stop")? as usize;
    let mut found = Vec::new();
    while let Some(pair) = scan.next().await {
        found.push(pair?);
        if found.len() == stop {
            break;
        }
    }
    Ok(pairs(line, found))
}

fn value(line: &Line, value: Option<Bytes>) -> Line {
    let answer = Line::new(line.id, "ok");
    value
        .into_iter()
        .fold(answer, |answer, value| answer.with("value", hex(&value)))
}

fn pairs(line: &Line, pairs: Vec<Pair>) -> Line {
    let pairs = hex_pairs(pairs.iter().map(|(key, value)| (&key[..], &value[..])));
    Line::new(line.id, "ok").with("pairs", pairs)
}

fn number(line: &Line, number: u64) -> Line {
    Line::new(line.id, "ok").with("number", number.to_string())
}

fn range(line: &Line) -> Result<KeyRange> {
    Ok(KeyRange {
        start: line.bytes("start")?.into(),
        end: line.bytes("end")?.into(),
    })
}

fn scan_options(line: &Line) -> Result<ScanOptions> {
    Ok(ScanOptions {
        limit: Some(line.number("limit")? as usize)
            .filter(|limit| *limit > 0)
            .unwrap_or(usize::MAX),
        reverse: line.flag("reverse"),
        keys_only: line.flag("keys_only"),
    })
}

fn wrong(line: &Line) -> Failure {
    Failure::Case(anyhow::anyhow!(
        "the runner does not know `{}` on {}",
        line.what,
        line.text("on")
    ))
}

fn endpoints(line: &Line) -> Vec<String> {
    line.text("endpoints").split(',').map(str::to_owned).collect()
}

/// The cases use few options; those of the bindings' texts that Rust has no text for.
fn client_options(line: &Line) -> Result<ClientOptions, Failure> {
    let mut options = ClientOptions::default();
    for (name, value) in named(line) {
        match name {
            "deadline" => options.deadline = span(value)?,
            "retry-undetermined" => options.retry_undetermined = value == "true",
            "keyspace" => options.api = Api::V2(client::Keyspace::Name(value.to_owned())),
            // What is a wrong name in a text is one that does not compile in Rust.
            _ => {
                return Err(Failure::Client(Error::BadAddress {
                    address: name.to_owned(),
                }));
            }
        }
    }
    Ok(options)
}

fn txn_options(line: &Line) -> Result<TxnOptions> {
    let mut options = TxnOptions::default();
    for (name, value) in named(line) {
        match name {
            "pessimistic" => options.pessimistic = value == "true",
            "async-commit" => options.async_commit = value == "true",
            "one-phase" => options.one_phase = value == "true",
            "lock-wait" if value == "no" => options.lock_wait = LockWait::No,
            "lock-wait" => options.lock_wait = LockWait::For(span(value)?),
            "deadline" => options.deadline = Some(span(value)?),
            other => bail!("the runner does not know the option `{other}`"),
        }
    }
    Ok(options)
}

fn named(line: &Line) -> impl Iterator<Item = (&str, &str)> {
    let options = line.text("options").split(',').filter(|option| !option.is_empty());
    options.map(|option| option.split_once('=').unwrap_or((option, "true")))
}

fn span(text: &str) -> Result<Duration> {
    let span: base::Span = text.parse().map_err(|error| anyhow::anyhow!("{text}: {error}"))?;
    Ok(span.0)
}
