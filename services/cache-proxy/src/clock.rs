//! The time of a thread's event loop: read once per turn of a task, not once per request.

use std::cell::Cell;

use base::MonoTime;

thread_local! {
    static NOW: Cell<MonoTime> = const { Cell::new(MonoTime(0)) };
}

/// Reads the clock.
pub fn refresh() -> MonoTime {
    let now = MonoTime::now();
    NOW.with(|cell| cell.set(now));
    now
}

/// As it was read last on this thread.
pub fn now() -> MonoTime {
    NOW.with(Cell::get)
}
