//! `store`, `region`, `tso`: what the placement driver knows.

use std::io::Write;

use base::{RegionId, StoreId};
use client::{Error, PdError, RawClient};
use proto::{metapb, pdpb};
use serde_json::{Value, json};

use super::output::{Field, Output};
use super::text::Form;

/// List the regions, show one, or divide them. Borders are printed in the form that the placement driver keeps.
#[derive(Debug, clap::Args)]
pub struct RegionArgs {
    /// Show the region of this id.
    id: Option<u64>,
    /// Show the region that holds this key.
    #[arg(long, conflicts_with = "id")]
    key: Option<String>,
    /// Let regions begin at this key, in the form in which raw keys lie; may be given several times. Waits until they do.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["id", "key"])]
    split_at: Vec<String>,
    /// Most regions to list.
    #[arg(long, default_value_t = 1000)]
    limit: usize,
}

pub async fn stores(client: &RawClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let stores = client.pd().stores(false).await?;
    out.table(stores.iter().map(store_fields).collect())?;
    Ok(true)
}

pub async fn store(client: &RawClient, out: &mut Output<impl Write>, id: u64) -> anyhow::Result<bool> {
    let Some((store, stats)) = found(client.pd().store(StoreId(id)).await)? else {
        return Ok(false);
    };
    let mut fields = store_fields(&store);
    fields.extend([
        ("status_address", text_or_null(&store.status_address)),
        ("regions", stats.region_count.into()),
        ("capacity_bytes", stats.capacity.into()),
        ("available_bytes", stats.available.into()),
        ("used_bytes", stats.used_size.into()),
    ]);
    out.card(fields)?;
    Ok(true)
}

pub async fn regions(client: &RawClient, out: &mut Output<impl Write>, args: &RegionArgs) -> anyhow::Result<bool> {
    if !args.split_at.is_empty() {
        return split(client, out, &args.split_at).await;
    }
    let one = match (args.id, &args.key) {
        (Some(id), _) => found(client.pd().region_by_id(RegionId(id)).await)?,
        (None, Some(key)) => Some(client.pd().region(client.border(out.form.parse(key)?)).await?),
        (None, None) => {
            let regions = client
                .pd()
                .scan_regions(Default::default(), Default::default(), args.limit)
                .await?;
            if regions.len() == args.limit {
                eprintln!("stopped after {} regions; --limit sets how many", args.limit);
            }
            out.table(regions.iter().map(|region| region_fields(region, out.form)).collect())?;
            return Ok(true);
        }
    };
    let Some(region) = one else { return Ok(false) };
    out.card(region_fields(&region, out.form))?;
    Ok(true)
}

/// Prints the regions that begin at the keys; whether all do.
async fn split(client: &RawClient, out: &mut Output<impl Write>, keys: &[String]) -> anyhow::Result<bool> {
    let borders = keys.iter().map(|key| Ok(client.border(out.form.parse(key)?)));
    let borders = borders.collect::<anyhow::Result<Vec<_>>>()?;
    let (hundredths, ids) = client.pd().split_regions(borders).await?;
    let mut regions = Vec::with_capacity(ids.len());
    for id in ids {
        regions.extend(found(client.pd().region_by_id(id).await)?);
    }
    out.table(regions.iter().map(|region| region_fields(region, out.form)).collect())?;
    if hundredths < 100 {
        eprintln!("{hundredths}% of the borders are there; ask again");
    }
    Ok(hundredths == 100)
}

pub async fn tso(client: &RawClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let ts = client.pd().timestamp().await?;
    out.card(vec![
        ("ts", ts.0.into()),
        ("physical_ms", ts.physical_ms().into()),
        ("logical", ts.logical().into()),
    ])?;
    Ok(true)
}

/// What does not exist is a no, not an error.
fn found<T>(answer: Result<T, Error>) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(Error::Pd {
            kind: PdError::NotFound,
            message,
        }) => {
            eprintln!("{message}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn store_fields(store: &metapb::Store) -> Vec<Field> {
    let state = match store.state() {
        metapb::StoreState::Up => "up",
        metapb::StoreState::Offline => "leaving",
        metapb::StoreState::Tombstone => "removed",
    };
    let labels: Vec<String> = store
        .labels
        .iter()
        .map(|label| format!("{}={}", label.key, label.value))
        .collect();
    vec![
        ("id", store.id.into()),
        ("state", state.into()),
        ("address", store.address.as_str().into()),
        ("version", store.version.as_str().into()),
        ("labels", json!(labels)),
    ]
}

fn region_fields(region: &pdpb::Region, form: Form) -> Vec<Field> {
    let meta = region.region.clone().unwrap_or_default();
    let epoch = meta.region_epoch.unwrap_or_default();
    let leader = region.leader.map(|leader| leader.store_id).filter(|id| *id != 0);
    let border = |key: &[u8]| if key.is_empty() { Value::Null } else { form.print(key).into() };
    let stores = |peers: Vec<&metapb::Peer>| json!(peers.iter().map(|peer| peer.store_id).collect::<Vec<_>>());
    let voter = |peer: &&metapb::Peer| peer.role() != metapb::PeerRole::Learner;
    let (voters, learners): (Vec<_>, Vec<_>) = meta.peers.iter().partition(voter);
    vec![
        ("id", meta.id.into()),
        ("start", border(&meta.start_key)),
        ("end", border(&meta.end_key)),
        ("leader", json!(leader)),
        ("voters", stores(voters)),
        ("learners", stores(learners)),
        (
            "down",
            stores(region.down_peers.iter().filter_map(|down| down.peer.as_ref()).collect()),
        ),
        ("pending", stores(region.pending_peers.iter().collect())),
        ("version", epoch.version.into()),
        ("conf_ver", epoch.conf_ver.into()),
    ]
}

fn text_or_null(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { text.into() }
}
