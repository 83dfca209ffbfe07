//! Readers: numbers taken, snapshots, cursors.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use lsm_tree::{AbstractTree, Guard, IterGuardImpl, Slice};
use parking_lot::Mutex;

use super::{Core, to_bytes, tree_error};
use crate::{Cf, Cursor, Result, Snapshot};

/// The numbers at which somebody reads, with how many do.
#[derive(Default)]
pub struct Readers {
    numbers: Mutex<BTreeMap<u64, usize>>,
}

impl Readers {
    /// Takes the number of everything visible. Until [`leave`](Readers::leave), what it sees stays.
    pub fn enter(&self, visible: &AtomicU64) -> u64 {
        let mut numbers = self.numbers.lock();
        let number = visible.load(Ordering::Acquire);
        *numbers.entry(number).or_insert(0) += 1;
        number
    }

    pub fn leave(&self, number: u64) {
        let mut numbers = self.numbers.lock();
        let count = numbers.get_mut(&number).expect("left as often as entered");
        *count -= 1;
        if *count == 0 {
            numbers.remove(&number);
        }
    }

    /// No reader is, or will be, below this number.
    pub fn oldest(&self, visible: &AtomicU64) -> u64 {
        let numbers = self.numbers.lock();
        numbers
            .first_key_value()
            .map_or_else(|| visible.load(Ordering::Acquire), |(number, _)| *number)
    }
}

/// A reader's place; shared by a snapshot and its cursors.
struct Place {
    core: Arc<Core>,
    seqno: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.core.readers.leave(self.seqno);
    }
}

pub struct View(Arc<Place>);

impl View {
    pub fn new(core: &Arc<Core>) -> View {
        let seqno = core.readers.enter(&core.visible);
        View(Arc::new(Place {
            core: core.clone(),
            seqno,
        }))
    }
}

impl Snapshot for View {
    fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>> {
        self.0.core.get(cf, key, self.0.seqno)
    }

    fn cursor(&self, cf: Cf, start: &[u8], end: &[u8]) -> Result<Box<dyn Cursor>> {
        let (start, end) = (start.into(), end.into());
        Ok(Box::new(TreeCursor {
            place: self.0.clone(),
            cf,
            start,
            end,
            run: Run::None,
            at: At::Fresh,
        }))
    }
}

type Pairs = Box<dyn DoubleEndedIterator<Item = IterGuardImpl> + Send>;

/// An iterator of the tree, good for moves in one direction from where the cursor stands.
enum Run {
    None,
    Forward(Pairs),
    Backward(Pairs),
}

enum At {
    Fresh,
    Pair(Slice, Slice),
    Past,
}

/// To start an iterator costs as much as some hundred steps. So a seek to what lies a few keys ahead steps there.
const SEEK_STEPS: usize = 8;

struct TreeCursor {
    place: Arc<Place>,
    cf: Cf,
    start: Box<[u8]>,
    end: Box<[u8]>,
    run: Run,
    at: At,
}

impl TreeCursor {
    fn upper(&self) -> Bound<&[u8]> {
        if self.end.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Excluded(&self.end)
        }
    }

    fn pairs(&self, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Pairs {
        if let (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) = (low, high)
            && (a > b || (a == b && !matches!((low, high), (Bound::Included(_), Bound::Included(_)))))
        {
            return Box::new(std::iter::empty());
        }
        self.place
            .core
            .tree(self.cf)
            .range::<&[u8], _>((low, high), self.place.seqno, None)
    }

    /// Takes what a run gave and stands on it.
    fn stand(&mut self, guard: Option<IterGuardImpl>) -> Result<Option<(Bytes, Bytes)>> {
        let Some(guard) = guard else {
            self.at = At::Past;
            return Ok(None);
        };
        let (key, value) = match guard.into_inner() {
            Ok(pair) => pair,
            Err(e) => {
                // What a run does after an error is not told: begin anew.
                (self.run, self.at) = (Run::None, At::Past);
                return Err(tree_error("read", &self.place.core.dir, e));
            }
        };
        let pair = (to_bytes(key.clone()), to_bytes(value.clone()));
        self.at = At::Pair(key, value);
        Ok(Some(pair))
    }

    fn run_forward(&mut self, mut pairs: Pairs) -> Result<Option<(Bytes, Bytes)>> {
        let first = pairs.next();
        self.run = Run::Forward(pairs);
        self.stand(first)
    }

    fn run_backward(&mut self, mut pairs: Pairs) -> Result<Option<(Bytes, Bytes)>> {
        let last = pairs.next_back();
        self.run = Run::Backward(pairs);
        self.stand(last)
    }

    /// Steps towards `key`, which lies ahead in the run's direction. `None` if it is not near.
    fn step_to(&mut self, key: &[u8], forward: bool) -> Option<Result<Option<(Bytes, Bytes)>>> {
        for _ in 0..SEEK_STEPS {
            let guard = match &mut self.run {
                Run::Forward(pairs) => pairs.next(),
                Run::Backward(pairs) => pairs.next_back(),
                Run::None => return None,
            };
            let Some(guard) = guard else { return Some(self.stand(None)) };
            let (found, value) = match guard.into_inner() {
                Ok(pair) => pair,
                Err(_) => return None, // a new run meets the error again, or not
            };
            let arrived = if forward { *found >= *key } else { *found <= *key };
            self.at = At::Pair(found, value);
            if arrived {
                return Some(Ok(self.pair()));
            }
        }
        None
    }

    fn pair(&self) -> Option<(Bytes, Bytes)> {
        match &self.at {
            At::Pair(key, value) => Some((to_bytes(key.clone()), to_bytes(value.clone()))),
            At::Fresh | At::Past => None,
        }
    }
}

impl Cursor for TreeCursor {
    fn seek(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        if let (Run::Forward(_), At::Pair(at, _)) = (&self.run, &self.at) {
            if **at == *key {
                return Ok(self.pair());
            }
            if **at < *key
                && let Some(outcome) = self.step_to(key, true)
            {
                return outcome;
            }
        }
        let from = key.max(&self.start);
        let pairs = self.pairs(Bound::Included(from), self.upper());
        self.run_forward(pairs)
    }

    fn seek_for_prev(&mut self, key: &[u8]) -> Result<Option<(Bytes, Bytes)>> {
        if let (Run::Backward(_), At::Pair(at, _)) = (&self.run, &self.at) {
            if **at == *key {
                return Ok(self.pair());
            }
            if **at > *key
                && let Some(outcome) = self.step_to(key, false)
            {
                return outcome;
            }
        }
        let inside = self.end.is_empty() || *key < *self.end;
        let upper = if inside { Bound::Included(key) } else { self.upper() };
        let pairs = self.pairs(Bound::Included(&self.start), upper);
        self.run_backward(pairs)
    }

    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let pairs = match (&mut self.run, &self.at) {
            (_, At::Past) => return Ok(None),
            (_, At::Fresh) => self.pairs(Bound::Included(&self.start), self.upper()),
            (Run::Forward(pairs), At::Pair(..)) => {
                let guard = pairs.next();
                return self.stand(guard);
            }
            (_, At::Pair(key, _)) => self.pairs(Bound::Excluded(key), self.upper()),
        };
        self.run_forward(pairs)
    }

    fn prev(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        let pairs = match (&mut self.run, &self.at) {
            (_, At::Past) => return Ok(None),
            (_, At::Fresh) => self.pairs(Bound::Included(&self.start), self.upper()),
            (Run::Backward(pairs), At::Pair(..)) => {
                let guard = pairs.next_back();
                return self.stand(guard);
            }
            (_, At::Pair(key, _)) => self.pairs(Bound::Included(&self.start), Bound::Excluded(key)),
        };
        self.run_backward(pairs)
    }
}
