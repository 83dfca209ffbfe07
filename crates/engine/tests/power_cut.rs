//! True power cuts: the engine lives on an ext4 image that is shut down without flushing its journal, as a disk that loses power
//! leaves it, and mounted again. What was not synced is gone or torn; what was synced must be there.
//!
//! Needs root and loop devices, and says so when it has neither. `FERRITE_POWER_CUTS` asks for more cuts.

mod common;
mod writer;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::small;
use engine::{Batch, Cf, Engine, Error, FjallEngine};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

/// Not a test: the process whose disk loses power.
#[test]
#[ignore = "started by the test below"]
fn child() {
    if let Some(dir) = std::env::var_os("FERRITE_CRASH_DIR") {
        writer::write_forever(Path::new(&dir));
    }
}

#[test]
fn power_cut_leaves_a_prefix() {
    let cuts: u64 = std::env::var("FERRITE_POWER_CUTS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(4);
    let Some(disk) = Disk::create() else {
        println!("skipped: needs root, mkfs.ext4 and loop devices");
        return;
    };
    let mut random = StdRng::seed_from_u64(11);
    let mut held = 0;
    for cut in 0..cuts {
        let mut child = writer::start(&disk.data());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // What is heard after the cut proves nothing: ext4 answers a sync in flight with success although it has just aborted the
        // journal. A loop of `write` and `fdatasync` loses its last record in half of such cuts.
        let acknowledged = writer::acknowledged(&mut lines, random.random_range(1..120));
        disk.lose_power();
        child.kill().unwrap();
        child.wait().unwrap();
        disk.remount();
        let engine = FjallEngine::open(&disk.data(), &small()).unwrap();
        let found = writer::check(&engine, &format!("cut {cut}"));
        println!("cut {cut}: {acknowledged} batches synced, {found} found");
        assert!(
            found >= acknowledged,
            "cut {cut}: {found} batches, but sync answered for {acknowledged}"
        );
        assert!(found >= held, "cut {cut}: {found} batches, {held} were there before");
        held = found;
    }
    assert!(held > 100, "only {held} batches: the test tests nothing");
}

#[test]
fn full_disk_refuses_writes_until_there_is_room() {
    let Some(disk) = Disk::create() else {
        println!("skipped: needs root, mkfs.ext4 and loop devices");
        return;
    };
    let ballast = disk.mount.join("ballast");
    let ballast_file = File::create(&ballast).unwrap();
    rustix::fs::fallocate(&ballast_file, rustix::fs::FallocateFlags::empty(), 0, 170 << 20).unwrap();
    let engine = FjallEngine::open(&disk.data(), &small()).unwrap();
    let put = |number: u64| {
        let mut batch = Batch::new();
        let mut random = StdRng::seed_from_u64(number);
        let mut value = vec![0; 8000]; // does not compress
        random.fill_bytes(&mut value);
        batch.put(Cf::Default, number.to_be_bytes().to_vec(), value);
        engine.write(batch)
    };
    let mut held = 0;
    let error = loop {
        match put(held) {
            Ok(()) => held += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::DiskFull { .. }), "after {held} batches: {error:?}");
    assert!(held > 1000, "full after {held} batches");
    for number in (0..held).step_by(101) {
        assert!(
            engine.get(Cf::Default, &number.to_be_bytes()).unwrap().is_some(),
            "{number} is not readable on a full disk"
        );
    }
    std::fs::remove_file(&ballast).unwrap();
    drop(ballast_file);
    let deadline = base::MonoTime::now() + std::time::Duration::from_secs(20);
    while let Err(error) = put(held) {
        assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
        assert!(base::MonoTime::now() < deadline, "still refused although there is room");
        std::thread::yield_now();
    }
    engine.sync().unwrap();
    drop(engine);
    let engine = FjallEngine::open(&disk.data(), &small()).unwrap();
    for number in 0..=held {
        assert!(
            engine.get(Cf::Default, &number.to_be_bytes()).unwrap().is_some(),
            "{number} of {held} is lost"
        );
    }
}

/// An ext4 file system in a file.
struct Disk {
    dir: tempfile::TempDir,
    mount: PathBuf,
}

fn run(program: &str, args: &[&std::ffi::OsStr]) -> bool {
    let status = Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

impl Disk {
    fn create() -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("mount");
        let image = dir.path().join("image");
        std::fs::create_dir(&mount).unwrap();
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        let disk = Disk { dir, mount };
        let made = run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), image.as_os_str()]) && disk.mount();
        made.then_some(disk)
    }

    fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    fn mount(&self) -> bool {
        let image = self.dir.path().join("image");
        run(
            "mount",
            &["-o".as_ref(), "loop".as_ref(), image.as_os_str(), self.mount.as_os_str()],
        )
    }

    fn unmount(&self) -> bool {
        run("umount", &[self.mount.as_os_str()])
    }

    /// From now on nothing reaches the image any more, its journal neither.
    #[allow(unsafe_code)]
    fn lose_power(&self) {
        unsafe extern "C" {
            fn ioctl(fd: i32, request: u64, ...) -> i32;
        }
        const EXT4_IOC_SHUTDOWN: u64 = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let file = File::open(&self.mount).unwrap();
        // SAFETY: the request reads one `u32` through the pointer, which lives past the call.
        let outcome = unsafe { ioctl(file.as_raw_fd(), EXT4_IOC_SHUTDOWN, &NO_LOG_FLUSH) };
        assert_eq!(outcome, 0, "shut down: {}", std::io::Error::last_os_error());
    }

    fn remount(&self) {
        assert!(self.unmount(), "the dead file system is still in use");
        assert!(self.mount(), "mount again");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.unmount();
    }
}
