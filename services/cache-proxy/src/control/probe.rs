//! Probes of servers, and who is on the ring. A server fails after some failures in a row, of requests or probes, and comes back only after
//! probes succeeded: never blindly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;

use super::Control;
use crate::config::Protocol;
use crate::link::Link;
use crate::topology::{PoolPlan, Topology};

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub is_out: bool,
    failures: u32,
    successes: u32,
    /// Duration of the last probe in microseconds.
    pub micros: u64,
}

impl Standing {
    /// Takes in a probe and what threads met since; true if the server went out or came back.
    pub fn judge(&mut self, probe: Option<Duration>, met: u32, failures_max: u32, successes_min: u32) -> bool {
        let was_out = self.is_out;
        match probe {
            Some(took) => {
                self.failures = 0;
                self.successes = self.successes.saturating_add(1);
                self.micros = took.as_micros() as u64;
            }
            None => {
                self.failures = self.failures.saturating_add(1);
                self.successes = 0;
            }
        }
        if self.is_out {
            self.is_out = self.successes < successes_min;
        } else if self.failures >= failures_max || met >= failures_max {
            self.is_out = true;
            self.successes = 0;
        }
        was_out != self.is_out
    }
}

/// Probes the servers of a ring.
pub async fn watch_ring(control: Arc<Control>, plan: Arc<PoolPlan>) {
    let config = &plan.config;
    let mut standings: BTreeMap<String, Standing> = BTreeMap::new();
    loop {
        let names = config.server_names();
        let probes = names.iter().map(|name| probe(&name.addr, &plan));
        let probes = futures::future::join_all(probes).await;
        let mut is_changed = false;
        for (name, took) in names.iter().zip(probes) {
            let standing = standings.entry(name.addr.clone()).or_default();
            let board = plan.health.of(&name.addr);
            let met = board.failures();
            if standing.judge(took, met, config.eject_failures, config.probe_successes) {
                is_changed = true;
                let (pool, server, is_out) = (&config.name, &name.addr, standing.is_out);
                tracing::info!(pool, server, is_out, "a server changed its standing");
                if !is_out {
                    board.succeeded();
                }
            }
        }
        if is_changed {
            let is_out = |addr: &str| standings.get(addr).is_some_and(|standing| standing.is_out);
            control.set_topology(&plan, Topology::ring(config, is_out));
        }
        tokio::time::sleep(config.probe_interval.0).await;
    }
}

/// How long a server takes to answer; `None` if it does not, or not in time.
pub async fn probe(addr: &str, plan: &PoolPlan) -> Option<Duration> {
    let began = MonoTime::now();
    let asked = tokio::time::timeout(plan.config.timeout_connect.0, ask(addr, plan));
    matches!(asked.await, Ok(Ok(()))).then(|| MonoTime::now().since(began))
}

async fn ask(addr: &str, plan: &PoolPlan) -> anyhow::Result<()> {
    if plan.config.protocol == Protocol::Memcached {
        let mut link = Link::new(crate::conn::dial(addr, plan).await?);
        let line = link.line(b"version\r\n").await?;
        anyhow::ensure!(line.starts_with(b"VERSION"), "not a version");
        return Ok(());
    }
    let mut link = connect(addr, plan).await?;
    link.value(&[b"PING"]).await?;
    Ok(())
}

/// A connection to a server that speaks RESP, logged in.
pub async fn connect(addr: &str, plan: &PoolPlan) -> anyhow::Result<Link> {
    let mut link = Link::new(crate::conn::dial(addr, plan).await?);
    let (user, password) = (plan.config.server_user.as_bytes(), plan.config.server_password.as_bytes());
    match (user.is_empty(), password.is_empty()) {
        (_, true) => {}
        (true, false) => drop(link.value(&[b"AUTH", password]).await?),
        (false, false) => drop(link.value(&[b"AUTH", user, password]).await?),
    }
    Ok(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_comes_back_only_after_probes() {
        let mut standing = Standing::default();
        let ok = Some(Duration::from_micros(50));
        assert!(!standing.judge(ok, 0, 3, 2));
        assert!(!standing.judge(None, 0, 3, 2));
        assert!(!standing.judge(None, 0, 3, 2));
        assert!(standing.judge(None, 0, 3, 2) && standing.is_out);
        assert!(!standing.judge(ok, 9, 3, 2) && standing.is_out);
        assert!(!standing.judge(None, 0, 3, 2));
        assert!(!standing.judge(ok, 0, 3, 2));
        assert!(standing.judge(ok, 0, 3, 2) && !standing.is_out);
        // Requests that fail count as well, even while probes succeed.
        assert!(standing.judge(ok, 3, 3, 2) && standing.is_out);
    }
}
