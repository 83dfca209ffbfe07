use super::*;
use crate::testkit::{fleet, region};

#[test]
fn orders_stand_until_done_or_too_old() {
    let now = MonoTime(1_000_000_000_000);
    let (info, all) = (region("1 2"), fleet("1:5/1 2:5/1 3:5/1 4:4/0"));
    let mut operators = Operators::default();
    let mut ids = 50..60;
    let mut issue = |operators: &mut Operators, plan| operators.issue(now, &info, (plan, Why::Repair), || ids.next().map(PeerId));
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
    let arriving = |operators: &Operators, store| operators.moving(StoreId(store)).arriving;
    assert_eq!((arriving(&operators, 4), arriving(&operators, 3)), (1, 0));
    assert_eq!(operators.progress(info.id()), Some((Why::Repair, Progress::Runs)));
    assert_eq!(operators.standing(info.id(), &all), Some(first));
    assert!(!operators.review(now + Duration::from_secs(599), &info));
    assert!(operators.review(now + MOVE_MAX, &info), "too old");
    assert_eq!((operators.standing(info.id(), &all), arriving(&operators, 4)), (None, 0));
    assert_eq!(operators.progress(info.id()), Some((Why::Repair, Progress::TookTooLong)));

    let to = info.region.peers[1];
    issue(&mut operators, Plan::TransferLeader(to)).expect("needs no id");
    let leading = |operators: &Operators| [1, 2].map(|store| operators.moving(StoreId(store)).leading);
    assert_eq!(leading(&operators), [-1, 1]);
    let led = RegionInfo {
        leader: to,
        ..info.clone()
    };
    assert!(operators.review(now, &led), "done");
    assert_eq!(leading(&operators), [0, 0]);
    assert_eq!(operators.progress(info.id()), Some((Why::Repair, Progress::Done)));

    // What concerns a region that is no more is given up.
    let (to, instead_of) = (StoreId(4), Some(StoreId(2)));
    issue(&mut operators, Plan::AddLearner { to, instead_of }).expect("an id is there");
    assert_eq!(operators.moving(StoreId(2)).departing, 1);
    operators.tidy(|_| false);
    let moving = [1, 2, 3, 4].map(|store| operators.moving(StoreId(store)));
    assert_eq!((moving, operators.all().count()), ([Moving::default(); 4], 0));
}

#[test]
fn a_new_peer_counts_until_it_has_data() {
    let (now, mut operators) = (MonoTime(1_000_000_000_000), Operators::default());
    let (to, instead_of) = (StoreId(4), None);
    let plan = (Plan::AddLearner { to, instead_of }, Why::Repair);
    operators.issue(now, &region("1 2"), plan, || Some(PeerId(50)));
    let on_their_way = |operators: &Operators| (operators.moving(to).arriving, operators.moving(to).catching_up);
    assert_eq!(on_their_way(&operators), (1, 0));
    let mut came = region("1 2 +?4");
    came.region.region_epoch.as_mut().expect("it has one").conf_ver += 1;
    assert!(operators.review(now, &came), "it was carried out");
    assert_eq!(on_their_way(&operators), (0, 1));
    operators.review(now, &came);
    assert_eq!(on_their_way(&operators), (0, 1));
    came.pending_peers.clear();
    operators.review(now, &came);
    assert_eq!(on_their_way(&operators), (0, 0));
}
