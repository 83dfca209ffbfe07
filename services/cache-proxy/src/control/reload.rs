//! Follows the configuration file: on SIGHUP and when it changes. A file with a fault is refused whole, and the old one keeps serving.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::signal::unix::Signal;

use super::Control;
use super::file_watch::Watch;
use crate::config::Config;

/// For as long as the process runs.
pub async fn follow(control: Arc<Control>, mut hangup: Signal) {
    let Some(path) = control.path.clone() else {
        return;
    };
    let mut watch = Watch::new(&path);
    let mut seen = stamp(&path);
    // It may have changed between the start, when it was read, and the first look at it.
    if Config::load(&path).is_ok_and(|config| config != control.state.lock().config) {
        reload_and_tell(&control, &path);
    }
    loop {
        let is_asked = tokio::select! {
            _signal = hangup.recv() => true,
            () = watch.wait() => false,
        };
        let now = stamp(&path);
        if !is_asked && (now == seen || now.is_none()) {
            continue;
        }
        seen = now;
        reload_and_tell(&control, &path);
    }
}

fn reload_and_tell(control: &Arc<Control>, path: &Path) {
    match control.reload(path) {
        Ok(()) => tracing::info!(path = %path.display(), "configuration reloaded"),
        Err(faults) => {
            for fault in faults {
                tracing::error!(path = %path.display(), fault, "configuration refused, the old one stays");
            }
        }
    }
}

/// What tells one file from another: events tell of all that happens beside it too.
fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.modified().ok()?, file.len(), file.ino()))
}

impl Control {
    /// Reads the file again; the error has every fault.
    pub fn reload(self: &Arc<Control>, path: &Path) -> Result<(), Vec<String>> {
        let config = Config::load(path).map_err(|fault| vec![fault])?;
        let mut faults = config.validate();
        faults.extend(self.fixed(&config));
        if !faults.is_empty() {
            return Err(faults);
        }
        self.take_over(config).map_err(|error| vec![format!("{error:#}")])
    }

    /// Options that changed and cannot.
    fn fixed(&self, new: &Config) -> Vec<String> {
        let state = self.state.lock();
        let old = &state.config;
        let mut faults = Vec::new();
        let mut keeps = |name: &str, is_same: bool| {
            if !is_same {
                faults.push(format!("{name}: fixed at start; restart for it"));
            }
        };
        keeps("server.threads", old.server.threads == new.server.threads);
        keeps("server.admin-addr", old.server.admin_addr == new.server.admin_addr);
        keeps("server.drain", old.server.drain == new.server.drain);
        keeps("log", old.log == new.log);
        for pool in &new.pools {
            let known = old.pools.iter().find(|known| known.name == pool.name);
            keeps(
                &format!("pool {:?}: protocol", pool.name),
                known.is_none_or(|known| known.protocol == pool.protocol),
            );
        }
        faults
    }
}
