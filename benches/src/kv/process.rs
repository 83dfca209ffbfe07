//! Server processes: started, watched through /proc, killed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::MonoTime;

/// A child process with its output in a log file. Killed when dropped.
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command`; its output goes to `<dir>/<name>.log`.
    pub fn start(name: &str, command: &mut Command, dir: &Path) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .context("open a server's log")?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command
            .spawn()
            .with_context(|| format!("start {:?}", command.get_program()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error with the end of its log if the process is gone.
    pub fn check_alive(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let end: Vec<_> = log.lines().rev().take(8).collect();
        bail!(
            "{} ended ({status}); its last lines:\n{}",
            self.name,
            end.into_iter().rev().collect::<Vec<_>>().join("\n")
        )
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(&mut self) {
        // Fails only if the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Processor time used so far, by all threads, in user and kernel.
    pub fn cpu(&self) -> Duration {
        cpu(self.pid()).unwrap_or_default()
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS: the process is gone")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Fields 14 and 15 of `/proc/PID/stat`, `utime` and `stime`, in ticks of 10 ms (the kernel's USER_HZ is 100 everywhere).
fn cpu(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    cpu_of_stat(&stat)
}

fn cpu_of_stat(stat: &str) -> Option<Duration> {
    // The second field is the name in brackets and may hold anything, so count from its end.
    let (_, rest) = stat.rsplit_once(')')?;
    let ticks: u64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse().unwrap_or(0))
        .sum();
    Some(Duration::from_millis(ticks * 10))
}

/// `count` different ports on loopback that were free a moment ago.
pub fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<_> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// Bytes that the files under `dir` take on disk: allocated blocks, not lengths, so that a preallocated file counts in full.
pub fn disk_bytes(dir: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            meta.blocks() * 512
        };
    }
    Ok(sum)
}

/// Calls `done` every few milliseconds until it gives a value; an error after `patience`, with the last error of `done`.
pub async fn wait_for<T>(what: &str, patience: Duration, mut done: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let end = MonoTime::now() + patience;
    loop {
        match done().await {
            Ok(value) => return Ok(value),
            Err(error) if MonoTime::now() > end => return Err(error).with_context(|| format!("{what}: not within {patience:?}")),
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_user_and_system_time() {
        let stat = "4242 (a) b) c) S 1 2 3 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 100 0";
        assert_eq!(cpu_of_stat(stat), Some(Duration::from_secs(2)));
        assert!(cpu(std::process::id()).is_some());
    }

    #[test]
    fn disk_counts_blocks_of_nested_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("nested")).unwrap();
        std::fs::write(dir.path().join("nested/file"), vec![1; 10_000]).unwrap();
        assert!(disk_bytes(dir.path()).unwrap() >= 10_000);
    }
}
