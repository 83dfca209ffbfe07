use super::*;
use crate::log::MemLog;
use crate::snapshot::MemSnapshots;
use engine::MemEngine;

const ID: RegionId = RegionId(3);

fn peer(id: u64, store_id: u64) -> PeerMeta {
    PeerMeta {
        id,
        store_id,
        ..PeerMeta::default()
    }
}

struct Disk(Arc<MemEngine>, Arc<MemLog>);

impl Disk {
    fn open(&self) -> Store {
        Store::new(
            StoreId(1),
            Arc::default(),
            self.0.clone(),
            self.1.clone(),
            Arc::<MemSnapshots>::default(),
            7,
        )
    }

    fn start(&self) -> Store {
        let mut store = self.open();
        assert!(store.recover(MonoTime(0)).expect("memory reads").is_empty());
        store
    }

    /// As the peer without data of region 3 does when it votes in `term`.
    fn vote(&self, term: u64) {
        let state = RaftState {
            term,
            vote: 2,
            ..RaftState::default()
        };
        let write = RaftWrite {
            region: ID,
            state: Some(state),
            ..RaftWrite::default()
        };
        self.1.write(&[write], true).expect("memory writes");
    }

    fn term(&self) -> Option<u64> {
        Some(self.1.find(ID).expect("memory reads")?.state.term)
    }
}

fn disk() -> Disk {
    Disk(Arc::default(), Arc::default())
}

fn region() -> Region {
    Region {
        id: ID.0,
        peers: vec![peer(20, 2), peer(30, 3)],
        ..Region::default()
    }
}

fn grave(peer: u64) -> Grave {
    Grave {
        peer: PeerId(peer),
        ..Grave::default()
    }
}

#[test]
fn a_start_finishes_a_destruction_once_and_spares_the_next_peers_vote() {
    let disk = disk();
    let store = disk.start();
    disk.vote(6);
    store.write_tombstone(&region(), &grave(10)).expect("memory writes");
    disk.start();
    assert_eq!(disk.term(), None, "the old peer's log goes");
    disk.vote(7);
    disk.start();
    assert_eq!(disk.term(), Some(7), "the new peer's stays");
    disk.start().destroy(&region(), PeerId(11)).expect("memory writes");
    disk.vote(8);
    disk.start();
    assert_eq!(disk.term(), Some(8));
}

/// A crash between the split that makes a region and the first entry of its log.
#[test]
fn a_region_that_was_just_made_begins_after_a_crash() {
    for waited in [false, true] {
        let disk = disk();
        let me = peer(20, 1);
        let region = Region {
            peers: vec![me, peer(30, 3)],
            ..region()
        };
        if waited {
            disk.vote(7);
        }
        let state = RegionState {
            state: region_state::State::Normal as i32,
            region: Some(region.clone()),
            peer_id: me.id,
            ..RegionState::default()
        };
        let applied = ApplyState {
            applied_index: INITIAL.index,
            applied_term: INITIAL.term,
        };
        let mut batch = Batch::new();
        batch.put(Cf::Local, keys::region_state(ID), state.encode_to_vec());
        batch.put(Cf::Local, keys::apply_state(ID), applied.encode_to_vec());
        disk.0.write(batch).expect("memory writes");
        let peers = disk.open().recover(MonoTime(0)).expect("nothing is damaged");
        let [(peer, applier)] = &peers[..] else {
            panic!("one peer, not {}", peers.len())
        };
        assert_eq!((peer.term(), peer.last_index()), (if waited { 7 } else { 5 }, 5));
        assert_eq!((applier.applied(), applier.region()), (INITIAL, &region));
    }
}

/// Found by the simulator, seed c54: a new peer took up the raft snapshot of the one before it, in which it is no member.
#[test]
fn a_new_peer_does_not_begin_with_the_snapshot_of_the_one_before() {
    for (to, begins) in [(10, true), (15, false)] {
        let disk = disk();
        let snapshots = Arc::<MemSnapshots>::default();
        let position = LogPosition { index: 16, term: 6 };
        let key = Key { region: ID, position };
        let old = Region {
            peers: vec![peer(10, 1), peer(20, 2)],
            ..region()
        };
        let job = crate::snapshot::Generate {
            key,
            region: old,
            data: disk.0.snapshot(),
        };
        snapshots.generate(&job).expect("memory writes");
        snapshots.receive(key, snapshots.made(key).expect("just made"));
        let state = RaftState {
            term: 6,
            commit: 16,
            truncated_index: 16,
            truncated_term: 6,
            ..RaftState::default()
        };
        let write = RaftWrite {
            region: ID,
            state: Some(state),
            ..RaftWrite::default()
        };
        disk.1.write(&[write], true).expect("memory writes");
        let mut store = Store::new(
            StoreId(1),
            Arc::default(),
            disk.0.clone(),
            disk.1.clone(),
            snapshots.clone(),
            7,
        );
        let heartbeat = RaftMessage {
            region_id: ID.0,
            from: Some(peer(20, 2)),
            to: Some(peer(to, 1)),
            kind: raft::eraftpb::MessageType::MsgHeartbeat as u32,
            ..RaftMessage::default()
        };
        let Decision::Create(made) = store.on_message(&heartbeat, MonoTime(0)).expect("memory reads") else {
            panic!("peer {to} is made")
        };
        assert_eq!(
            (made.0.is_initialized(), made.1.applied().index == 16),
            (begins, begins),
            "peer {to}"
        );
        assert!(!snapshots.contains(key), "put in place or dropped");
    }
}

/// Found by the simulator: the tombstone said that nothing was left while the log's removal was not durable yet.
#[test]
fn a_destroyed_peers_log_stays_gone_over_a_crash() {
    let disk = disk();
    let mut store = disk.start();
    disk.vote(6);
    store.destroy(&region(), PeerId(10)).expect("memory writes");
    let after = Disk(disk.0.clone(), Arc::new(disk.1.crash(0)));
    after.start();
    assert_eq!(after.term(), None);
}
