//! Keeps the cluster's safe points moving, in the process of the placement driver: old versions live `pd.gc-life-time` and go.
//!
//! In this order: the txn safe point, below which no transaction reads from then on, as far as pins let it; locks of transactions that
//! began before it are resolved on all regions, over the public wire like any client's, so that none is found without its versions
//! later; then the gc safe point, which is what stores collect by. What fails is begun anew at the next round. Once a client moves the
//! safe points this stops: databases on top of the store collect themselves.

use std::time::Duration;

use anyhow::{Context, bail};
use base::Ts;
use client::{Api, ClientOptions, Keyspace, TlsOptions, TxnClient};
use pd::{Handle, Reply, Request};
use tracing::{debug, info, warn};

use crate::config::ApiVersion;
use crate::pd_service::ask;

/// Rounds come often enough that versions live little longer than they must, and not so often that looking for locks and
/// collecting shows.
const ROUND_MIN: Duration = Duration::from_secs(1);
const ROUND_MAX: Duration = Duration::from_secs(3600);
/// For each step of a round's looking for locks.
const DEADLINE: Duration = Duration::from_secs(60);

/// How the own placement driver is reached as clients reach it.
pub struct Reach {
    pub address: String,
    pub api: ApiVersion,
    pub tls: Option<TlsOptions>,
}

/// Moves safe points until aborted. `life` is above zero.
pub async fn run(handle: Handle, reach: Reach, life: Duration) {
    let mut rounds = tokio::time::interval((life / 10).clamp(ROUND_MIN, ROUND_MAX));
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut clients = Vec::new();
    loop {
        rounds.tick().await;
        match round(&handle, &reach, life, &mut clients).await {
            Ok(Some((safe_point, locks))) => info!(safe_point = safe_point.0, locks, "old versions may be collected"),
            Ok(None) => debug!("safe points stay where they are"),
            Err(error) => warn!(error = format!("{error:#}"), "move the safe point"),
        }
    }
}

/// One round: the safe point if it moved, and how many locks were in its way.
async fn round(
    handle: &Handle,
    reach: &Reach,
    life: Duration,
    clients: &mut Vec<TxnClient>,
) -> anyhow::Result<Option<(Ts, usize)>> {
    // The member that leads does it for all.
    if !handle.status().leads() || ask(handle, Request::IsBootstrapped).await? != Reply::Bootstrapped(true) {
        return Ok(None);
    }
    let Reply::Timestamps { last: now, .. } = ask(handle, Request::Tso { count: 1 }).await? else {
        bail!("a reply to another request");
    };
    let Reply::GcState {
        gc_safe_point,
        txn_safe_point,
        client_collects,
        ..
    } = ask(handle, Request::GcState).await?
    else {
        bail!("a reply to another request");
    };
    if client_collects {
        return Ok(None);
    }
    let wanted = Ts::compose(now.physical_ms().saturating_sub(life.as_millis() as u64), 0).max(txn_safe_point);
    let request = Request::AdvanceTxnSafePoint {
        target: wanted,
        by_client: false,
    };
    let Reply::Advanced(moved) = ask(handle, request).await? else {
        bail!("a reply to another request");
    };
    if moved.new <= gc_safe_point {
        return Ok(None);
    }
    if clients.is_empty() {
        *clients = connect(reach).await.context("connect to the own placement driver")?;
    }
    let mut locks = 0;
    for client in clients {
        locks += client
            .resolve_locks_everywhere(moved.new)
            .await
            .context("resolve old locks")?;
    }
    ask(handle, Request::AdvanceGcSafePoint(moved.new)).await?;
    Ok(Some((moved.new, locks)))
}

/// A client for each kind of transactions' keys that there may be.
async fn connect(reach: &Reach) -> Result<Vec<TxnClient>, client::Error> {
    let apis = match reach.api {
        ApiVersion::V1 | ApiVersion::V1Ttl => vec![Api::V1],
        // Whichever keyspace it is: keys of all are spoken of in full. In API V1 come those of TiDB.
        ApiVersion::V2 => vec![Api::V2(Keyspace::Id(0)), Api::V1],
    };
    let mut clients = Vec::new();
    for api in apis {
        let options = ClientOptions {
            api,
            deadline: DEADLINE,
            tls: reach.tls.clone(),
            ..ClientOptions::default()
        };
        clients.push(TxnClient::connect(&[&reach.address], options).await?);
    }
    Ok(clients)
}
