use base::PeerId;

use super::*;
use crate::merge::Merging;
use crate::offline::LogFacts;
use crate::storage::LogPosition;

fn peers(stores: &[u64]) -> Vec<Peer> {
    let peer = |&store_id: &u64| Peer {
        id: 10 + store_id,
        store_id,
        ..Peer::default()
    };
    stores.iter().map(peer).collect()
}

/// A replica that has applied all of its log.
fn facts(store: u64, id: u64, range: (&str, &str), version: u64, stores: &[u64], last: (u64, u64)) -> Facts {
    let last = LogPosition {
        term: last.0,
        index: last.1,
    };
    Facts {
        store: StoreId(store),
        region: Region {
            id,
            start_key: range.0.to_owned().into(),
            end_key: range.1.to_owned().into(),
            region_epoch: Some(RegionEpoch { conf_ver: 3, version }),
            peers: peers(stores),
            ..Region::default()
        },
        peer: PeerId(10 + store),
        state: State::Normal,
        merging: None,
        merged_into: RegionId(0),
        since: RegionEpoch::default(),
        applied: last,
        log: LogFacts {
            term: last.term,
            commit: last.index,
            last,
            ..LogFacts::default()
        },
    }
}

fn whole(store: u64, stores: &[u64], last: (u64, u64)) -> Facts {
    facts(store, 1, ("", ""), 2, stores, last)
}

fn planned(all: Vec<Facts>, given: &[u64], lost: &[u64]) -> Plan {
    let of = |store: u64| all.iter().filter(|facts| facts.store.0 == store).cloned().collect();
    let stores: Vec<_> = given.iter().map(|&store| (StoreId(store), of(store))).collect();
    let lost = lost.iter().copied().map(StoreId).collect();
    plan(&stores, &lost, false).expect("a plan")
}

fn choices(plan: &Plan) -> Vec<(u64, Choice)> {
    plan.steps
        .iter()
        .map(|step| (step.best.region.id, step.choice.clone()))
        .collect()
}

fn only_voter(store: u64, version: u64) -> Choice {
    Choice::OnlyVoter {
        store: StoreId(store),
        above: RegionEpoch { conf_ver: 3, version },
        rolls_back: false,
    }
}

fn refusal(plan: &Plan) -> &str {
    match &plan.steps[0].choice {
        Choice::Refused(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_highest_log_goes_on() {
    let all = vec![whole(1, &[1, 2, 3, 4, 5], (6, 90)), whole(2, &[1, 2, 3, 4, 5], (7, 20))];
    let plan = planned(all, &[1, 2], &[3, 4, 5]);
    assert_eq!(choices(&plan), [(1, only_voter(2, 2))]);
    assert_eq!(
        (&plan.steps[0].lost[..], &plan.steps[0].others[..]),
        (&[StoreId(3), StoreId(4), StoreId(5)][..], &[StoreId(1)][..])
    );
    assert_eq!((plan.healthy, &plan.holes[..]), (0, &[][..]));
}

#[test]
fn a_replica_that_was_recovered_before_comes_first() {
    let mut saved = whole(2, &[1, 2, 3], (6, 9));
    saved.region = crate::rescue::only_voter(&saved.region, &saved.region.peers[1], RegionEpoch::default());
    // Store 1 was taken for lost then.
    let found_again = whole(1, &[1, 2, 3], (6, 12));
    let plan = planned(vec![found_again, saved], &[1, 2], &[3]);
    assert_eq!((plan.steps, plan.healthy), (vec![], 1));
}

#[test]
fn a_log_is_applied_before_more_is_decided() {
    let mut behind = whole(1, &[1, 2, 3], (6, 9));
    (behind.applied.index, behind.log.commit) = (7, 0);
    let plan = planned(vec![behind], &[1], &[2, 3]);
    assert_eq!(choices(&plan), [(1, Choice::ApplyLog { store: StoreId(1) })]);
    assert_eq!(plan.steps[0].doubtful_entries(), 2);
}

#[test]
fn regions_with_a_majority_are_left_alone() {
    let one_lost = || vec![whole(1, &[1, 2, 3], (6, 9))];
    assert_eq!(planned(one_lost(), &[1, 2], &[3]).healthy, 1);
    let mut joint = whole(1, &[1, 2, 3, 4], (6, 9));
    joint.region.peers[0].set_role(PeerRole::DemotingVoter);
    joint.region.peers[3].set_role(PeerRole::IncomingVoter);
    // Of the new voters 2, 3 and 4 two are gone, of the old ones one.
    assert_eq!(
        choices(&planned(vec![joint.clone()], &[1, 2], &[3, 4])),
        [(1, only_voter(1, 2))]
    );
    assert_eq!(planned(vec![joint], &[1, 2, 3], &[4]).healthy, 1);
    let mut learner = whole(1, &[1, 2, 3], (6, 9));
    learner.region.peers[2].set_role(PeerRole::Learner);
    assert_eq!(planned(vec![learner], &[1, 2], &[3]).healthy, 1, "learners do not vote");
}

#[test]
fn all_that_is_left_must_be_seen() {
    let all = vec![whole(1, &[1, 2, 3], (6, 9))];
    let plan = planned(all, &[1], &[3, 4]);
    assert_eq!(plan.healthy, 1, "store 2 lives");
    let plan = planned(vec![whole(1, &[1, 2, 3, 4], (6, 9))], &[1], &[3, 4]);
    assert_eq!(
        refusal(&plan),
        "store 2 holds a peer too: give its data or report, or name it as lost"
    );
    let lost: BTreeSet<_> = [StoreId(1)].into();
    assert_eq!(
        super::plan(&[(StoreId(1), Vec::new())], &lost, false),
        Err(PlanError::LostIsHere(StoreId(1)))
    );
    assert_eq!(super::plan(&[], &BTreeSet::new(), false), Err(PlanError::NothingLost));
}

#[test]
fn a_region_does_not_grow_over_what_was_cut_out_of_it() {
    // Store 1 has not heard of the split that store 2 has.
    let all = vec![whole(1, &[1, 4, 5], (6, 9)), facts(2, 2, ("", "m"), 3, &[2, 4, 5], (6, 9))];
    let plan = planned(all, &[1, 2], &[4, 5]);
    assert_eq!(
        refusal(&plan),
        "region 2 holds a part of its range, and is newer: what is left of this one is out of date"
    );
    assert_eq!(choices(&plan)[1], (2, only_voter(2, 3)));
}

#[test]
fn a_region_that_stands_still_goes_on_after_its_target() {
    let target = facts(1, 2, ("m", ""), 2, &[1, 2, 3], (6, 9));
    let mut source = facts(1, 1, ("", "m"), 3, &[1, 2, 3], (6, 9));
    (source.state, source.merging) = (
        State::Merging,
        Some(Merging {
            target: target.region.clone(),
            at: source.log.last,
        }),
    );
    let plan = planned(vec![source.clone(), target.clone()], &[1], &[2, 3]);
    assert!(
        refusal(&plan).starts_with("it stands still, to be merged into region 2"),
        "{}",
        refusal(&plan)
    );
    assert_eq!(choices(&plan)[1], (2, only_voter(1, 2)));

    let mut saved = target;
    saved.region = crate::rescue::only_voter(&saved.region, &saved.region.peers[0], RegionEpoch::default());
    let plan = planned(vec![source, saved], &[1], &[2, 3]);
    let Choice::OnlyVoter { rolls_back, .. } = plan.steps[0].choice else {
        panic!("{plan:?}")
    };
    assert!(rolls_back);
    assert_eq!((plan.steps.len(), plan.healthy), (1, 1));
}

#[test]
fn what_nobody_holds_is_told() {
    let all = vec![
        facts(1, 1, ("b", "d"), 2, &[1, 2, 3], (6, 9)),
        facts(1, 2, ("d", "f"), 2, &[1, 2, 3], (6, 9)),
        facts(1, 3, ("g", "h"), 2, &[1, 2, 3], (6, 9)),
    ];
    let holes = planned(all, &[1], &[2, 3]).holes;
    let text: Vec<_> = holes.iter().map(|(start, end)| (&start[..], &end[..])).collect();
    assert_eq!(text, [(&b""[..], &b"b"[..]), (b"f", b"g"), (b"h", b"")]);
    assert_eq!(planned(Vec::new(), &[1], &[2]).holes, [(Bytes::new(), Bytes::new())]);
}
