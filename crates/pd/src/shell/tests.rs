use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use base::Ts;
use proto::metapb::{Peer, Region, RegionEpoch, Store};

use super::*;
use crate::log::Stored;
use crate::machine::SNAPSHOT_EVERY;

const ME: MemberId = MemberId(8);

struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, to: MemberId, _: &str, _: Vec<GroupMessage>) {
        panic!("a member that is alone sends to {to:?}");
    }
}

fn options() -> Options {
    Options {
        member: ME,
        name: "pd-1".to_owned(),
        cluster_id_if_new: 7,
        max_peer_count_if_new: 3,
        merge_after: Duration::ZERO,
        ..Options::default()
    }
}

fn founder() -> record::Member {
    record::Member {
        id: ME.0,
        name: "pd-1".to_owned(),
        ..record::Member::default()
    }
}

fn must_open(dir: &Path) -> Pd {
    let mut log = FileLog::open(dir, ME).unwrap();
    if log.is_new() {
        log.begin(Stored::founding(ME, vec![founder()])).unwrap();
    }
    let pd = Pd::start(Handle::not_started(ME), log, options(), Nowhere, 3);
    let deadline = MonoTime::now() + Duration::from_secs(30);
    assert!(
        pd.handle()
            .wait_for(deadline, |status| status.cluster.is_some() && status.leads()),
        "a member alone leads at once"
    );
    pd
}

fn must_tso(handle: &Handle, count: u32) -> Ts {
    match handle.ask(Request::Tso { count }) {
        Ok(Reply::Timestamps { last, .. }) => last,
        other => panic!("{other:?}"),
    }
}

#[test]
fn many_threads_get_different_timestamps_and_ids_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let mut timestamps = BTreeSet::new();
    let mut ids = BTreeSet::new();
    let mut highest = Ts(0);
    for _ in 0..3 {
        let pd = must_open(dir.path());
        assert_eq!(pd.handle().cluster(), ClusterId(7));
        let askers: Vec<_> = (0..4)
            .map(|asker| {
                let handle = pd.handle().clone();
                base::thread::spawn(&format!("asker-{asker}"), move || {
                    let timestamps: Vec<Ts> = (0..200).map(|_| must_tso(&handle, 1)).collect();
                    assert!(timestamps.is_sorted_by(|a, b| a < b), "one asker sees them rise");
                    let ids = (0..50).map(|_| match handle.ask(Request::AllocIds { count: 1 }) {
                        Ok(Reply::Ids { first, .. }) => first,
                        other => panic!("{other:?}"),
                    });
                    (timestamps, ids.collect::<Vec<_>>())
                })
            })
            .collect();
        let mut of_run = BTreeSet::new();
        for asker in askers {
            let (of_asker, ids_of_asker) = asker.join().unwrap();
            of_run.extend(of_asker);
            ids.extend(ids_of_asker);
        }
        assert!(*of_run.first().unwrap() > highest, "a restart goes on above");
        highest = *of_run.last().unwrap();
        timestamps.extend(of_run);
    }
    assert_eq!((timestamps.len(), ids.len()), (3 * 4 * 200, 3 * 4 * 50));
}

fn bootstrap() -> Request {
    let peer = Peer {
        id: 3,
        store_id: 1,
        ..Peer::default()
    };
    let region = Region {
        id: 2,
        region_epoch: Some(RegionEpoch::default()),
        peers: vec![peer],
        ..Region::default()
    };
    let store = Store {
        id: 1,
        address: "127.0.0.1:20160".to_owned(),
        ..Store::default()
    };
    Request::Bootstrap {
        store,
        regions: vec![region],
    }
}

#[test]
fn what_was_answered_is_there_after_a_restart_and_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    {
        let pd = must_open(dir.path());
        pd.handle().ask(bootstrap()).unwrap();
        for round in 0..SNAPSHOT_EVERY + 10 {
            let ts = Ts(round);
            pd.handle()
                .submit(Request::UpdateGcSafePoint(ts), Box::new(|outcome| assert!(outcome.is_ok())));
        }
        assert_eq!(
            pd.handle().ask(Request::UpdateGcSafePoint(Ts(0))),
            Ok(Reply::SafePoint(Ts(SNAPSHOT_EVERY + 9)))
        );
    }
    let log = FileLog::open(dir.path(), ME).unwrap();
    assert!(log.stored().snapshot.position.index > SNAPSHOT_EVERY, "a snapshot was taken");
    drop(log);
    let pd = must_open(dir.path());
    assert_eq!(
        pd.handle().ask(Request::GcSafePoint),
        Ok(Reply::SafePoint(Ts(SNAPSHOT_EVERY + 9)))
    );
}

#[test]
fn requests_beyond_the_bound_are_refused_and_the_rest_answered() {
    let dir = tempfile::tempdir().unwrap();
    let pd = must_open(dir.path());
    let (sender, outcomes) = mpsc::channel();
    // A callback that blocks keeps the thread from taking more.
    let (open, gate) = mpsc::channel::<()>();
    pd.handle().submit(
        Request::Members,
        Box::new(move |_| assert!(gate.recv().is_err(), "it waits until the other end is dropped")),
    );
    for _ in 0..IN_FLIGHT_MAX + 100 {
        let sender = sender.clone();
        pd.handle().submit(
            Request::PutStore(Store::default()),
            Box::new(move |outcome| sender.send(outcome.map(|_| ())).unwrap()),
        );
    }
    let refused: Vec<_> = outcomes.try_iter().collect();
    assert!((99..=101).contains(&refused.len()) && refused.iter().all(|outcome| *outcome == Err(Error::Busy)));
    drop(open);
    drop(sender);
    let answered = outcomes
        .iter()
        .inspect(|outcome| assert_eq!(*outcome, Err(Error::NotBootstrapped)));
    assert_eq!(answered.count(), IN_FLIGHT_MAX + 100 - refused.len());
}

#[test]
fn nobody_leads_before_the_start_and_all_is_over_after_the_end() {
    let handle = Handle::not_started(ME);
    assert_eq!(handle.ask(Request::IsBootstrapped), Err(Error::NotLeader));
    let dir = tempfile::tempdir().unwrap();
    let pd = must_open(dir.path());
    let handle = pd.handle().clone();
    assert_eq!(handle.ask(Request::IsBootstrapped), Ok(Reply::Bootstrapped(false)));
    drop(pd);
    assert_eq!(handle.ask(Request::IsBootstrapped), Err(Error::Stopped));
}
