//! Regions and stores in short notation, for the tests of checkers and schedulers.

use base::StoreId;
use proto::ferrite_pd::PlacementRule;
use proto::ferrite_pd::label_constraint::Op;
use proto::ferrite_pd::placement_rule::Role;
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch, StoreLabel};

use crate::fleet::{ARRIVING_MAX, Candidate, Fleet, REGION_WEIGHT, location_unit};
use crate::operator::Plan;
use crate::regions::{DownPeer, RegionInfo};
use crate::rules::RuleSet;
use crate::stores::Liveness;

pub fn peer(store: u64, role: PeerRole) -> Peer {
    Peer {
        id: 100 + store,
        store_id: store,
        role: role as i32,
        is_witness: false,
    }
}

/// A region whose first peer leads; `+4` stands for a learner on store 4, `?4` for a peer there that lags, `!4` for one that is silent.
pub fn region(peers: &str) -> RegionInfo {
    let mut info = RegionInfo::default();
    for text in peers.split(' ') {
        let store = text.trim_start_matches(['+', '?', '!']).parse().expect("a store");
        let role = if text.contains('+') {
            PeerRole::Learner
        } else {
            PeerRole::Voter
        };
        let peer = peer(store, role);
        info.region.peers.push(peer);
        if text.contains('?') {
            info.pending_peers.push(peer);
        }
        if text.contains('!') {
            info.down_peers.push(DownPeer { peer, down_seconds: 9 });
        }
    }
    info.region = Region {
        id: 7,
        region_epoch: Some(RegionEpoch { conf_ver: 3, version: 1 }),
        ..info.region
    };
    info.leader = info.region.peers[0];
    info
}

/// Stores by their numbers of regions and leaders: `4:10/2`, with `d` down, `s` silent, `l` leaving, `e` must not lead, `g` is to lead, `a`
/// full of arrivals, `f` a full disk; `@z1/h2` is a location, of which `zone` and `host` are labels; `#ssd` is the label `disk`.
pub fn stores(text: &str) -> Vec<Candidate> {
    text.split(' ').map(store).collect()
}

pub fn fleet(text: &str) -> Fleet {
    Fleet::of(stores(text))
}

fn store(text: &str) -> Candidate {
    let (text, disk) = text.split_once('#').unwrap_or((text, ""));
    let (text, location) = text.split_once('@').unwrap_or((text, ""));
    let (id, rest) = text.split_once(':').expect("a store and its load");
    let flags = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '/');
    let (regions, leaders) = rest[..rest.len() - flags.len()].split_once('/').expect("regions and leaders");
    let regions = regions.parse().expect("a number");
    let units = location.split('/').chain(["", ""]);
    let label = |(key, value): (&str, &str)| StoreLabel {
        key: key.to_owned(),
        value: value.to_owned(),
    };
    let labels: Vec<StoreLabel> = ["zone", "host"]
        .into_iter()
        .zip(units)
        .chain([("disk", disk)])
        .filter(|(_, value)| !value.is_empty())
        .map(label)
        .collect();
    Candidate {
        store: StoreId(id.parse().expect("an id")),
        liveness: match flags {
            "d" => Liveness::Down,
            "s" => Liveness::Disconnected,
            _ => Liveness::Up,
        },
        regions,
        weight: regions * REGION_WEIGHT,
        leaders: leaders.parse().expect("a number"),
        arriving: if flags == "a" { ARRIVING_MAX } else { 0 },
        arriving_max: ARRIVING_MAX,
        is_full: flags == "f",
        leaves: flags == "l",
        evicts: flags == "e",
        grants: flags == "g",
        location: ["zone", "host"].iter().map_while(|key| location_unit(&labels, key)).collect(),
        labels: labels.into(),
    }
}

/// Rules as `3 voter zone=z1,z2 disk!=hdd host`: a count, a role and constraints; parted by `;`. None: three voters.
pub fn rules(text: &str) -> RuleSet {
    let rules: Vec<PlacementRule> = text
        .split(';')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .enumerate()
        .map(rule)
        .collect();
    RuleSet::compile(rules.iter(), 3).expect("good rules")
}

fn rule((at, text): (usize, &str)) -> PlacementRule {
    let mut words = text.split(' ');
    let count = words.next().and_then(|word| word.parse().ok()).expect("a count");
    let role = match words.next() {
        Some("voter") => Role::Voter,
        Some("leader") => Role::Leader,
        Some("follower") => Role::Follower,
        Some("learner") => Role::Learner,
        other => panic!("{other:?} is no role"),
    };
    PlacementRule {
        group: "test".to_owned(),
        id: at.to_string(),
        role: role as i32,
        count,
        constraints: words.map(constraint).collect(),
        ..PlacementRule::default()
    }
}

fn constraint(text: &str) -> proto::ferrite_pd::LabelConstraint {
    let (key, op, values) = match (text.split_once("!="), text.split_once('='), text.strip_prefix('!')) {
        (Some((key, values)), ..) => (key, Op::NotIn, values),
        (_, Some((key, values)), _) => (key, Op::In, values),
        (.., Some(key)) => (key, Op::NotExists, ""),
        _ => (text, Op::Exists, ""),
    };
    proto::ferrite_pd::LabelConstraint {
        key: key.to_owned(),
        op: op as i32,
        values: values
            .split(',')
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect(),
    }
}

/// A plan in short.
pub fn short(plan: &Plan) -> String {
    match plan {
        Plan::AddLearner { to, .. } => format!("add {to}"),
        Plan::Promote(peer) => format!("promote {}", peer.store_id),
        Plan::Remove(peer) => format!("remove {}", peer.store_id),
        Plan::TransferLeader(peer) => format!("lead {}", peer.store_id),
    }
}
