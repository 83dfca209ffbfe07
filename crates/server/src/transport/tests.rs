//! Two stores' transports over real sockets on loopback.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::{MonoTime, RegionId};
use engine::MemEngine;
use engine::{Batch, Cf, Engine, keys};
use futures::FutureExt;
use proto::ferrite_raft::{ConfState, Entry, SnapshotMeta};
use proto::metapb::{Peer, Region};
use raftstore::Transport;
use raftstore::snapshot::{Generate, Snapshots};
use raftstore::storage::LogPosition;

use super::*;
use crate::listen;

const CLUSTER: ClusterId = ClusterId(7);
const SENDER: StoreId = StoreId(1);
const RECEIVER: StoreId = StoreId(2);
const PATIENCE: Duration = Duration::from_secs(20);

fn message(index: u64) -> RaftMessage {
    let peer = |store: StoreId| {
        Some(Peer {
            id: store.0 * 10,
            store_id: store.0,
            ..Peer::default()
        })
    };
    RaftMessage {
        region_id: 3,
        from: peer(SENDER),
        to: peer(RECEIVER),
        index,
        ..RaftMessage::default()
    }
}

/// A store that only receives.
struct Sink {
    got: Arc<Mutex<Vec<RaftMessage>>>,
    snapshots: Arc<FileSnapshots>,
    listener: listen::Listener,
    _dir: tempfile::TempDir,
}

impl Sink {
    fn start(cluster: ClusterId, port: TcpListener) -> Sink {
        port.set_nonblocking(true).expect("a socket can be made non-blocking");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let snapshots = Arc::new(FileSnapshots::open(dir.path()).expect("a fresh directory"));
        let got = Arc::new(Mutex::new(Vec::new()));
        let into = got.clone();
        let deliver: service::Deliver = Arc::new(move |messages| into.lock().extend(messages));
        let receiver = service::Receiver::new(cluster, RECEIVER, deliver, snapshots.clone(), 2);
        let routes = tonic::service::Routes::new(receiver.into_service()).into_axum_router();
        let listener = listen::serve(port, routes, 100, None).expect("a bound socket can be served");
        Sink {
            got,
            snapshots,
            listener,
            _dir: dir,
        }
    }

    fn indexes(&self) -> Vec<u64> {
        self.got.lock().iter().map(|message| message.index).collect()
    }
}

/// A network whose only other store is at `address`.
fn network(address: SocketAddr, dir: &tempfile::TempDir) -> Network {
    let resolve: Resolve = Arc::new(move |store| {
        let known = if store == RECEIVER {
            Ok(address.to_string())
        } else {
            Err("no such store".to_owned())
        };
        async move { known }.boxed()
    });
    let config = TransportConfig {
        queue_max: 128,
        ..TransportConfig::default()
    };
    let snapshots = Arc::new(FileSnapshots::open(dir.path()).expect("a fresh directory"));
    Network::new(CLUSTER, &config, resolve, snapshots, tls::Dialer::plain())
}

fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

async fn must(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = MonoTime::now() + PATIENCE;
    while !holds() {
        assert!(MonoTime::now() < deadline, "gave up waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_arrive_in_order_and_again_after_a_restart() {
    let port = free_port();
    let address = port.local_addr().expect("it has an address");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let network = network(address, &dir);
    let sink = Sink::start(CLUSTER, port);
    for round in 0..10 {
        network.send((0..10).map(|i| message(round * 10 + i)).collect());
    }
    must("all messages arrive", || sink.indexes().len() == 100).await;
    assert_eq!(sink.indexes(), (0..100).collect::<Vec<_>>());

    assert!(
        sink.listener.stop(PATIENCE).await,
        "an idle raft stream does not hold up a stop"
    );
    network.send(vec![message(1000)]);
    let sink = Sink::start(CLUSTER, TcpListener::bind(address).expect("the port is free again"));
    // Raft says things again; what was sent while nobody listened may be lost.
    must("messages arrive again", || {
        network.send(vec![message(2000)]);
        sink.indexes().contains(&2000)
    })
    .await;
    network.stop();
}

#[tokio::test]
async fn a_full_queue_drops_the_newest() {
    let queue = Queue::new(128);
    let before = metrics::DROPPED.with_label_values(&["full"]).get();
    for index in 0..130 {
        queue.push(message(index));
    }
    assert!(metrics::DROPPED.with_label_values(&["full"]).get() >= before + 2);
    let taken: Vec<u64> = queue.take().await.iter().map(|message| message.index).collect();
    assert_eq!(taken, (0..128).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_queue_is_bounded_by_bytes_and_batches_too() {
    let queue = Queue::new(100_000);
    let large = |index| {
        let entry = Entry {
            data: vec![0; 1 << 20].into(),
            ..Entry::default()
        };
        RaftMessage {
            entries: vec![entry],
            ..message(index)
        }
    };
    (0..100).for_each(|index| queue.push(large(index)));
    let mut taken = Vec::new();
    while taken.last().is_none_or(|last| *last < 63) {
        let batch = queue.take().await;
        assert_eq!(batch.len(), 1, "a megabyte closes a batch");
        taken.extend(batch.iter().map(|message| message.index));
    }
    assert_eq!(taken, (0..64).collect::<Vec<_>>(), "64 MiB wait, no more");
    assert!(queue.take().now_or_never().is_none(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_cluster_or_store_is_refused() {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
    let network = network(port.local_addr().expect("it has an address"), &dir);
    let sink = Sink::start(ClusterId(8), port);
    let failed = metrics::CONNECTS.with_label_values(&["ok"]).get();
    must("the stream was opened and refused twice", || {
        network.send(vec![message(1)]);
        metrics::CONNECTS.with_label_values(&["ok"]).get() >= failed + 2
    })
    .await;
    assert_eq!(sink.indexes(), [0; 0], "a message of another cluster was delivered");
}

/// Makes a raft snapshot of `pairs` pairs in the network's directory.
fn make_snapshot(network: &Network, pairs: usize) -> (RaftMessage, Key) {
    let engine = Arc::new(MemEngine::new());
    let mut batch = Batch::new();
    for i in 0..pairs {
        batch.put(
            Cf::Default,
            keys::data_key(format!("k{i:06}").as_bytes()),
            vec![i as u8; 1000],
        );
    }
    engine.write(batch).expect("memory takes it");
    let region = Region {
        id: 3,
        ..Region::default()
    };
    let key = Key {
        region: RegionId(3),
        position: LogPosition { index: 9, term: 2 },
    };
    network
        .0
        .snapshots
        .generate(&Generate {
            key,
            region: region.clone(),
            data: engine.snapshot(),
        })
        .expect("a snapshot is made");
    let meta = SnapshotMeta {
        index: 9,
        term: 2,
        conf_state: Some(ConfState::default()),
        region: Some(region),
    };
    (
        RaftMessage {
            snapshot: Some(meta),
            ..message(9)
        },
        key,
    )
}

/// Sends it and waits for the outcome.
async fn send_snapshot(network: &Network, message: RaftMessage, key: Key) -> bool {
    let (tell, told) = tokio::sync::oneshot::channel();
    network.send_snapshot(
        message,
        key,
        Box::new(move |done| tell.send(done).expect("somebody waits for the outcome")),
    );
    tokio::time::timeout(PATIENCE, told)
        .await
        .expect("an outcome comes")
        .expect("it is told, not dropped")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raft_snapshot_arrives_whole_before_its_message() {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
    let network = network(port.local_addr().expect("it has an address"), &dir);
    let sink = Sink::start(CLUSTER, port);
    let (message, key) = make_snapshot(&network, 2000);
    assert!(send_snapshot(&network, message.clone(), key).await);
    assert_eq!(*sink.got.lock(), [message]);
    assert!(sink.snapshots.contains(key));
    let target = MemEngine::new();
    sink.snapshots.load(key, &target).expect("it can be loaded");
    let last = target.get(Cf::Default, &keys::data_key(b"k001999")).expect("memory answers");
    assert_eq!(last.as_deref(), Some(&[1999_usize as u8; 1000][..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_missing_raft_snapshot_is_refused() {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
    let network = network(port.local_addr().expect("it has an address"), &dir);
    let sink = Sink::start(CLUSTER, port);
    let (message, key) = make_snapshot(&network, 2000);
    let file = std::fs::read_dir(dir.path())
        .expect("a directory")
        .next()
        .expect("one file")
        .expect("one file")
        .path();
    let mut bytes = std::fs::read(&file).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).expect("a file");
    assert!(!send_snapshot(&network, message.clone(), key).await, "a flipped bit");
    std::fs::write(&file, &bytes[..middle]).expect("a file");
    assert!(!send_snapshot(&network, message.clone(), key).await, "half a file");
    std::fs::remove_file(&file).expect("a file");
    assert!(!send_snapshot(&network, message, key).await, "no file");
    assert!(
        sink.got.lock().is_empty() && !sink.snapshots.contains(key),
        "damage was delivered"
    );
}

#[tokio::test]
async fn an_outcome_is_told_even_if_the_network_stops() {
    let (port, dir) = (free_port(), tempfile::tempdir().expect("a temporary directory"));
    let network = network(port.local_addr().expect("it has an address"), &dir);
    let (message, key) = make_snapshot(&network, 1);
    let told = Arc::new(AtomicBool::new(false));
    let tell = told.clone();
    // Nobody accepts on the port: the sender waits for the other side until the network stops.
    network.send_snapshot(message, key, Box::new(move |done| tell.store(!done, Ordering::Release)));
    network.stop();
    must("the failure is told", || told.load(Ordering::Acquire)).await;
}
