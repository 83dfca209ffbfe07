//! A disk whose power can be cut: an ext4 image on a loop device.
//!
//! A cut shuts the file system down without flushing its journal (what `EXT4_IOC_SHUTDOWN` is for): all that was not yet handed to
//! the device is gone, and every later call fails. Mounting again replays the journal, as after a power failure. The device itself
//! loses nothing it was given, as a disk with a working cache flush.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Shut down without flushing the journal (linux/ext4.h).
const GOING_FLAGS_NOLOGFLUSH: u32 = 2;
const EXT4_IOC_SHUTDOWN: rustix::ioctl::Opcode = rustix::ioctl::opcode::read::<u32>(b'X', 125);

/// A mounted image in a temporary directory. Unmounted and removed when dropped.
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    mounted: bool,
    _dir: tempfile::TempDir,
}

impl Disk {
    /// Makes and mounts an image of `mib` MiB; sparse, so it takes what is written. Errors say what the machine lacks.
    pub fn create(mib: u64) -> Result<Disk> {
        let dir = tempfile::Builder::new()
            .prefix("ferrite-disk-")
            .tempdir()
            .context("make a directory for the image")?;
        let (image, mount) = (dir.path().join("image"), dir.path().join("mount"));
        std::fs::create_dir(&mount).context("make the mount point")?;
        File::create(&image)
            .and_then(|file| file.set_len(mib << 20))
            .context("make the image")?;
        must("mkfs.ext4", &["-q", "-F"], &[&image])?;
        let mut disk = Disk {
            image,
            mount,
            mounted: false,
            _dir: dir,
        };
        disk.mount()?;
        Ok(disk)
    }

    /// Where the file system is.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    pub fn mount(&mut self) -> Result<()> {
        must("mount", &["-o", "loop"], &[&self.image, &self.mount])?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power: from here on every call on the file system fails, until it is unmounted and mounted again.
    #[allow(unsafe_code)] // the one system call that rustix does not wrap
    pub fn cut(&self) -> Result<()> {
        let root = File::open(&self.mount).context("open the mount point")?;
        // SAFETY: the call reads one u32 through the pointer, which `Setter` keeps alive; it writes nothing to our memory.
        let done = unsafe {
            rustix::ioctl::ioctl(
                &root,
                rustix::ioctl::Setter::<EXT4_IOC_SHUTDOWN, u32>::new(GOING_FLAGS_NOLOGFLUSH),
            )
        };
        done.context("shut the file system down")
    }

    /// Wants that no process has a file open here.
    pub fn unmount(&mut self) -> Result<()> {
        must("umount", &[], &[&self.mount])?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            // Lazy: a process that still dies must not keep the mount for ever.
            let _ = must("umount", &["--lazy"], &[&self.mount]);
        }
    }
}

fn must(program: &str, flags: &[&str], paths: &[&Path]) -> Result<()> {
    let output = Command::new(program)
        .args(flags)
        .args(paths)
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[test]
fn a_cut_loses_what_was_not_synced_and_keeps_what_was() {
    use std::io::Write;
    let mut disk = match Disk::create(64) {
        Ok(disk) => disk,
        Err(error) => return eprintln!("skipped: no disk to cut: {error:#}"),
    };
    let (synced, unsynced) = (disk.path().join("synced"), disk.path().join("unsynced"));
    let mut file = File::create(&synced).expect("create");
    file.write_all(b"kept").expect("write");
    file.sync_all().expect("sync");
    File::open(disk.path())
        .expect("open the directory")
        .sync_all()
        .expect("sync the directory");
    std::fs::write(&unsynced, b"lost").expect("write");
    disk.cut().expect("cut");
    assert!(
        file.write_all(b"more").and_then(|()| file.sync_all()).is_err(),
        "the disk still works after the cut"
    );
    drop(file);
    disk.unmount().expect("unmount");
    disk.mount().expect("mount");
    assert_eq!(std::fs::read(&synced).expect("the synced file is there"), b"kept");
    assert_ne!(
        std::fs::read(&unsynced).unwrap_or_default(),
        b"lost",
        "a cut that loses nothing proves nothing"
    );
}
