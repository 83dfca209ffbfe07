//! Why a process does not start, or ends early: each in one line that says what to do.

use std::net::SocketAddr;
use std::path::PathBuf;

use base::ClusterId;

use crate::config::LoadError;

/// Ends the process with exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Values that contradict their bounds; a line each.
    #[error("{}", .faults.join("\n"))]
    Config { faults: Vec<String> },
    #[error("log level")]
    LogLevel(String),
    #[error("{addr} is taken by another process; choose another address with {flag}")]
    PortTaken { addr: SocketAddr, flag: &'static str },
    #[error("listen on {addr} ({flag})")]
    Listen {
        addr: SocketAddr,
        flag: &'static str,
        source: std::io::Error,
    },
    #[error("data directory {} is in use by another process{}", .dir.display(), holder(.pid))]
    DirLocked { dir: PathBuf, pid: Option<u32> },
    #[error("{act} {}", .path.display())]
    Dir {
        act: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("disk of {} is full: {free} free, a start needs {wanted}, a quarter of server.disk-reserve", .dir.display())]
    DiskFull {
        dir: PathBuf,
        free: base::ByteSize,
        wanted: base::ByteSize,
    },
    #[error("data directory {} belongs to cluster {found}, the placement driver to cluster {wanted}; join with another --data-dir", .dir.display())]
    WrongCluster {
        dir: PathBuf,
        found: ClusterId,
        wanted: ClusterId,
    },
    #[error("data directory {} holds data of API version {found}, not {wanted}; start with --api-version {found}", .dir.display())]
    ApiVersion {
        dir: PathBuf,
        found: String,
        wanted: &'static str,
    },
    #[error("open the placement driver's data in {}", .dir.display())]
    PdData { dir: PathBuf, source: pd::log::Error },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
