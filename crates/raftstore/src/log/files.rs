//! The files under the raft log, so that a sync that fails ends in one clear error: the `raft-engine` crate knows only to panic.

use std::io;
use std::path::Path;
use std::sync::Arc;

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission};

/// An open file as the crate knows it.
pub(super) type Fd = <DefaultFileSystem as FileSystem>::Handle;

/// Told of a sync that failed. Must not return in production: what was written may be lost, and the crate panics next.
pub type OnFailedSync = Box<dyn Fn(&super::Error) + Send + Sync>;

/// The crate's own files, watched.
pub(super) struct Files {
    /// How a file is synced: [`Handle::sync`] but for tests.
    pub sync: fn(&Fd) -> io::Result<()>,
    pub failed: Arc<dyn Fn(io::Error) -> io::Error + Send + Sync>,
}

/// A file that tells of failed syncs.
pub(super) struct Watched {
    fd: Arc<Fd>,
    sync: fn(&Fd) -> io::Result<()>,
    failed: Arc<dyn Fn(io::Error) -> io::Error + Send + Sync>,
}

impl Files {
    fn watch(&self, fd: Fd) -> Watched {
        Watched {
            fd: Arc::new(fd),
            sync: self.sync,
            failed: self.failed.clone(),
        }
    }
}

impl Handle for Watched {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.fd.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.fd.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        (self.sync)(&self.fd).map_err(|error| (self.failed)(error))
    }
}

impl FileSystem for Files {
    type Handle = Watched;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = <DefaultFileSystem as FileSystem>::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<Watched> {
        DefaultFileSystem.create(path).map(|fd| self.watch(fd))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<Watched> {
        DefaultFileSystem.open(path, permission).map(|fd| self.watch(fd))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<Watched>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle.fd.clone())
    }

    fn new_writer(&self, handle: Arc<Watched>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(handle.fd.clone())
    }
}
