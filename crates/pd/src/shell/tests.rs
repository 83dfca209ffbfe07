use std::collections::BTreeSet;
use std::path::Path;

use base::Ts;
use proto::metapb::{Peer, Region, RegionEpoch, Store};

use super::*;
use crate::log::memory::MemoryLog;

fn options() -> Options {
    Options {
        name: "pd-1".to_owned(),
        cluster_id_if_new: 7,
        member_id_if_new: 8,
        max_peer_count_if_new: 3,
        ..Options::default()
    }
}

fn must_open(dir: &Path) -> Pd {
    Pd::open(dir, options()).unwrap()
}

fn must_start(log: impl ReplicatedLog) -> Pd {
    Pd::start(Machine::new(options(), State::default(), 0), log).unwrap()
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

#[test]
fn what_was_answered_is_there_after_a_restart_and_snapshots() {
    let dir = tempfile::tempdir().unwrap();
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
    {
        let pd = must_open(dir.path());
        pd.handle()
            .ask(Request::Bootstrap {
                store,
                regions: vec![region],
            })
            .unwrap();
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
    let (log, recovered) = FileLog::open(dir.path()).unwrap();
    drop(log);
    assert!(recovered.index > SNAPSHOT_EVERY, "a snapshot was taken");
    let pd = must_open(dir.path());
    assert_eq!(
        pd.handle().ask(Request::GcSafePoint),
        Ok(Reply::SafePoint(Ts(SNAPSHOT_EVERY + 9)))
    );
}

/// A log whose disk fails, or hangs until told, once the member is up.
struct BadLog {
    inner: MemoryLog,
    good_polls: usize,
    gate: Option<mpsc::Receiver<()>>,
}

impl ReplicatedLog for BadLog {
    fn propose(&mut self, proposals: Vec<Proposal>) -> Result<(), log::Error> {
        self.inner.propose(proposals)
    }

    fn poll(&mut self) -> Result<Vec<LogEvent>, log::Error> {
        if self.good_polls > 0 {
            self.good_polls -= 1;
            return self.inner.poll();
        }
        match &self.gate {
            Some(gate) => drop(gate.recv()),
            None => {
                let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(log::Error::Io {
                    act: "write",
                    path: "log".to_owned(),
                    source,
                });
            }
        }
        self.inner.poll()
    }

    fn snapshot(&mut self, index: u64, state: &record::State) -> Result<(), log::Error> {
        self.inner.snapshot(index, state)
    }
}

#[test]
fn a_failed_write_answers_nobody_with_success() {
    let log = BadLog {
        inner: MemoryLog::new(),
        good_polls: 4,
        gate: None,
    };
    let pd = must_start(log);
    assert_eq!(pd.handle().ask(Request::AllocIds { count: 1_000 }), Err(Error::Stopped));
    assert_eq!(pd.handle().ask(Request::IsBootstrapped), Err(Error::Stopped));
}

#[test]
fn requests_beyond_the_bound_are_refused_and_the_rest_answered() {
    let (open, gate) = mpsc::channel();
    let log = BadLog {
        inner: MemoryLog::new(),
        good_polls: 4,
        gate: Some(gate),
    };
    let pd = must_start(log);
    let (sender, outcomes) = mpsc::channel();
    for _ in 0..IN_FLIGHT_MAX + 100 {
        let sender = sender.clone();
        pd.handle().submit(
            Request::PutStore(Store::default()),
            Box::new(move |outcome| sender.send(outcome.map(|_| ())).unwrap()),
        );
    }
    let refused: Vec<_> = outcomes.try_iter().collect();
    assert_eq!(refused, vec![Err(Error::Busy); 100]);
    drop(open);
    drop(sender);
    let mut answered = 0;
    while let Ok(outcome) = outcomes.recv() {
        assert_eq!(outcome, Err(Error::NotBootstrapped));
        answered += 1;
    }
    assert_eq!(answered, IN_FLIGHT_MAX);
}
