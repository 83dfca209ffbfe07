use engine::MemEngine;
use engine::kv::Modify;
use proto::ferrite_raft::{ApplyState, MergeSource};

use super::*;
use crate::command::{ConfOne, encode_changes, encode_conf_change};
use crate::log::MemLog;
use crate::offline::{self, Facts, State};
use crate::snapshot::MemSnapshots;
use crate::split::{self, SplitOne};
use crate::{merge, store};

const ID: RegionId = RegionId(1);
const NOW: RegionEpoch = RegionEpoch { conf_ver: 3, version: 2 };

fn peer(id: u64, store_id: u64) -> Peer {
    Peer {
        id,
        store_id,
        ..Peer::default()
    }
}

fn range(id: u64, start: &str, end: &str) -> Region {
    Region {
        id,
        start_key: start.to_owned().into(),
        end_key: end.to_owned().into(),
        region_epoch: Some(NOW),
        peers: (1..=3).map(|store| peer(10 * id + store, store)).collect(),
        ..Region::default()
    }
}

/// A store's disk; peers of store 1.
#[derive(Default)]
struct Disk {
    engine: Arc<MemEngine>,
    log: Arc<MemLog>,
}

impl Disk {
    /// A region with entries behind what is applied, of which the first two are known to be committed.
    fn with(self, region: &Region, entries: Vec<Entry>) -> Disk {
        store::write_regions(&*self.engine, &*self.log, StoreId(1), std::slice::from_ref(region)).expect("memory writes");
        let state = RaftState {
            term: 6,
            vote: 2,
            commit: 7,
            truncated_index: 5,
            truncated_term: 5,
        };
        let write = RaftWrite {
            region: RegionId(region.id),
            entries,
            state: Some(state),
            ..RaftWrite::default()
        };
        self.log.write(&[write], true).expect("memory writes");
        self
    }

    fn open(&self) -> Rescue {
        let snapshots = Arc::<MemSnapshots>::default();
        Rescue::open(StoreId(1), self.engine.clone(), self.log.clone(), snapshots).expect("nothing is damaged")
    }

    fn facts(&self) -> Vec<Facts> {
        offline::read(StoreId(1), &*self.engine, &*self.log).expect("memory reads")
    }

    fn fact(&self, id: u64) -> Facts {
        self.facts()
            .into_iter()
            .find(|facts| facts.region.id == id)
            .expect("it is there")
    }

    fn faults(&self) -> Vec<(RegionId, String)> {
        offline::check(&self.facts(), &*self.log, &MemSnapshots::default()).expect("memory reads")
    }

    fn value(&self, key: &str) -> Option<Bytes> {
        self.engine
            .get(Cf::Default, &keys::data_key(key.as_bytes()))
            .expect("memory reads")
    }
}

/// Entries of term 6 from index 6 on.
fn entries(datas: Vec<Entry>) -> Vec<Entry> {
    let number = |(index, mut entry): (u64, Entry)| {
        (entry.index, entry.term) = (index, 6);
        entry
    };
    (6..).zip(datas).map(number).collect()
}

fn normal(data: Vec<u8>) -> Entry {
    Entry {
        data: data.into(),
        ..Entry::default()
    }
}

fn put(key: &str, version: u64) -> Entry {
    let change = Modify::Put {
        cf: Cf::Default,
        key: key.to_owned().into(),
        value: "v".into(),
    };
    normal(encode_changes(RegionEpoch { version, ..NOW }, vec![change]))
}

fn conf_change(kind: ConfKind, peer: Peer) -> Entry {
    let one = ConfOne {
        kind: kind as i32,
        peer: Some(peer),
    };
    let (context, _) = encode_conf_change(NOW, vec![one]);
    Entry {
        entry_type: EntryType::EntryConfChangeV2,
        context: context.into(),
        ..Entry::default()
    }
}

fn cut(key: &str, id: u64) -> Entry {
    let one = SplitOne {
        key: key.to_owned().into(),
        region_id: id,
        peer_ids: (1..=3).map(|store| 10 * id + store).collect(),
    };
    normal(split::encode(NOW, vec![one]))
}

fn must_be_only_voter(disk: &Disk, id: u64, above: RegionEpoch) -> Facts {
    let facts = disk.fact(id);
    let peers: Vec<_> = facts.region.peers.iter().map(|peer| (peer.id, peer.role())).collect();
    assert_eq!(peers, [(10 * id + 1, PeerRole::Voter)]);
    let epoch = region::epoch(&facts.region);
    assert!(epoch.conf_ver >= above.conf_ver + RAISE && epoch.version >= above.version + RAISE);
    assert_eq!(
        (facts.state, facts.log.commit, facts.log.vote),
        (State::Normal, facts.log.last.index, 0)
    );
    assert_eq!((facts.applied, facts.log.term), (facts.log.last, 6 + RAISE));
    assert_eq!(disk.faults(), []);
    facts
}

#[test]
fn all_of_the_log_is_applied_and_one_voter_is_left() {
    let log = entries(vec![
        put("a", 2),
        put("b", 2),
        conf_change(ConfKind::AddVoter, peer(14, 4)),
        put("c", 2),
    ]);
    let disk = Disk::default().with(&range(1, "", ""), log);
    assert_eq!(disk.fact(1).applied.index, 5);
    assert_eq!(disk.fact(1).known.peers.len(), 3, "7 is committed, 8 may not be");
    let above = RegionEpoch { conf_ver: 9, version: 1 };
    let region = disk.open().make_only_voter(ID, above, false).expect("it has all it needs");
    let facts = must_be_only_voter(&disk, 1, RegionEpoch { conf_ver: 9, version: 2 });
    assert_eq!((facts.region, facts.applied.index), (region, 9));
    assert!(["a", "b", "c"].iter().all(|key| disk.value(key).is_some()));

    // Once more: nothing is lost, and the epoch rises further.
    disk.open().make_only_voter(ID, above, false).expect("it may be repeated");
    assert_eq!(disk.fact(1).region.peers.len(), 1);
    assert_eq!(disk.fact(1).applied.index, 9);
}

#[test]
fn the_only_voter_elects_itself_and_writes() {
    let disk = Disk::default().with(&range(1, "", ""), entries(vec![put("a", 2), put("b", 2)]));
    disk.open().make_only_voter(ID, NOW, false).expect("it has all it needs");
    let snapshots = Arc::<MemSnapshots>::default();
    let mut store = Store::new(
        StoreId(1),
        Arc::default(),
        disk.engine.clone(),
        disk.log.clone(),
        snapshots,
        7,
    );
    let (mut peer, _applier) = store
        .recover(MonoTime::default())
        .expect("memory reads")
        .pop()
        .expect("one peer");
    let mut now = MonoTime::default();
    for _ in 0..200 {
        now = now + Config::default().tick.0;
        let effects = peer.step(now, [crate::peer::Event::Tick]);
        for write in &effects.writes {
            let ready = write.ready;
            let _effects = peer.step(now, [crate::peer::Event::Persisted { ready }]);
        }
    }
    assert!(peer.is_leader(), "nobody else is asked");
    assert!(peer.term() > 6 + RAISE);
}

#[test]
fn a_log_that_divides_the_region_makes_both_parts() {
    let log = entries(vec![put("a", 2), cut("m", 2), put("n", 3), put("b", 3)]);
    let disk = Disk::default().with(&range(1, "", ""), log);
    assert_eq!(disk.open().apply_log(ID).expect("it applies"), 9);
    let (left, right) = (disk.fact(2), disk.fact(1));
    assert_eq!(
        (&left.region.end_key[..], &right.region.start_key[..]),
        (&b"m"[..], &b"m"[..])
    );
    assert_eq!((left.log.last.index, left.region.peers.len()), (5, 3));
    assert_eq!(disk.faults(), []);
    let mut rescue = disk.open();
    for id in [1, 2] {
        rescue.make_only_voter(RegionId(id), NOW, false).expect("it has all it needs");
    }
    must_be_only_voter(&disk, 1, NOW);
    assert_eq!(disk.fact(2).region.peers, [peer(21, 1)]);
    assert_eq!(disk.faults(), []);
}

#[test]
fn a_replica_that_its_log_removes_is_left_as_it_is() {
    let log = entries(vec![put("a", 2), put("b", 2), conf_change(ConfKind::Remove, peer(11, 1))]);
    let disk = Disk::default().with(&range(1, "", ""), log);
    let told = disk
        .open()
        .make_only_voter(ID, NOW, false)
        .expect_err("its data would go")
        .to_string();
    assert_eq!(
        told,
        "region 1: entry 8 of its log removes this store's peer 11: another replica must be taken"
    );
    assert_eq!((disk.fact(1).applied.index, disk.fact(1).log.commit), (5, 7));
}

#[test]
fn a_learner_that_leaves_a_joint_state_becomes_the_voter() {
    let mut region = range(1, "", "");
    region.peers[0].set_role(PeerRole::DemotingVoter);
    region.peers[1].set_role(PeerRole::IncomingVoter);
    let disk = Disk::default().with(&region, entries(vec![put("a", 2)]));
    disk.open().make_only_voter(ID, NOW, false).expect("it has all it needs");
    must_be_only_voter(&disk, 1, NOW);
}

fn merging() -> (Disk, Region, Region) {
    let (source, target) = (range(1, "", "m"), range(2, "m", ""));
    let log = entries(vec![put("a", 2), normal(merge::encode_prepare(NOW, target.clone()))]);
    (Disk::default().with(&source, log), source, target)
}

#[test]
fn a_region_that_stands_still_goes_on_only_when_told() {
    let (disk, ..) = merging();
    let told = disk
        .open()
        .make_only_voter(ID, NOW, false)
        .expect_err("its target may take it over")
        .to_string();
    assert!(told.contains("to be merged into region 2"), "{told}");
    assert_eq!(disk.fact(1).state, State::Merging);
    disk.open().make_only_voter(ID, NOW, true).expect("it is told to");
    must_be_only_voter(&disk, 1, NOW);
    assert_eq!(disk.fact(1).merging, None);
}

#[test]
fn a_log_that_takes_a_neighbour_over_waits_for_its_log() {
    let (disk, source, target) = merging();
    let prepared = merge::prepare(&source, NOW, &target).expect("they are neighbours");
    let taken = MergeSource {
        region: Some(prepared),
        index: 7,
        term: 6,
    };
    let mut commit = normal(merge::encode_commit(NOW, taken));
    commit.context = merge::COMMIT_CONTEXT.into();
    let disk = disk.with(&target, entries(vec![put("n", 2), commit, put("a2", 4)]));
    disk.open()
        .make_only_voter(RegionId(2), NOW, false)
        .expect("the source's log is here");
    let whole = disk.fact(2).region;
    assert_eq!((&whole.start_key[..], &whole.end_key[..]), (&b""[..], &b""[..]));
    assert_eq!(
        (disk.fact(1).state, disk.fact(1).merged_into),
        (State::Tombstone, RegionId(2))
    );
    assert!(["a", "n", "a2"].iter().all(|key| disk.value(key).is_some()));
    assert_eq!(disk.faults(), []);
    let gone = disk
        .open()
        .make_only_voter(ID, NOW, true)
        .expect_err("it is no more")
        .to_string();
    assert_eq!(gone, "region 1: this store has no data of it");
}

#[test]
fn damage_is_told() {
    let disk = Disk::default()
        .with(&range(1, "", "m"), entries(vec![put("a", 2), put("b", 2)]))
        .with(&range(2, "k", ""), Vec::new());
    let mut batch = Batch::new();
    let applied = ApplyState {
        applied_index: 7,
        applied_term: 4,
    };
    batch.put(Cf::Local, keys::apply_state(ID), applied.encode_to_vec());
    disk.engine.write(batch).expect("memory writes");
    let faults: Vec<String> = disk.faults().iter().map(|(id, fault)| format!("{id}: {fault}")).collect();
    assert_eq!(
        faults,
        [
            "1: entry 7 was applied with term 4, but its log has another there",
            "2: 7 is committed, but its log ends at 5",
            "2: region 1 holds a part of its range",
        ]
    );
}

#[test]
fn equal_data_gives_equal_digests() {
    let log = || entries(vec![put("a", 2), put("b", 2)]);
    let (one, other) = (
        Disk::default().with(&range(1, "", ""), log()),
        Disk::default().with(&range(1, "", ""), log()),
    );
    let digest = |disk: &Disk| offline::digest(&*disk.engine.snapshot(), &range(1, "", "")).expect("memory reads");
    one.open().apply_log(ID).expect("it applies");
    assert_ne!(digest(&one), digest(&other));
    other.open().apply_log(ID).expect("it applies");
    assert_eq!(offline::sum(&digest(&one)), offline::sum(&digest(&other)));
    assert_eq!((digest(&one)[0].keys, digest(&one)[1].keys), (2, 0));
    let mut batch = Batch::new();
    batch.put(Cf::Default, keys::data_key(b"b"), "w");
    other.engine.write(batch).expect("memory writes");
    assert_ne!(offline::sum(&digest(&one)), offline::sum(&digest(&other)));
}

#[test]
fn an_empty_region_takes_the_place_of_one_that_is_gone() {
    let disk = Disk::default().with(&range(1, "", "m"), entries(vec![put("a", 2), put("b", 2)]));
    let gone = |id, start, end| Region {
        peers: vec![peer(1, 1)],
        ..range(id, start, end)
    };
    let all = disk.facts();
    for bad in [gone(2, "k", ""), gone(2, "x", "n"), range(2, "m", ""), gone(1, "m", "")] {
        assert!(disk.open().create(bad.clone(), &all).is_err(), "{bad:?}");
    }
    disk.open().create(gone(2, "m", ""), &all).expect("nobody holds the range");
    let facts = disk.fact(2);
    assert_eq!(
        (facts.region.peers.len(), facts.applied.index, facts.log.term),
        (1, 5, 6 + RAISE)
    );
    assert_eq!(region::epoch(&facts.region).version, NOW.version + RAISE);
    assert_eq!(disk.faults(), []);

    disk.open().destroy(&disk.fact(1)).expect("memory writes");
    assert_eq!((disk.fact(1).state, disk.value("a")), (State::Tombstone, None));
    assert_eq!(disk.faults(), []);
    assert_eq!(disk.open().store.regions(), [RegionId(2)]);
}

#[test]
fn committed_members_are_known_before_they_are_applied() {
    let log = entries(vec![put("a", 2), conf_change(ConfKind::AddVoter, peer(14, 4))]);
    let disk = Disk::default().with(&range(1, "", ""), log);
    let facts = disk.fact(1);
    assert_eq!(
        (facts.region.peers.len(), facts.known.peers.len(), facts.applied.index),
        (3, 4, 5)
    );
}

#[test]
fn a_replica_that_was_removed_counts_as_gone_before_it_is() {
    let log = entries(vec![put("a", 2), conf_change(ConfKind::Remove, peer(11, 1)), put("b", 2)]);
    let disk = Disk::default().with(&range(1, "", "m"), log);
    let all = disk.facts();
    assert!(all[0].is_removed());
    let plan = plan(&[(StoreId(1), all.clone())], &[StoreId(2), StoreId(3)].into(), false).expect("stores are told");
    assert_eq!((plan.steps, plan.holes), (vec![], vec![(Bytes::new(), Bytes::new())]));

    let empty = Region {
        peers: vec![peer(1, 1)],
        ..range(1, "", "m")
    };
    disk.open().create(empty, &all).expect("what was removed makes room");
    assert_eq!((disk.fact(1).log.term, disk.value("a")), (6 + RAISE, None));
    assert_eq!(disk.faults(), []);
}
