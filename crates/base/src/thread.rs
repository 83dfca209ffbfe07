//! Named threads. Linux keeps 15 bytes of a name, so names are short: `raft-0`, `apply-1`, `raft-log`.

use std::thread::{Builder, JoinHandle};

/// Starts a thread called `name`. A panic inside ends the process: a half-dead store is worse than a dead one.
#[allow(clippy::disallowed_methods)] // the one place where threads are made
pub fn spawn<F, T>(name: &str, body: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    assert!(
        name.len() <= 15,
        "thread name {name:?} is longer than the 15 bytes that Linux keeps"
    );
    Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .expect("the system refuses another thread")
}

/// Makes any thread's panic end the process, after the usual message. Called once by binaries at start.
pub fn abort_on_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        usual(info);
        std::process::abort();
    }));
}
