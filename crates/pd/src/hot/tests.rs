use proto::metapb::PeerRole;

use super::*;
use crate::fleet::Fleet;
use crate::testkit::{fleet, peer, region, rules, short};

const REPORT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

/// Regions, all on stores 1 to 3 at first, that report once a minute.
struct World {
    hot: Hot,
    now: MonoTime,
    regions: Vec<RegionInfo>,
    /// What each has to do: MiB written and read a second.
    flows: Vec<(u64, u64)>,
    fleet: Fleet,
    moves: usize,
}

impl World {
    fn new(on: &str, flows: &[(u64, u64)]) -> World {
        let numbered = |id| {
            let mut info = region("1 2 3");
            info.region.id = id;
            info
        };
        World {
            hot: Hot::default(),
            now: MonoTime(1_000_000_000_000),
            regions: (1..=flows.len() as u64).map(numbered).collect(),
            flows: flows.to_vec(),
            fleet: fleet(on),
            moves: 0,
        }
    }

    /// Every region reports once, and what is planned is done at once.
    fn round(&mut self) -> Vec<String> {
        let (rules, mut told) = (rules(""), Vec::new());
        self.now = self.now + REPORT;
        for (info, (written, read)) in self.regions.iter_mut().zip(&self.flows) {
            info.flow = Flow {
                written_bytes: written * MIB * 60,
                read_bytes: read * MIB * 60,
                millis: 60_000,
                ..Flow::default()
            };
            self.hot.on_heartbeat(self.now, info);
            let fit = Fit::new(info, &self.fleet, rules.at(b""), None);
            let Some((plan, _)) = self.hot.plan(self.now, &fit) else {
                continue;
            };
            told.push(format!("{} {}", info.id(), short(&plan)));
            self.moves += 1;
            match plan {
                Plan::TransferLeader(to) => info.leader = to,
                Plan::AddLearner { to, instead_of } => {
                    let from = instead_of.expect("a peer goes for the one that comes");
                    let moved = info.region.peers.iter_mut().find(|peer| peer.store_id == from.0);
                    let moved = moved.expect("it was there");
                    let led = moved.id == info.leader.id;
                    *moved = peer(to.0, PeerRole::Voter);
                    if led {
                        info.leader = *moved;
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        told
    }

    fn loads(&self, of_leader: bool) -> Vec<u64> {
        let load = |store: &crate::fleet::Candidate| self.hot.load(store.store, of_leader) / MIB;
        self.fleet.all().iter().map(load).collect()
    }
}

#[test]
fn hot_leaders_part_and_then_rest() {
    let mut world = World::new("1:9/3 2:9/3 3:9/3", &[(8, 8); 6]);
    assert!(world.round().is_empty() && world.round().is_empty(), "not at once");
    let moved: Vec<String> = (0..30).flat_map(|_| world.round()).collect();
    assert_eq!(moved.len(), 4, "two stay, four go, none comes back: {moved:?}");
    let loads = world.loads(true);
    assert!(loads.iter().all(|load| load.abs_diff(loads[0]) <= 1), "{loads:?}");
}

#[test]
fn one_hot_region_does_not_wander() {
    let mut world = World::new("1:9/3 2:9/3 3:9/3 4:9/0", &[(50, 50), (1, 0), (1, 0)]);
    let moved: Vec<String> = (0..60).flat_map(|_| world.round()).collect();
    assert!(world.moves <= 4, "{moved:?}");
    let hottest = moved.iter().filter(|moved| moved.starts_with("1 lead")).count();
    assert_eq!(hottest, 0, "whoever leads it would be the busiest: {moved:?}");
}

#[test]
fn peers_go_to_a_store_without_writes() {
    let mut world = World::new("1:9/9 2:9/0 3:9/0 4:0/0", &[(8, 0); 8]);
    let moved: Vec<String> = (0..60).flat_map(|_| world.round()).collect();
    assert!(moved.iter().any(|moved| moved.ends_with("add 4")), "{moved:?}");
    let loads = world.loads(false);
    let (least, most) = (
        loads.iter().min().expect("there are stores"),
        loads.iter().max().expect("there are stores"),
    );
    assert!(*least * 3 > *most, "{loads:?}");
    let quiet: Vec<String> = (0..60).flat_map(|_| world.round()).collect();
    assert!(quiet.len() <= 1, "it comes to rest: {quiet:?}");
}

#[test]
fn quiet_regions_cost_nothing_and_old_heat_is_forgotten() {
    let mut world = World::new("1:9/3 2:9/3 3:9/3", &[(0, 0), (8, 0)]);
    world.round();
    assert_eq!((world.hot.regions.len(), world.hot.stores().count()), (1, 3));
    assert_eq!(world.hot.hottest(9)[0].0, RegionId(2));
    world.flows[1] = (0, 0);
    (0..40).for_each(|_| drop(world.round()));
    world.hot.tidy(world.now);
    assert_eq!((world.hot.regions.len(), world.hot.stores().count()), (0, 0));

    let mut gone = World::new("1:9/3 2:9/3 3:9/3", &[(8, 0)]);
    gone.round();
    gone.hot.tidy(gone.now + FORGET + REPORT);
    assert_eq!((gone.hot.regions.len(), gone.hot.stores().count()), (0, 0));
}
