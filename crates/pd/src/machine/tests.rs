use std::time::Duration;

use base::{ClusterId, MonoTime, RegionId, StoreId, Ts, WallTime};
use bytes::Bytes;
use proptest::prelude::*;
use proto::metapb::{Peer, PeerRole, Region, RegionEpoch, Store, StoreState};
use proto::pdpb::StoreStats;

use super::*;
use crate::gc::{GC_WORKER, TTL_FOREVER};
use crate::log::memory::MemoryLog;
use crate::stores::Liveness;

mod placement;

/// A machine over a log in memory, with clocks that tests turn.
struct Bench {
    machine: Machine<u64>,
    log: MemoryLog,
    now: MonoTime,
    wall: WallTime,
    tokens: u64,
    replies: Vec<(u64, Result<Reply, Error>)>,
    want_reports: bool,
}

fn options() -> Options {
    Options {
        name: "pd-1".to_owned(),
        cluster_id_if_new: 77,
        member: MemberId(5),
        max_peer_count_if_new: 3,
        merge_after: Duration::ZERO,
        ..Options::default()
    }
}

impl Bench {
    fn new() -> Bench {
        let now = MonoTime(1_000_000_000_000);
        let machine = Machine::new(options(), State::default(), 0);
        let mut bench = Bench {
            machine,
            log: MemoryLog::new(),
            now,
            wall: WallTime(1_000_000),
            tokens: 0,
            replies: Vec::new(),
            want_reports: false,
        };
        bench.settle();
        bench
    }

    /// Store 1 with regions 10 `[..m)` and 11 `[m..)` on it.
    fn bootstrapped() -> Bench {
        let mut bench = Bench::new();
        bench.must_ask(bootstrap(&[b"m"]));
        bench
    }

    fn step(&mut self, events: Vec<Event<u64>>) {
        let effects = self.machine.step(self.now, self.wall, events);
        self.log.propose(effects.propose);
        self.replies.extend(effects.reply);
        self.want_reports |= effects.want_reports;
    }

    /// Syncs and hands back, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            let events = self.log.poll();
            if events.is_empty() {
                return;
            }
            self.step(events.into_iter().map(Event::Log).collect());
        }
    }

    fn send(&mut self, request: Request) -> u64 {
        self.tokens += 1;
        self.step(vec![Event::Request(self.tokens, request)]);
        self.tokens
    }

    fn take_reply(&mut self, token: u64) -> Option<Result<Reply, Error>> {
        let at = self.replies.iter().position(|(t, _)| *t == token)?;
        Some(self.replies.remove(at).1)
    }

    fn ask(&mut self, request: Request) -> Result<Reply, Error> {
        let token = self.send(request);
        self.settle();
        self.take_reply(token).expect("every request is answered once all is durable")
    }

    fn must_ask(&mut self, request: Request) -> Reply {
        self.ask(request).unwrap()
    }

    fn must_tso(&mut self, count: u32) -> Ts {
        match self.must_ask(Request::Tso { count }) {
            Reply::Timestamps { last, .. } => last,
            other => panic!("{other:?}"),
        }
    }

    fn must_alloc(&mut self, count: u64) -> u64 {
        match self.must_ask(Request::AllocIds { count }) {
            Reply::Ids { first, .. } => first,
            other => panic!("{other:?}"),
        }
    }

    fn must_find(&mut self, lookup: Lookup) -> Option<RegionId> {
        match self.must_ask(Request::Regions(vec![lookup])) {
            Reply::Regions(found) => found[0].as_ref().map(|info| info.id()),
            other => panic!("{other:?}"),
        }
    }

    fn must_store(&mut self, id: u64) -> StoreView {
        match self.must_ask(Request::Store(StoreId(id))) {
            Reply::Store(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    fn beat(&mut self, info: RegionInfo) -> Result<Option<Operator>, Error> {
        self.ask(Request::RegionHeartbeat(info)).map(|reply| match reply {
            Reply::Operator(operator) => operator,
            other => panic!("{other:?}"),
        })
    }

    /// Dies, losing all but the first `kept` unsynced commands, and starts again.
    fn crash(&mut self, kept: usize) {
        let recovered = self.log.crash(kept);
        let state = recovered.state.map(State::from_record).unwrap_or_default();
        self.machine = Machine::new(options(), state, recovered.index);
        self.replies.clear();
        self.settle();
    }

    fn snapshot(&mut self) {
        self.log.snapshot(self.machine.applied(), &self.machine.state().to_record());
    }
}

fn store(id: u64) -> Store {
    Store {
        id,
        address: format!("127.0.0.1:{}", 20160 + id),
        ..Store::default()
    }
}

fn peer(id: u64, store_id: u64) -> Peer {
    Peer {
        id,
        store_id,
        ..Peer::default()
    }
}

fn region(id: u64, start: &'static [u8], end: &'static [u8], version: u64, peers: &[Peer]) -> Region {
    let region_epoch = Some(RegionEpoch { conf_ver: 1, version });
    let (start_key, end_key) = (Bytes::from_static(start), Bytes::from_static(end));
    Region {
        id,
        start_key,
        end_key,
        region_epoch,
        peers: peers.to_vec(),
        ..Region::default()
    }
}

/// Regions 10, 11, … between the borders, each with one peer on store 1.
fn bootstrap(borders: &[&'static [u8]]) -> Request {
    let starts = std::iter::once(&b""[..]).chain(borders.iter().copied());
    let ends = borders.iter().copied().chain([&b""[..]]);
    let regions = starts
        .zip(ends)
        .zip(10..)
        .map(|((start, end), id)| region(id, start, end, 1, &[peer(id + 100, 1)]))
        .collect();
    Request::Bootstrap {
        store: store(1),
        regions,
    }
}

fn heartbeat(region: Region, term: u64) -> RegionInfo {
    RegionInfo {
        leader: region.peers[0],
        region,
        term,
        ..RegionInfo::default()
    }
}

fn key(key: &'static [u8]) -> Lookup {
    Lookup::Key(Bytes::from_static(key))
}

fn range(start: &'static [u8], end: &'static [u8]) -> KeyRange {
    KeyRange {
        start: Bytes::from_static(start),
        end: Bytes::from_static(end),
    }
}

fn scan(bench: &mut Bench, ranges: &[KeyRange], limit: Option<usize>, no_gaps: bool) -> Result<Vec<u64>, Error> {
    bench
        .ask(Request::Scan {
            ranges: ranges.to_vec(),
            limit,
            no_gaps,
        })
        .map(|reply| match reply {
            Reply::Scanned(found) => found.iter().map(|info| info.region.id).collect(),
            other => panic!("{other:?}"),
        })
}

#[test]
fn a_new_member_makes_its_cluster_and_finds_itself_after_a_restart() {
    let mut bench = Bench::new();
    assert!(bench.machine.is_ready());
    assert_eq!(bench.machine.state().cluster, ClusterId(77));
    bench.snapshot();
    let recovered = bench.log.crash(0);
    let other_draw = Options {
        cluster_id_if_new: 88,
        name: "pd-renamed".to_owned(),
        ..options()
    };
    bench.machine = Machine::new(other_draw, State::from_record(recovered.state.unwrap()), recovered.index);
    bench.settle();
    assert_eq!(bench.machine.state().cluster, ClusterId(77));
    let Reply::Members { all, leader } = bench.must_ask(Request::Members) else {
        panic!("members")
    };
    assert_eq!((all.len(), all[0].id, leader), (1, 5, Some(MemberId(5))));
}

#[test]
fn bootstrap_happens_once_and_fills_the_directory() {
    let mut bench = Bench::new();
    assert_eq!(bench.ask(Request::Regions(vec![key(b"a")])), Err(Error::NotBootstrapped));
    assert_eq!(bench.ask(Request::PutStore(store(2))), Err(Error::NotBootstrapped));
    assert_eq!(bench.ask(Request::UpdateGcSafePoint(Ts(1))), Err(Error::NotBootstrapped));
    assert_eq!(bench.must_ask(Request::IsBootstrapped), Reply::Bootstrapped(false));
    // Two at once: one wins, whatever the disk does between.
    let (first, second) = (bench.send(bootstrap(&[b"m"])), bench.send(bootstrap(&[b"q"])));
    bench.settle();
    assert_eq!(bench.take_reply(first), Some(Ok(Reply::Done)));
    assert_eq!(bench.take_reply(second), Some(Err(Error::AlreadyBootstrapped)));
    assert_eq!(bench.must_ask(Request::IsBootstrapped), Reply::Bootstrapped(true));
    let Reply::Regions(found) = bench.must_ask(Request::Regions(vec![key(b"n")])) else {
        panic!("regions")
    };
    assert_eq!(
        found[0].as_ref().unwrap().leader,
        peer(111, 1),
        "the first peer stands in as leader"
    );
    bench.crash(0);
    assert_eq!(bench.must_find(key(b"n")), Some(RegionId(11)));
}

#[test]
fn first_regions_must_cover_all_keys_once() {
    let bad: [Vec<Region>; 6] = [
        vec![],
        vec![region(1, b"", b"m", 1, &[peer(2, 1)])],
        vec![region(1, b"a", b"", 1, &[peer(2, 1)])],
        vec![region(1, b"", b"m", 1, &[peer(2, 1)]), region(3, b"n", b"", 1, &[peer(4, 1)])],
        vec![region(1, b"", b"m", 1, &[peer(2, 1)]), region(1, b"m", b"", 1, &[peer(4, 1)])],
        vec![region(1, b"", b"", 1, &[])],
    ];
    for regions in bad {
        let mut bench = Bench::new();
        let outcome = bench.ask(Request::Bootstrap {
            store: store(1),
            regions: regions.clone(),
        });
        assert!(matches!(outcome, Err(Error::Invalid { .. })), "{regions:?}: {outcome:?}");
        assert!(!bench.machine.state().is_bootstrapped());
    }
}

#[test]
fn an_answer_waits_until_its_command_is_durable() {
    let mut bench = Bench::new();
    let token = bench.send(bootstrap(&[]));
    assert_eq!(bench.take_reply(token), None);
    let early = bench.send(Request::IsBootstrapped);
    assert_eq!(bench.take_reply(early), Some(Ok(Reply::Bootstrapped(false))));
    bench.settle();
    assert_eq!(bench.take_reply(token), Some(Ok(Reply::Done)));
}

#[test]
fn an_unsynced_bootstrap_is_lost_or_kept_whole() {
    for kept in 0..2 {
        let mut bench = Bench::new();
        bench.send(bootstrap(&[b"m"]));
        bench.crash(kept);
        assert_eq!(bench.must_ask(Request::IsBootstrapped), Reply::Bootstrapped(kept == 1));
    }
}

#[test]
fn stores_keep_what_is_not_theirs_to_tell() {
    let mut bench = Bench::bootstrapped();
    bench.must_ask(Request::PutStore(store(2)));
    let claims = Store {
        state: StoreState::Tombstone as i32,
        version: "8.5.0".to_owned(),
        ..store(2)
    };
    bench.must_ask(Request::PutStore(claims));
    let view = bench.must_store(2);
    assert_eq!((view.store.state(), view.store.version.as_str()), (StoreState::Up, "8.5.0"));
    let clash = Store { id: 3, ..store(2) };
    assert!(matches!(
        bench.ask(Request::PutStore(clash)),
        Err(Error::AddressTaken { store: StoreId(2), .. })
    ));
    assert!(matches!(
        bench.ask(Request::PutStore(Store::default())),
        Err(Error::Invalid { .. })
    ));
    let unknown = bench.ask(Request::Store(StoreId(9))).unwrap_err();
    assert_eq!(unknown.to_string(), "invalid store ID 9, not found");
    let stats = StoreStats {
        store_id: 9,
        ..StoreStats::default()
    };
    assert_eq!(
        bench.ask(Request::StoreHeartbeat(stats)),
        Err(Error::StoreNotFound { store: StoreId(9) })
    );
}

#[test]
fn a_tombstone_never_speaks_again() {
    let mut bench = Bench::bootstrapped();
    bench.machine.state.stores.get_mut(&StoreId(1)).unwrap().state = StoreState::Tombstone as i32;
    assert_eq!(
        bench.ask(Request::PutStore(store(1))),
        Err(Error::StoreTombstone { store: StoreId(1) })
    );
    let stats = StoreStats {
        store_id: 1,
        ..StoreStats::default()
    };
    assert_eq!(
        bench.ask(Request::StoreHeartbeat(stats)),
        Err(Error::StoreTombstone { store: StoreId(1) })
    );
    let successor = Store { id: 4, ..store(1) };
    assert_eq!(
        bench.ask(Request::PutStore(successor)),
        Ok(Reply::Done),
        "its address may be used again"
    );
}

#[test]
fn silence_makes_a_store_disconnected_then_down() {
    let mut bench = Bench::bootstrapped();
    let stats = StoreStats {
        store_id: 1,
        capacity: 42,
        ..StoreStats::default()
    };
    bench.must_ask(Request::StoreHeartbeat(stats.clone()));
    let view = bench.must_store(1);
    assert_eq!(
        (view.liveness, view.stats, view.store.last_heartbeat),
        (Liveness::Up, Some(stats), 1_000_000_000_000)
    );
    bench.now = bench.now + Duration::from_secs(21);
    assert_eq!(bench.must_store(1).liveness, Liveness::Disconnected);
    bench.now = bench.now + Duration::from_secs(30 * 60);
    assert_eq!(bench.must_store(1).liveness, Liveness::Down);
    bench.crash(0);
    assert_eq!(
        bench.must_store(1).liveness,
        Liveness::Up,
        "a new run gives the benefit of the doubt"
    );
}

#[test]
fn lookups_respect_borders() {
    let mut bench = Bench::bootstrapped();
    assert_eq!(bench.must_find(key(b"")), Some(RegionId(10)));
    assert_eq!(bench.must_find(key(b"lzz")), Some(RegionId(10)));
    assert_eq!(bench.must_find(key(b"m")), Some(RegionId(11)));
    assert_eq!(bench.must_find(key(b"\xff\xff")), Some(RegionId(11)));
    assert_eq!(
        bench.must_find(Lookup::Previous(Bytes::from_static(b"m"))),
        Some(RegionId(10))
    );
    assert_eq!(bench.must_find(Lookup::Previous(Bytes::from_static(b"a"))), None);
    assert_eq!(bench.must_find(Lookup::Id(RegionId(11))), Some(RegionId(11)));
    assert_eq!(bench.must_find(Lookup::Id(RegionId(12))), None);
}

#[test]
fn a_split_displaces_and_an_old_heartbeat_is_refused() {
    let mut bench = Bench::bootstrapped();
    // Region 11 [m..) splits: 11 keeps [t..), 12 takes [m..t).
    bench.beat(heartbeat(region(12, b"m", b"t", 2, &[peer(112, 1)]), 6)).unwrap();
    assert_eq!(bench.must_find(key(b"n")), Some(RegionId(12)));
    assert_eq!(bench.must_find(key(b"u")), None, "the right half has not spoken yet");
    assert_eq!(
        bench.must_find(Lookup::Previous(Bytes::from_static(b"n"))),
        Some(RegionId(10))
    );
    bench.beat(heartbeat(region(11, b"t", b"", 2, &[peer(111, 1)]), 6)).unwrap();
    assert_eq!(bench.must_find(key(b"u")), Some(RegionId(11)));
    let past = bench.beat(heartbeat(region(11, b"m", b"", 1, &[peer(111, 1)]), 6));
    assert_eq!(
        past,
        Err(Error::StaleRegion {
            region: RegionId(11),
            newer: RegionId(11)
        })
    );
    // One that PD never heard of, from before the split.
    let past = bench.beat(heartbeat(region(13, b"m", b"", 1, &[peer(113, 1)]), 6));
    assert_eq!(
        past,
        Err(Error::StaleRegion {
            region: RegionId(13),
            newer: RegionId(12)
        })
    );
    assert_eq!(bench.must_store(1).load.regions, 3);
}

#[test]
fn a_deposed_leader_is_not_believed() {
    let mut bench = Bench::bootstrapped();
    bench.must_ask(Request::PutStore(store(2)));
    let two = [peer(111, 1), peer(211, 2)];
    let mut from_second = heartbeat(region(11, b"m", b"", 1, &two), 7);
    from_second.leader = peer(211, 2);
    bench.beat(from_second).unwrap();
    assert!(matches!(
        bench.beat(heartbeat(region(11, b"m", b"", 1, &two), 6)),
        Err(Error::StaleRegion { .. })
    ));
    let Reply::Regions(found) = bench.must_ask(Request::Regions(vec![key(b"n")])) else {
        panic!("regions")
    };
    assert_eq!(found[0].as_ref().unwrap().leader, peer(211, 2));
    assert_eq!((bench.must_store(1).load.leaders, bench.must_store(2).load.leaders), (1, 1));
}

#[test]
fn malformed_heartbeats_are_refused() {
    let mut bench = Bench::bootstrapped();
    let good = region(11, b"m", b"", 1, &[peer(111, 1)]);
    let bad = [
        RegionInfo {
            leader: peer(999, 1),
            ..heartbeat(good.clone(), 6)
        },
        heartbeat(Region { id: 0, ..good.clone() }, 6),
        heartbeat(
            Region {
                region_epoch: None,
                ..good.clone()
            },
            6,
        ),
        heartbeat(
            Region {
                end_key: Bytes::from_static(b"a"),
                ..good.clone()
            },
            6,
        ),
        heartbeat(
            Region {
                peers: vec![peer(111, 1), peer(0, 2)],
                ..good.clone()
            },
            6,
        ),
    ];
    for info in bad {
        assert!(matches!(bench.beat(info.clone()), Err(Error::Invalid { .. })), "{info:?}");
    }
    let from_nowhere = heartbeat(region(11, b"m", b"", 1, &[peer(111, 9)]), 6);
    assert_eq!(bench.beat(from_nowhere), Err(Error::StoreNotFound { store: StoreId(9) }));
}

#[test]
fn scans_are_ordered_limited_and_can_demand_no_gaps() {
    let mut bench = Bench::new();
    bench.must_ask(bootstrap(&[b"c", b"g", b"m"]));
    let all = [range(b"", b"")];
    assert_eq!(scan(&mut bench, &all, None, true), Ok(vec![10, 11, 12, 13]));
    assert_eq!(scan(&mut bench, &all, Some(2), true), Ok(vec![10, 11]));
    assert_eq!(scan(&mut bench, &[range(b"d", b"g")], None, true), Ok(vec![11]));
    assert_eq!(scan(&mut bench, &[range(b"d", b"ga")], None, true), Ok(vec![11, 12]));
    assert_eq!(
        scan(
            &mut bench,
            &[range(b"a", b"b"), range(b"ba", b"d"), range(b"n", b"o")],
            None,
            true
        ),
        Ok(vec![10, 11, 13])
    );
    let overlapping = scan(&mut bench, &[range(b"a", b"c"), range(b"b", b"d")], None, false);
    assert!(matches!(overlapping, Err(Error::Invalid { .. })));
    // Region 11 [c..g) splits and only its right half [e..g) has spoken: [c..e) is unknown.
    bench.beat(heartbeat(region(14, b"e", b"g", 2, &[peer(114, 1)]), 6)).unwrap();
    assert_eq!(scan(&mut bench, &all, None, false), Ok(vec![10, 14, 12, 13]));
    assert_eq!(scan(&mut bench, &all, None, true), Err(Error::Gap));
    assert_eq!(scan(&mut bench, &all, Some(1), true), Ok(vec![10]));
    assert_eq!(scan(&mut bench, &[range(b"c", b"d")], None, true), Err(Error::Gap));
    assert_eq!(scan(&mut bench, &[range(b"a", b"d")], None, true), Err(Error::Gap));
    assert_eq!(scan(&mut bench, &[range(b"e", b"f")], None, true), Ok(vec![14]));
}

#[test]
fn regions_are_brought_to_their_number_of_peers() {
    let mut bench = Bench::new();
    bench.must_ask(bootstrap(&[]));
    let mut info = heartbeat(region(10, b"", b"", 1, &[peer(110, 1)]), 6);
    assert_eq!(bench.beat(info.clone()), Ok(None), "no other store");
    bench.must_ask(Request::PutStore(store(2)));
    let Ok(Some(Operator::AddLearner(learner))) = bench.beat(info.clone()) else {
        panic!("wanted a learner")
    };
    assert_eq!((learner.store_id, learner.role()), (2, PeerRole::Learner));
    assert_eq!(
        bench.beat(info.clone()),
        Ok(Some(Operator::AddLearner(learner))),
        "told twice, the same peer"
    );
    info.region.peers.push(learner);
    info.region.region_epoch = Some(RegionEpoch { conf_ver: 2, version: 1 });
    info.pending_peers = vec![learner];
    assert_eq!(bench.beat(info.clone()), Ok(None), "it must catch up first");
    info.pending_peers.clear();
    let voter = Peer {
        role: PeerRole::Voter as i32,
        ..learner
    };
    assert_eq!(bench.beat(info.clone()), Ok(Some(Operator::Promote(voter))));
    info.region.peers[1] = voter;
    info.region.region_epoch = Some(RegionEpoch { conf_ver: 3, version: 1 });
    assert_eq!(bench.beat(info), Ok(None), "two stores hold two peers");
}

#[test]
fn leaders_should_report_when_a_store_joins_and_not_when_it_comes_back() {
    let mut bench = Bench::bootstrapped();
    bench.want_reports = false;
    bench.must_ask(Request::PutStore(store(2)));
    assert!(std::mem::take(&mut bench.want_reports));
    bench.must_ask(Request::PutStore(store(2)));
    assert!(!bench.want_reports);
}

#[test]
fn a_peer_on_a_store_that_is_down_is_replaced_then_removed() {
    let mut bench = Bench::new();
    bench.must_ask(bootstrap(&[]));
    bench.must_ask(Request::PutMaxPeerCount(2));
    for id in 2..=3 {
        bench.must_ask(Request::PutStore(store(id)));
    }
    bench.now = bench.now + Duration::from_secs(31 * 60);
    for id in [1, 3] {
        bench.must_ask(Request::StoreHeartbeat(StoreStats {
            store_id: id,
            ..StoreStats::default()
        }));
    }
    let dead = peer(210, 2);
    let mut info = heartbeat(region(10, b"", b"", 1, &[peer(110, 1), dead]), 6);
    info.down_peers = vec![crate::DownPeer {
        peer: dead,
        down_seconds: 1_900,
    }];
    let Ok(Some(Operator::AddLearner(mut third))) = bench.beat(info.clone()) else {
        panic!("wanted a learner")
    };
    assert_eq!(third.store_id, 3);
    third.role = PeerRole::Voter as i32;
    info.region.peers.push(third);
    info.region.region_epoch = Some(RegionEpoch { conf_ver: 3, version: 1 });
    assert_eq!(bench.beat(info), Ok(Some(Operator::Remove(dead))));
}

#[test]
fn safe_points_outlive_a_restart() {
    let mut bench = Bench::bootstrapped();
    let pin = Request::PutServiceSafePoint {
        service: "backup".to_owned(),
        ts: Ts(30),
        ttl_seconds: 60,
    };
    let Reply::ServiceSafePoint(lowest) = bench.must_ask(pin) else {
        panic!("service safe point")
    };
    assert_eq!((lowest.service.as_str(), lowest.ttl_seconds), (GC_WORKER, TTL_FOREVER));
    assert_eq!(bench.must_ask(Request::UpdateGcSafePoint(Ts(80))), Reply::SafePoint(Ts(30)));
    bench.snapshot();
    bench.crash(0);
    assert_eq!(bench.must_ask(Request::GcSafePoint), Reply::SafePoint(Ts(30)));
    assert_eq!(bench.must_ask(Request::UpdateGcSafePoint(Ts(80))), Reply::SafePoint(Ts(30)));
    bench.wall = WallTime(bench.wall.0 + 60_000);
    assert_eq!(bench.must_ask(Request::UpdateGcSafePoint(Ts(80))), Reply::SafePoint(Ts(80)));
}

#[test]
fn timestamps_go_on_over_restarts_with_the_clock_set_back_and_ahead() {
    let mut bench = Bench::new();
    let mut last = Ts(0);
    for wall in [1_000_000, 4_600_000, 100, 4_600_500, 1 << 45, 5_000_000] {
        bench.wall = WallTime(wall);
        let before = bench.must_tso(10);
        bench.crash(0);
        let after = bench.must_tso(10);
        assert!(last < before && before < after, "{last:?} {before:?} {after:?}");
        last = after;
    }
}

#[test]
fn the_state_survives_its_record() {
    let mut bench = Bench::bootstrapped();
    bench.must_tso(3);
    bench.must_alloc(7);
    bench.must_ask(Request::PutStore(store(2)));
    bench.must_ask(Request::PutMaxPeerCount(5));
    bench.must_ask(Request::PutServiceSafePoint {
        service: "feed".to_owned(),
        ts: Ts(9),
        ttl_seconds: TTL_FOREVER,
    });
    assert_eq!(State::from_record(bench.machine.state().to_record()), *bench.machine.state());
}

#[test]
fn a_member_that_stops_leading_answers_everybody() {
    let mut bench = Bench::bootstrapped();
    let (put, ids) = (
        bench.send(Request::PutStore(store(2))),
        bench.send(Request::AllocIds { count: 1_000 }),
    );
    bench.step(vec![Event::Log(LogEvent::Follows { leader: None })]);
    assert_eq!(bench.take_reply(put), Some(Err(Error::NotLeader)));
    assert_eq!(bench.take_reply(ids), Some(Err(Error::NotLeader)));
    let late = bench.send(Request::Tso { count: 1 });
    assert_eq!(bench.take_reply(late), Some(Err(Error::NotLeader)));
}

#[test]
fn counts_out_of_bounds_are_refused() {
    let mut bench = Bench::new();
    for request in [
        Request::Tso { count: 0 },
        Request::Tso {
            count: tso::BATCH_MAX + 1,
        },
        Request::AllocIds { count: 0 },
        Request::AllocIds { count: ID_COUNT_MAX + 1 },
    ] {
        assert!(
            matches!(bench.ask(request.clone()), Err(Error::Invalid { .. })),
            "{request:?}"
        );
    }
}

#[derive(Clone, Debug)]
enum Act {
    Tso(u32),
    Alloc(u64),
    Wall(i64),
    Sync,
    Snapshot,
    Crash(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop_oneof![1..100_u32, Just(tso::BATCH_MAX)].prop_map(Act::Tso),
        3 => (1..250_u64).prop_map(Act::Alloc),
        3 => prop_oneof![-5_000..5_000_i64, Just(-3_600_000), Just(3_600_000)].prop_map(Act::Wall),
        4 => Just(Act::Sync),
        1 => Just(Act::Snapshot),
        2 => (0..4_usize).prop_map(Act::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the disk and the clock do: no id twice, and each batch of timestamps above all before it.
    #[test]
    fn timestamps_and_ids_are_never_handed_out_twice(acts in prop::collection::vec(act(), 1..120)) {
        let mut bench = Bench::new();
        let (mut last, mut ids) = (Ts(0), std::collections::BTreeSet::new());
        for act in acts {
            match act {
                Act::Tso(count) => { bench.send(Request::Tso { count }); }
                Act::Alloc(count) => { bench.send(Request::AllocIds { count }); }
                Act::Wall(by) => bench.wall = WallTime(bench.wall.0.saturating_add_signed(by)),
                Act::Sync => bench.settle(),
                Act::Snapshot => { bench.settle(); bench.snapshot(); }
                Act::Crash(kept) => bench.crash(kept.min(bench.log.unsynced())),
            }
            for (_, reply) in bench.replies.drain(..) {
                match reply.unwrap() {
                    Reply::Timestamps { last: of_batch, count } => {
                        let first = Ts(of_batch.0 + 1 - u64::from(count));
                        prop_assert_eq!(first.physical_ms(), of_batch.physical_ms(), "a batch is of one millisecond");
                        prop_assert!(first > last, "{:?} after {:?}", first, last);
                        last = of_batch;
                    }
                    Reply::Ids { first, count } => for id in first..first + count {
                        prop_assert!(id != 0 && ids.insert(id), "id {} twice", id);
                    },
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }
    }
}

/// The checks above must be able to fail.
#[cfg(feature = "planted")]
#[test]
fn the_planted_bug_repeats_timestamps() {
    crate::planted::plant(Some(Bug::TsoBoundNotPersisted));
    let mut bench = Bench::new();
    let before = bench.must_tso(1);
    bench.crash(0);
    let after = bench.must_tso(1);
    crate::planted::plant(None);
    assert!(after <= before, "{after:?} after {before:?}");
}
