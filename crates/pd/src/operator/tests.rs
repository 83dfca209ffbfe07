use proto::metapb::{Region as Meta, RegionEpoch};

use super::*;
use crate::regions::DownPeer;

fn peer(store: u64, role: PeerRole) -> Peer {
    Peer {
        id: 100 + store,
        store_id: store,
        role: role as i32,
        is_witness: false,
    }
}

/// A region whose first peer leads; `+4` stands for a learner on store 4, `?4` for a peer there that lags, `!4` for one that is silent.
fn region(peers: &str) -> RegionInfo {
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
    info.region = Meta {
        id: 7,
        region_epoch: Some(RegionEpoch { conf_ver: 3, version: 1 }),
        ..info.region
    };
    info.leader = info.region.peers[0];
    info
}

/// Stores by their numbers of regions and leaders: `4:10/2`, with `d` down, `s` silent, `l` leaving, `e` must not lead, `a` full of
/// arrivals; `@z1/h2` is a location.
fn stores(text: &str) -> Vec<Candidate> {
    text.split(' ').map(store).collect()
}

fn store(text: &str) -> Candidate {
    let (text, location) = text.split_once('@').unwrap_or((text, ""));
    let (id, rest) = text.split_once(':').expect("a store and its load");
    let flags = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '/');
    let (regions, leaders) = rest[..rest.len() - flags.len()].split_once('/').expect("regions and leaders");
    Candidate {
        store: StoreId(id.parse().expect("an id")),
        liveness: match flags {
            "d" => Liveness::Down,
            "s" => Liveness::Disconnected,
            _ => Liveness::Up,
        },
        regions: regions.parse().expect("a number"),
        leaders: leaders.parse().expect("a number"),
        arriving: if flags == "a" { ARRIVING_MAX } else { 0 },
        leaves: flags == "l",
        evicts: flags == "e",
        location: location
            .split('/')
            .filter(|unit| !unit.is_empty())
            .map(str::to_owned)
            .collect(),
    }
}

fn told(peers: &str, on: &str) -> String {
    let wanted = Wanted { peers: 3, balance: true };
    match plan(&region(peers), wanted, &stores(on), None) {
        None => "-".to_owned(),
        Some(Plan::AddLearner { to, .. }) => format!("add {to}"),
        Some(Plan::Promote(peer)) => format!("promote {}", peer.store_id),
        Some(Plan::Remove(peer)) => format!("remove {}", peer.store_id),
        Some(Plan::TransferLeader(peer)) => format!("lead {}", peer.store_id),
    }
}

#[test]
fn each_case_has_its_plan() {
    let even = "1:5/2 2:5/2 3:5/1 4:5/0";
    for (name, peers, on, wanted) in [
        ("as it should be", "1 2 3", even, "-"),
        ("too few: the emptiest store", "1 2", "1:5/2 2:5/2 3:5/1 4:4/0", "add 4"),
        ("too few, no store is free", "1 2", "1:5/2 2:5/2 3:5/1s", "-"),
        ("a learner that lags is waited for", "1 2 +?3", even, "-"),
        ("one that has caught up votes", "1 2 +3", even, "promote 3"),
        (
            "a learner whose store died goes",
            "1 2 +3",
            "1:5/2 2:5/2 3:5/1d 4:5/0",
            "remove 3",
        ),
        ("a dead peer is replaced first", "1 2 !3", "1:5/2 2:5/2 3:5/1d 4:9/0", "add 4"),
        ("then it goes", "1 2 !3 4", "1:5/2 2:5/2 3:5/1d 4:9/0", "remove 3"),
        ("not while the new one lags", "1 2 !3 ?4", "1:5/2 2:5/2 3:5/1d 4:9/0", "-"),
        (
            "a store that is silent for a while is waited for",
            "1 2 !3",
            "1:5/2 2:5/2 3:5/1s 4:0/0",
            "-",
        ),
        (
            "one too many: the fullest store's",
            "1 2 3 4",
            "1:5/2 2:5/2 3:7/1 4:5/0",
            "remove 3",
        ),
        ("one too many, and it leads", "1 2 3 4", "1:9/2 2:5/2 3:7/1 4:5/0", "lead 4"),
        ("a store that leaves is left", "1 2 3", "1:5/2 2:5/2l 3:5/1 4:5/0", "add 4"),
        ("and its peer goes", "1 2 3 4", "1:5/2 2:1/2l 3:5/1 4:5/0", "remove 2"),
        ("a leader on it hands over", "2 1 3 4", "1:5/2 2:1/2l 3:5/1 4:5/3", "lead 3"),
        ("leaders are evicted", "1 2 3", "1:5/2e 2:5/2 3:5/1 4:5/0", "lead 3"),
        (
            "and not to where they are evicted too",
            "1 2 3",
            "1:5/2e 2:5/2 3:5/1e 4:5/0",
            "lead 2",
        ),
        ("leaders are spread", "1 2 3", "1:5/5 2:5/2 3:5/4", "lead 2"),
        ("two are not worth it", "1 2 3", "1:5/3 2:5/2 3:5/1e", "-"),
        ("no leader to one that lags", "1 ?2 3", "1:5/5 2:5/0 3:5/5", "-"),
        ("regions are spread", "1 2 3", "1:9/1 2:8/1 3:8/1 4:1/0", "add 4"),
        ("but not beyond what arrives", "1 2 3", "1:9/1 2:8/1 3:8/1 4:1/0a", "-"),
        ("zones before fill", "1 2", "1:5/1@z1 2:5/1@z2 3:1/0@z1 4:9/0@z3", "add 4"),
        (
            "hosts of a zone",
            "1 2",
            "1:5/1@z1/h1 2:5/1@z2/h2 3:1/0@z1/h1 4:9/0@z1/h9",
            "add 4",
        ),
        (
            "of two in a zone one goes",
            "1 2 3 4",
            "1:5/1@z1 2:9/1@z2 3:5/0@z3 4:5/0@z1",
            "remove 4",
        ),
        ("within a zone", "1 2 3", "1:9/1@z1 2:9/1@z2 3:9/1@z3 4:1/0@z3", "add 4"),
        (
            "balance keeps zones apart",
            "1 2 3",
            "1:9/1@z1 2:9/1@z2 3:5/1@z3 4:1/0@z3",
            "-",
        ),
    ] {
        assert_eq!(told(peers, on), wanted, "{name}: {peers} on {on}");
    }
    assert_eq!(
        plan(
            &region("1 2 3"),
            Wanted {
                peers: 3,
                balance: false
            },
            &stores("1:9/9 2:0/0 3:0/0 4:0/0"),
            None
        ),
        None,
        "balance is off"
    );
}

/// A cluster in which orders are carried out at once.
struct World {
    regions: Vec<RegionInfo>,
    stores: Vec<Candidate>,
    operators: Operators,
    /// Of the next new peer.
    peer_id: u64,
    moves: usize,
}

impl World {
    fn new(count: u64, on: &str) -> World {
        let numbered = |id| {
            let mut info = region("1 2 3");
            info.region.id = id;
            info
        };
        let mut world = World {
            regions: (1..=count).map(numbered).collect(),
            stores: stores(on),
            operators: Operators::default(),
            peer_id: 1_000,
            moves: 0,
        };
        world.count();
        world
    }

    fn count(&mut self) {
        for store in &mut self.stores {
            let on = |info: &&RegionInfo| info.region.peers.iter().any(|peer| peer.store_id == store.store.0);
            let held = self.regions.iter().filter(on).count() as u64;
            store.regions = held - self.operators.departing(store.store);
            store.leaders = self
                .regions
                .iter()
                .filter(|info| info.leader.store_id == store.store.0)
                .count() as u64;
        }
    }

    /// Every region reports once; how many orders that made.
    fn round(&mut self) -> usize {
        let wanted = Wanted { peers: 3, balance: true };
        let (mut orders, now) = (0, MonoTime(1));
        for at in 0..self.regions.len() {
            let info = &mut self.regions[at];
            self.operators.review(now, info);
            if wanted.is_met_by(info) {
                self.operators.end_move(info.id());
            }
            let Some(plan) = plan(info, wanted, &self.stores, self.operators.moves_from(info.id())) else {
                continue;
            };
            orders += 1;
            self.peer_id += 1;
            let order = self.operators.issue(now, info, plan, || Some(PeerId(self.peer_id)));
            let epoch = info.region.region_epoch.as_mut().expect("every region has one");
            epoch.conf_ver += 1;
            match order.expect("ids are there") {
                Operator::AddLearner(peer) => {
                    self.moves += 1;
                    info.region.peers.push(peer);
                }
                Operator::Promote(learner) => {
                    let found = info.region.peers.iter_mut().find(|peer| peer.id == learner.id);
                    found.expect("it is a peer").set_role(PeerRole::Voter);
                }
                Operator::Remove(gone) => info.region.peers.retain(|peer| peer.id != gone.id),
                Operator::TransferLeader(to) => {
                    info.leader = to;
                }
                Operator::Split(_) | Operator::Merge(_) => unreachable!("no plan divides a region or merges it"),
            }
            // The leader reports that it was done.
            let info = &self.regions[at];
            self.operators.review(now, info);
            if wanted.is_met_by(info) {
                self.operators.end_move(info.id());
            }
            self.count();
        }
        orders
    }
}

#[test]
fn stores_even_out_and_then_nothing_moves() {
    for (count, on, added) in [
        (90, "1:0/0 2:0/0 3:0/0 4:0/0", 1),
        (300, "1:0/0 2:0/0 3:0/0 4:0/0 5:0/0", 2),
        (100, "1:0/0 2:0/0 3:0/0 4:0/0 5:0/0 6:0/0 7:0/0 8:0/0", 5),
    ] {
        let mut world = World::new(count, on);
        let rounds = (1..200).find(|_| world.round() == 0).expect("it comes to rest");
        let held: Vec<u64> = world.stores.iter().map(|store| store.regions).collect();
        let led: Vec<u64> = world.stores.iter().map(|store| store.leaders).collect();
        let (even, fair) = (3 * count / (3 + added), count / (3 + added));
        assert!(held.iter().all(|held| held.abs_diff(even) <= 2 + even / 10), "{held:?}");
        assert!(led.iter().all(|led| led.abs_diff(fair) <= 2 + fair / 5), "{led:?}");
        // As many peers as the new stores have now had to move, and few more.
        let due = held[3..].iter().sum::<u64>() as usize;
        assert!(world.moves <= due + due / 10, "{} moves where {due} were due", world.moves);
        assert!(rounds <= 15, "{count} regions, {added} stores added: {rounds} rounds");
    }
}

#[test]
fn a_drained_store_empties() {
    let mut world = World::new(60, "1:0/0 2:0/0l 3:0/0 4:0/0");
    assert!((1..100).any(|_| world.round() == 0));
    assert_eq!((world.stores[1].regions, world.stores[1].leaders), (0, 0));
    assert_eq!(world.stores[3].regions, 60);
}

#[test]
fn orders_stand_until_done_or_too_old() {
    let now = MonoTime(1_000_000_000_000);
    let (info, all) = (region("1 2"), stores("1:5/1 2:5/1 3:5/1 4:4/0"));
    let mut operators = Operators::default();
    let mut ids = 50..60;
    let mut issue = |operators: &mut Operators, plan| operators.issue(now, &info, plan, || ids.next().map(PeerId));
    let add = |to| Plan::AddLearner {
        to: StoreId(to),
        instead_of: None,
    };
    let first = issue(&mut operators, add(4)).expect("an id is there");
    assert_eq!(
        issue(&mut operators, add(3)),
        Some(first.clone()),
        "one peer, however often told"
    );
    assert_eq!((operators.arriving(StoreId(4)), operators.arriving(StoreId(3))), (1, 0));
    assert_eq!(operators.standing(info.id(), &all), Some(first));
    assert!(!operators.review(now + Duration::from_secs(599), &info));
    assert!(operators.review(now + MOVE_MAX, &info), "too old");
    assert_eq!(
        (operators.standing(info.id(), &all), operators.arriving(StoreId(4))),
        (None, 0)
    );

    let to = info.region.peers[1];
    issue(&mut operators, Plan::TransferLeader(to)).expect("needs no id");
    assert_eq!((operators.leaders(StoreId(1), 5), operators.leaders(StoreId(2), 5)), (4, 6));
    let led = RegionInfo {
        leader: to,
        ..info.clone()
    };
    assert!(operators.review(now, &led), "done");
    assert_eq!((operators.leaders(StoreId(1), 4), operators.leaders(StoreId(2), 6)), (4, 6));
}
