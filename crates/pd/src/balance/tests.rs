use base::{MonoTime, PeerId};
use proto::metapb::PeerRole;

use super::*;
use crate::checker::{Verdict, check};
use crate::fleet::{Candidate, Fleet};
use crate::operator::{Operator, Operators};
use crate::regions::RegionInfo;
use crate::testkit::{region, rules, stores};

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
            store.regions = held - self.operators.moving(store.store).departing;
            store.weight = store.regions * REGION_WEIGHT;
            store.leaders = self
                .regions
                .iter()
                .filter(|info| info.leader.store_id == store.store.0)
                .count() as u64;
        }
    }

    /// Every region reports once; how many orders that made.
    fn round(&mut self) -> usize {
        let (mut orders, now, rules) = (0, MonoTime(1), rules(""));
        for at in 0..self.regions.len() {
            let info = &mut self.regions[at];
            self.operators.review(now, info);
            let fleet = Fleet::of(self.stores.clone());
            let fit = Fit::new(info, &fleet, rules.at(b""), self.operators.moves_from(info.id()));
            if fit.is_exact() {
                self.operators.end_move(info.id());
            }
            let due = match check(&fit) {
                Verdict::Do(plan, why) => Some((plan, why)),
                Verdict::Wait => None,
                Verdict::Fine => balance_leader(&fit)
                    .or_else(|| balance_region(&fit))
                    .map(|plan| (plan, Why::BalanceRegion)),
            };
            let Some(plan) = due else { continue };
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
            if Fit::new(info, &fleet, rules.at(b""), None).is_exact() {
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
fn size_counts_rather_than_number() {
    let told = |bytes: u64, on: &str, weights: [u64; 4]| {
        let mut info = region("1 2 3");
        info.approximate_bytes = bytes;
        let mut all = stores(on);
        all.iter_mut().zip(weights).for_each(|(store, weight)| store.weight = weight);
        let (fleet, rules) = (Fleet::of(all), rules(""));
        balance_region(&Fit::new(&info, &fleet, rules.at(b""), None))
    };
    let (even, mib) = ("1:9/1 2:9/1 3:9/1 4:9/1", 1 << 20);
    let weights = |last: u64| [1000, 1000, 1000, last].map(|weight| weight * mib);
    assert!(told(80 * mib, even, weights(700)).is_some());
    assert_eq!(
        told(80 * mib, "1:90/1 2:90/1 3:90/1 4:0/1", weights(1000)),
        None,
        "the same bytes in fewer regions"
    );
    assert_eq!(told(180 * mib, even, weights(700)), None, "it would be as uneven as before");
}
