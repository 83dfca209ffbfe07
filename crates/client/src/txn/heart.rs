//! [`Heart`]: keeps a transaction's locks from outliving their time.

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, Ts};
use bytes::Bytes;
use proto::kvrpcpb;
use tokio::task::JoinHandle;

use super::Core;
use super::fault::check;
use crate::call::Call;

/// Others may end the transaction when nothing was heard of it for so long. Readers wait for that at most, so it is below the usual
/// deadline.
pub(crate) const TTL: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_secs(1);

/// Time to live of a lock taken now, in milliseconds from the beginning of its transaction.
pub(crate) fn ttl_ms(begun: MonoTime) -> u64 {
    (MonoTime::now().since(begun) + TTL).as_millis() as u64
}

/// Beats until dropped.
pub(crate) struct Heart(JoinHandle<()>);

impl Heart {
    pub fn start(core: Arc<Core>, primary: Bytes, start_ts: Ts, begun: MonoTime) -> Heart {
        Heart(tokio::spawn(async move {
            loop {
                tokio::time::sleep(BEAT).await;
                // Boxed: most transactions end before the first beat.
                Box::pin(core.beat(&primary, start_ts, begun)).await;
            }
        }))
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Core {
    async fn beat(&self, primary: &Bytes, start_ts: Ts, begun: MonoTime) {
        let request = kvrpcpb::TxnHeartBeatRequest {
            primary_lock: primary.clone(),
            start_version: start_ts.0,
            advise_lock_ttl: ttl_ms(begun),
            ..Default::default()
        };
        let mut call = Call::begin(TTL, &self.router.jitter);
        match self.router.single(&mut call, primary, request).await {
            // The primary may not be there yet, or no more: its own requests tell the user.
            Ok(answer) => drop(check(answer.error)),
            Err(error) => tracing::debug!(%start_ts, error = %base::log::chain(&error), "keep locks alive"),
        }
    }
}
