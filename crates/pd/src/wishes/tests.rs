use std::collections::BTreeSet;

use super::*;
use crate::fleet::Fleet;
use crate::regions::RegionInfo;
use crate::testkit::{fleet, peer, region, rules, short};

const NOW: MonoTime = MonoTime(1_000_000_000_000);

fn with_fit<R>(info: &RegionInfo, fleet: &Fleet, act: impl FnOnce(&Fit<'_>) -> R) -> R {
    let rules = rules("");
    act(&Fit::new(info, fleet, rules.at(b""), None))
}

/// Does what is wished until nothing is; how it ended.
fn carry_out(wishes: &mut Wishes, info: &mut RegionInfo, fleet: &Fleet) -> Option<Progress> {
    for _ in 0..20 {
        match with_fit(info, fleet, |fit| wishes.next(NOW, fit))? {
            Next::End(_, progress) => return Some(progress),
            Next::Do(Plan::TransferLeader(to), _) => info.leader = to,
            Next::Do(Plan::AddLearner { to, instead_of }, _) => {
                let from = instead_of.expect("a peer goes for the one that comes");
                if info.leader.store_id == from.0 {
                    info.leader = *info
                        .region
                        .peers
                        .iter()
                        .find(|peer| peer.store_id != from.0)
                        .expect("there are others");
                }
                info.region.peers.retain(|peer| peer.store_id != from.0);
                info.region.peers.push(peer(to.0, PeerRole::Voter));
            }
            other => panic!("{other:?}"),
        }
    }
    panic!("it goes on for ever")
}

#[test]
fn regions_of_a_group_are_spread_evenly() {
    let stores = "1:60/60@z1 2:60/0@z1 3:60/0@z2 4:0/0@z2 5:0/0@z3 6:0/0@z3";
    let (fleet, mut wishes) = (fleet(stores), Wishes::default());
    let mut regions: Vec<RegionInfo> = (1..=60)
        .map(|id| {
            let mut info = region("1 3 5");
            info.region.id = id;
            info
        })
        .collect();
    for info in &mut regions {
        with_fit(info, &fleet, |fit| wishes.scatter(NOW, fit, "table")).expect("there is room");
        assert_eq!(wishes.why(info.id()), Some(Why::Scatter));
        assert_eq!(carry_out(&mut wishes, info, &fleet), Some(Progress::Done));
        assert_eq!(wishes.why(info.id()), None);
    }
    let on = |store: u64| {
        regions
            .iter()
            .filter(|info| info.region.peers.iter().any(|peer| peer.store_id == store))
            .count()
    };
    let led = |store: u64| regions.iter().filter(|info| info.leader.store_id == store).count();
    assert_eq!([1, 2, 3, 4, 5, 6].map(on), [30; 6]);
    assert_eq!([1, 2, 3, 4, 5, 6].map(led), [10; 6]);
    for info in &regions {
        let zones: BTreeSet<u64> = info.region.peers.iter().map(|peer| peer.store_id.div_ceil(2)).collect();
        assert_eq!(zones.len(), 3, "copies stay apart: {:?}", info.region.peers);
    }
    // Again: they are as they should be.
    let before = regions.clone();
    for info in &mut regions {
        with_fit(info, &fleet, |fit| wishes.scatter(NOW, fit, "table")).expect("there is room");
        carry_out(&mut wishes, info, &fleet);
    }
    let moved = regions
        .iter()
        .zip(&before)
        .filter(|(a, b)| a.region.peers != b.region.peers)
        .count();
    assert!(moved <= 6, "{moved} of 60 moved again");
}

#[test]
fn what_people_ask_for_is_checked_and_done() {
    let (fleet, mut wishes, mut info) = (fleet("1:5/1 2:5/1 3:5/1e 4:5/1 5:5/1d"), Wishes::default(), region("1 2 3"));
    let lead = |wishes: &mut Wishes, to| with_fit(&region("1 2 3"), &fleet, |fit| wishes.lead(NOW, fit, StoreId(to)));
    assert!(
        lead(&mut wishes, 4).is_err() && lead(&mut wishes, 3).is_err(),
        "no peer, and one that must not"
    );
    lead(&mut wishes, 2).expect("it may");
    assert_eq!(carry_out(&mut wishes, &mut info, &fleet), Some(Progress::Done));
    assert_eq!(info.leader.store_id, 2);

    let go = |wishes: &mut Wishes, info: &RegionInfo, from, to| {
        with_fit(info, &fleet, |fit| wishes.transfer(NOW, fit, StoreId(from), StoreId(to)))
    };
    for (from, to) in [(4, 1), (1, 2), (1, 5), (1, 9)] {
        assert!(go(&mut wishes, &info, from, to).is_err(), "{from} to {to}");
    }
    go(&mut wishes, &info, 1, 4).expect("it may");
    assert_eq!(carry_out(&mut wishes, &mut info, &fleet), Some(Progress::Done));
    let on: BTreeSet<u64> = info.region.peers.iter().map(|peer| peer.store_id).collect();
    assert_eq!(on, BTreeSet::from([2, 3, 4]));
}

#[test]
fn a_wish_ends_when_nothing_comes_of_it() {
    let (open, info, mut wishes) = (fleet("1:5/1 2:5/1 3:5/1 4:5/1"), region("1 2 3"), Wishes::default());
    let ask = |wishes: &mut Wishes| with_fit(&info, &open, |fit| wishes.transfer(NOW, fit, StoreId(1), StoreId(4)));
    let next = |wishes: &mut Wishes, now: MonoTime, on: &str| with_fit(&info, &fleet(on), |fit| wishes.next(now, fit));
    ask(&mut wishes).expect("it may");
    assert_eq!(
        next(&mut wishes, NOW, "1:5/1 2:5/1 3:5/1 4:5/1a"),
        Some(Next::Wait),
        "it takes no more now"
    );
    match next(&mut wishes, NOW, "1:5/1 2:5/1 3:5/1 4:5/1") {
        Some(Next::Do(plan, Why::Wish)) => assert_eq!(short(&plan), "add 4"),
        other => panic!("{other:?}"),
    }
    let end = next(&mut wishes, NOW, "1:5/1 2:5/1 3:5/1 4:5/1d");
    assert_eq!(end, Some(Next::End(Why::Wish, Progress::GivenUp)));
    assert_eq!(next(&mut wishes, NOW, "1:5/1 2:5/1 3:5/1 4:5/1"), None);

    ask(&mut wishes).expect("it may");
    let end = next(&mut wishes, NOW + MOVE_MAX, "1:5/1 2:5/1 3:5/1 4:5/1");
    assert_eq!(end, Some(Next::End(Why::Wish, Progress::TookTooLong)));
    ask(&mut wishes).expect("it may");
    wishes.tidy(NOW, |_| false);
    assert_eq!(wishes.why(info.id()), None);
}
