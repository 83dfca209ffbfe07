//! What is on a stopped store's disk, for people and programs; changes nothing.

use std::io::Write;

use base::RegionId;
use bytes::Bytes;
use engine::{Cf, Cursor, Engine, keys};
use proto::metapb::{PeerRole, Region};
use raftstore::offline::{self, Facts};
use serde_json::{Value, json};

use super::{Disk, border, stores};
use crate::ctl::output::{Field, Output};
use crate::ctl::text::Form;

pub fn regions(disk: &Disk, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let rows = disk.facts()?.iter().map(|facts| short(facts, out.form)).collect();
    out.table(rows)?;
    Ok(true)
}

fn short(facts: &Facts, form: Form) -> Vec<Field> {
    let (region, log) = (&facts.region, &facts.log);
    let epoch = region.region_epoch.unwrap_or_default();
    vec![
        ("id", region.id.into()),
        ("state", facts.state.name().into()),
        ("start", border(form, &region.start_key)),
        ("end", border(form, &region.end_key)),
        ("version", epoch.version.into()),
        ("conf_ver", epoch.conf_ver.into()),
        ("stores", stores(region.peers.iter())),
        ("role", facts.me().map_or(Value::Null, |me| role(me.role()).into())),
        ("applied", facts.applied.index.into()),
        ("commit", log.commit.into()),
        ("first", (log.truncated.index + 1).into()),
        ("last", log.last.index.into()),
        ("last_term", log.last.term.into()),
    ]
}

fn role(role: PeerRole) -> &'static str {
    match role {
        PeerRole::Voter => "voter",
        PeerRole::Learner => "learner",
        PeerRole::IncomingVoter => "incoming-voter",
        PeerRole::DemotingVoter => "demoting-voter",
    }
}

pub fn region(disk: &Disk, out: &mut Output<impl Write>, id: RegionId) -> anyhow::Result<bool> {
    let Some(facts) = disk.facts()?.into_iter().find(|facts| facts.id() == id) else {
        eprintln!("the store has nothing of region {id}");
        return Ok(false);
    };
    let peers: Vec<String> = facts
        .region
        .peers
        .iter()
        .map(|peer| format!("{} on store {} ({})", peer.id, peer.store_id, role(peer.role())))
        .collect();
    let mut fields = short(&facts, out.form);
    fields.retain(|(name, _)| *name != "stores");
    fields.extend([
        ("store", facts.store.0.into()),
        ("peer", facts.peer.0.into()),
        ("peers", json!(peers)),
        ("applied_term", facts.applied.term.into()),
        ("term", facts.log.term.into()),
        ("vote", facts.log.vote.into()),
        ("truncated", facts.log.truncated.index.into()),
        ("truncated_term", facts.log.truncated.term.into()),
        ("since_version", facts.since.version.into()),
        ("since_conf_ver", facts.since.conf_ver.into()),
        (
            "merging_into",
            facts.merging.as_ref().map_or(Value::Null, |merging| merging.target.id.into()),
        ),
        (
            "merged_into",
            if facts.merged_into.is_some() {
                facts.merged_into.0.into()
            } else {
                Value::Null
            },
        ),
    ]);
    if facts.state.holds_range() {
        for family in offline::digest(&*disk.engine.snapshot(), &facts.region)? {
            let (keys, bytes) = match family.cf {
                Cf::Default => ("default_keys", "default_bytes"),
                Cf::Lock => ("lock_keys", "lock_bytes"),
                Cf::Write => ("write_keys", "write_bytes"),
                Cf::Local => continue,
            };
            fields.extend([(keys, family.keys.into()), (bytes, family.bytes.into())]);
        }
    }
    out.card(fields)?;
    Ok(true)
}

pub fn check(disk: &Disk, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let all = disk.facts()?;
    let faults = offline::check(&all, &*disk.log, &*disk.snapshots)?;
    let is_good = faults.is_empty();
    let rows = faults
        .into_iter()
        .map(|(region, fault)| vec![("region", Value::from(region.0)), ("fault", fault.into())])
        .collect::<Vec<_>>();
    eprintln!("store {}: {} regions, {} faults", disk.id, all.len(), rows.len());
    out.table(rows)?;
    Ok(is_good)
}

/// Those that hold data, or the one that is asked for.
fn wanted(disk: &Disk, region: Option<RegionId>) -> anyhow::Result<Vec<Facts>> {
    let mut all = disk.facts()?;
    all.retain(|facts| facts.state.holds_range() && region.is_none_or(|id| facts.id() == id));
    Ok(all)
}

pub fn digests(disk: &Disk, out: &mut Output<impl Write>, region: Option<RegionId>) -> anyhow::Result<bool> {
    let all = wanted(disk, region)?;
    for facts in &all {
        let families = offline::digest(&*disk.engine.snapshot(), &facts.region)?;
        out.row(vec![
            ("region", facts.region.id.into()),
            ("applied", facts.applied.index.into()),
            ("keys", families.iter().map(|family| family.keys).sum::<u64>().into()),
            ("bytes", families.iter().map(|family| family.bytes).sum::<u64>().into()),
            ("digest", format!("{:016x}", offline::sum(&families)).into()),
        ])?;
    }
    Ok(!all.is_empty())
}

pub fn compare(disk: &Disk, other: &Disk, out: &mut Output<impl Write>, region: Option<RegionId>) -> anyhow::Result<bool> {
    if disk.cluster != other.cluster {
        anyhow::bail!("the stores belong to different clusters");
    }
    let theirs = wanted(other, region)?;
    let (mut same, mut rows) = (true, Vec::new());
    for facts in wanted(disk, region)? {
        let Some(twin) = theirs.iter().find(|twin| twin.id() == facts.id()) else {
            continue;
        };
        let difference = match facts.applied == twin.applied {
            true => first_difference(&*disk.engine, &*other.engine, &facts.region)?,
            false => None,
        };
        let outcome = match &difference {
            _ if facts.applied != twin.applied => "not at the same applied index".to_owned(),
            _ if facts.region != twin.region => "the regions differ".to_owned(),
            Some((cf, key)) => format!("differs in {} at {}", cf.name(), out.form.print(key)),
            None => "same".to_owned(),
        };
        same &= facts.applied != twin.applied || outcome == "same";
        rows.push(vec![
            ("region", facts.region.id.into()),
            ("applied", facts.applied.index.into()),
            ("other_applied", twin.applied.index.into()),
            ("outcome", outcome.into()),
        ]);
    }
    eprintln!("stores {} and {} have {} regions in common", disk.id, other.id, rows.len());
    out.table(rows)?;
    Ok(same)
}

/// The first place at which two stores differ, in the form of region keys.
fn first_difference(one: &dyn Engine, other: &dyn Engine, region: &Region) -> anyhow::Result<Option<(Cf, Bytes)>> {
    let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
    let open = |engine: &dyn Engine, cf| engine.snapshot().cursor(cf, &start, &end);
    for cf in Cf::DATA {
        let (mut a, mut b): (Box<dyn Cursor>, Box<dyn Cursor>) = (open(one, cf)?, open(other, cf)?);
        loop {
            let (left, right) = (a.next()?, b.next()?);
            if left == right {
                if left.is_none() {
                    break;
                }
                continue;
            }
            let keys = [left, right].into_iter().flatten().map(|(key, _)| key);
            return Ok(keys.min().map(|key| (cf, keys::region_key(&key))));
        }
    }
    Ok(None)
}
