//! `mvcc`, `locks`: what transactions left on keys, and who waits for whom. Asked of the stores themselves, past the client.

use std::io::Write;

use anyhow::Context;
use base::{RegionId, StoreId, Ts, codec};
use bytes::Bytes;
use client::TxnClient;
use proto::kvrpcpb::{self, LockInfo, MvccInfo, MvccLock, Op};
use proto::pdpb;
use proto::tikvpb::tikv_client::TikvClient;
use serde_json::{Value, json};
use tls::Dialer;
use tonic::transport::Channel;

use super::output::{Field, Output};
use super::text::Form;

/// Locks of all regions, and waits for them.
#[derive(Debug, clap::Args)]
pub struct LocksArgs {
    /// Only locks of transactions that began at or before this timestamp.
    #[arg(long, value_name = "TS")]
    max_ts: Option<u64>,
    /// Most locks to print of a region; 0 for all.
    #[arg(long, default_value_t = 1000)]
    limit: u32,
}

/// Every version and lock of a key, newest first: the lock, then commit records, then values too long for a record.
pub async fn mvcc(client: &TxnClient, out: &mut Output<impl Write>, key: &str) -> anyhow::Result<bool> {
    let border = client.border(out.form.parse(key)?);
    let region = client.pd().region(border.clone()).await?;
    let request = kvrpcpb::MvccGetByKeyRequest {
        context: Some(context(client, &region)),
        key: wire_key(&border),
    };
    let answer = leader(client, &region).await?.mvcc_get_by_key(request).await?.into_inner();
    check(answer.region_error.map(|error| error.message), answer.error)?;
    let rows = history_rows(&answer.info.unwrap_or_default(), out.form);
    if rows.is_empty() {
        eprintln!("not found");
        return Ok(false);
    }
    out.table(rows)?;
    Ok(true)
}

pub async fn locks(client: &TxnClient, out: &mut Output<impl Write>, args: &LocksArgs) -> anyhow::Result<bool> {
    let prefix = wire_key(&client.border(Bytes::new()));
    let mut found = Vec::new();
    for region in regions(client).await? {
        let request = kvrpcpb::ScanLockRequest {
            context: Some(context(client, &region)),
            max_version: args.max_ts.unwrap_or(u64::MAX),
            limit: args.limit,
            ..Default::default()
        };
        let answer = leader(client, &region).await?.kv_scan_lock(request).await?.into_inner();
        let error = answer.error.map(|error| format!("{error:?}")).unwrap_or_default();
        check(answer.region_error.map(|error| error.message), error)?;
        if args.limit != 0 && answer.locks.len() >= args.limit as usize {
            let id = RegionId(region.region.map_or(0, |region| region.id));
            eprintln!("stopped after {} locks of region {id}; --limit 0 prints all", args.limit);
        }
        found.extend(answer.locks);
    }
    let own = |lock: &&LockInfo| lock.key.starts_with(&prefix);
    let rows = found.iter().filter(own).map(|lock| lock_row(lock, &prefix, out.form));
    out.table(rows.collect())?;
    waits(client, out, &prefix).await?;
    Ok(true)
}

async fn waits(client: &TxnClient, out: &mut Output<impl Write>, prefix: &Bytes) -> anyhow::Result<()> {
    let mut rows: Vec<Vec<Field>> = Vec::new();
    for store in client.pd().stores(true).await? {
        let request = kvrpcpb::GetLockWaitInfoRequest::default();
        let answer = dial(&store.address, client.pd().dialer())
            .await?
            .get_lock_wait_info(request)
            .await?
            .into_inner();
        check(None, answer.error)?;
        let row = |entry: &proto::deadlock::WaitForEntry| {
            vec![
                ("waiter", entry.txn.into()),
                ("holder", entry.wait_for_txn.into()),
                (
                    "key",
                    out.form
                        .print(entry.key.strip_prefix(&prefix[..]).unwrap_or(&entry.key))
                        .into(),
                ),
                ("store", store.id.into()),
            ]
        };
        rows.extend(answer.entries.iter().map(row));
    }
    Ok(out.table(rows)?)
}

/// All regions in order of keys.
async fn regions(client: &TxnClient) -> anyhow::Result<Vec<pdpb::Region>> {
    const PAGE: usize = 1000;
    let mut all: Vec<pdpb::Region> = Vec::new();
    let mut from = Bytes::new();
    loop {
        let page = client.pd().scan_regions(from.clone(), Bytes::new(), PAGE).await?;
        let end = page
            .last()
            .and_then(|last| last.region.as_ref())
            .map(|region| region.end_key.clone());
        all.extend(page);
        match end {
            Some(end) if !end.is_empty() => from = end,
            Some(_) | None => return Ok(all),
        }
    }
}

/// The key as the wire has it: borders of transactions' keys are its encoded form.
fn wire_key(border: &[u8]) -> Bytes {
    let (key, _) = codec::decode_bytes(border).expect("the client has encoded it");
    key.into()
}

fn context(client: &TxnClient, region: &pdpb::Region) -> kvrpcpb::Context {
    let has_keyspace = !wire_key(&client.border(Bytes::new())).is_empty();
    let api = if has_keyspace {
        kvrpcpb::ApiVersion::V2
    } else {
        kvrpcpb::ApiVersion::V1
    };
    let meta = region.region.clone().unwrap_or_default();
    kvrpcpb::Context {
        region_id: meta.id,
        region_epoch: meta.region_epoch,
        peer: region.leader,
        api_version: api.into(),
        ..Default::default()
    }
}

async fn leader(client: &TxnClient, region: &pdpb::Region) -> anyhow::Result<TikvClient<Channel>> {
    let id = region.region.as_ref().map_or(0, |region| region.id);
    let store = region.leader.map_or(0, |leader| leader.store_id);
    let found = client.pd().store(StoreId(store)).await;
    let (store, _) = found.with_context(|| format!("find the leader of region {id}"))?;
    dial(&store.address, client.pd().dialer()).await
}

async fn dial(address: &str, dialer: &Dialer) -> anyhow::Result<TikvClient<Channel>> {
    let endpoint = dialer.endpoint(address)?.connect_timeout(super::CONNECT_TIMEOUT);
    let channel = dialer
        .connect(endpoint)
        .await
        .with_context(|| format!("connect to store {address}"))?;
    Ok(TikvClient::new(channel).max_decoding_message_size(usize::MAX))
}

fn check(region: Option<String>, error: String) -> anyhow::Result<()> {
    match region {
        Some(message) => anyhow::bail!("region did not serve, try again: {message}"),
        None if error.is_empty() => Ok(()),
        None => anyhow::bail!(error),
    }
}

fn history_rows(info: &MvccInfo, form: Form) -> Vec<Vec<Field>> {
    let row = |family: &str, kind: Value, start_ts: u64, commit_ts: Value, value: &[u8], note: String| {
        vec![
            ("family", family.into()),
            ("type", kind),
            ("start_ts", start_ts.into()),
            ("commit_ts", commit_ts),
            (
                "value",
                if value.is_empty() {
                    Value::Null
                } else {
                    form.print(value).into()
                },
            ),
            ("note", if note.is_empty() { Value::Null } else { note.into() }),
        ]
    };
    let lock = info.lock.iter().map(|lock| {
        let kind = op_name(lock.r#type()).into();
        row(
            "lock",
            kind,
            lock.start_ts,
            Value::Null,
            &lock.short_value,
            lock_note(lock, form),
        )
    });
    let writes = info.writes.iter().map(|write| {
        let note = if write.has_overlapped_rollback {
            "and a rollback of the transaction that began then"
        } else {
            ""
        };
        let kind = op_name(write.r#type()).into();
        row(
            "write",
            kind,
            write.start_ts,
            write.commit_ts.into(),
            &write.short_value,
            note.to_owned(),
        )
    });
    let values = info.values.iter().map(|value| {
        row(
            "default",
            Value::Null,
            value.start_ts,
            Value::Null,
            &value.value,
            String::new(),
        )
    });
    lock.chain(writes).chain(values).collect()
}

fn lock_note(lock: &MvccLock, form: Form) -> String {
    let mut notes = vec![
        format!("primary {}", form.print(&lock.primary)),
        format!("ttl {} ms", lock.ttl),
    ];
    if lock.for_update_ts != 0 {
        notes.push(format!("for_update_ts {}", lock.for_update_ts));
    }
    if lock.use_async_commit {
        notes.push(format!("async commit with {} secondaries", lock.secondaries.len()));
    }
    notes.join(", ")
}

fn lock_row(lock: &LockInfo, prefix: &Bytes, form: Form) -> Vec<Field> {
    let user = |key: &Bytes| Value::from(form.print(key.strip_prefix(&prefix[..]).unwrap_or(key)));
    let some = |ts: u64| if ts == 0 { Value::Null } else { ts.into() };
    vec![
        ("key", user(&lock.key)),
        ("type", op_name(lock.lock_type()).into()),
        ("start_ts", lock.lock_version.into()),
        ("began_ms", Ts(lock.lock_version).physical_ms().into()),
        ("ttl_ms", lock.lock_ttl.into()),
        ("primary", user(&lock.primary_lock)),
        ("for_update_ts", some(lock.lock_for_update_ts)),
        ("min_commit_ts", some(lock.min_commit_ts)),
        ("async_commit", json!(lock.use_async_commit)),
    ]
}

fn op_name(op: Op) -> &'static str {
    match op {
        Op::Put | Op::Insert => "put",
        Op::Del => "delete",
        Op::Lock | Op::SharedLock => "lock",
        Op::Rollback => "rollback",
        Op::PessimisticLock | Op::SharedPessimisticLock => "pessimistic",
        Op::CheckNotExists => "check",
    }
}
