//! A Ferrite cluster, reached by the project's own client: for sources, and for results that several servers share.

use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;
use client::{Api, ClientOptions, Keyspace, RawClient};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::{FerriteApi, FerriteConfig};

/// Failures in a row after which it is left alone for a while.
const FAILURES_MAX: u32 = 3;
/// That while, at first; doubled with each further failure.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(30);

/// A cluster, dialled at the first use.
pub struct Cluster {
    client: OnceCell<RawClient>,
    endpoints: Vec<String>,
    options: ClientOptions,
    health: Mutex<Health>,
}

impl Cluster {
    /// As configured; none if there are no endpoints. The configuration must be valid.
    pub fn new(config: &FerriteConfig) -> Option<Arc<Cluster>> {
        if config.endpoints.is_empty() {
            return None;
        }
        let api = match config.api {
            FerriteApi::V1 | FerriteApi::V1ttl => Api::V1,
            FerriteApi::V2 if config.keyspace.is_empty() => Api::V2(Keyspace::Id(0)),
            FerriteApi::V2 => Api::V2(Keyspace::Name(config.keyspace.clone())),
        };
        Some(Arc::new(Cluster {
            client: OnceCell::new(),
            endpoints: config.endpoints.clone(),
            options: ClientOptions {
                api,
                deadline: config.timeout.0,
                tls: config.tls().expect("the configuration was validated"),
                ..ClientOptions::default()
            },
            health: Mutex::default(),
        }))
    }

    /// The client; each of its calls ends in time.
    pub async fn client(&self) -> Result<&RawClient, client::Error> {
        let connect = || RawClient::connect(&self.endpoints, self.options.clone());
        self.client.get_or_try_init(connect).await
    }

    /// Whether what can be done without it should be.
    pub fn rests(&self) -> bool {
        self.health.lock().rests(MonoTime::now())
    }

    /// Remembers how a call went.
    pub fn note(&self, went_well: bool) {
        self.health.lock().note(went_well, MonoTime::now());
    }
}

#[derive(Default)]
struct Health {
    failures: u32,
    until: Option<MonoTime>,
}

impl Health {
    fn rests(&mut self, now: MonoTime) -> bool {
        match self.until {
            Some(until) if now < until => true,
            Some(_) => {
                // One call tries; others wait for its outcome.
                self.until = Some(now + self.rest());
                false
            }
            None => false,
        }
    }

    fn note(&mut self, went_well: bool, now: MonoTime) {
        if went_well {
            *self = Health::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES_MAX {
            self.until = Some(now + self.rest());
        }
    }

    fn rest(&self) -> Duration {
        let doublings = self.failures.saturating_sub(FAILURES_MAX).min(10);
        (REST * 2u32.pow(doublings)).min(REST_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_fails_is_left_alone_longer_each_time() {
        let (mut health, start) = (Health::default(), MonoTime::now());
        for _ in 0..FAILURES_MAX {
            assert!(!health.rests(start));
            health.note(false, start);
        }
        assert!(health.rests(start + REST / 2));
        assert!(!health.rests(start + REST), "one tries");
        assert!(health.rests(start + REST), "and no other");
        health.note(false, start + REST);
        assert!(health.rests(start + REST * 2) && !health.rests(start + REST * 3));
        for _ in 0..100 {
            health.note(false, start);
        }
        assert!(!health.rests(start + REST_MAX));
        health.note(true, start);
        assert!(!health.rests(start));
    }
}
