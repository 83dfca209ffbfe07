//! Collects old versions on the regions that this store leads, up to the placement driver's gc safe point: drives [`Worker`].

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use engine::kv;
use futures::future::BoxFuture;
use tracing::info;
use txn::gc::{Effects, Event, Worker};

use super::Txn;

/// How often the placement driver is asked how far to go.
const POLL: Duration = Duration::from_secs(3);
/// One slice takes milliseconds; whoever waits longer for room and latches tries again.
const SLICE_WAIT: Duration = Duration::from_secs(10);

/// Where the collector learns what to do.
pub trait Source: Send + Sync + 'static {
    /// The cluster's gc safe point; zero if it is not known now.
    fn safe_point(&self) -> BoxFuture<'_, Ts>;
    /// Regions led here.
    fn regions(&self) -> Vec<kv::Context>;
}

/// Collects until aborted.
pub async fn run(txn: Arc<Txn>, source: Arc<dyn Source>) {
    let mut polls = tokio::time::interval(POLL);
    polls.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut worker = Worker::default();
    loop {
        polls.tick().await;
        let safe_point = source.safe_point().await;
        if worker.wants(safe_point) {
            round(&txn, &mut worker, safe_point, source.regions()).await;
        }
    }
}

/// Goes once over `regions`.
async fn round(txn: &Txn, worker: &mut Worker, safe_point: Ts, regions: Vec<kv::Context>) {
    let before = worker.counts();
    let mut event = Event::SafePoint { safe_point, regions };
    loop {
        let Effects { submit, wake_at } = worker.step(MonoTime::now(), event);
        event = if let Some((ctx, command)) = submit {
            Event::Answer(txn.submit(ctx, command, MonoTime::now() + SLICE_WAIT).await)
        } else if let Some(at) = wake_at {
            tokio::time::sleep(at.since(MonoTime::now())).await;
            Event::Tick
        } else {
            break;
        };
    }
    let deleted = worker.counts().deleted - before.deleted;
    if deleted > 0 {
        info!(safe_point = safe_point.0, deleted, "old versions are collected");
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use engine::kv::{Kv, MemKv, Modify, memory};
    use engine::{Cf, keys};
    use txn::{Key, Write, WriteKind};

    use super::*;
    use crate::txn::tests::over;

    /// More versions than fit into one slice, and a store that is busy at first.
    #[tokio::test]
    async fn a_round_leaves_what_the_safe_point_sees() {
        let memory = Arc::new(MemKv::whole());
        let put = |ts: u64| Write::new(WriteKind::Put, Ts(ts), Some(Bytes::from_static(b"v"))).encode();
        for name in 0..3000u32 {
            let key = Key::from_user(&name.to_be_bytes());
            let change = |ts: u64| Modify::Put {
                cf: Cf::Write,
                key: key.at(Ts(ts)),
                value: put(ts - 1),
            };
            let reply = Box::new(|outcome: Result<(), _>| outcome.expect("serves"));
            memory.write(
                &memory::context(1),
                vec![change(20), change(40), change(60)],
                MonoTime(u64::MAX),
                reply,
            );
        }
        let busy = || kv::Error::Busy { reason: "test" };
        memory.fail_next([busy(), busy()]);
        let txn = over(memory.clone());
        let mut worker = Worker::default();
        round(&txn, &mut worker, Ts(50), vec![memory::context(1)]).await;
        let mut cursor = memory.engine().snapshot().cursor(Cf::Write, b"", b"").expect("memory");
        let mut left = Vec::new();
        while let Some((key, _)) = cursor.next().expect("memory") {
            let (_, ts) = Key::split(&key.slice(keys::data_key(b"").len()..)).expect("versioned");
            left.push(ts.0);
        }
        assert_eq!((left.len(), worker.counts().deleted), (6000, 3000));
        assert!(left.chunks(2).all(|of_key| of_key == [60, 40]));
        assert!(!worker.wants(Ts(50)) && worker.wants(Ts(51)));
    }
}
