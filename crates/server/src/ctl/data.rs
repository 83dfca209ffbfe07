//! `get`, `put`, `del`, `scan`: raw keys.

use std::io::Write;

use anyhow::bail;
use base::Span;
use client::{KeyRange, RawClient, ScanOptions};
use futures::TryStreamExt;

use super::output::Output;

/// List pairs in the order of their keys: key, tab, value.
#[derive(Debug, clap::Args)]
pub struct ScanArgs {
    /// First key; without it from the beginning.
    start: Option<String>,
    /// End, itself left out; without it to the end.
    end: Option<String>,
    /// Only keys that begin so.
    #[arg(long, conflicts_with_all = ["start", "end"])]
    prefix: Option<String>,
    /// Most pairs to print; 0 for all.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// From the end of the range to its start.
    #[arg(long)]
    reverse: bool,
    /// Leave the values out.
    #[arg(long)]
    keys_only: bool,
}

pub async fn get(client: &RawClient, out: &mut Output<impl Write>, key: &str) -> anyhow::Result<bool> {
    let key = out.form.parse(key)?;
    let Some(value) = client.get(key).await? else {
        eprintln!("not found");
        return Ok(false);
    };
    out.row(vec![("value", out.form.print(&value).into())])?;
    Ok(true)
}

pub async fn put(
    client: &RawClient,
    out: &Output<impl Write>,
    key: &str,
    value: &str,
    ttl: Option<Span>,
) -> anyhow::Result<bool> {
    let (key, value) = (out.form.parse(key)?, out.form.parse(value)?);
    match ttl {
        None => client.put(key, value).await?,
        Some(ttl) if ttl.0.is_zero() => bail!("--ttl of zero: use `ferrite ctl del` to remove a key"),
        Some(ttl) => client.put_with_ttl(key, value, ttl.0).await?,
    }
    Ok(true)
}

pub async fn del(client: &RawClient, out: &Output<impl Write>, key: &str) -> anyhow::Result<bool> {
    client.delete(out.form.parse(key)?).await?;
    Ok(true)
}

pub async fn scan(client: &RawClient, out: &mut Output<impl Write>, args: &ScanArgs) -> anyhow::Result<bool> {
    let bound = |text: &Option<String>| text.as_deref().map(|text| out.form.parse(text)).transpose();
    let range = match &args.prefix {
        Some(prefix) => KeyRange::prefix(out.form.parse(prefix)?),
        None => KeyRange {
            start: bound(&args.start)?.unwrap_or_default(),
            end: bound(&args.end)?.unwrap_or_default(),
        },
    };
    let limit = if args.limit == 0 { usize::MAX } else { args.limit };
    let mut pairs = client.scan(
        range,
        ScanOptions {
            limit,
            reverse: args.reverse,
            keys_only: args.keys_only,
        },
    );
    let mut count = 0;
    while let Some((key, value)) = pairs.try_next().await? {
        let mut row = vec![("key", out.form.print(&key).into())];
        if !args.keys_only {
            row.push(("value", out.form.print(&value).into()));
        }
        out.row(row)?;
        count += 1;
    }
    if count == limit {
        eprintln!("stopped after {limit} pairs; --limit 0 prints all");
    }
    Ok(true)
}
