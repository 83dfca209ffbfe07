//! Calls as bytes, for languages whose own interface to native code is slow or narrow: one function starts every call, and the ends of many calls
//! are fetched at once.
//!
//! [`Hub::submit`] takes the number of an operation ([`op`]) and its arguments in the form of `codec`; ends collect in the hub as frames until [`Hub::take`]
//! or [`Hub::wait`] fetches them. Handles are numbers, so that one that was freed is told rather than followed.
//! Invariants: each submitted call gives exactly one frame; frames that wait are bounded by the calls in flight; bytes that are not what an operation
//! wants are a failure of the call.

mod codec;
pub mod op;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, RwLock};

use futures::FutureExt;
use futures::future::BoxFuture;

use crate::{Call, Failure, Outcome, Raw, Reply, Scan, Snap, Txn, Txns};
use codec::{Reader, Writer};

/// What a number stands for.
#[derive(Clone)]
enum Handle {
    Raw(Raw),
    Txns(Txns),
    Snap(Snap),
    Txn(Txn),
    Scan(Scan),
}

/// Handles, calls under way and ends that wait, of one program.
pub struct Hub {
    handles: RwLock<HashMap<u64, Handle>>,
    calls: Mutex<HashMap<u64, Call>>,
    last: AtomicU64,
    /// Calls that were submitted and have not ended.
    under_way: AtomicUsize,
    done: Mutex<Vec<u8>>,
    arrived: Condvar,
    /// Called when the first end after a fetch has come.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Hub {
    /// `wake` is called on threads of the library when there is something to fetch after nothing was.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Hub {
        Hub {
            handles: RwLock::default(),
            calls: Mutex::default(),
            last: AtomicU64::new(0),
            under_way: AtomicUsize::new(0),
            done: Mutex::default(),
            arrived: Condvar::new(),
            wake: Box::new(wake),
        }
    }

    /// Starts an operation on a handle (0 if it needs none); its frame will carry `id`. Only with `cancellable` does [`Hub::cancel`] find it. What ends at
    /// once gives its frame here, and none later.
    pub fn submit(&'static self, handle: u64, operation: u8, id: u64, arguments: &[u8], cancellable: bool) -> Option<Vec<u8>> {
        let found = self.find(handle);
        let is_quick = found.as_ref().is_some_and(|handle| is_quick(handle, operation));
        let mut work = self.work(found, operation, arguments);
        if is_quick && let Some(outcome) = crate::at_once(&mut work) {
            let mut frame = Vec::new();
            self.write(&mut frame, id, outcome);
            return Some(frame);
        }
        crate::call::spawn(self.prepare(work, id, cancellable));
        None
    }

    /// Starts many operations at once, all of which can be cancelled: `handle: u64, operation: u8, id: u64, length: u32`, and so many bytes of
    /// arguments, one after the other. What cannot be read is left out, and ends nowhere.
    pub fn submit_all(&'static self, operations: &[u8]) {
        let mut read = Reader::new(operations);
        let mut runs = Vec::new();
        while let Ok((handle, operation, id, arguments)) = read.operation() {
            let work = self.work(self.find(handle), operation, arguments);
            runs.push(self.prepare(work, id, true));
        }
        crate::call::start_together(runs);
    }

    fn prepare(
        &'static self,
        work: BoxFuture<'static, Outcome>,
        id: u64,
        cancellable: bool,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        let (call, run) = crate::call::prepare(work, move |outcome| {
            if cancellable {
                self.calls.lock().expect("nobody panics inside").remove(&id);
            }
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            self.end(id, outcome);
        });
        if cancellable {
            // Before it is started, so that its end cannot come before.
            self.calls.lock().expect("nobody panics inside").insert(id, call);
        }
        run
    }

    /// Runs an operation to its end on the caller's thread; returns its frame.
    pub fn call(&'static self, handle: u64, operation: u8, arguments: &[u8]) -> Vec<u8> {
        let outcome = crate::wait(self.work(self.find(handle), operation, arguments));
        let mut frames = Vec::new();
        self.write(&mut frames, 0, outcome);
        frames
    }

    /// Cancels a call that was submitted as cancellable and has not ended.
    pub fn cancel(&self, id: u64) {
        // Not under the lock: an end takes it.
        let call = self.calls.lock().expect("nobody panics inside").get(&id).cloned();
        if let Some(call) = call {
            call.cancel();
        }
    }

    /// Lets a handle go; a transaction that has not ended is rolled back.
    pub fn free(&self, handle: u64) {
        let freed = self.handles.write().expect("nobody panics inside").remove(&handle);
        drop(freed);
    }

    /// Handles that are not freed.
    pub fn handles(&self) -> usize {
        self.handles.read().expect("nobody panics inside").len()
    }

    /// The frames of all calls that have ended since the last fetch.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.done.lock().expect("nobody panics inside"))
    }

    /// The same, and waits for the first.
    pub fn wait(&self) -> Vec<u8> {
        let done = self.done.lock().expect("nobody panics inside");
        let mut done = self
            .arrived
            .wait_while(done, |done| done.is_empty())
            .expect("nobody panics inside");
        std::mem::take(&mut *done)
    }

    /// Lets whoever waits go on, with nothing: for the end of a program. The next fetch sees a frame with the id `u64::MAX`.
    pub fn stop(&'static self) {
        self.end(u64::MAX, Ok(Reply::Done));
    }

    fn end(&'static self, id: u64, outcome: Outcome) {
        let mut done = self.done.lock().expect("nobody panics inside");
        let is_first = done.is_empty();
        self.write(&mut done, id, outcome);
        drop(done);
        if !is_first {
            return;
        }
        crate::wake_for_ends(self.under_way.load(Ordering::Relaxed), move || {
            self.arrived.notify_one();
            (self.wake)();
        });
    }

    /// Adds the frame of a call's end.
    fn write(&self, frames: &mut Vec<u8>, id: u64, outcome: Outcome) {
        let mut writer = Writer::begin(frames, id);
        match outcome {
            Ok(reply) => self.write_reply(&mut writer, reply),
            Err(failure) => writer.failure(&failure),
        }
        writer.end();
    }

    fn write_reply(&self, writer: &mut Writer<'_>, reply: Reply) {
        match reply {
            Reply::Raw(raw) => writer.handle(self.keep(Handle::Raw(raw)), 0),
            Reply::Txns(txns) => writer.handle(self.keep(Handle::Txns(txns)), 0),
            Reply::Txn(txn) => {
                let start_ts = txn.start_ts();
                writer.handle(self.keep(Handle::Txn(txn)), start_ts);
            }
            other => writer.reply(other),
        }
    }

    fn keep(&self, handle: Handle) -> u64 {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.handles.write().expect("nobody panics inside").insert(number, handle);
        number
    }

    fn find(&self, handle: u64) -> Option<Handle> {
        self.handles.read().expect("nobody panics inside").get(&handle).cloned()
    }

    fn work(&'static self, handle: Option<Handle>, operation: u8, arguments: &[u8]) -> BoxFuture<'static, Outcome> {
        match self.operate(handle, operation, &mut Reader::new(arguments)) {
            Ok(work) => work,
            Err(failure) => async move { Err(failure) }.boxed(),
        }
    }

    /// What an operation does. A table: the arguments are read in the order in which [`op`] lists them.
    fn operate(
        &'static self,
        handle: Option<Handle>,
        operation: u8,
        read: &mut Reader<'_>,
    ) -> Result<BoxFuture<'static, Outcome>, Failure> {
        let work = match (operation, handle) {
            (op::RAW_CONNECT, _) => Raw::connect(read.text()?, read.text()?).boxed(),
            (op::TXNS_CONNECT, _) => Txns::connect(read.text()?, read.text()?).boxed(),
            (op::WITH_DEADLINE, Some(Handle::Raw(raw))) => {
                let raw = raw.with_deadline(read.time()?);
                async move { Ok(Reply::Raw(raw)) }.boxed()
            }
            (op::WITH_DEADLINE, Some(Handle::Txns(txns))) => {
                let txns = txns.with_deadline(read.time()?);
                async move { Ok(Reply::Txns(txns)) }.boxed()
            }
            (op::GET, Some(Handle::Raw(raw))) => raw.get(read.bytes()?).boxed(),
            (op::GET, Some(Handle::Snap(snap))) => snap.get(read.bytes()?).boxed(),
            (op::GET, Some(Handle::Txn(txn))) => txn.get(read.bytes()?).boxed(),
            (op::PUT, Some(Handle::Raw(raw))) => raw.put(read.bytes()?, read.bytes()?, read.optional_time()?).boxed(),
            (op::PUT, Some(Handle::Txn(txn))) => txn.put(read.bytes()?, read.bytes()?).boxed(),
            (op::DELETE, Some(Handle::Raw(raw))) => raw.delete(read.bytes()?).boxed(),
            (op::DELETE, Some(Handle::Txn(txn))) => txn.delete(read.bytes()?).boxed(),
            (op::BATCH_GET, Some(Handle::Raw(raw))) => raw.batch_get(read.keys()?).boxed(),
            (op::BATCH_GET, Some(Handle::Snap(snap))) => snap.batch_get(read.keys()?).boxed(),
            (op::BATCH_GET, Some(Handle::Txn(txn))) => txn.batch_get(read.keys()?).boxed(),
            (op::BATCH_PUT, Some(Handle::Raw(raw))) => raw.batch_put(read.pairs()?, read.optional_time()?).boxed(),
            (op::BATCH_PUT, Some(Handle::Txn(txn))) => txn.batch_put(read.pairs()?).boxed(),
            (op::BATCH_DELETE, Some(Handle::Raw(raw))) => raw.batch_delete(read.keys()?).boxed(),
            (op::DELETE_RANGE, Some(Handle::Raw(raw))) => raw.delete_range(read.range()?).boxed(),
            (op::COMPARE_AND_SWAP, Some(Handle::Raw(raw))) => {
                let (key, expected, new) = (read.bytes()?, read.optional_bytes()?, read.optional_bytes()?);
                raw.compare_and_swap(key, expected, new).boxed()
            }
            (op::TTL, Some(Handle::Raw(raw))) => raw.ttl(read.bytes()?).boxed(),
            (op::CHECKSUM, Some(Handle::Raw(raw))) => raw.checksum(read.range()?).boxed(),
            (op::SCAN, Some(Handle::Raw(raw))) => self.keep_scan(raw.scan(read.ask()?)),
            (op::SCAN, Some(Handle::Snap(snap))) => self.keep_scan(snap.scan(read.ask()?)),
            (op::SCAN, Some(Handle::Txn(txn))) => self.keep_scan(txn.scan(read.ask()?)),
            (op::NEXT, Some(Handle::Scan(scan))) => scan.next(read.u32()? as usize).boxed(),
            (op::BEGIN, Some(Handle::Txns(txns))) => txns.begin(read.text()?).boxed(),
            (op::TIMESTAMP, Some(Handle::Txns(txns))) => txns.timestamp().boxed(),
            (op::SNAPSHOT, Some(Handle::Txns(txns))) => {
                let snap = txns.snapshot(read.u64()?);
                let number = self.keep(Handle::Snap(snap));
                async move { Ok(Reply::Count(number)) }.boxed()
            }
            (op::GC, Some(Handle::Txns(txns))) => txns.gc(read.u64()?).boxed(),
            (op::RESOLVE_LOCKS, Some(Handle::Txns(txns))) => txns.resolve_locks(read.range()?, read.u64()?).boxed(),
            (op::GET_FOR_UPDATE, Some(Handle::Txn(txn))) => txn.get_for_update(read.bytes()?).boxed(),
            (op::BATCH_GET_FOR_UPDATE, Some(Handle::Txn(txn))) => txn.batch_get_for_update(read.keys()?).boxed(),
            (op::INSERT, Some(Handle::Txn(txn))) => txn.insert(read.bytes()?, read.bytes()?).boxed(),
            (op::LOCK_KEYS, Some(Handle::Txn(txn))) => txn.lock_keys(read.keys()?).boxed(),
            (op::SAVEPOINT, Some(Handle::Txn(txn))) => txn.savepoint().boxed(),
            (op::ROLLBACK_TO, Some(Handle::Txn(txn))) => txn.rollback_to(read.u64()?).boxed(),
            (op::COMMIT, Some(Handle::Txn(txn))) => txn.commit().boxed(),
            (op::ROLLBACK, Some(Handle::Txn(txn))) => txn.rollback().boxed(),
            (op::METRICS, Some(Handle::Raw(raw))) => text(raw.metrics()),
            (op::METRICS, Some(Handle::Txns(txns))) => text(txns.metrics()),
            (_, None) => return Err(Failure::freed()),
            (operation, Some(_)) => {
                return Err(Failure::configuration(format!("the handle has no operation {operation}")));
            }
        };
        read.end()?;
        Ok(work)
    }

    fn keep_scan(&'static self, scan: Scan) -> BoxFuture<'static, Outcome> {
        async move { Ok(Reply::Count(self.keep(Handle::Scan(scan)))) }.boxed()
    }
}

/// Whether an operation has mostly nothing to wait for. The locks of a pessimistic transaction are the exception.
fn is_quick(handle: &Handle, operation: u8) -> bool {
    match operation {
        op::PUT | op::DELETE | op::BATCH_PUT | op::INSERT | op::LOCK_KEYS | op::SAVEPOINT | op::ROLLBACK_TO => {
            matches!(handle, Handle::Txn(_))
        }
        op::SCAN | op::SNAPSHOT | op::WITH_DEADLINE | op::METRICS => true,
        _ => false,
    }
}

/// An answer that is there at once.
fn text(text: String) -> BoxFuture<'static, Outcome> {
    futures::future::ready(Ok(Reply::Value(Some(text.into())))).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;

    fn hub() -> &'static Hub {
        Box::leak(Box::new(Hub::new(|| {})))
    }

    /// Id and status of each frame.
    fn frames(mut bytes: &[u8]) -> Vec<(u64, u8)> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let mut reader = Reader::new(bytes);
            let length = reader.u32().expect("length") as usize;
            frames.push((reader.u64().expect("id"), reader.u8().expect("status")));
            bytes = &bytes[4 + length..];
        }
        frames
    }

    fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn every_call_ends_with_one_frame() {
        let hub = hub();
        let connect = [text("nonsense"), text("")].concat();
        let mut ends = Vec::new();
        for id in 0..100 {
            assert!(hub.submit(0, op::RAW_CONNECT, id, &connect, id % 2 == 0).is_none());
            hub.cancel(id);
        }
        while ends.len() < 100 {
            ends.extend(frames(&hub.wait()));
        }
        ends.sort();
        assert!(ends.iter().map(|(id, _)| *id).eq(0..100), "{ends:?}");
        let classes = [Class::Configuration as u8, Class::Cancelled as u8];
        assert!(ends.iter().all(|(_, status)| classes.contains(status)), "{ends:?}");
        assert!(hub.take().is_empty() && hub.calls.lock().expect("no panic").is_empty());
    }

    #[test]
    fn many_are_submitted_at_once() {
        let hub = hub();
        let connect = [text("nonsense"), text("")].concat();
        let mut operations = Vec::new();
        for id in 0..50u64 {
            operations.extend(0u64.to_le_bytes());
            operations.push(op::RAW_CONNECT);
            operations.extend(id.to_le_bytes());
            operations.extend((connect.len() as u32).to_le_bytes());
            operations.extend(&connect);
        }
        // The last one is cut off.
        hub.submit_all(&operations[..operations.len() - 1]);
        let mut ends = Vec::new();
        while ends.len() < 49 {
            ends.extend(frames(&hub.wait()));
        }
        ends.sort();
        assert!(ends.iter().map(|(id, _)| *id).eq(0..49), "{ends:?}");
        assert!(
            ends.iter().all(|(_, status)| *status == Class::Configuration as u8),
            "{ends:?}"
        );
        assert_eq!(hub.under_way.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn faulty_bytes_are_a_failure_of_the_call() {
        let hub = hub();
        let told = |handle, operation, arguments: &[u8]| frames(&hub.call(handle, operation, arguments))[0].1;
        let cut = &text("127.0.0.1:1")[..7];
        for arguments in [cut, &[0xff; 4][..], &[]] {
            assert_eq!(told(0, op::RAW_CONNECT, arguments), Class::Configuration as u8);
        }
        let more = [text("nonsense"), text(""), vec![1]].concat();
        assert_eq!(told(0, op::RAW_CONNECT, &more), Class::Configuration as u8);
        assert_eq!(told(7, op::GET, &text("k")), Class::Closed as u8);
    }
}
