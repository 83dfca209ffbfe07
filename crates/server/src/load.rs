//! How busy each region is, and where in it: what divides a region by load, and what the placement driver learns of reads.
//!
//! [`Counted`] stands between requests and the regions and notes one access in 32 or so, with its key; rates follow from that. A region
//! whose rate stays above the limit for ten looks in a row is divided at the middle of the keys seen, if they lie on both sides of it:
//! one busy key cannot be divided. Not here: what moves the parts to other stores, which is the placement driver's.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, RegionId};
use bytes::Bytes;
use engine::kv::{Context, Kv, Modify, RegionSnapshot, Reply, SnapshotRef};
use engine::{Cf, Cursor, Result as EngineResult};
use parking_lot::Mutex;
use proto::metapb::Region;
use raftstore::size::border;

/// Accesses for one that is noted, on average.
const GAP: u64 = 32;
/// Keys kept of a region between two looks.
const KEYS: usize = 128;
/// How often rates are looked at.
pub const LOOK: Duration = Duration::from_secs(1);
/// Looks in a row at which a region must be busy.
const LOOKS: u32 = 10;
/// Least share of the accesses on either side of a border.
const SHARE: f64 = 0.25;

/// Above these, a second, a region is busy; zero: never.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub requests: u64,
    pub bytes: u64,
}

impl Limits {
    fn exceeds(&self, load: &Load, span: Duration) -> bool {
        let rate = |count: u64| (count as f64 / span.as_secs_f64()) as u64;
        let is_over = |count: u64, limit: u64| limit > 0 && rate(count) > limit;
        is_over(load.requests, self.requests) || is_over(load.bytes, self.bytes)
    }
}

#[derive(Default)]
struct Load {
    /// Since the last look.
    requests: u64,
    bytes: u64,
    noted: u64,
    /// Some of the keys since it became busy.
    keys: Vec<Bytes>,
    looks: u32,
    /// Read since the last report.
    read_keys: u64,
    read_bytes: u64,
}

impl Load {
    /// Each of the keys noted stays with equal chance.
    fn keep(&mut self, key: Bytes, chance: u64) {
        self.noted += 1;
        match self.keys.len() < KEYS {
            true => self.keys.push(key),
            false => {
                if let Some(kept) = self.keys.get_mut((chance % self.noted) as usize) {
                    *kept = key;
                }
            }
        }
    }

    /// The key that parts the accesses in about two halves.
    fn middle(&mut self) -> Option<Bytes> {
        self.keys.sort_unstable();
        let middle = self.keys.get(self.keys.len() / 2)?.clone();
        let below = self.keys.iter().filter(|key| **key < middle).count();
        let share = below as f64 / self.keys.len() as f64;
        (SHARE..=1.0 - SHARE).contains(&share).then_some(middle)
    }

    fn forget(&mut self) {
        (self.noted, self.looks) = (0, 0);
        self.keys.clear();
    }
}

/// See the module. One per store, shared.
#[derive(Default)]
pub struct Loads(Mutex<BTreeMap<RegionId, Load>>);

/// Keys and bytes read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    pub keys: u64,
    pub bytes: u64,
}

thread_local! {
    /// Accesses until the next that is noted, and where chance stands. The order of requests must not meet a pattern of ours.
    static CHANCE: Cell<(u64, u64)> = const { Cell::new((0, 0x9e37_79b9_7f4a_7c15)) };
}

/// Some number, if this access is to be noted.
fn drawn() -> Option<u64> {
    CHANCE.with(|chance| {
        let (left, mut state) = chance.get();
        if left > 0 {
            chance.set((left - 1, state));
            return None;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chance.set((state % (2 * GAP - 1), state));
        Some(state >> 16)
    })
}

impl Loads {
    fn note(&self, region: RegionId, cf: Cf, key: &[u8], bytes: usize, is_read: bool) {
        let Some(chance) = drawn() else { return };
        let (key, bytes) = (border(cf, &Bytes::copy_from_slice(key)), bytes as u64 * GAP);
        let mut regions = self.0.lock();
        let load = regions.entry(region).or_default();
        load.requests += GAP;
        load.bytes += bytes;
        load.keep(key, chance);
        if is_read {
            load.read_keys += GAP;
            load.read_bytes += bytes;
        }
    }

    /// What was read of a region since this was asked.
    pub fn take_reads(&self, region: RegionId) -> Reads {
        let mut regions = self.0.lock();
        let Some(load) = regions.get_mut(&region) else {
            return Reads::default();
        };
        Reads {
            keys: std::mem::take(&mut load.read_keys),
            bytes: std::mem::take(&mut load.read_bytes),
        }
    }

    /// A look after `span`: regions to be divided, each at this key.
    pub fn look(&self, span: Duration, limits: &Limits) -> Vec<(RegionId, Bytes)> {
        let mut wanted = Vec::new();
        self.0.lock().retain(|region, load| {
            let was_used = load.requests > 0 || load.read_keys > 0;
            match limits.exceeds(load, span) {
                true => load.looks += 1,
                false => load.forget(),
            }
            (load.requests, load.bytes) = (0, 0);
            if load.looks == LOOKS {
                wanted.extend(load.middle().map(|key| (*region, key)));
                load.forget();
            }
            was_used
        });
        wanted
    }
}

/// Divides busy regions until aborted: `divide` is told of each, with the key.
pub async fn watch(loads: Arc<Loads>, limits: Limits, divide: impl Fn(RegionId, Bytes)) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    looks.tick().await;
    let mut last = MonoTime::now();
    loop {
        looks.tick().await;
        let now = MonoTime::now();
        for (region, key) in loads.look(now.since(last), &limits) {
            divide(region, key);
        }
        last = now;
    }
}

/// Regions whose accesses are noted.
pub struct Counted {
    kv: Arc<dyn Kv>,
    loads: Arc<Loads>,
}

impl Counted {
    pub fn new(kv: Arc<dyn Kv>, loads: Arc<Loads>) -> Counted {
        Counted { kv, loads }
    }

    fn counted(&self, reply: Reply<SnapshotRef>) -> Reply<SnapshotRef> {
        let loads = self.loads.clone();
        Box::new(move |outcome| reply(outcome.map(|inner| Arc::new(View { inner, loads }) as SnapshotRef)))
    }
}

impl Kv for Counted {
    fn snapshot(&self, ctx: &Context, now: MonoTime, reply: Reply<SnapshotRef>) {
        self.kv.snapshot(ctx, now, self.counted(reply));
    }

    fn snapshot_at(&self, ctx: &Context, index: u64, reply: Reply<SnapshotRef>) {
        self.kv.snapshot_at(ctx, index, self.counted(reply));
    }

    fn write(&self, ctx: &Context, changes: Vec<Modify>, deadline: MonoTime, reply: Reply<()>) {
        for change in &changes {
            match change {
                Modify::Put { cf, key, value } => self.loads.note(ctx.region, *cf, key, key.len() + value.len(), false),
                Modify::Delete { cf, key } | Modify::DeleteRange { cf, start: key, .. } => {
                    self.loads.note(ctx.region, *cf, key, key.len(), false);
                }
            }
        }
        self.kv.write(ctx, changes, deadline, reply);
    }
}

/// A snapshot whose reads are noted. Of transactions one look at the commit records counts, not the locks besides.
struct View {
    inner: SnapshotRef,
    loads: Arc<Loads>,
}

impl View {
    fn region_id(&self) -> RegionId {
        RegionId(self.inner.region().id)
    }
}

impl RegionSnapshot for View {
    fn region(&self) -> &Region {
        self.inner.region()
    }

    fn term(&self) -> u64 {
        self.inner.term()
    }

    fn applied(&self) -> EngineResult<u64> {
        self.inner.applied()
    }

    fn get(&self, cf: Cf, key: &[u8]) -> EngineResult<Option<Bytes>> {
        let found = self.inner.get(cf, key)?;
        if cf != Cf::Lock {
            let bytes = key.len() + found.as_ref().map_or(0, Bytes::len);
            self.loads.note(self.region_id(), cf, key, bytes, true);
        }
        Ok(found)
    }

    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> EngineResult<Box<dyn Cursor>> {
        let inner = self.inner.cursor(cf, start, end)?;
        if cf == Cf::Lock {
            return Ok(inner);
        }
        Ok(Box::new(Walk {
            inner,
            cf,
            region: self.region_id(),
            loads: self.loads.clone(),
        }))
    }
}

/// A cursor whose pairs are noted.
struct Walk {
    inner: Box<dyn Cursor>,
    cf: Cf,
    region: RegionId,
    loads: Arc<Loads>,
}

impl Walk {
    fn noted(&self, pair: Option<(Bytes, Bytes)>) -> Option<(Bytes, Bytes)> {
        if let Some((key, value)) = &pair {
            self.loads.note(self.region, self.cf, key, key.len() + value.len(), true);
        }
        pair
    }
}

impl Cursor for Walk {
    fn seek(&mut self, key: &[u8]) -> EngineResult<Option<(Bytes, Bytes)>> {
        let pair = self.inner.seek(key)?;
        Ok(self.noted(pair))
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> EngineResult<Option<(Bytes, Bytes)>> {
        let pair = self.inner.seek_for_prev(key)?;
        Ok(self.noted(pair))
    }

    fn next(&mut self) -> EngineResult<Option<(Bytes, Bytes)>> {
        let pair = self.inner.next()?;
        Ok(self.noted(pair))
    }

    fn prev(&mut self) -> EngineResult<Option<(Bytes, Bytes)>> {
        let pair = self.inner.prev()?;
        Ok(self.noted(pair))
    }
}

#[cfg(test)]
mod tests {
    use engine::kv::{MemKv, memory};

    use super::*;

    const LIMITS: Limits = Limits {
        requests: 10_000,
        bytes: 0,
    };

    fn key(number: u64) -> Vec<u8> {
        format!("key{number:04}").into_bytes()
    }

    /// Accesses of a second by a region, to keys that `which` tells by number.
    fn second(loads: &Loads, accesses: u64, which: impl Fn(u64) -> u64) {
        for number in 0..accesses {
            loads.note(RegionId(1), Cf::Default, &key(which(number)), 100, true);
        }
    }

    fn after(seconds: u32, loads: &Loads, accesses: u64, which: impl Fn(u64) -> u64) -> Vec<(RegionId, Bytes)> {
        let looks = (0..seconds).map(|_| {
            second(loads, accesses, &which);
            loads.look(Duration::from_secs(1), &LIMITS)
        });
        looks.flatten().collect()
    }

    #[test]
    fn a_region_that_stays_busy_is_divided_in_the_middle() {
        let loads = Loads::default();
        let spread = |number: u64| number * 7 % 1000;
        assert_eq!(after(9, &loads, 20_000, spread), []);
        let wanted = after(1, &loads, 20_000, spread);
        let [(RegionId(1), border)] = &wanted[..] else {
            panic!("{wanted:?}")
        };
        assert!(**border > *key(250) && **border < *key(750), "{border:?}");
        assert_eq!(after(9, &loads, 20_000, spread), [], "it is given time to show what that did");
    }

    #[test]
    fn an_idle_moment_begins_anew() {
        let loads = Loads::default();
        let spread = |number: u64| number * 7 % 1000;
        assert_eq!(after(9, &loads, 20_000, spread), []);
        assert_eq!(after(1, &loads, 5_000, spread), []);
        assert_eq!(after(9, &loads, 20_000, spread), []);
        assert_eq!(after(1, &loads, 20_000, spread).len(), 1);
    }

    /// Nine in ten go to one key: wherever it was cut, one side would have nearly all.
    #[test]
    fn one_busy_key_cannot_be_divided() {
        let loads = Loads::default();
        let one = |number: u64| if number.is_multiple_of(10) { number % 1000 } else { 500 };
        assert_eq!(after(30, &loads, 20_000, one), []);
    }

    #[test]
    fn what_was_read_is_told_once_and_about_right() {
        let loads = Arc::new(Loads::default());
        let memory = Arc::new(MemKv::whole());
        let counted = Counted::new(memory, loads.clone());
        let ctx = memory::context(1);
        let put = Modify::Put {
            cf: Cf::Default,
            key: Bytes::from_static(b"key"),
            value: Bytes::from(vec![0; 97]),
        };
        counted.write(
            &ctx,
            vec![put],
            MonoTime(u64::MAX),
            Box::new(|outcome| outcome.expect("memory")),
        );
        let (send, receive) = std::sync::mpsc::channel();
        let reply = move |view| send.send(view).unwrap_or_else(|_| panic!("it is waited for"));
        counted.snapshot(&ctx, MonoTime(0), Box::new(reply));
        let view = receive.try_recv().expect("at once").expect("serves");
        for _ in 0..20_000 {
            assert!(view.get(Cf::Default, b"key").expect("memory").is_some());
        }
        let Reads { keys, bytes } = loads.take_reads(RegionId(1));
        assert!(
            (15_000..25_000).contains(&keys) && bytes == 100 * keys,
            "{keys} keys, {bytes} bytes"
        );
        assert_eq!(loads.take_reads(RegionId(1)), Reads::default());
        loads.look(LOOK, &LIMITS);
        loads.look(LOOK, &LIMITS);
        assert!(loads.0.lock().is_empty(), "nobody uses it");
    }
}
