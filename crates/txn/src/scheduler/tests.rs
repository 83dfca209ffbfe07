//! The scheduler over a memory store, driven by hand.

mod flow;
mod waiting;

use base::Ts;

use super::*;
use crate::command::*;
use crate::driver::*;
use crate::error::Error;
use crate::key::Key;
use crate::lock::Lock;

fn driver() -> Driver {
    Driver::new(Config::default())
}

fn lock_of(driver: &Driver, user: &str) -> Option<Lock> {
    let bytes = driver
        .view()
        .get(engine::Cf::Lock, key(user).encoded())
        .expect("memory reads");
    bytes.map(|bytes| Lock::decode(&bytes).expect("own encoding"))
}

fn in_memory(driver: &Driver) -> Vec<Key> {
    let locks = driver.scheduler.memory_locks(RegionId(1), b"", b"");
    locks.under(&*driver.view()).into_keys().collect()
}

fn granted(result: Option<Result<Output>>) -> LockResult {
    match result.expect("answered").expect("granted") {
        Output::PessimisticLocked(mut results) => results.remove(0),
        other => panic!("{other:?}"),
    }
}

fn pessimistic(lock: PessimisticLock) -> Command {
    Command::PessimisticLock(lock)
}
