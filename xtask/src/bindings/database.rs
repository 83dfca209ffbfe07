//! A database in a process of its own, for programs that want one.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::languages;
use crate::workspace::{self, Profile};

/// Gone when dropped, with its data.
pub struct Database {
    process: Child,
    pub endpoint: String,
    data: PathBuf,
}

impl Database {
    /// Starts the binary of a build.
    pub fn start(profile: Profile) -> Result<Database> {
        let mut command = Command::new(workspace::binary(profile, "ferrite"));
        let name = format!("bindings/database-{}", std::process::id());
        let data = languages::empty(workspace::target().join(name))?;
        command.args(["playground", "--stores", "1", "--free-ports", "--json", "--data-dir"]);
        command.arg(&data);
        let mut process = command.stdout(Stdio::piped()).spawn().context("start ferrite")?;
        let out = process.stdout.take().context("standard output is a pipe")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        // `"pd":"127.0.0.1:2379"`: the one thing that is wanted of the line.
        let endpoint = line.split("\"pd\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let endpoint = endpoint
            .with_context(|| format!("no address of a placement driver in: {line}"))?
            .to_owned();
        Ok(Database { process, endpoint, data })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.data));
    }
}
