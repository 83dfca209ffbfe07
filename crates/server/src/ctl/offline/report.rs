//! What a store's disk tells of its regions, as a file that is carried to other machines.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use base::{PeerId, RegionId, StoreId};
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch};
use raftstore::merge::Merging;
use raftstore::offline::{Facts, LogFacts, State};
use raftstore::storage::LogPosition;
use serde::{Deserialize, Serialize};

use super::Disk;
use crate::ctl::text::Form;

/// Of the file; another one is refused.
const FORMAT: u32 = 1;
/// A report larger than this is none: a region takes about 400 bytes.
const BYTES_MAX: u64 = 1 << 30;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Report {
    format: u32,
    pub cluster: u64,
    pub store: u64,
    /// Tombstones and peers without data are left out.
    regions: Vec<One>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct One {
    region: Range,
    /// The store's.
    peer: u64,
    state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Range>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merge_at: Option<(u64, u64)>,
    since: (u64, u64),
    /// Index and term, as everywhere here.
    applied: (u64, u64),
    truncated: (u64, u64),
    last: (u64, u64),
    term: u64,
    vote: u64,
    commit: u64,
}

/// Keys in hexadecimal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Range {
    id: u64,
    start: String,
    end: String,
    /// Membership, range.
    epoch: (u64, u64),
    /// Id, store and role's number of each peer.
    peers: Vec<(u64, u64, i32)>,
}

fn pair(position: LogPosition) -> (u64, u64) {
    (position.index, position.term)
}

fn position((index, term): (u64, u64)) -> LogPosition {
    LogPosition { index, term }
}

fn epoch_pair(epoch: RegionEpoch) -> (u64, u64) {
    (epoch.conf_ver, epoch.version)
}

fn epoch((conf_ver, version): (u64, u64)) -> RegionEpoch {
    RegionEpoch { conf_ver, version }
}

impl Range {
    fn of(region: &Region) -> Range {
        Range {
            id: region.id,
            start: Form::Hex.print(&region.start_key),
            end: Form::Hex.print(&region.end_key),
            epoch: epoch_pair(region.region_epoch.unwrap_or_default()),
            peers: region.peers.iter().map(|peer| (peer.id, peer.store_id, peer.role)).collect(),
        }
    }

    fn region(&self) -> anyhow::Result<Region> {
        let peer = |&(id, store_id, role): &(u64, u64, i32)| {
            let role = PeerRole::try_from(role).context("it has a role that this version does not know")?;
            Ok(Peer {
                id,
                store_id,
                role: role as i32,
                ..Peer::default()
            })
        };
        Ok(Region {
            id: self.id,
            start_key: Form::Hex.parse(&self.start)?,
            end_key: Form::Hex.parse(&self.end)?,
            region_epoch: Some(epoch(self.epoch)),
            peers: self.peers.iter().map(peer).collect::<anyhow::Result<_>>()?,
            ..Region::default()
        })
    }
}

impl One {
    fn of(facts: &Facts) -> One {
        One {
            region: Range::of(&facts.region),
            peer: facts.peer.0,
            state: facts.state.name().to_owned(),
            target: facts.merging.as_ref().map(|merging| Range::of(&merging.target)),
            merge_at: facts.merging.as_ref().map(|merging| pair(merging.at)),
            since: epoch_pair(facts.since),
            applied: pair(facts.applied),
            truncated: pair(facts.log.truncated),
            last: pair(facts.log.last),
            term: facts.log.term,
            vote: facts.log.vote,
            commit: facts.log.commit,
        }
    }

    fn facts(&self, store: StoreId) -> anyhow::Result<Facts> {
        let states = [State::Normal, State::Merging, State::Applying];
        let state = states.into_iter().find(|state| state.name() == self.state);
        let merging = match (&self.target, self.merge_at) {
            (Some(target), Some(at)) => Some(Merging {
                target: target.region()?,
                at: position(at),
            }),
            _ => None,
        };
        Ok(Facts {
            store,
            region: self.region.region()?,
            peer: PeerId(self.peer),
            state: state.with_context(|| format!("state {} is not known", self.state))?,
            merging,
            merged_into: RegionId(0),
            since: epoch(self.since),
            applied: position(self.applied),
            log: LogFacts {
                term: self.term,
                vote: self.vote,
                commit: self.commit,
                truncated: position(self.truncated),
                last: position(self.last),
            },
        })
    }
}

/// Those of a store's facts that a report has.
pub fn told(facts: Vec<Facts>) -> Vec<Facts> {
    facts.into_iter().filter(|facts| facts.state.holds_range()).collect()
}

impl Report {
    pub fn of(disk: &Disk) -> anyhow::Result<Report> {
        Ok(Report {
            format: FORMAT,
            cluster: disk.cluster.0,
            store: disk.id.0,
            regions: told(disk.facts()?).iter().map(One::of).collect(),
        })
    }

    pub fn read(path: &Path) -> anyhow::Result<Report> {
        let read = || {
            let bytes = std::fs::metadata(path)?.len();
            if bytes > BYTES_MAX {
                bail!("{bytes} bytes are too many for a report");
            }
            let report: Report = serde_json::from_slice(&std::fs::read(path)?)?;
            if report.format != FORMAT {
                bail!("it has format {}, this version reads {FORMAT}", report.format);
            }
            Ok(report)
        };
        read().with_context(|| format!("read report {}", path.display()))
    }

    pub fn facts(&self) -> anyhow::Result<Vec<Facts>> {
        let of = |one: &One| {
            one.facts(StoreId(self.store))
                .with_context(|| format!("report of store {}, region {}", self.store, one.region.id))
        };
        self.regions.iter().map(of).collect()
    }
}

/// Prints the report, whatever form is asked for: it is for programs.
pub fn print(disk: &Disk) -> anyhow::Result<bool> {
    let report = Report::of(disk)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    eprintln!("store {}: {} regions", report.store, report.regions.len());
    Ok(true)
}
