//! Equal requests at the same time share one piece of work. It ends early once all who wait for it have left.

use std::collections::HashMap;
use std::sync::Arc;

use blob_store::Key;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use crate::cache::Entry;
use crate::error::Error;

/// What a flight brings.
pub type Landed = Result<Arc<Entry>, Arc<Error>>;

type Flight = BoxFuture<'static, Landed>;

/// Work that runs, by what it makes.
#[derive(Default)]
pub struct Flights(Mutex<HashMap<Key, WeakShared<Flight>>>);

impl Flights {
    /// Waits for the work on `key` that runs, or for that which `make` begins. Whether it ran already.
    pub async fn join(&self, key: Key, make: impl FnOnce() -> Flight) -> (Landed, bool) {
        let (flight, is_shared) = self.board(key, make);
        let landed = flight.await;
        self.0.lock().remove(&key);
        (landed, is_shared)
    }

    fn board(&self, key: Key, make: impl FnOnce() -> Flight) -> (Shared<Flight>, bool) {
        let mut flights = self.0.lock();
        if let Some(flight) = flights.get(&key).and_then(WeakShared::upgrade) {
            return (flight, true);
        }
        // Those whose waiters all left were never removed.
        if flights.len() > 1024 {
            flights.retain(|_, flight| flight.upgrade().is_some());
        }
        let flight = make().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        (flight, false)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::cache::sample;

    #[tokio::test]
    async fn equal_work_is_done_once_and_left_work_ends() {
        let (flights, made, dropped) = (
            Arc::new(Flights::default()),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(AtomicUsize::new(0)),
        );
        struct Guard(Arc<AtomicUsize>);
        impl Drop for Guard {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (go, wait) = tokio::sync::watch::channel(false);
        let join = |key: &'static str| {
            let (flights, made, guard, mut wait) = (flights.clone(), made.clone(), Guard(dropped.clone()), wait.clone());
            tokio::spawn(async move {
                let make = || {
                    made.fetch_add(1, Ordering::SeqCst);
                    async move {
                        let _guard = guard;
                        wait.wait_for(|go| *go).await.expect("is told");
                        Ok(Arc::new(sample("x", 1)))
                    }
                    .boxed()
                };
                flights.join(Key::named(&[key]), make).await.1
            })
        };
        let joined: Vec<_> = (0..5).map(|_| join("same")).collect();
        let left = join("left");
        while made.load(Ordering::SeqCst) < 2 || flights.0.lock().len() < 2 {
            tokio::task::yield_now().await;
        }
        left.abort();
        assert!(left.await.is_err());
        let before = dropped.load(Ordering::SeqCst);
        assert!(before >= 1, "the work that nobody waits for is gone");
        go.send(true).expect("they wait");
        let mut shared = 0;
        for join in joined {
            shared += usize::from(join.await.expect("ends"));
        }
        assert_eq!((shared, made.load(Ordering::SeqCst)), (4, 2));
    }
}
