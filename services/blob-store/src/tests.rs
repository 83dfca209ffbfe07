use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;

const SIZES: [usize; 12] = [
    0,
    1,
    1000,
    SMALL - 1,
    SMALL,
    SMALL + 1,
    FRAME - 1,
    FRAME,
    FRAME + 1,
    3 * FRAME,
    3 * FRAME + 7,
    1_000_003,
];

fn open(dir: &Path) -> Store {
    Store::open(config(dir, 256 << 20)).expect("opens")
}

fn config(dir: &Path, size_max: u64) -> Config {
    Config::new(dir, size_max)
}

/// Text that shrinks, or bytes that do not.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut bytes = vec![0; len];
    rng.fill_bytes(&mut bytes);
    if seed.is_multiple_of(2) {
        bytes.iter_mut().for_each(|byte| *byte = b'a' + *byte % 8);
    }
    bytes
}

fn must_put(store: &Store, bytes: &[u8]) -> Key {
    let key = Key::sha256(bytes);
    store.put(key, Content::Sha256, SpaceId::default(), bytes).expect("is stored");
    key
}

fn must_read(store: &Store, key: &Key) -> Vec<u8> {
    store.read(key).expect("reads").expect("is there")
}

/// Bytes that the files of a store take.
fn on_disk(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => on_disk(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

fn collect(mut cursor: Cursor) -> Vec<u8> {
    let mut all = Vec::new();
    while let Step::Data(piece) = cursor.next(true).expect("reads") {
        all.extend_from_slice(&piece);
    }
    all
}

#[test]
fn content_comes_back_in_every_form_and_range() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut rng = SmallRng::seed_from_u64(1);
    for (n, len) in SIZES.iter().flat_map(|len| [(2, *len), (3, *len)]) {
        let bytes = content(n + len as u64 * 2, len);
        let key = must_put(&store, &bytes);
        assert_eq!(must_read(&store, &key), bytes, "{len}");
        let blob = Arc::new(store.get(&key).expect("reads").expect("is there"));
        let zstd = collect(blob.from(0, Encoding::Zstd));
        assert_eq!(zstd.len() as u64, blob.zstd_len(), "{len} {:?}", blob.form());
        assert_eq!(zstd::stream::decode_all(&zstd[..]).expect("is zstd"), bytes, "{len}");
        for _ in 0..20 {
            let (a, b) = (rng.random_range(0..=len), rng.random_range(0..=len));
            let (start, end) = (a.min(b), a.max(b));
            assert_eq!(
                collect(blob.range(start as u64, end as u64)),
                bytes[start..end],
                "{start}..{end} of {len}"
            );
            let tail = collect(blob.from(start as u64, Encoding::Zstd));
            assert_eq!(
                zstd::stream::decode_all(&tail[..]).expect("is zstd"),
                bytes[start..],
                "{start}.. of {len}"
            );
        }
        let aligned = collect(blob.from(FRAME as u64, Encoding::Zstd));
        assert_eq!(
            zstd::stream::decode_all(&aligned[..]).expect("is zstd"),
            bytes[FRAME.min(len)..],
            "{len}"
        );
    }
}

#[test]
fn text_is_compressed_and_noise_is_not() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let form = |bytes: &[u8]| store.get(&must_put(&store, bytes)).expect("reads").expect("is there").form();
    for len in [5000, 500_000] {
        assert_eq!(form(&content(2, len)), Form::Zstd);
        assert_eq!(form(&content(3, len)), Form::Raw);
        let gzip = [&[0x1F, 0x8B][..], &content(2, len)].concat();
        assert_eq!(form(&gzip), Form::Raw, "what is compressed already is left alone");
    }
}

#[test]
fn a_file_at_rest_is_plain_zstd() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let bytes = content(2, 700_000);
    let key = must_put(&store, &bytes);
    let folder = dir.path().join("files").join(&key.to_string()[..2]);
    let file = fs::read_dir(folder)
        .expect("the folder")
        .next()
        .expect("a file")
        .expect("an entry");
    let read = fs::read(file.path()).expect("reads");
    assert_eq!(zstd::stream::decode_all(&read[..]).expect("is zstd"), bytes);
}

#[test]
fn what_is_not_as_promised_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let empty = store.stats().used;
    for len in SIZES.iter().filter(|len| **len > 0) {
        let bytes = content(2, *len);
        let key = Key::sha256(&bytes);
        let try_put = |wanted: Option<u64>, max: u64, content: Content, sent: &[u8]| {
            let mut upload = store.upload(key, content, SpaceId(0), wanted, max);
            upload.write(sent)?;
            upload.commit()
        };
        let whole = *len as u64;
        let mut wrong = bytes.clone();
        wrong[len / 2] ^= 1;
        assert!(matches!(
            try_put(None, whole, Content::Sha256, &wrong),
            Err(Error::Mismatch { .. })
        ));
        assert!(matches!(
            try_put(Some(whole), whole, Content::Blake3, &bytes),
            Err(Error::Mismatch { .. })
        ));
        assert!(matches!(
            try_put(Some(whole + 1), whole + 1, Content::Sha256, &bytes),
            Err(Error::Short { .. })
        ));
        assert!(matches!(
            try_put(None, whole - 1, Content::Sha256, &bytes),
            Err(Error::TooLarge { .. })
        ));
        assert!(matches!(
            try_put(Some(whole - 1), whole, Content::Sha256, &bytes),
            Err(Error::TooLarge { .. })
        ));
        assert_eq!(store.peek(&key), Presence::Absent);
    }
    assert_eq!(store.stats().used, empty);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).expect("lists").count(), 0);
    assert!(store.verify().expect("verifies").is_clean());
}

#[test]
fn both_digests_are_verified_and_names_replace() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let bytes = content(2, 200_000);
    let key = Key::blake3(&bytes);
    store.put(key, Content::Blake3, SpaceId(0), &bytes).expect("stored");
    assert_eq!(must_read(&store, &key), bytes);
    let name = Key::named(&["ac", "x"]);
    for (n, len) in [(1, 300_000), (2, 100), (3, 200_000), (4, 50_000)] {
        let bytes = content(n, len);
        store.put(name, Content::Named, SpaceId(0), &bytes).expect("stored");
        assert_eq!(must_read(&store, &name), bytes);
    }
    assert_eq!(store.stats().blobs, 2);
    assert!(store.verify().expect("verifies").is_clean());
}

/// Puts a mix of sizes; what was put.
fn fill(store: &Store, seeds: std::ops::Range<u64>) -> BTreeMap<Key, Vec<u8>> {
    let mut rng = SmallRng::seed_from_u64(seeds.start);
    seeds
        .map(|seed| {
            let len = match rng.random_range(0..4) {
                0 => rng.random_range(70_000..400_000),
                _ => rng.random_range(0..20_000),
            };
            let bytes = content(seed, len);
            (must_put(store, &bytes), bytes)
        })
        .collect()
}

fn must_hold(store: &Store, wanted: &BTreeMap<Key, Vec<u8>>) {
    for (key, bytes) in wanted {
        assert_eq!(&must_read(store, key), bytes);
    }
}

#[test]
fn a_closed_store_is_trusted_and_a_dropped_one_checked() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let space = store.space("ci/main").expect("a space");
    assert_eq!(space, store.space("ci/main").expect("the same"));
    let mut wanted = fill(&store, 0..60);
    let used = store.stats().used;
    store.close().expect("closes");
    drop(store);

    let store = open(dir.path());
    assert_eq!(store.find_space("ci/main"), Some(space));
    assert!(wanted.keys().all(|key| matches!(store.peek(key), Presence::Present(_))));
    must_hold(&store, &wanted);
    assert!(store.stats().used.abs_diff(used) < 100_000, "only the journal differs");
    wanted.extend(fill(&store, 100..160));
    drop(store);

    let store = open(dir.path());
    assert!(wanted.keys().all(|key| store.peek(key) == Presence::Suspect));
    must_hold(&store, &wanted);
    assert!(wanted.keys().all(|key| matches!(store.peek(key), Presence::Present(_))));
    assert!(store.verify().expect("verifies").is_clean());
}

#[test]
fn damage_after_an_unclean_stop_is_a_miss() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let small = must_put(&store, &content(3, 3000));
    let large = must_put(&store, &content(3, 300_000));
    let packed = must_put(&store, &content(2, 300_000));
    let gone = must_put(&store, &content(5, 300_000));
    drop(store);
    let file_of = |key: &Key| {
        let folder = dir.path().join("files").join(&key.to_string()[..2]);
        let mut files = fs::read_dir(folder).expect("lists").flatten().map(|entry| entry.path());
        files
            .find(|path| path.to_string_lossy().contains(&key.to_string()))
            .expect("its file")
    };
    for path in [file_of(&large), file_of(&packed), dir.path().join("segments/0")] {
        let mut bytes = fs::read(&path).expect("reads");
        bytes[1500] ^= 4;
        fs::write(&path, bytes).expect("writes");
    }
    fs::remove_file(file_of(&gone)).expect("deletes");
    let store = open(dir.path());
    for key in [small, large, packed, gone] {
        assert_eq!(store.renew(&key).expect("looks"), None);
        assert!(store.get(&key).expect("looks").is_none());
    }
    assert_eq!(store.stats().blobs, 0);
    let again = must_put(&store, &content(3, 300_000));
    assert_eq!(must_read(&store, &again), content(3, 300_000));
}

#[test]
fn damage_while_running_ends_the_read_and_drops_the_blob() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let key = must_put(&store, &content(2, 300_000));
    let folder = dir.path().join("files").join(&key.to_string()[..2]);
    let path = fs::read_dir(folder)
        .expect("lists")
        .next()
        .expect("one")
        .expect("entry")
        .path();
    let mut bytes = fs::read(&path).expect("reads");
    bytes[5000] ^= 1;
    fs::write(&path, bytes).expect("writes");
    assert!(matches!(store.read(&key), Err(Error::Damaged)));
    assert_eq!(store.peek(&key), Presence::Absent);
}

#[test]
fn leftovers_are_swept_and_torn_journals_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let wanted = fill(&store, 0..30);
    drop(store);
    let key = Key::sha256(b"orphan");
    let folder = dir.path().join("files").join(&key.to_string()[..2]);
    fs::create_dir_all(&folder).expect("makes");
    let orphan = folder.join(format!("{key}.7"));
    fs::write(&orphan, b"orphan").expect("writes");
    fs::write(dir.path().join("tmp/5"), b"unfinished").expect("writes");
    let log = dir.path().join("journal/0.log");
    let mut bytes = fs::read(&log).expect("reads");
    bytes.extend(&bytes[..50].to_vec());
    fs::write(&log, bytes).expect("writes");
    let store = open(dir.path());
    assert!(!dir.path().join("tmp/5").exists());
    must_hold(&store, &wanted);
    wait_until(|| !orphan.exists());
    assert!(store.verify().expect("verifies").is_clean());
}

/// A run that is killed between a file's name and its record leaves no trace of the file's number; the next one is not to take that for its own.
#[test]
fn what_a_run_without_records_left_is_swept() {
    let dir = tempfile::tempdir().expect("a folder");
    let wanted = fill(&open(dir.path()), 0..30);
    let key = Key::sha256(b"orphan");
    let folder = dir.path().join("files").join(&key.to_string()[..2]);
    fs::create_dir_all(&folder).expect("makes");
    for _ in 0..3 {
        let number = open(dir.path()).inner().next_file();
        let orphan = folder.join(format!("{key}.{number:x}"));
        fs::write(&orphan, b"orphan").expect("writes");
        let killed = base::WallTime::now();
        wait_until(|| base::WallTime::now() > killed);
        let store = open(dir.path());
        must_hold(&store, &wanted);
        wait_until(|| !orphan.exists());
        assert!(store.verify().expect("verifies").is_clean());
    }
}

/// Polls a condition that another thread brings about.
fn wait_until(condition: impl Fn() -> bool) {
    let start = base::MonoTime::now();
    while !condition() {
        std::thread::yield_now();
        assert!(
            base::MonoTime::now().since(start) < Duration::from_secs(30),
            "waited for 30 s"
        );
    }
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let _store = open(dir.path());
    assert!(matches!(
        Store::open(config(dir.path(), 256 << 20)),
        Err(Error::Locked { .. })
    ));
}

/// Ten times the limit from four threads while two read; the folder is measured all the time.
#[test]
fn ten_times_the_limit_never_exceeds_it() {
    const MAX: u64 = 32 << 20;
    let dir = tempfile::tempdir().expect("a folder");
    let store = Store::open(config(dir.path(), MAX)).expect("opens");
    let (stop, peak, written) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4u64)
            .map(|writer| {
                let (store, written) = (&store, &written);
                scope.spawn(move || write_much(store, writer, 10 * MAX / 4, written))
            })
            .collect();
        let watch = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                peak.fetch_max(on_disk(dir.path()), Ordering::AcqRel);
                assert!(store.stats().used <= MAX, "the count went over");
            }
        });
        for writer in writers {
            writer.join().expect("writes");
        }
        stop.store(true, Ordering::Release);
        watch.join().expect("the limit held");
    });
    let (peak, written) = (peak.into_inner(), written.into_inner());
    println!("written {written}, peak on disk {peak}, limit {MAX}");
    assert!(written >= 10 * MAX);
    assert!(peak <= MAX, "{peak} bytes on disk");
    assert!(peak > MAX / 2, "{peak} bytes on disk: nothing to evict");
    assert!(store.verify().expect("verifies").is_clean());
}

/// Random content of both kinds until `bytes` were stored; a blob put is read again now and then.
fn write_much(store: &Store, seed: u64, bytes: u64, written: &AtomicU64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut sum, mut n) = (0, 0);
    while sum < bytes {
        n += 1;
        let len = if rng.random_bool(0.3) {
            rng.random_range(70_000..1_000_000)
        } else {
            rng.random_range(0..30_000)
        };
        let bytes = content((seed * 1_000_000 + n) * 2 + 1, len);
        let key = Key::sha256(&bytes);
        match store.put(key, Content::Sha256, SpaceId(0), &bytes) {
            Ok(()) => sum += len as u64,
            Err(Error::Full) => continue,
            Err(error) => panic!("{error}"),
        }
        if let Some(read) = store.read(&key).expect("reads") {
            assert_eq!(read, bytes);
        }
    }
    written.fetch_add(sum, Ordering::AcqRel);
}

#[test]
fn above_the_limit_writes_are_refused_and_reads_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), 16 << 20);
    config.room_wait = Duration::from_millis(50);
    let store = Store::open(config).expect("opens");
    let small = must_put(&store, b"something");
    // An upload that never ends holds all the room.
    let mut hog = store.upload(Key([1; 32]), Content::Sha256, SpaceId(0), Some(14 << 20), 14 << 20);
    hog.write(&[0]).expect("room is taken");
    let bytes = content(3, 3 << 20);
    let refused = store.put(Key::sha256(&bytes), Content::Sha256, SpaceId(0), &bytes);
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    let _evicted_or_read = store.read(&small).expect("reads go on");
    drop(hog);
    store
        .put(Key::sha256(&bytes), Content::Sha256, SpaceId(0), &bytes)
        .expect("room again");
}

#[test]
fn a_reader_keeps_what_was_evicted() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    for len in [3000, 500_000] {
        let bytes = content(3, len);
        let key = must_put(&store, &bytes);
        let blob = store.get(&key).expect("reads").expect("is there");
        let used = store.stats().used;
        assert!(store.remove(&key).expect("removes"));
        store.collect().expect("collects");
        if len > SMALL {
            assert!(store.stats().used >= used - 1000, "still on disk, still counted");
        }
        assert_eq!(blob.read_all().expect("reads"), bytes);
        assert!(len < SMALL || store.stats().used < used - 400_000);
    }
}

#[test]
fn segments_with_few_live_bytes_are_emptied() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), 16 << 20);
    config.size_soft = 8 << 20;
    let store = Store::open(config.clone()).expect("opens");
    let keys: Vec<Key> = (0..700)
        .map(|n| must_put(&store, &content(2 * n + 1, 10_000 + n as usize)))
        .collect();
    // Two of three go by hand, so that every segment is a third alive; then more comes than fits.
    for (n, key) in keys.iter().enumerate() {
        match n % 3 {
            0 => drop(must_read(&store, key)),
            _ => assert!(store.remove(key).expect("removes")),
        }
    }
    let before = store.stats();
    assert!(before.dead > 4 << 20, "{before:?}");
    (1000..1200).for_each(|n| _ = must_put(&store, &content(2 * n + 1, 10_000)));
    store.collect().expect("collects");
    let after = store.stats();
    assert!(after.used <= 8 << 20, "{after:?}");
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 3 == 0) {
        assert_eq!(
            must_read(&store, key),
            content(2 * n as u64 + 1, 10_000 + n),
            "the live were copied, not dropped"
        );
    }
    drop(store);
    let store = Store::open(config).expect("opens");
    for (n, key) in keys.iter().enumerate().filter(|(n, _)| n % 3 == 0) {
        assert_eq!(must_read(&store, key), content(2 * n as u64 + 1, 10_000 + n));
    }
    assert!(store.verify().expect("verifies").is_clean());
}

#[test]
fn the_journal_stays_short_and_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut rng = SmallRng::seed_from_u64(3);
    for n in 0..30_000u32 {
        let key = Key::named(&[&rng.random_range(0..500u32).to_string()]);
        store.put(key, Content::Named, SpaceId(0), &n.to_le_bytes()).expect("stored");
    }
    wait_until(|| on_disk(&dir.path().join("journal")) < 1_500_000);
    let values: Vec<_> = (0..500)
        .map(|n| store.read(&Key::named(&[&n.to_string()])).expect("reads"))
        .collect();
    drop(store);
    let store = open(dir.path());
    for (n, value) in values.into_iter().enumerate() {
        assert_eq!(store.read(&Key::named(&[&n.to_string()])).expect("reads"), value);
    }
}

#[test]
fn spaces_are_counted_and_purged() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let (a, b) = (store.space("a").expect("new"), store.space("b").expect("new"));
    for n in 0..20u64 {
        let space = if n < 5 { a } else { b };
        let bytes = content(n, 100_000);
        store
            .put(Key::sha256(&bytes), Content::Sha256, space, &bytes)
            .expect("stored");
    }
    let count = |store: &Store| {
        store
            .stats()
            .spaces
            .iter()
            .map(|(name, blobs, _)| (name.clone(), *blobs))
            .collect::<Vec<_>>()
    };
    assert_eq!(count(&store), [("a".into(), 5), ("b".into(), 15)]);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.remove_space(a).expect("purges"), 5);
    assert_eq!(count(&store), [("b".into(), 15)]);
    let folders = fs::read_dir(dir.path().join("files")).expect("lists").flatten();
    let files = folders.map(|folder| fs::read_dir(folder.path()).expect("lists").count());
    assert_eq!(files.sum::<usize>(), 15);
}

#[test]
fn what_is_synced_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = config(dir.path(), 64 << 20);
    config.sync = SyncMode::Always;
    let store = Store::open(config).expect("opens");
    let before = metrics::SYNCS.get();
    let wanted = fill(&store, 0..20);
    assert!(
        metrics::SYNCS.get() >= before + 40,
        "each blob and each change of the journal waits for the disk"
    );
    must_hold(&store, &wanted);
}

#[test]
fn old_blobs_go_by_age() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    fill(&store, 0..20);
    store.close().expect("closes");
    drop(store);
    let mut config = config(dir.path(), 256 << 20);
    config.age_max = Duration::from_secs(1);
    // One blob is used again and again, the others are not.
    let store = Store::open(config).expect("opens");
    let kept = must_put(&store, b"kept");
    wait_until(|| {
        assert!(store.renew(&kept).expect("looks").is_some());
        store.stats().blobs == 1
    });
}

#[test]
fn frames_that_fit_are_kept_as_they_came() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let pack = |bytes: &[u8]| zstd::bulk::compress(bytes, 15).expect("compresses");
    for len in [1000, SMALL - 1, SMALL, FRAME, 2 * FRAME, 2 * FRAME + 9, 700_000] {
        let bytes = content(2, len);
        let key = Key::sha256(&bytes);
        let mut upload = store.upload(key, Content::Sha256, SpaceId(0), Some(len as u64), len as u64);
        let mut sent = Vec::new();
        for part in bytes.chunks(FRAME) {
            let frame = pack(part);
            upload.write_frame(part, &frame).expect("takes");
            sent.extend(frame);
        }
        upload.commit().expect("stores");
        let blob = Arc::new(store.get(&key).expect("reads").expect("is there"));
        assert!(collect(blob.from(0, Encoding::Zstd)) == sent, "{len}: not compressed again");
        assert!(must_read(&store, &key) == bytes, "{len}");
        assert!(collect(blob.range(len as u64 / 2, len as u64)) == bytes[len / 2..], "{len}");
    }
}

#[test]
fn frames_that_do_not_fit_are_made_anew() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut rng = SmallRng::seed_from_u64(5);
    for round in 0..60 {
        let bytes = content(4 + round % 2, rng.random_range(1..5 * FRAME));
        let key = Key::sha256(&bytes);
        let len = bytes.len() as u64;
        let mut upload = store.upload(key, Content::Sha256, SpaceId(0), Some(len), len);
        // Frames of any size, some of exactly one, with plain bytes between.
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let wanted = if rng.random_bool(0.4) {
                FRAME
            } else {
                rng.random_range(1..2 * FRAME)
            };
            let (now, later) = rest.split_at(wanted.min(rest.len()));
            match rng.random_bool(0.7) {
                true => upload.write_frame(now, &zstd::bulk::compress(now, 3).expect("compresses")),
                false => upload.write(now),
            }
            .expect("takes");
            rest = later;
        }
        upload.commit().expect("stores");
        assert!(must_read(&store, &key) == bytes, "round {round}");
        let blob = Arc::new(store.get(&key).expect("reads").expect("is there"));
        let from = rng.random_range(0..len);
        assert!(collect(blob.range(from, len)) == bytes[from as usize..], "round {round}");
    }
    assert!(store.verify().expect("verifies").is_clean());
}

#[test]
fn copies_are_checked_and_give_way_to_what_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let key = Key::named(&["name"]);
    let check = xxhash_rust::xxh3::xxh3_64(b"copy");
    let copy = |bytes: &[u8], check| {
        let mut upload = store.upload(key, Content::Named, SpaceId(0), None, 100);
        upload.set_check(check);
        upload.set_keeps_existing(true);
        upload.write(bytes)?;
        upload.commit()
    };
    assert!(matches!(copy(b"cope", check), Err(Error::Damaged)));
    assert_eq!(store.peek(&key), Presence::Absent);
    copy(b"copy", check).expect("stores");
    assert_eq!(must_read(&store, &key), b"copy");
    store.put(key, Content::Named, SpaceId(0), b"newer").expect("stores");
    copy(b"copy", check).expect("is nothing to do");
    assert_eq!(must_read(&store, &key), b"newer");
}

#[test]
fn a_kill_loses_no_use_that_the_journal_was_told_of() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let all = fill(&store, 0..60);
    let kept: Vec<Key> = all.keys().copied().step_by(3).collect();
    for key in &kept {
        must_read(&store, key);
    }
    store.inner().note_uses().expect("writes");
    drop(store); // as a kill leaves it
    let store = open(dir.path());
    // Evicted one by one, those that were used go last.
    let mut order = Vec::new();
    let mut state = store.inner().state.lock();
    while let Some(victim) = state.index.victim().map(|entry| entry.key) {
        state.index.remove(&victim);
        order.push(victim);
    }
    drop(state);
    assert_eq!(order.len(), all.len());
    let last: std::collections::BTreeSet<Key> = order[all.len() - kept.len()..].iter().copied().collect();
    assert_eq!(last, kept.into_iter().collect());
}

#[test]
fn often_read_content_is_read_from_memory_and_stays_right() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let bytes = content(2, 700_000);
    let key = must_put(&store, &bytes);
    must_read(&store, &key);
    assert_eq!(store.stats().hot, 0, "once is not often");
    must_read(&store, &key);
    assert!(store.stats().hot >= bytes.len() as u64);
    assert!(must_read(&store, &key) == bytes);
    let blob = Arc::new(store.get(&key).expect("reads").expect("is there"));
    let loan = blob.range(1, u64::MAX).lend().expect("reads").expect("is in memory");
    assert_eq!(loan.left(), bytes.len() - 1, "all of it lies in one file");
    let name = Key::named(&["name"]);
    for n in 0..5 {
        let bytes = content(2 * n, 50_000);
        store.put(name, Content::Named, SpaceId(0), &bytes).expect("stores");
        for _ in 0..3 {
            assert!(must_read(&store, &name) == bytes, "never what was there before");
        }
    }
}

#[test]
fn an_upload_that_pauses_holds_nothing_and_goes_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let store = open(dir.path());
    let mut rng = SmallRng::seed_from_u64(8);
    for round in 0..40 {
        let bytes = content(round, rng.random_range(1..6 * FRAME));
        let key = Key::sha256(&bytes);
        let mut upload = store.upload(key, Content::Sha256, SpaceId(0), Some(bytes.len() as u64), 1 << 20);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rng.random_range(1..=rest.len().min(FRAME)));
            upload.write(now).expect("takes");
            rest = later;
            if rng.random_bool(0.7) {
                upload.park().expect("parks");
                assert!(upload.buffered() < SMALL, "round {round}");
            }
        }
        upload.commit().expect("stores");
        assert!(must_read(&store, &key) == bytes, "round {round}");
    }
    assert!(store.verify().expect("verifies").is_clean());
}
