//! [`Background`]: work that must be finished although nobody waits for it.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Pieces of work at the same time. When so many run, the next is done before its caller goes on.
const AT_ONCE: u32 = 1024;

pub(crate) struct Background(Arc<Semaphore>);

impl Default for Background {
    fn default() -> Background {
        Background(Arc::new(Semaphore::new(AT_ONCE as usize)))
    }
}

impl Background {
    /// Runs `work` to its end, whatever becomes of the caller.
    pub async fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        match self.0.clone().try_acquire_owned() {
            Ok(slot) => drop(tokio::spawn(async move {
                work.await;
                drop(slot);
            })),
            Err(_) => work.await,
        }
    }

    /// Starts `work` if there is room, for callers that cannot wait.
    pub fn try_run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if let Ok(slot) = self.0.clone().try_acquire_owned() {
            runtime.spawn(async move {
                work.await;
                drop(slot);
            });
        }
    }

    /// Returns once all work that was begun before is done.
    pub async fn settled(&self) {
        let all = self.0.acquire_many(AT_ONCE).await;
        drop(all.expect("the semaphore is never closed"));
    }
}
