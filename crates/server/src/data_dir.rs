//! The data directory of a process: made when missing, held by one process, on a disk with room.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use base::ByteSize;
use rustix::fs::{FlockOperation, flock};

use crate::failure::Failure;

/// Name of the file whose lock says that the directory is in use; it holds the process id of its holder, for people.
const LOCK_FILE: &str = "LOCK";

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes `path` when missing and takes hold of it. Errors when another process holds it, or the disk has less than `reserve`.
    pub fn open(path: &Path, reserve: ByteSize) -> Result<DataDir, Failure> {
        let fail = |act| {
            move |source| Failure::Dir {
                act,
                path: path.to_owned(),
                source,
            }
        };
        std::fs::create_dir_all(path).map_err(fail("make directory"))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(fail("open the lock of"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(Failure::DirLocked {
                    dir: path.to_owned(),
                    pid: read_pid(&mut lock),
                });
            }
            outcome => outcome.map_err(|errno| fail("lock")(errno.into()))?,
        }
        let free = free_bytes(path).map_err(fail("ask for free space of"))?;
        // With less than all of it a store only takes what frees room, for which it must run.
        let wanted = ByteSize(reserve.0 / 4);
        if free < wanted {
            return Err(Failure::DiskFull {
                dir: path.to_owned(),
                free,
                wanted,
            });
        }
        lock.set_len(0)
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(fail("write the lock of"))?;
        Ok(DataDir {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.rewind().ok()?;
    lock.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Bytes that this process may still write on the disk of `path`.
pub fn free_bytes(path: &Path) -> std::io::Result<ByteSize> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(ByteSize(disk.f_bavail.saturating_mul(disk.f_frsize)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("a/b");
        let held = DataDir::open(&path, ByteSize(0)).expect("a fresh directory");
        let refused = DataDir::open(&path, ByteSize(0)).expect_err("a directory in use").to_string();
        assert!(
            refused.ends_with(&format!("is in use by another process (pid {})", std::process::id())),
            "{refused}"
        );
        drop(held);
        DataDir::open(&path, ByteSize(0)).expect("a directory given back");
    }

    #[test]
    fn a_disk_without_room_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let refused = DataDir::open(dir.path(), ByteSize(u64::MAX)).expect_err("no disk is that large");
        assert!(matches!(refused, Failure::DiskFull { .. }), "{refused}");
    }
}
