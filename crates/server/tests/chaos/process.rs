//! The process under test: one `ferrite server`, a whole database.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base::MonoTime;
use client::{ClientOptions, RawClient};

/// How often a starting process is asked again.
const POLL: Duration = Duration::from_millis(5);
/// Deadline of one request under load; a struck store never answers.
const DEADLINE: Duration = Duration::from_secs(1);

/// A running store. Killed when dropped.
pub struct Store {
    child: Child,
    pd_addr: String,
    log: tempfile::NamedTempFile,
}

impl Store {
    /// Starts a server on `data_dir`, with fresh ports.
    pub fn start(data_dir: &Path) -> Result<Store> {
        let (pd_addr, addr) = (free_address()?, free_address()?);
        let log = tempfile::NamedTempFile::new().context("make a file for the log")?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_ferrite"));
        command
            .args([
                "server",
                "--pd-addr",
                &pd_addr,
                "--addr",
                &addr,
                "--status-addr",
                "",
                "--data-dir",
            ])
            .arg(data_dir);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.reopen().context("open the log")?);
        let child = command.spawn().context("start ferrite")?;
        Ok(Store { child, pd_addr, log })
    }

    /// A client without retries of writes of unknown outcome: what was acknowledged must be known exactly.
    pub async fn client(&self) -> Result<RawClient> {
        let options = ClientOptions {
            deadline: DEADLINE,
            retry_undetermined: false,
            ..ClientOptions::default()
        };
        Ok(RawClient::connect(&[&self.pd_addr], options).await?)
    }

    /// Waits until a read is answered.
    pub async fn answers(&mut self, within: Duration) -> Result<RawClient> {
        let deadline = MonoTime::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().context("look after ferrite")? {
                bail!("ferrite ended: {status}\n{}", self.log());
            }
            let error = match self.ask().await {
                Ok(client) => return Ok(client),
                Err(error) => error,
            };
            if MonoTime::now() >= deadline {
                bail!("no answer within {within:?}: {error:#}\n{}", self.log());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ask(&self) -> Result<RawClient> {
        let client = self.client().await?;
        client.get("is anybody there").await?;
        Ok(client)
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("kill ferrite")?;
        self.child.wait().context("wait for ferrite")?;
        Ok(())
    }

    /// Waits until the process ends on its own with exit code 2; the lines with which it says why.
    pub fn ends_by_itself(&mut self, within: Duration, mut meanwhile: impl FnMut() -> Result<()>) -> Result<Vec<String>> {
        let deadline = MonoTime::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait().context("look after ferrite")? {
                break status;
            }
            if MonoTime::now() >= deadline {
                bail!("ferrite still runs after {within:?}\n{}", self.log());
            }
            meanwhile()?;
            std::thread::park_timeout(POLL);
        };
        if status.code() != Some(2) {
            bail!("ferrite ended: {status}\n{}", self.log());
        }
        let log = std::fs::read_to_string(self.log.path()).context("read the log")?;
        Ok(log
            .lines()
            .filter(|line| line.starts_with("ferrite: "))
            .map(str::to_owned)
            .collect())
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log.path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Gone already, as a rule.
        let _ = self.kill();
    }
}

fn free_address() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")
        .context("find a free port")?
        .local_addr()?
        .to_string())
}
