//! The raft store under what others test at this level: unreliable networks, partitions, restarts, log compaction and raft
//! snapshots, leader transfer, changes of membership; the names are the field's usual ones.
//!
//! Every scenario ends alike: all is healed, every client must reach every region, every key ever used is read back, replicas must
//! agree, and the history must be linearizable.

mod common;

use std::time::Duration;

use base::{PeerId, RegionId};
use common::{Chaos, must_get, must_put, world};
use proto::metapb::{Peer, PeerRole};
use raftstore::command::ConfKind;
use sim::history::{Kind, Op};
use sim::network::{Cut, Node};
use sim::options::Options;
use sim::run::finish;
use sim::world::{World, one};

const REGION: RegionId = RegionId(1);

/// A cluster that compacts its logs early.
fn compacting() -> Options {
    Options {
        log_entries_max: 20,
        flush_interval: Duration::from_millis(300),
        ..Options::quiet()
    }
}

#[test]
fn basic() {
    Chaos {
        clients: 1,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn concurrent() {
    Chaos::none().run();
}

#[test]
fn unreliable() {
    Chaos {
        unreliable: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn one_partition() {
    let mut world = world(
        1,
        Options {
            stores: 5,
            replicas: 5,
            ..Options::quiet()
        },
    );
    must_put(&mut world, "ar0", "1");
    let (old, _) = world.leader(REGION).expect("a leader that took a write");
    // The leader keeps one follower: a minority.
    let other = world.store_ids().into_iter().find(|&id| id != old).expect("five stores");
    let (minority, majority): (Vec<_>, Vec<_>) = world
        .store_ids()
        .into_iter()
        .map(Node::Store)
        .partition(|&node| node == Node::Store(old) || node == Node::Store(other));
    world.network.separate(&minority, &majority);
    must_put(&mut world, "ar0", "2");
    let (new, _) = world.leader(REGION).expect("the majority's leader");
    assert!(majority.contains(&Node::Store(new)), "store {new} leads from the minority");
    assert_eq!(must_get(&mut world, "ar0").as_deref(), Some("2"));
    // What the minority cannot commit is lost or unknown, never acknowledged.
    let applied = world.replica(other, REGION).expect("a follower of the minority").applied;
    world.network.mend_all();
    world.run_for(Duration::from_secs(3)).expect("promises kept");
    assert!(
        world.replica(other, REGION).expect("it runs").applied > applied,
        "the minority does not catch up"
    );
    finish(&mut world).expect("a healthy end");
}

#[test]
fn a_minority_serves_nobody() {
    let mut world = world(
        2,
        Options {
            clients: 1,
            ..Options::quiet()
        },
    );
    must_put(&mut world, "ar0", "1");
    let (leader, _) = world.leader(REGION).expect("a leader that took a write");
    for id in world.store_ids().into_iter().filter(|&id| id != leader) {
        world.crash(id);
    }
    for op in [
        Op::Put {
            key: "ar0".into(),
            value: "of the minority".into(),
        },
        Op::Get {
            key: "ar0".into(),
            value: None,
        },
    ] {
        // Longer than the lease and the quorum check.
        world.run_for(Duration::from_secs(4)).expect("promises kept");
        let ended = world.perform(0, op).expect("promises kept");
        assert_ne!(ended.kind, Kind::Ok, "one store of three answered {ended:?}");
    }
    world.heal();
    finish(&mut world).expect("a healthy end");
}

#[test]
fn many_partitions_one_client() {
    Chaos {
        clients: 1,
        partitions: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn many_partitions_many_clients() {
    Chaos {
        partitions: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn persist_one_client() {
    Chaos {
        clients: 1,
        crashes: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn persist_concurrent() {
    Chaos {
        crashes: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn persist_concurrent_unreliable() {
    Chaos {
        crashes: true,
        unreliable: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn persist_partition() {
    Chaos {
        crashes: true,
        partitions: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn persist_partition_unreliable() {
    Chaos {
        crashes: true,
        partitions: true,
        unreliable: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn all_stores_crash_at_once() {
    let mut world = world(3, Options::quiet());
    for round in 0..5 {
        let value = format!("v{round}");
        must_put(&mut world, "ar0", &value);
        world.store_ids().into_iter().for_each(|id| world.crash(id));
        world.run_for(Duration::from_millis(500)).expect("promises kept");
        world.store_ids().into_iter().for_each(|id| world.restart(id));
        assert_eq!(must_get(&mut world, "ar0"), Some(value), "an acknowledged write is gone");
    }
    finish(&mut world).expect("a healthy end");
}

/// Cuts a follower off, writes until the others have compacted their logs, and mends; returns the follower.
fn leave_behind(world: &mut World) -> u64 {
    must_put(world, "ar0", "first");
    let (leader, _) = world.leader(REGION).expect("a leader that took a write");
    let lagging = world.store_ids().into_iter().find(|&id| id != leader).expect("three stores");
    let others: Vec<_> = world
        .store_ids()
        .into_iter()
        .filter(|&id| id != lagging)
        .map(Node::Store)
        .collect();
    world.network.separate(&[Node::Store(lagging)], &others);
    let has = world.replica(lagging, REGION).expect("it runs").last_index;
    for n in 0..150 {
        must_put(world, &format!("ar{n}"), &format!("w{n}"));
    }
    let compacted = world.run_until(Duration::from_secs(30), |world| {
        world.replica(leader, REGION).is_some_and(|r| r.first_index > has + 1)
    });
    assert!(
        compacted.expect("promises kept"),
        "the leader's log still reaches the follower cut off at {has}"
    );
    lagging
}

#[test]
fn one_snapshot() {
    let mut world = world(4, compacting());
    let lagging = leave_behind(&mut world);
    world.network.mend_all();
    finish(&mut world).expect("a healthy end");
    assert!(
        world.all_counts().get("raft_snapshot_installed") > 0,
        "the follower caught up without a raft snapshot"
    );
    let replica = world.replica(lagging, REGION).expect("it runs");
    let holds = |key: String| {
        replica
            .pairs
            .iter()
            .any(|(_, held, _)| *held == engine::keys::data_key(key.as_bytes()))
    };
    let missing: Vec<_> = (0..150).filter(|n| !holds(format!("ar{n}"))).collect();
    assert_eq!(missing, Vec::<u32>::new(), "the snapshot did not bring these keys");
}

#[test]
fn snapshot_recover() {
    let mut world = world(5, compacting());
    leave_behind(&mut world);
    world.network.mend_all();
    let installed = world.run_until(Duration::from_secs(30), |world| {
        world.all_counts().get("raft_snapshot_installed") > 0
    });
    assert!(installed.expect("promises kept"), "no raft snapshot came");
    world.store_ids().into_iter().for_each(|id| world.crash(id));
    world.store_ids().into_iter().for_each(|id| world.restart(id));
    assert_eq!(must_get(&mut world, "ar149").as_deref(), Some("w149"));
    finish(&mut world).expect("a healthy end");
}

#[test]
fn log_stays_short() {
    let mut world = world(6, compacting());
    for n in 0..400 {
        must_put(&mut world, "ar0", &format!("w{n}"));
    }
    world.run_for(Duration::from_secs(5)).expect("promises kept");
    for replica in world.replicas(REGION) {
        let entries = replica.last_index + 1 - replica.first_index;
        assert!(
            entries <= 100,
            "store {} keeps {entries} entries of {}",
            replica.store,
            replica.last_index
        );
    }
    finish(&mut world).expect("a healthy end");
}

#[test]
fn snapshot_recover_many_clients() {
    Chaos {
        snapshots: true,
        crashes: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn snapshot_unreliable() {
    Chaos {
        snapshots: true,
        unreliable: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn snapshot_unreliable_recover() {
    Chaos {
        snapshots: true,
        unreliable: true,
        crashes: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn snapshot_unreliable_recover_concurrent_partition() {
    Chaos {
        snapshots: true,
        unreliable: true,
        crashes: true,
        partitions: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn transfer_leader() {
    let mut world = world(7, Options::quiet());
    must_put(&mut world, "ar0", "1");
    for store in world.store_ids() {
        let region = world.leader(REGION).expect("a leader").1.region().clone();
        let to = raftstore::region::peer_on(&region, base::StoreId(store))
            .expect("a peer on every store")
            .id;
        world.transfer(REGION, PeerId(to));
        let led = world.run_until(Duration::from_secs(5), |world| {
            world.leader(REGION).is_some_and(|(id, _)| id == store)
        });
        assert!(led.expect("promises kept"), "store {store} does not lead");
        must_put(&mut world, "ar0", &format!("by {store}"));
    }
    finish(&mut world).expect("a healthy end");
}

#[test]
fn lease_ends_over_a_pause() {
    let mut world = world(
        8,
        Options {
            clients: 2,
            ..Options::quiet()
        },
    );
    must_put(&mut world, "ar0", "old");
    let (paused, _) = world.leader(REGION).expect("a leader that took a write");
    world.pause(paused);
    must_put(&mut world, "ar0", "new");
    world.resume(paused).expect("promises kept");
    assert_eq!(must_get(&mut world, "ar0").as_deref(), Some("new"));
    finish(&mut world).expect("a healthy end");
}

/// Asks for one change of membership until the leader lists it: one before it may still be under way.
fn must_change(world: &mut World, kind: ConfKind, peer: &Peer) {
    let wanted = match kind {
        ConfKind::AddVoter => Some(PeerRole::Voter),
        ConfKind::AddLearner => Some(PeerRole::Learner),
        ConfKind::Remove => None,
    };
    for _ in 0..20 {
        if let Some((_, leader)) = world.leader(REGION) {
            let region = leader.region().clone();
            if raftstore::region::peer_of(&region, PeerId(peer.id)).map(Peer::role) == wanted {
                return;
            }
            world.change_membership(REGION, raftstore::region::epoch(&region), vec![one(kind, peer)]);
        }
        world.run_for(Duration::from_millis(500)).expect("promises kept");
    }
    panic!("the change {kind:?} of {peer:?} does not take place");
}

#[test]
fn basic_conf_change() {
    let mut world = world(
        9,
        Options {
            stores: 5,
            ..Options::quiet()
        },
    );
    must_put(&mut world, "ar0", "1");
    let added: Vec<_> = [4, 5].into_iter().map(|store| world.new_peer(store)).collect();
    for peer in &added {
        must_change(&mut world, ConfKind::AddLearner, peer);
        must_change(&mut world, ConfKind::AddVoter, peer);
    }
    let first = *raftstore::region::peer_on(&world.regions()[0], base::StoreId(2)).expect("bootstrapped there");
    if world.leader(REGION).is_some_and(|(store, _)| store == 2) {
        world.transfer(REGION, PeerId(added[0].id));
        world.run_for(Duration::from_secs(2)).expect("promises kept");
    }
    must_change(&mut world, ConfKind::Remove, &first);
    let gone = world.run_until(Duration::from_secs(10), |world| world.replica(2, REGION).is_none());
    assert!(gone.expect("promises kept"), "the removed peer is still there");
    must_put(&mut world, "ar0", "2");
    // Back again, as another peer: the old one's id must not matter.
    let again = world.new_peer(2);
    must_change(&mut world, ConfKind::AddVoter, &again);
    finish(&mut world).expect("a healthy end");
    assert_eq!(world.replicas(REGION).len(), 5);
}

#[test]
fn conf_change_remove_leader() {
    let mut world = world(
        10,
        Options {
            stores: 4,
            ..Options::quiet()
        },
    );
    must_put(&mut world, "ar0", "1");
    let fourth = world.new_peer(4);
    must_change(&mut world, ConfKind::AddVoter, &fourth);
    let (store, leader) = world.leader(REGION).expect("a leader");
    let me = *raftstore::region::peer_on(leader.region(), base::StoreId(store)).expect("it lists itself");
    let epoch = raftstore::region::epoch(leader.region());
    world.change_membership(REGION, epoch, vec![one(ConfKind::Remove, &me)]);
    let moved = world.run_until(Duration::from_secs(20), |world| {
        world.leader(REGION).is_some_and(|(id, _)| id != store)
    });
    assert!(moved.expect("promises kept"), "nobody leads after the leader removed itself");
    must_put(&mut world, "ar0", "2");
    finish(&mut world).expect("a healthy end");
    assert!(world.replica(store, REGION).is_none(), "the removed leader keeps its data");
}

#[test]
fn a_stale_epoch_changes_nothing() {
    let mut world = world(
        11,
        Options {
            stores: 4,
            ..Options::quiet()
        },
    );
    must_put(&mut world, "ar0", "1");
    let old = raftstore::region::epoch(&world.regions()[0]);
    let fourth = world.new_peer(4);
    must_change(&mut world, ConfKind::AddVoter, &fourth);
    world.change_membership(REGION, old, vec![one(ConfKind::Remove, &fourth)]);
    world.run_for(Duration::from_secs(3)).expect("promises kept");
    assert_eq!(world.all_counts().get("admin_refused"), 1);
    finish(&mut world).expect("a healthy end");
    assert_eq!(world.replicas(REGION).len(), 4);
}

#[test]
fn conf_change_recover() {
    Chaos {
        conf_changes: true,
        crashes: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn conf_change_unreliable_recover() {
    Chaos {
        conf_changes: true,
        crashes: true,
        unreliable: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn conf_change_snapshot_unreliable_recover() {
    Chaos {
        conf_changes: true,
        snapshots: true,
        crashes: true,
        unreliable: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn conf_change_snapshot_unreliable_recover_concurrent_partition() {
    Chaos {
        conf_changes: true,
        snapshots: true,
        crashes: true,
        unreliable: true,
        partitions: true,
        ..Chaos::none()
    }
    .run();
}

#[test]
fn an_asymmetric_partition_does_not_stop_the_region() {
    let mut world = world(12, Options::quiet());
    must_put(&mut world, "ar0", "1");
    world.partition(Cut::Ring);
    let (leader, _) = world.leader(REGION).expect("a leader that took a write");
    let follower = world.store_ids().into_iter().find(|&id| id != leader).expect("three stores");
    // One follower hears nothing from the leader, but is heard by all: it must not call election after election.
    world.network.silence(&[Node::Store(leader)], &[Node::Store(follower)]);
    let before = world.leaders();
    for n in 0..20 {
        must_put(&mut world, "ar0", &format!("w{n}"));
        world.run_for(Duration::from_millis(500)).expect("promises kept");
    }
    assert!(
        world.leaders() <= before + 2,
        "{} elections in ten seconds",
        world.leaders() - before
    );
    world.heal();
    finish(&mut world).expect("a healthy end");
}
