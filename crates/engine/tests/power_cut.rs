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
use engine::FjallEngine;
use rand::{Rng, SeedableRng, rngs::StdRng};

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
        let before = writer::acknowledged(&mut lines, random.random_range(1..120));
        disk.lose_power();
        child.kill().unwrap();
        child.wait().unwrap();
        let acknowledged = writer::last_of(lines).max(before);
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
