use super::*;
use engine::Batch;
use engine::MemEngine;

fn filled(pairs: usize) -> Arc<MemEngine> {
    let engine = Arc::new(MemEngine::new());
    let mut batch = Batch::new();
    for i in 0..pairs {
        let key = keys::data_key(format!("k{i:06}").as_bytes());
        batch.put(Cf::Default, key.clone(), vec![i as u8; 1000]);
        batch.put(Cf::Write, key, vec![7; 3]);
    }
    batch.put(Cf::Default, keys::data_key(b"x outside"), "not of the region");
    engine.write(batch).expect("memory takes it");
    engine
}

fn region() -> Region {
    Region {
        id: 1,
        start_key: "k".into(),
        end_key: "l".into(),
        ..Default::default()
    }
}

const KEY: Key = Key {
    region: RegionId(1),
    position: LogPosition { index: 9, term: 2 },
};

fn dump(engine: &dyn Engine) -> Vec<(Cf, Bytes, Bytes)> {
    let snapshot = engine.snapshot();
    let mut all = Vec::new();
    for cf in Cf::DATA {
        let mut cursor = snapshot.cursor(cf, b"", b"\xff").expect("cursor");
        while let Some((key, value)) = cursor.next().expect("next") {
            all.push((cf, key, value));
        }
    }
    all
}

#[test]
fn travels_from_store_to_store_as_files() {
    let dir = tempfile::tempdir().expect("temp dir");
    let (source, target) = (filled(1000), MemEngine::new());
    let snapshots = FileSnapshots::open(dir.path()).expect("open");
    snapshots
        .generate(&Generate {
            key: KEY,
            region: region(),
            data: source.snapshot(),
        })
        .expect("generate");
    let mut receiving = snapshots.receive(KEY, &region(), 1).expect("receive");
    let parts: Vec<_> = snapshots
        .read_made(KEY)
        .expect("made")
        .collect::<io::Result<_>>()
        .expect("whole");
    assert!(parts.len() > 4, "several chunks, got {}", parts.len());
    for part in &parts {
        receiving.part(part).expect("good part");
    }
    receiving.finish().expect("whole");
    assert!(snapshots.contains(KEY));
    snapshots.load(KEY, &target).expect("load");
    let wanted: Vec<_> = dump(&*source)
        .into_iter()
        .filter(|(_, key, _)| key.starts_with(b"zk"))
        .collect();
    assert_eq!(dump(&target), wanted);
    snapshots.remove(KEY);
    assert!(!snapshots.contains(KEY));
}

#[test]
fn a_restart_keeps_only_whole_received_ones() {
    let dir = tempfile::tempdir().expect("temp dir");
    let source = filled(10);
    let snapshots = FileSnapshots::open(dir.path()).expect("open");
    snapshots
        .generate(&Generate {
            key: KEY,
            region: region(),
            data: source.snapshot(),
        })
        .expect("generate");
    let mut receiving = snapshots.receive(KEY, &region(), 1).expect("receive");
    for part in snapshots.read_made(KEY).expect("made") {
        receiving.part(&part.expect("part")).expect("good part");
    }
    receiving.finish().expect("whole");
    std::mem::forget(snapshots.receive(KEY, &region(), 2).expect("half done"));
    let snapshots = FileSnapshots::open(dir.path()).expect("open again");
    assert!(snapshots.contains(KEY));
    assert_eq!(
        std::fs::read_dir(dir.path()).expect("list").count(),
        1,
        "the made and the half done one are gone"
    );
}

#[test]
fn damage_is_an_error() {
    let source = filled(300);
    let snapshots = MemSnapshots::default();
    snapshots
        .generate(&Generate {
            key: KEY,
            region: region(),
            data: source.snapshot(),
        })
        .expect("generate");
    let good = snapshots.made(KEY).expect("made");
    for at in (0..good.len()).step_by(997) {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        snapshots.receive(KEY, bytes.into());
        assert!(
            snapshots.load(KEY, &MemEngine::new()).is_err(),
            "bit flipped at {at} went unseen"
        );
    }
    for len in [0, 1, good.len() / 2, good.len() - 1] {
        snapshots.receive(KEY, good.slice(..len));
        assert!(
            snapshots.load(KEY, &MemEngine::new()).is_err(),
            "cut to {len} bytes went unseen"
        );
    }
}
