//! Fail-over: how long no write is acknowledged when the process that leads is killed under load.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base::MonoTime;
use proto::metapb::{Peer, Region};
use proto::tikvpb::tikv_client::TikvClient;
use tokio::sync::Mutex;
use tonic::transport::Channel;

use super::caller::{Caller, RegionError, connect};
use super::ferrite::{Cluster, context_of, store_address};
use super::load::{Keys, Op};
use super::process::wait_for;

const WRITERS: u64 = 16;
/// A write that takes longer is asked again.
const DEADLINE: Duration = Duration::from_millis(500);
/// Longer than this without a write and the cluster has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills the leader `kills` times; returns the longest gap between two acknowledged writes around each kill.
pub async fn measure(cluster: &mut Cluster, keys: &Arc<Keys>, kills: usize) -> Result<Vec<Duration>> {
    let mut gaps = Vec::new();
    for n in 0..kills {
        let gap = kill_once(cluster, keys)
            .await
            .with_context(|| format!("kill {} of {kills}", n + 1))?;
        eprintln!(
            "fail-over {} of {kills}: no write acknowledged for {:.0} ms",
            n + 1,
            gap.as_secs_f64() * 1e3
        );
        gaps.push(gap);
    }
    Ok(gaps)
}

async fn kill_once(cluster: &mut Cluster, keys: &Arc<Keys>) -> Result<Duration> {
    let route = cluster.route().await?;
    let leader = route.context.peer.context("a route names its peer")?;
    let finder = Arc::new(Finder::new(&cluster.pd_address, route.region, leader).await?);
    let load = Arc::new(Load {
        last: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(writer(finder.clone(), load.clone(), keys.clone(), n)))
        .collect();

    let begin = MonoTime::now();
    wait_for("writes before the kill", PATIENCE, async || {
        ensure!(load.last().since(begin) > Duration::from_millis(500), "no steady writes");
        Ok(())
    })
    .await?;
    let killed = MonoTime::now();
    cluster.store_at(&route.address)?.server.kill();
    let resumed = wait_for("writes after the kill", PATIENCE, async || {
        // Writes on their way when the process died may still count as acknowledged; a second of writes is a recovery.
        ensure!(load.last().since(killed) > Duration::from_secs(1), "nothing acknowledged");
        ensure!(finder.moved().await, "the old leader still answers");
        Ok(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.stop.store(true, Ordering::Relaxed);
    let mut acknowledged = vec![killed];
    for writer in writers {
        acknowledged.extend(writer.await?);
    }
    resumed?;

    cluster.restart(&route.address)?;
    cluster.wait_for_copies(PATIENCE).await?;
    acknowledged.sort_unstable();
    let around = acknowledged.windows(2).filter(|pair| pair[1] > killed);
    around
        .map(|pair| pair[1].since(pair[0]))
        .max()
        .context("no write was acknowledged after the kill")
}

struct Load {
    /// Time of the latest acknowledged write.
    last: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    fn last(&self) -> MonoTime {
        MonoTime(self.last.load(Ordering::Relaxed))
    }
}

/// Writes until told to stop; returns when each write was acknowledged.
async fn writer(finder: Arc<Finder>, load: Arc<Load>, keys: Arc<Keys>, n: u64) -> Vec<MonoTime> {
    let mut acknowledged = Vec::new();
    for turn in 0.. {
        if load.stop.load(Ordering::Relaxed) {
            break;
        }
        let (round, mut caller) = finder.caller().await;
        let key = keys.key((turn * WRITERS + n) % keys.count);
        match tokio::time::timeout(DEADLINE, caller.call(Op::Put, key, &keys.value)).await {
            Ok(Ok(())) => {
                let now = MonoTime::now();
                load.last.fetch_max(now.0, Ordering::Relaxed);
                acknowledged.push(now);
            }
            Ok(Err(error)) => finder.move_on(round, hint(&error)).await,
            Err(_) => finder.move_on(round, None).await,
        }
    }
    acknowledged
}

fn hint(error: &anyhow::Error) -> Option<Peer> {
    let RegionError(error) = error.downcast_ref()?;
    error.not_leader.as_ref()?.leader
}

/// Finds who leads as clients do: by the hint of whoever refuses, else by trying the peers in turn.
struct Finder {
    region: Region,
    addresses: BTreeMap<u64, String>,
    at: Mutex<At>,
}

struct At {
    /// Counts moves, so that many writers failing together move once.
    round: u64,
    first: Peer,
    peer: Peer,
    client: TikvClient<Channel>,
}

impl Finder {
    async fn new(pd_address: &str, region: Region, leader: Peer) -> Result<Self> {
        let mut addresses = BTreeMap::new();
        for peer in &region.peers {
            addresses.insert(peer.store_id, store_address(pd_address, peer.store_id).await?);
        }
        let client = TikvClient::new(connect(&addresses[&leader.store_id]).await?);
        Ok(Self {
            region,
            addresses,
            at: Mutex::new(At {
                round: 0,
                first: leader,
                peer: leader,
                client,
            }),
        })
    }

    async fn caller(&self) -> (u64, Caller) {
        let at = self.at.lock().await;
        (
            at.round,
            Caller::Unary {
                client: at.client.clone(),
                context: context_of(&self.region, at.peer),
            },
        )
    }

    async fn moved(&self) -> bool {
        let at = self.at.lock().await;
        at.peer != at.first
    }

    async fn move_on(&self, seen: u64, hint: Option<Peer>) {
        let mut at = self.at.lock().await;
        if at.round != seen {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        let peers = &self.region.peers;
        let here = peers.iter().position(|peer| *peer == at.peer).unwrap_or(0);
        let peer = hint.unwrap_or(peers[(here + 1) % peers.len()]);
        at.round += 1;
        at.peer = peer;
        // If it does not answer, the next call on the old connection fails and we are here again.
        if let Some(address) = self.addresses.get(&peer.store_id)
            && let Ok(channel) = connect(address).await
        {
            at.client = TikvClient::new(channel);
        }
    }
}
