//! Rules, wishes and schedulers through the machine.

use proto::ferrite_pd::placement_rule::Role;
use proto::ferrite_pd::schedule::Kind;
use proto::ferrite_pd::{PlacementRule, Schedule, Scheduler, SchedulerPause};

use super::*;
use crate::request::Want;
use crate::{Progress, Why};

/// Four stores with three peers of region 10, all keys, on the first three, and heartbeats of all.
fn four_stores() -> (Bench, RegionInfo) {
    let mut bench = Bench::new();
    bench.must_ask(bootstrap(&[]));
    (2..=4).for_each(|id| drop(bench.must_ask(Request::PutStore(store(id)))));
    let peers = [peer(110, 1), peer(210, 2), peer(310, 3)];
    let info = heartbeat(region(10, b"", b"", 2, &peers), 6);
    assert_eq!(bench.beat(info.clone()), Ok(None));
    for id in 1..=4 {
        let region_count = u32::from(id < 4);
        beat_of_store(&mut bench, id, region_count);
    }
    (bench, info)
}

fn beat_of_store(bench: &mut Bench, store_id: u64, region_count: u32) {
    bench.must_ask(Request::StoreHeartbeat(StoreStats {
        store_id,
        region_count,
        ..StoreStats::default()
    }));
}

fn schedule(bench: &mut Bench, kind: Kind) -> Result<Reply, Error> {
    bench.ask(Request::Schedule(Schedule { kind: Some(kind) }))
}

fn rule(id: &str, start: &'static str, end: &'static str, role: Role, count: u32) -> Kind {
    Kind::PutRule(PlacementRule {
        group: "test".to_owned(),
        id: id.to_owned(),
        start_key: start.into(),
        end_key: end.into(),
        role: role as i32,
        count,
        ..PlacementRule::default()
    })
}

fn order(bench: &mut Bench) -> Option<(Why, Progress)> {
    match bench.must_ask(Request::OperatorOf(RegionId(10))) {
        Reply::OperatorOf(order) => order,
        other => panic!("{other:?}"),
    }
}

fn faults(bench: &mut Bench) -> Vec<String> {
    let request = Request::CheckRules {
        start: Bytes::new(),
        limit: 100,
    };
    match bench.must_ask(request) {
        Reply::RulesChecked(report) => report.faults.into_iter().map(|(_, fault)| fault).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rule_divides_regions_and_outlives_a_restart() {
    let (mut bench, info) = four_stores();
    assert_eq!(faults(&mut bench), [] as [String; 0]);
    schedule(&mut bench, rule("one", "c", "f", Role::Voter, 1)).expect("a good rule");
    let cuts = Operator::Split(vec!["c".into(), "f".into()]);
    assert_eq!(bench.beat(info.clone()), Ok(Some(cuts)));
    assert_eq!(faults(&mut bench), ["rules differ within it: it is to be divided"]);
    bench.settle();
    bench.snapshot();
    bench.crash(0);
    let inside = heartbeat(region(10, b"c", b"f", 4, &info.region.peers), 6);
    assert!(
        matches!(bench.beat(inside), Ok(Some(Operator::Remove(_)))),
        "one is enough there"
    );
    assert!(
        schedule(&mut bench, rule("two", "d", "f", Role::Follower, 3)).is_ok(),
        "beside the voter of the other rule"
    );
    assert!(
        schedule(&mut bench, rule("one", "c", "f", Role::Follower, 1)).is_err(),
        "nobody could lead from c to d"
    );
}

#[test]
fn a_wish_is_told_until_it_is_done() {
    let (mut bench, mut info) = four_stores();
    assert_eq!(order(&mut bench), None);
    assert!(bench.ask(Request::Want(RegionId(10), Want::Leader(StoreId(4)))).is_err());
    bench.must_ask(Request::Want(RegionId(10), Want::Leader(StoreId(3))));
    assert_eq!(order(&mut bench), Some((Why::Wish, Progress::Runs)));
    let to = info.region.peers[2];
    for _ in 0..2 {
        assert_eq!(bench.beat(info.clone()), Ok(Some(Operator::TransferLeader(to))));
    }
    info.leader = to;
    assert_eq!(bench.beat(info.clone()), Ok(None));
    assert_eq!(order(&mut bench), Some((Why::Wish, Progress::Done)));

    bench.must_ask(Request::Want(RegionId(10), Want::Move(StoreId(1), StoreId(4))));
    assert!(matches!(bench.beat(info.clone()), Ok(Some(Operator::AddLearner(peer))) if peer.store_id == 4));
    bench.must_ask(Request::GiveUp(RegionId(10)));
    assert_eq!(order(&mut bench), Some((Why::Wish, Progress::GivenUp)));
    assert_eq!(bench.beat(info), Ok(None));
    assert!(
        bench.ask(Request::GiveUp(RegionId(10))).is_err(),
        "there is no order any more"
    );
}

#[test]
fn a_paused_scheduler_rests_until_its_time_is_up() {
    let (mut bench, mut info) = four_stores();
    info.approximate_bytes = 90 << 20;
    let mut others: Vec<RegionInfo> = Vec::new();
    // Three more regions of the same stores: one of four had better be on store 4.
    for (id, borders) in (11..).zip([["b", "c"], ["c", "d"], ["d", ""]]) {
        let region = Region {
            id,
            start_key: borders[0].into(),
            end_key: borders[1].into(),
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 3 }),
            peers: info
                .region
                .peers
                .iter()
                .map(|peer| Peer {
                    id: peer.id + id,
                    ..*peer
                })
                .collect(),
            ..Region::default()
        };
        others.push(RegionInfo {
            approximate_bytes: 90 << 20,
            ..heartbeat(region, 6)
        });
    }
    let pause = |for_seconds| {
        Kind::Pause(SchedulerPause {
            scheduler: Scheduler::BalanceRegion as i32,
            for_seconds,
            until_seconds: 0,
        })
    };
    schedule(&mut bench, pause(60)).expect("it can be paused");
    schedule(
        &mut bench,
        Kind::Scheduler(proto::ferrite_pd::SchedulerSwitch {
            scheduler: Scheduler::BalanceLeader as i32,
            on: false,
        }),
    )
    .expect("it can be switched");
    info.region.end_key = "b".into();
    info.region.region_epoch = Some(RegionEpoch { conf_ver: 1, version: 3 });
    let all: Vec<RegionInfo> = std::iter::once(info).chain(others).collect();
    all.iter().for_each(|info| assert_eq!(bench.beat(info.clone()), Ok(None)));
    (1..=4).for_each(|id| beat_of_store(&mut bench, id, if id < 4 { 4 } else { 0 }));
    assert_eq!(bench.beat(all[0].clone()), Ok(None), "it rests");
    bench.wall = WallTime(bench.wall.0 + 61_000);
    assert!(matches!(bench.beat(all[0].clone()), Ok(Some(Operator::AddLearner(peer))) if peer.store_id == 4));
}

#[test]
fn many_regions_are_not_asked_for_all_the_time() {
    let (mut bench, _) = four_stores();
    for at in 0..3000_u64 {
        let key = |at: u64| Bytes::copy_from_slice(&(at + 1).to_be_bytes());
        let region = Region {
            id: 100 + at,
            start_key: key(at),
            end_key: key(at + 1),
            region_epoch: Some(RegionEpoch { conf_ver: 1, version: 5 }),
            peers: vec![peer(10_000 + 3 * at, 1), peer(10_001 + 3 * at, 2), peer(10_002 + 3 * at, 3)],
            ..Region::default()
        };
        bench.must_ask(Request::RegionHeartbeat(heartbeat(region, 6)));
    }
    let ask = |bench: &mut Bench| {
        bench.want_reports = false;
        bench.must_ask(Request::SplitAt(vec!["zz".into()]));
        bench.want_reports
    };
    bench.now = bench.now + Duration::from_secs(60);
    assert!(ask(&mut bench));
    assert!(!ask(&mut bench), "they were asked a moment ago");
    bench.now = bench.now + Duration::from_secs(4);
    bench.want_reports = false;
    beat_of_store(&mut bench, 1, 3000);
    assert!(bench.want_reports, "and are asked when it is time");
}

#[test]
fn a_lost_store_is_replaced_at_once_and_never_comes_back() {
    let (mut bench, mut info) = four_stores();
    let lose = |bench: &mut Bench| schedule(bench, Kind::LoseStore(3));
    assert!(
        matches!(lose(&mut bench), Err(Error::Invalid { .. })),
        "it spoke a moment ago"
    );
    bench.now = bench.now + Duration::from_secs(21);
    for id in [1, 2, 4] {
        beat_of_store(&mut bench, id, u32::from(id < 4));
    }
    assert_eq!(bench.beat(info.clone()), Ok(None), "a silent store may come back");
    assert_eq!(lose(&mut bench), Ok(Reply::Done));
    let view = bench.must_store(3);
    assert_eq!(
        (view.store.state(), view.store.physically_destroyed),
        (StoreState::Tombstone, true)
    );
    assert_eq!(
        lose(&mut bench),
        Err(Error::StoreTombstone { store: StoreId(3) }),
        "it may be repeated"
    );
    assert_eq!(
        bench.ask(Request::PutStore(store(3))),
        Err(Error::StoreTombstone { store: StoreId(3) })
    );
    let Ok(Some(Operator::AddLearner(learner))) = bench.beat(info.clone()) else {
        panic!("it has two copies left");
    };
    assert_eq!(learner.store_id, 4);
    // As unsafe recovery leaves a region: one voter, a much higher epoch and term.
    info.region.peers.truncate(1);
    info.region.region_epoch = Some(RegionEpoch {
        conf_ver: 70_000,
        version: 70_000,
    });
    info.term = 70_000;
    let told = bench.beat(info);
    assert!(matches!(told, Ok(Some(Operator::AddLearner(_)))), "{told:?}");
}
