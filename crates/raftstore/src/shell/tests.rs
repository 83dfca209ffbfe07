//! Three stores on threads, joined by channels.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::command::{AdminError, ConfKind};
use crate::log::{EngineLog, LogConfig};
use crate::store;
use engine::MemEngine;
use proto::metapb::{Peer as PeerMeta, Region, RegionEpoch};

/// Delivers to stores of the same test by direct call.
#[derive(Default)]
struct Net {
    stores: RwLock<BTreeMap<u64, RaftStore>>,
    cut: RwLock<Option<u64>>,
}

struct Link {
    net: Arc<Net>,
    from: u64,
}

impl Link {
    fn open(&self, to: u64) -> Option<RaftStore> {
        let cut = *self.net.cut.read();
        let dead = cut == Some(to) || cut == Some(self.from);
        self.net.stores.read().get(&to).filter(|_| !dead).cloned()
    }
}

impl Transport for Link {
    fn send(&self, messages: Vec<RaftMessage>) {
        for message in messages {
            let to = message.to.as_ref().map_or(0, |to| to.store_id);
            if let Some(store) = self.open(to) {
                store.on_messages(vec![message]);
            }
        }
    }

    fn send_snapshot(&self, message: RaftMessage, key: crate::snapshot::Key, done: Box<dyn FnOnce(bool) + Send>) {
        let source = self.net.stores.read().get(&self.from).cloned();
        let target = self.open(message.to.as_ref().map_or(0, |to| to.store_id));
        base::thread::spawn("snap-test", move || {
            let carry = || -> Option<()> {
                let target = target?;
                let mut receiving = target.receive_snapshot(&message).ok()?;
                for part in source?.snapshots().read_made(key).ok()? {
                    receiving.part(&part.ok()?).ok()?;
                }
                receiving.finish().ok()?;
                target.on_messages(vec![message]);
                Some(())
            };
            done(carry().is_some());
        });
    }
}

struct Quiet;

impl Reporter for Quiet {
    fn report(&self, _: Report) {}
    fn split_wanted(&self, _: SplitWanted) {}
    fn forget(&self, _: RegionId) {}
}

fn regions(stores: u64) -> Vec<Region> {
    let ranges = [("", "m"), ("m", "")];
    let make = |(at, (start, end)): (usize, &(&str, &str))| Region {
        id: at as u64 + 1,
        start_key: start.to_string().into(),
        end_key: end.to_string().into(),
        region_epoch: Some(RegionEpoch { conf_ver: 1, version: 1 }),
        peers: (1..=stores)
            .map(|s| PeerMeta {
                id: 10 * (at as u64 + 1) + s,
                store_id: s,
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    ranges.iter().enumerate().map(make).collect()
}

fn start_store(net: &Arc<Net>, dir: &Path, id: u64, regions: &[Region]) -> RaftStore {
    let engine: Arc<dyn Engine> = Arc::new(MemEngine::new());
    let dir = dir.join(id.to_string());
    let log: Arc<dyn RaftLog> = Arc::new(
        EngineLog::open(&dir.join("log"), &LogConfig::default(), Box::new(|error| panic!("{error}"))).expect("open log"),
    );
    store::write_ident(&*engine, ClusterId(7), StoreId(id)).expect("ident");
    store::write_regions(&*engine, &*log, StoreId(id), regions).expect("regions");
    let config = Config {
        tick: base::Span::millis(20),
        lease: base::Span::millis(160),
        log_entries_max: 50,
        flush_interval: base::Span::millis(100),
        hibernate_after: base::Span::millis(200),
        ..Config::default()
    };
    let started = RaftStore::start(Parts {
        store: StoreId(id),
        cluster: ClusterId(7),
        config,
        engine,
        log,
        snapshots: Arc::new(FileSnapshots::open(&dir.join("snap")).expect("open snapshots")),
        transport: Arc::new(Link {
            net: net.clone(),
            from: id,
        }),
        reporter: Arc::new(Quiet),
        answer: Box::new(|answer| answer()),
        seed: id,
        fatal: Box::new(|error| panic!("store died: {}", base::log::chain(error))),
    });
    let started = started.expect("start");
    net.stores.write().insert(id, started.clone());
    started
}

struct Cluster {
    net: Arc<Net>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// `stores` stores; regions have peers on the first `members` of them.
    fn new(stores: u64, members: u64) -> Cluster {
        let cluster = Cluster {
            net: Arc::default(),
            dir: tempfile::tempdir().expect("temp dir"),
        };
        for id in 1..=stores {
            let held = if id <= members { regions(members) } else { Vec::new() };
            start_store(&cluster.net, cluster.dir.path(), id, &held);
        }
        cluster
    }

    fn stores(&self) -> Vec<RaftStore> {
        self.net.stores.read().values().cloned().collect()
    }

    fn leader_of(&self, region: RegionId) -> Option<(RaftStore, Arc<Region>)> {
        let cut = *self.net.cut.read();
        let live = self.stores().into_iter().filter(|store| Some(store.store_id().0) != cut);
        live.filter_map(|store| {
            let led = store.led_regions().into_iter().find(|r| r.id == region.0)?;
            Some((store, led))
        })
        .next()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for store in self.stores() {
            store.stop().expect("stop");
        }
        self.net.stores.write().clear();
    }
}

/// Repeats until it gives something, for ten seconds.
fn must<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = MonoTime::now() + Duration::from_secs(10);
    let pause = crossbeam_channel::tick(Duration::from_millis(5));
    while MonoTime::now() < deadline {
        if let Some(value) = attempt() {
            return value;
        }
        pause.recv().expect("a tick channel never closes");
    }
    panic!("waited in vain for {what}");
}

fn region_of(key: &str) -> RegionId {
    RegionId(if key < "m" { 1 } else { 2 })
}

fn wait<T: Send + 'static>(call: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> Option<T> {
    let (send, receive) = crossbeam_channel::bounded(1);
    call(Box::new(move |value| drop(send.send(value))));
    receive.recv_timeout(Duration::from_secs(3)).ok()
}

impl Cluster {
    fn ctx(&self, region: &Region) -> Context {
        Context {
            region: RegionId(region.id),
            epoch: region.region_epoch.unwrap_or_default(),
            ..Context::default()
        }
    }

    fn must_put(&self, key: &str, value: &str) {
        must("a put", || {
            let (store, region) = self.leader_of(region_of(key))?;
            let change = Modify::Put {
                cf: engine::Cf::Default,
                key: key.to_owned().into(),
                value: value.to_owned().into(),
            };
            let deadline = MonoTime::now() + Duration::from_secs(1);
            wait(|reply| store.write(&self.ctx(&region), vec![change], deadline, reply))?.ok()
        });
    }

    fn must_get(&self, key: &str) -> Option<String> {
        must("a get", || {
            let (store, region) = self.leader_of(region_of(key))?;
            let snapshot = wait(|reply| store.snapshot(&self.ctx(&region), MonoTime::now(), reply))?.ok()?;
            let value = snapshot.get(engine::Cf::Default, key.as_bytes()).expect("read");
            Some(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
        })
    }

    /// What a store's engine holds, whoever leads.
    fn holds(&self, store: u64, key: &str) -> bool {
        let store = self.net.stores.read().get(&store).cloned().expect("known store");
        store
            .engine()
            .get(engine::Cf::Default, &engine::keys::data_key(key.as_bytes()))
            .expect("read")
            .is_some()
    }

    fn must_change(&self, region: RegionId, changes: Vec<ConfOne>) {
        must("a change of membership", || {
            let (store, meta) = self.leader_of(region)?;
            let epoch = meta.region_epoch.unwrap_or_default();
            wait::<std::result::Result<(), AdminError>>(|reply| store.change_membership(region, epoch, changes.clone(), reply))?
                .ok()
        });
    }
}

fn one(kind: ConfKind, region: u64, store: u64) -> ConfOne {
    ConfOne {
        kind: kind as i32,
        peer: Some(PeerMeta {
            id: 10 * region + store,
            store_id: store,
            ..Default::default()
        }),
    }
}

/// Divides the region that holds all before `m` at these keys, under new ids.
fn must_split(cluster: &Cluster, keys: &[&str]) {
    must("a split", || {
        let (store, region) = cluster.leader_of(RegionId(1))?;
        let one = |(at, key): (usize, &&str)| SplitOne {
            key: key.to_string().into(),
            region_id: 100 + at as u64,
            peer_ids: region
                .peers
                .iter()
                .map(|peer| 1000 + 10 * at as u64 + peer.store_id)
                .collect(),
        };
        let parts = keys.iter().enumerate().map(one).collect();
        let epoch = region.region_epoch.unwrap_or_default();
        wait::<std::result::Result<(), AdminError>>(|reply| store.split(RegionId(1), epoch, parts, reply))?.ok()
    });
}

#[test]
fn a_region_divides_on_all_stores_and_goes_on() {
    let cluster = Cluster::new(3, 3);
    for i in 0..30 {
        cluster.must_put(&format!("a{i:02}"), &i.to_string());
    }
    must_split(&cluster, &["a10", "a20"]);
    for (region, start, end) in [(100, "", "a10"), (101, "a10", "a20"), (1, "a20", "m")] {
        let (store, led) = must("a leader of each part", || cluster.leader_of(RegionId(region)));
        assert_eq!((&led.start_key[..], &led.end_key[..]), (start.as_bytes(), end.as_bytes()));
        assert_eq!(led.region_epoch.map(|epoch| epoch.version), Some(3));
        let snapshot = must("a read", || {
            wait(|reply| store.snapshot(&cluster.ctx(&led), MonoTime::now(), reply))?.ok()
        });
        let key = if start.is_empty() { "a05" } else { start }.to_owned();
        let found = snapshot.get(engine::Cf::Default, key.as_bytes()).expect("read");
        assert!(found.is_some(), "{key} in region {region}");
        let change = Modify::Put {
            cf: engine::Cf::Default,
            key: key.into(),
            value: "new".into(),
        };
        let deadline = MonoTime::now() + Duration::from_secs(1);
        let wrote = must("a write", || {
            wait(|reply| store.write(&cluster.ctx(&led), vec![change.clone()], deadline, reply))
        });
        assert_eq!(wrote, Ok(()));
    }
    for store in cluster.stores() {
        must("all parts on every store", || (store.counts().0 == 4).then_some(()));
    }
    let (store, led) = must("a leader", || cluster.leader_of(RegionId(1)));
    let old = Context {
        epoch: RegionEpoch { conf_ver: 1, version: 1 },
        ..cluster.ctx(&led)
    };
    match wait(|reply| store.snapshot(&old, MonoTime::now(), reply)) {
        Some(Err(KvError::EpochNotMatch { current })) => {
            let mut ids: Vec<_> = current.iter().map(|region| region.id).collect();
            ids.sort();
            assert_eq!(ids, [1, 100, 101], "the regions that now cover the old range");
        }
        other => panic!("refused otherwise: {:?}", other.map(|read| read.map(drop))),
    }
}

#[test]
fn writes_reach_all_stores_and_reads_see_them() {
    let cluster = Cluster::new(3, 3);
    for i in 0..20 {
        cluster.must_put(&format!("a{i}"), &i.to_string());
        cluster.must_put(&format!("x{i}"), &i.to_string());
    }
    for i in 0..20 {
        assert_eq!(cluster.must_get(&format!("a{i}")), Some(i.to_string()));
        assert_eq!(cluster.must_get(&format!("x{i}")), Some(i.to_string()));
    }
    assert_eq!(cluster.must_get("b"), None);
    for store in 1..=3 {
        must("replication", || cluster.holds(store, "x19").then_some(()));
    }
}

#[test]
fn leadership_moves_when_told_and_when_the_leader_is_cut_off() {
    let cluster = Cluster::new(3, 3);
    cluster.must_put("a", "1");
    let (leader, region) = cluster.leader_of(RegionId(1)).expect("it just answered");
    let target = *region
        .peers
        .iter()
        .find(|p| p.store_id != leader.store_id().0)
        .expect("three peers");
    must("a transfer", || {
        wait::<std::result::Result<(), AdminError>>(|reply| leader.transfer_leader(RegionId(1), PeerId(target.id), reply))?.ok()
    });
    must("the new leader", || {
        cluster
            .leader_of(RegionId(1))
            .filter(|(store, _)| store.store_id().0 == target.store_id)
    });
    assert_eq!(cluster.must_get("a"), Some("1".to_owned()));
    *cluster.net.cut.write() = Some(target.store_id);
    cluster.must_put("a", "2");
    assert_eq!(cluster.must_get("a"), Some("2".to_owned()));
    *cluster.net.cut.write() = None;
    cluster.must_put("a", "3");
    assert_eq!(cluster.must_get("a"), Some("3".to_owned()));
}

#[test]
fn quiet_regions_hibernate_and_outlive_their_leaders() {
    let cluster = Cluster::new(3, 3);
    cluster.must_put("a", "1");
    cluster.must_put("x", "1");
    let rest = || cluster.stores().iter().all(|store| store.hibernating() == 2).then_some(());
    must("rest", rest);
    let (leader, _) = must("a leader", || cluster.leader_of(RegionId(1)));
    *cluster.net.cut.write() = Some(leader.store_id().0);
    // Nobody asks for anything: the other stores find out by themselves.
    must("another leader", || cluster.leader_of(RegionId(1)));
    cluster.must_put("a", "2");
    *cluster.net.cut.write() = None;
    must("rest once more", rest);
    assert_eq!(cluster.must_get("a"), Some("2".to_owned()));
    assert_eq!(cluster.must_get("x"), Some("1".to_owned()));
}

#[test]
fn a_store_without_room_takes_only_what_frees_some() {
    let cluster = Cluster::new(3, 3);
    cluster.must_put("a", "1");
    let (leader, region) = must("a leader", || cluster.leader_of(RegionId(1)));
    let other = cluster
        .stores()
        .into_iter()
        .find(|store| store.store_id() != leader.store_id());
    let other = other.expect("three stores");
    let key = || bytes::Bytes::from("a");
    let put = |cf| Modify::Put {
        cf,
        key: key(),
        value: "2".into(),
    };
    let delete = |cf| Modify::Delete { cf, key: key() };
    let write = |changes: Vec<Modify>| {
        let deadline = MonoTime::now() + Duration::from_secs(1);
        wait(|reply| leader.write(&cluster.ctx(&region), changes, deadline, reply)).expect("an answer")
    };
    other.set_disk_full(true);
    let full = KvError::DiskFull {
        store: other.store_id().0,
    };
    must("the leader's knowledge", || {
        (write(vec![put(Cf::Default)]) == Err(full.clone())).then_some(())
    });
    assert_eq!(write(vec![put(Cf::Lock)]), Err(full.clone()), "a lock");
    assert_eq!(write(vec![put(Cf::Write)]), Err(full), "a transaction of one phase");
    assert_eq!(write(vec![put(Cf::Write), delete(Cf::Lock)]), Ok(()), "a commit");
    assert_eq!(write(vec![delete(Cf::Default)]), Ok(()));
    assert_eq!(cluster.must_get("a"), None, "reads go on");
    other.set_disk_full(false);
    must("room again", || write(vec![put(Cf::Default)]).ok());
}

#[test]
fn a_new_peer_gets_a_raft_snapshot_and_a_removed_one_is_destroyed() {
    let cluster = Cluster::new(4, 3);
    for i in 0..200 {
        cluster.must_put(&format!("a{i:03}"), &"v".repeat(100));
    }
    cluster.must_change(RegionId(1), vec![one(ConfKind::AddLearner, 1, 4)]);
    must("the learner's data", || {
        (cluster.holds(4, "a000") && cluster.holds(4, "a199")).then_some(())
    });
    cluster.must_change(RegionId(1), vec![one(ConfKind::AddVoter, 1, 4)]);
    let (leader, _) = must("a leader", || cluster.leader_of(RegionId(1)));
    let gone = (1..=3).find(|id| *id != leader.store_id().0).expect("three members");
    cluster.must_change(RegionId(1), vec![one(ConfKind::Remove, 1, gone)]);
    must("the removed peer's end", || {
        let store = cluster.net.stores.read().get(&gone).cloned().expect("known store");
        (!store.regions().contains(&RegionId(1)) && !cluster.holds(gone, "a000")).then_some(())
    });
    assert_eq!(cluster.must_get("a199"), Some("v".repeat(100)));
    cluster.must_put("x", "the other region lives on");
}

/// Readers of two regions on one store, each of which knows what was acknowledged to it. Peers of one poll share threads and whatever
/// those keep for a poll.
#[test]
fn reads_of_regions_that_share_a_thread_see_what_was_acknowledged() {
    const ROUNDS: u64 = 400;
    let cluster = Cluster::new(1, 1);
    cluster.must_put("a", "0");
    cluster.must_put("x", "0");
    let store = cluster.stores().remove(0);
    let mut clients = Vec::new();
    for client in 0..8 {
        let key = format!("{}{client}", if client % 2 == 0 { "a" } else { "x" });
        let (_, region) = must("a leader", || cluster.leader_of(region_of(&key)));
        let (ctx, store) = (cluster.ctx(&region), store.clone());
        clients.push(base::thread::spawn("client", move || {
            for round in 1..=ROUNDS {
                let value = bytes::Bytes::from(round.to_string());
                let change = Modify::Put {
                    cf: engine::Cf::Default,
                    key: key.clone().into(),
                    value: value.clone(),
                };
                let deadline = MonoTime::now() + Duration::from_secs(3);
                let written = wait(|reply| store.write(&ctx, vec![change], deadline, reply)).expect("answered");
                written.expect("the only peer leads");
                let view = wait(|reply| store.snapshot(&ctx, MonoTime::now(), reply)).expect("answered");
                let found = view
                    .expect("the only peer leads")
                    .get(engine::Cf::Default, key.as_bytes())
                    .expect("read");
                assert_eq!(found, Some(value), "{key} in round {round}");
            }
        }));
    }
    clients
        .into_iter()
        .for_each(|client| client.join().expect("every read saw its write"));
}

#[test]
fn members_are_exchanged_jointly() {
    let cluster = Cluster::new(5, 3);
    cluster.must_put("a", "1");
    let (leader, _) = cluster.leader_of(RegionId(1)).expect("it just answered");
    let others: Vec<u64> = (1..=3).filter(|id| *id != leader.store_id().0).collect();
    cluster.must_change(
        RegionId(1),
        vec![
            one(ConfKind::AddVoter, 1, 4),
            one(ConfKind::AddVoter, 1, 5),
            one(ConfKind::AddLearner, 1, others[0]),
            one(ConfKind::AddLearner, 1, others[1]),
        ],
    );
    must("the joint state to be left", || {
        let (_, region) = cluster.leader_of(RegionId(1))?;
        let mut roles: Vec<_> = region.peers.iter().map(|peer| (peer.store_id, peer.role)).collect();
        roles.sort();
        let wanted: Vec<_> = (1..=5).map(|id| (id, i32::from(others.contains(&id)))).collect();
        (roles == wanted).then_some(())
    });
    assert_eq!(cluster.must_get("a"), Some("1".to_owned()));
    for store in 4..=5 {
        must("replication", || cluster.holds(store, "a").then_some(()));
    }
}

#[test]
fn one_of_two_survivors_of_five_goes_on_and_the_other_gives_way() {
    let cluster = Cluster::new(5, 5);
    cluster.must_put("a", "1");
    cluster.must_put("x", "1");
    let all = cluster.stores();
    let order = |store: usize, region, order| {
        wait::<std::result::Result<(), AdminError>>(|reply| all[store].rescue(RegionId(region), order, reply))
    };
    let only_voter = Order::OnlyVoter {
        above: RegionEpoch { conf_ver: 5, version: 5 },
        rolls_back: false,
    };
    let led = order(0, 1, only_voter);
    assert!(matches!(led, Some(Err(AdminError::Refused { .. }))), "it has a leader");
    for lost in &all[2..] {
        cluster.net.stores.write().remove(&lost.store_id().0);
        lost.stop().expect("stop");
    }
    // What raft would never call committed now counts.
    for region in [1, 2] {
        must("the whole log", || order(1, region, Order::ApplyLog)?.ok());
        must("one voter", || order(1, region, only_voter)?.ok());
    }
    must("the other gives way", || (all[0].counts().0 == 0).then_some(()));
    for (key, value) in [("a", "1"), ("x", "1"), ("a", "2"), ("x", "2")] {
        if value == "2" {
            cluster.must_put(key, value);
        }
        assert_eq!(cluster.must_get(key), Some(value.to_owned()));
    }
    let (leader, region) = must("a leader", || cluster.leader_of(RegionId(1)));
    assert_eq!((leader.store_id(), region.peers.len()), (StoreId(2), 1));
    let epoch = region.region_epoch.expect("it has one");
    assert_eq!(epoch.conf_ver, 5 + crate::rescue::RAISE);
}
