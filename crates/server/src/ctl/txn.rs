//! `txn`: one transaction after the other, command by command, from a person or a script.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};
use base::Ts;
use bytes::Bytes;
use client::{KeyRange, ScanOptions, Transaction, TxnClient, TxnOptions};
use futures::TryStreamExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::advise;
use super::output::Output;

const HELP: &str = r#"begin [pessimistic]        an optimistic transaction, or one that locks keys as it writes them
get KEY                    its value, as of the beginning of the transaction and with its own writes
scan [START [END]] [N]     pairs in order, at most N (100); a bound left out or '' is none
rscan [START [END]] [N]    the same from the end
put KEY VALUE              write
insert KEY VALUE           write a key that must not exist
delete KEY                 remove
lock KEY...                keep others from writing, and print the values: pessimistic ones are the latest
commit                     let it all take effect at once
rollback                   forget it
help, quit                 quit and the end of the input roll back

A word with spaces stands in quotes: put greeting 'hello world'. # begins a comment."#;

/// Run transactions command by command: typed in, or as a script on standard input.
#[derive(Debug, clap::Args)]
#[command(after_help = format!("Commands, a line each:\n{HELP}"))]
pub struct TxnArgs {}

/// One line of input.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Begin { pessimistic: bool },
    Get(Bytes),
    Scan { range: KeyRange, limit: usize, reverse: bool },
    Put(Bytes, Bytes),
    Insert(Bytes, Bytes),
    Delete(Bytes),
    Lock(Vec<Bytes>),
    Commit,
    Rollback,
    Help,
    Quit,
    Nothing,
}

const SCAN_LIMIT: usize = 100;

/// Serves commands from standard input. A person is told of an error and goes on; a script ends with it. `false`: the input ended
/// before a transaction did.
pub async fn run(client: &TxnClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let is_person = io::stdin().is_terminal();
    if is_person {
        eprintln!("`begin` begins a transaction, `help` lists the commands");
    }
    let mut lines = read_lines()?;
    let mut session = Session { client, txn: None };
    for number in 1.. {
        if is_person {
            eprint!("{}", if session.txn.is_some() { "txn> " } else { "> " });
        }
        let Some(line) = lines.recv().await else { break };
        let line = line.context("read standard input")?;
        let done = async { session.serve(parse(&line, out)?, out).await }.await;
        out.flush()?;
        match done {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) if is_person => eprintln!("{:#}", advise(error)),
            Err(error) => return Err(error.context(format!("line {number}: {line}"))),
        }
    }
    let unfinished = session.txn.take();
    let Some(txn) = unfinished else { return Ok(true) };
    eprintln!("not committed: rolled back");
    txn.rollback().await?;
    client.settled().await;
    Ok(false)
}

/// Lines of standard input, read on a thread of their own: locks are kept alive while a person thinks. One line is read ahead.
fn read_lines() -> io::Result<mpsc::Receiver<io::Result<String>>> {
    let (sender, lines) = mpsc::channel(1);
    base::thread::spawn("ctl-input", move || {
        for line in io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}

struct Session<'a> {
    client: &'a TxnClient,
    txn: Option<Transaction>,
}

impl Session<'_> {
    /// Whether to go on.
    async fn serve(&mut self, line: Line, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
        match line {
            Line::Nothing => {}
            Line::Help => eprintln!("{HELP}"),
            Line::Quit => return Ok(false),
            Line::Begin { .. } if self.txn.is_some() => bail!("a transaction is under way: commit or roll it back first"),
            Line::Begin { pessimistic } => {
                let options = TxnOptions {
                    pessimistic,
                    ..Default::default()
                };
                let txn = self.txn.insert(self.client.begin(options).await?);
                out.row(vec![("start_ts", txn.start_ts().0.into())])?;
            }
            Line::Commit => {
                let committed = self.take()?.commit().await?;
                self.client.settled().await;
                out.row(vec![("commit_ts", committed.map_or(Value::Null, |ts: Ts| ts.0.into()))])?;
            }
            Line::Rollback => {
                self.take()?.rollback().await?;
            }
            other => {
                serve_within(
                    self.txn.as_mut().context("no transaction is under way: begin one")?,
                    other,
                    out,
                )
                .await?
            }
        }
        Ok(true)
    }

    fn take(&mut self) -> anyhow::Result<Transaction> {
        self.txn.take().context("no transaction is under way: begin one")
    }
}

/// A command inside of a transaction.
async fn serve_within(txn: &mut Transaction, line: Line, out: &mut Output<impl Write>) -> anyhow::Result<()> {
    match line {
        Line::Get(key) => match txn.get(key).await? {
            Some(value) => out.row(vec![("value", out.form.print(&value).into())])?,
            None => eprintln!("not found"),
        },
        Line::Scan { range, limit, reverse } => {
            let options = ScanOptions {
                limit,
                reverse,
                keys_only: false,
            };
            let mut pairs = txn.scan(range, options);
            while let Some((key, value)) = pairs.try_next().await? {
                print_pair(out, &key, &value)?;
            }
        }
        Line::Put(key, value) => txn.put(key, value).await?,
        Line::Insert(key, value) => txn.insert(key, value).await?,
        Line::Delete(key) => txn.delete(key).await?,
        Line::Lock(keys) => {
            for (key, value) in txn.batch_get_for_update(keys).await? {
                print_pair(out, &key, &value)?;
            }
        }
        other => unreachable!("{other:?} is not a command inside of a transaction"),
    }
    Ok(())
}

fn print_pair(out: &mut Output<impl Write>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let (key, value) = (out.form.print(key), out.form.print(value));
    out.row(vec![("key", key.into()), ("value", value.into())])
}

fn parse(line: &str, out: &Output<impl Write>) -> anyhow::Result<Line> {
    let words = split(line)?;
    let bytes = |word: &String| out.form.parse(word);
    let Some((verb, rest)) = words.split_first() else {
        return Ok(Line::Nothing);
    };
    Ok(match (verb.as_str(), rest) {
        ("begin", []) => Line::Begin { pessimistic: false },
        ("begin", [kind]) if kind == "optimistic" => Line::Begin { pessimistic: false },
        ("begin", [kind]) if kind == "pessimistic" => Line::Begin { pessimistic: true },
        ("get", [key]) => Line::Get(bytes(key)?),
        ("scan" | "rscan", [bounds @ .., limit]) if bounds.len() <= 2 && limit.parse::<usize>().is_ok() => {
            scan(verb, bounds, limit.parse()?, bytes)?
        }
        ("scan" | "rscan", bounds) if bounds.len() <= 2 => scan(verb, bounds, SCAN_LIMIT, bytes)?,
        ("put", [key, value]) => Line::Put(bytes(key)?, bytes(value)?),
        ("insert", [key, value]) => Line::Insert(bytes(key)?, bytes(value)?),
        ("delete" | "del", [key]) => Line::Delete(bytes(key)?),
        ("lock", [_, ..]) => Line::Lock(rest.iter().map(bytes).collect::<Result<_, _>>()?),
        ("commit", []) => Line::Commit,
        ("rollback", []) => Line::Rollback,
        ("help", _) => Line::Help,
        ("quit" | "exit", []) => Line::Quit,
        _ => bail!("`{}` is not understood; `help` lists the commands", line.trim()),
    })
}

fn scan(verb: &str, bounds: &[String], limit: usize, bytes: impl Fn(&String) -> anyhow::Result<Bytes>) -> anyhow::Result<Line> {
    let bound = |at: usize| bounds.get(at).map_or(Ok(Bytes::new()), &bytes);
    Ok(Line::Scan {
        range: KeyRange {
            start: bound(0)?,
            end: bound(1)?,
        },
        limit,
        reverse: verb == "rscan",
    })
}

/// Words of a line: parted by spaces, those with spaces in quotes of either kind. `#` at the beginning of a word ends the line.
fn split(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while let Some(first) = rest.chars().next().filter(|first| *first != '#') {
        let (word, tail) = match first {
            '\'' | '"' => rest[1..].split_once(first).context("a quote is not closed")?,
            _ => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        words.push(word.to_owned());
        rest = tail.trim_start();
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::super::text::Form;
    use super::*;

    fn read(line: &str) -> anyhow::Result<Line> {
        parse(line, &Output::new(Vec::new(), false, Form::Plain))
    }

    #[test]
    fn lines_are_commands() {
        let scan = |range: KeyRange, limit, reverse| Line::Scan { range, limit, reverse };
        let cases = [
            ("", Line::Nothing),
            ("  # a remark", Line::Nothing),
            ("begin", Line::Begin { pessimistic: false }),
            ("begin pessimistic # now", Line::Begin { pessimistic: true }),
            (" get  a ", Line::Get("a".into())),
            (r"put a 'two words\n'", Line::Put("a".into(), "two words\n".into())),
            ("put \"it's\" ''", Line::Put("it's".into(), "".into())),
            ("lock a b", Line::Lock(vec!["a".into(), "b".into()])),
            ("scan", scan((..).into(), 100, false)),
            ("scan 7", scan((..).into(), 7, false)),
            ("scan a", scan(("a"..).into(), 100, false)),
            ("rscan a b 5", scan(("a".."b").into(), 5, true)),
            ("scan '' b", scan((.."b").into(), 100, false)),
            ("del a", Line::Delete("a".into())),
        ];
        for (line, wanted) in cases {
            assert_eq!(read(line).expect(line), wanted, "{line}");
        }
        for bad in [
            "begin now",
            "get",
            "put a",
            "put a 'b",
            "scan a b 5 6",
            "lock",
            "commit a",
            "drop table",
            r"get \q",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
