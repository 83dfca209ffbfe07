//! Runs calls: one runtime for the process, cancellation, and no panic that gets out.

use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{AbortHandle, Abortable};
use tokio::runtime::{Builder, Runtime};

use crate::{Failure, Outcome};

/// Threads that carry all clients of the process. The work of a call is short, so few keep up with one machine's program.
const WORKERS_MAX: usize = 4;

/// With so many calls under way others are likely to end now too, and to wait for them costs less than to wake somebody for each.
const MANY_UNDER_WAY: usize = 4;

/// A call under way. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct Call(AbortHandle);

impl Call {
    /// Ends the call with [`crate::Class::Cancelled`] unless it has ended, and frees what it held. A request that was sent may be done
    /// nevertheless.
    pub fn cancel(&self) {
        self.0.abort();
    }
}

/// The runtime, started by the first call. It is not inherited by a forked process.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Builder::new_multi_thread()
            .worker_threads(cores.min(WORKERS_MAX))
            .thread_name("ferrite-client")
            .enable_all()
            .build()
            .expect("the system refuses another thread")
    })
}

/// Runs `drop`, of what may have something to do in the background at its end.
pub(crate) fn inside<T>(drop: impl FnOnce() -> T) -> T {
    let _entered = runtime().enter();
    drop()
}

/// Starts `work`; `done` is called once with its outcome, on a thread of the library, and must not block for long.
pub fn start(work: impl Future<Output = Outcome> + Send + 'static, done: impl FnOnce(Outcome) + Send + 'static) -> Call {
    let (call, run) = prepare(work, done);
    runtime().spawn(run);
    call
}

/// The same, not started yet.
pub(crate) fn prepare<D>(work: impl Future<Output = Outcome> + Send, done: D) -> (Call, impl Future<Output = ()> + Send)
where
    D: FnOnce(Outcome) + Send,
{
    let (handle, registration) = AbortHandle::new_pair();
    let run = async move {
        let work = AssertUnwindSafe(Abortable::new(work, registration)).catch_unwind();
        let outcome = match work.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_aborted)) => Err(Failure::cancelled()),
            Err(panic) => Err(Failure::panicked(&*panic)),
        };
        // A panic of the binding's own end must not cross into its language either; the process goes on.
        if std::panic::catch_unwind(AssertUnwindSafe(|| done(outcome))).is_err() {
            tracing::error!("a binding panicked at the end of a call");
        }
    };
    (Call(handle), run)
}

/// Starts what was prepared.
pub(crate) fn spawn(run: impl Future<Output = ()> + Send + 'static) {
    runtime().spawn(run);
}

/// The same of many, from within: their requests gather and leave together, where each started from outside would wake a thread and leave alone.
pub(crate) fn start_together<R>(runs: Vec<R>)
where
    R: Future<Output = ()> + Send + 'static,
{
    runtime().spawn(async move {
        for run in runs {
            tokio::spawn(run);
        }
    });
}

/// Tries a call on the caller's thread, once: for what has mostly nothing to wait for, such as a write of an optimistic transaction. If it has not ended
/// so, it goes on where it stands by [`start`] or [`wait`].
pub fn at_once<F: Future<Output = Outcome> + Unpin>(work: &mut F) -> Option<Outcome> {
    let _entered = runtime().enter();
    // A panic leaves the future in an unknown state, but it is not polled again then.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| work.now_or_never()));
    ended.unwrap_or_else(|panic| Some(Err(Failure::panicked(&*panic))))
}

/// Wakes whoever fetches ends of calls, at the first of them. If many calls are under way that is done behind those that are ending now, so that all of
/// them are found: stores answer many requests in one message.
pub fn wake_for_ends(under_way: usize, wake: impl FnOnce() + Send + 'static) {
    if under_way < MANY_UNDER_WAY {
        wake();
        return;
    }
    runtime().spawn(async move {
        // Goes on only when its thread has nothing else to do.
        tokio::task::yield_now().await;
        wake();
    });
}

/// Runs `work` to its end on the caller's thread, which must not be one of the library's.
pub fn wait(work: impl Future<Output = Outcome>) -> Outcome {
    match std::panic::catch_unwind(AssertUnwindSafe(|| runtime().block_on(work))) {
        Ok(outcome) => outcome,
        Err(panic) => Err(Failure::panicked(&*panic)),
    }
}

/// The same for a while; `None` if it has not ended by then, and it may be waited for again.
pub fn wait_for<F: Future<Output = Outcome> + Unpin>(work: &mut F, patience: Duration) -> Option<Outcome> {
    // A panic leaves the future in an unknown state, but it is not polled again then.
    let ended = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime().block_on(async { tokio::time::timeout(patience, work).await.ok() })
    }));
    ended.unwrap_or_else(|panic| Some(Err(Failure::panicked(&*panic))))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::{Class, Reply};

    fn outcome_of(work: impl Future<Output = Outcome> + Send + 'static, cancel: bool) -> Outcome {
        let (sender, outcome) = sync_channel(1);
        let call = start(work, move |outcome| sender.send(outcome).expect("somebody waits"));
        if cancel {
            call.cancel();
            call.cancel();
        }
        outcome.recv().expect("called once")
    }

    #[test]
    fn the_end_is_called_whatever_happens() {
        assert!(matches!(outcome_of(async { Ok(Reply::Done) }, false), Ok(Reply::Done)));
        let cancelled = outcome_of(std::future::pending(), true).err().expect("cancelled");
        assert_eq!(cancelled.class, Class::Cancelled);
        let panicked = outcome_of(async { panic!("planted") }, false).err().expect("panicked");
        assert_eq!(panicked.class, Class::Internal);
        assert!(panicked.message.contains("planted"), "{}", panicked.message);
    }

    #[test]
    fn what_has_not_ended_at_once_goes_on() {
        assert!(matches!(
            at_once(&mut async { Ok(Reply::Done) }.boxed()),
            Some(Ok(Reply::Done))
        ));
        let panicked = at_once(&mut async { panic!("planted") }.boxed());
        assert!(matches!(panicked, Some(Err(failure)) if failure.class == Class::Internal));
        let mut later = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(Reply::Count(7))
        }
        .boxed();
        assert!(at_once(&mut later).is_none());
        assert!(matches!(outcome_of(later, false), Ok(Reply::Count(7))));
    }

    #[test]
    fn a_panic_at_the_end_leaves_the_library_alive() {
        start(async { Ok(Reply::Done) }, |_| panic!("planted"));
        assert!(matches!(wait(async { Ok(Reply::Done) }), Ok(Reply::Done)));
    }
}
