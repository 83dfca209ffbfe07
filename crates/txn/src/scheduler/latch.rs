//! [`Latches`]: while a command reads keys and writes what follows from them, no other command may do so with the same keys.
//!
//! A command claims its region and then its keys in ascending order, and waits at the first place that is taken; as every claim goes
//! through the places in one order, none waits in a circle, whatever the order within a place's queue. That is first come, first
//! served, except that a command woken after it waited for a lock goes to the front: else newcomers would take the lock before it,
//! again and again.
//!
//! Keys are held alone. A region is shared by all commands with keys, and held alone to delete a range: a commit that read its lock
//! before, and wrote after the range was deleted, would leave a record of a value that is gone. Commands that look for locks all over a
//! region claim nothing while they look, as what they find may change at once; they then claim the keys found and read them again.

use std::collections::{HashMap, VecDeque};

use base::RegionId;

use super::TaskId;
use crate::key::Key;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Region(RegionId),
    Key(Key),
}

/// What a command wants to hold.
#[derive(Debug)]
pub struct Claim {
    /// In the order of claiming.
    places: Vec<Place>,
    /// The region alone.
    alone: bool,
    /// Goes before those who wait.
    urgent: bool,
    /// How many of `places` are held; it waits at the next one.
    held: usize,
}

impl Claim {
    /// For a command that reads and writes `keys`, which may come unsorted and twice.
    pub fn keys(region: RegionId, mut keys: Vec<Key>, urgent: bool) -> Claim {
        keys.sort_unstable();
        keys.dedup();
        let keys = keys.into_iter().map(Place::Key);
        Claim {
            places: std::iter::once(Place::Region(region)).chain(keys).collect(),
            alone: false,
            urgent,
            held: 0,
        }
    }

    /// For a command that deletes a range of `region`.
    pub fn range(region: RegionId) -> Claim {
        Claim {
            places: vec![Place::Region(region)],
            alone: true,
            urgent: false,
            held: 0,
        }
    }

    fn next(&self) -> Option<&Place> {
        self.places.get(self.held)
    }

    fn is_alone(&self, place: &Place) -> bool {
        self.alone || matches!(place, Place::Key(_))
    }
}

/// One place. Holders are not named: their claims are.
#[derive(Debug, Default)]
struct Latch {
    holders: usize,
    alone: bool,
    /// Each with whether it wants the place alone.
    waiting: VecDeque<(TaskId, bool)>,
}

impl Latch {
    fn fits(&self, alone: bool) -> bool {
        self.holders == 0 || !(self.alone || alone)
    }

    fn take(&mut self, alone: bool) {
        self.holders += 1;
        self.alone = alone;
    }

    /// Lets those in who are next, and adds them to `entered`.
    fn admit(&mut self, entered: &mut Vec<TaskId>) {
        while let Some(&(task, alone)) = self.waiting.front()
            && self.fits(alone)
        {
            self.waiting.pop_front();
            self.take(alone);
            entered.push(task);
        }
    }
}

/// The latches of one store. Bounded by the commands under way.
#[derive(Debug, Default)]
pub struct Latches {
    latches: HashMap<Place, Latch>,
    claims: HashMap<TaskId, Claim>,
}

impl Latches {
    /// Whether all is held at once; else `task` comes out of a later [`release`](Latches::release).
    pub fn claim(&mut self, task: TaskId, claim: Claim) -> bool {
        let before = self.claims.insert(task, claim);
        assert!(before.is_none(), "{task:?} claims while it holds {before:?}");
        self.advance(task)
    }

    /// Gives back what `task` holds, and its place in the queue if it waits. Returns those who now hold all they claimed.
    pub fn release(&mut self, task: TaskId) -> Vec<TaskId> {
        let Some(claim) = self.claims.remove(&task) else {
            return Vec::new();
        };
        let mut entered = Vec::new();
        for (at, place) in claim.places.into_iter().enumerate().take_while(|(at, _)| *at <= claim.held) {
            let latch = self.latches.get_mut(&place).expect("held or waited at");
            if at < claim.held {
                latch.holders -= 1;
            } else {
                latch.waiting.retain(|(waiting, _)| *waiting != task);
            }
            latch.admit(&mut entered);
            if latch.holders == 0 {
                self.latches.remove(&place);
            }
        }
        entered.retain(|task| {
            let claim = self.claims.get_mut(task).expect("waits with a claim");
            claim.held += 1;
            self.advance(*task)
        });
        entered
    }

    /// Goes on claiming; whether all is held.
    fn advance(&mut self, task: TaskId) -> bool {
        let claim = self.claims.get_mut(&task).expect("the caller has one");
        while let Some(place) = claim.next() {
            let alone = claim.is_alone(place);
            let latch = self.latches.entry(place.clone()).or_default();
            if !(latch.fits(alone) && (claim.urgent || latch.waiting.is_empty())) {
                match claim.urgent {
                    true => latch.waiting.push_front((task, alone)),
                    false => latch.waiting.push_back((task, alone)),
                }
                return false;
            }
            latch.take(alone);
            claim.held += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGION: RegionId = RegionId(7);

    fn keys(names: &[&str]) -> Claim {
        Claim::keys(
            REGION,
            names.iter().map(|name| Key::from_user(name.as_bytes())).collect(),
            false,
        )
    }

    fn urgent(names: &[&str]) -> Claim {
        Claim {
            urgent: true,
            ..keys(names)
        }
    }

    fn tasks(ids: &[u64]) -> Vec<TaskId> {
        ids.iter().copied().map(TaskId).collect()
    }

    #[test]
    fn commands_on_one_key_go_one_after_the_other() {
        let mut latches = Latches::default();
        assert!(latches.claim(TaskId(1), keys(&["a", "b", "a"])));
        assert!(latches.claim(TaskId(2), keys(&["c"])), "other keys are free");
        assert!(!latches.claim(TaskId(3), keys(&["c", "b"])));
        assert!(!latches.claim(TaskId(4), keys(&["b"])), "behind 3");
        assert!(!latches.claim(TaskId(5), keys(&["a"])));
        assert_eq!(latches.release(TaskId(2)), tasks(&[]), "3 still waits for b");
        assert_eq!(latches.release(TaskId(1)), tasks(&[5, 3]));
    }

    #[test]
    fn claims_are_completed_in_order_of_keys() {
        let mut latches = Latches::default();
        assert!(latches.claim(TaskId(1), keys(&["a"])));
        assert!(latches.claim(TaskId(2), keys(&["b"])));
        assert!(!latches.claim(TaskId(3), keys(&["b", "a"])));
        assert_eq!(latches.release(TaskId(1)), tasks(&[]));
        assert!(!latches.claim(TaskId(4), keys(&["a"])), "3 holds a while it waits for b");
        assert_eq!(latches.release(TaskId(2)), tasks(&[3]));
        assert_eq!(latches.release(TaskId(3)), tasks(&[4]));
        assert_eq!(latches.release(TaskId(4)), tasks(&[]));
        assert!(latches.latches.is_empty() && latches.claims.is_empty());
    }

    #[test]
    fn one_who_gives_up_leaves_nothing() {
        let mut latches = Latches::default();
        assert!(latches.claim(TaskId(1), keys(&["b"])));
        assert!(!latches.claim(TaskId(2), keys(&["a", "b", "c"])));
        assert!(!latches.claim(TaskId(3), keys(&["a"])));
        assert!(latches.claim(TaskId(4), keys(&["c"])), "2 has not come to c");
        assert_eq!(latches.release(TaskId(2)), tasks(&[3]));
        assert_eq!(latches.release(TaskId(1)), tasks(&[]));
        assert_eq!(latches.release(TaskId(9)), tasks(&[]), "it never claimed");
    }

    #[test]
    fn the_urgent_go_first() {
        let mut latches = Latches::default();
        assert!(latches.claim(TaskId(1), keys(&["a"])));
        assert!(!latches.claim(TaskId(2), keys(&["a"])));
        assert!(!latches.claim(TaskId(3), urgent(&["a"])));
        assert_eq!(latches.release(TaskId(1)), tasks(&[3]));
        assert_eq!(latches.release(TaskId(3)), tasks(&[2]));
    }

    #[test]
    fn a_range_is_deleted_alone_in_its_region() {
        let mut latches = Latches::default();
        assert!(latches.claim(TaskId(1), keys(&["a"])));
        assert!(latches.claim(TaskId(2), keys(&["b"])));
        assert!(!latches.claim(TaskId(3), Claim::range(REGION)));
        assert!(latches.claim(TaskId(4), Claim::range(RegionId(8))));
        assert!(!latches.claim(TaskId(5), keys(&["c"])), "behind 3");
        assert!(!latches.claim(TaskId(6), keys(&["d"])), "behind 3");
        assert_eq!(latches.release(TaskId(1)), tasks(&[]));
        assert_eq!(latches.release(TaskId(2)), tasks(&[3]));
        assert_eq!(latches.release(TaskId(3)), tasks(&[5, 6]));
        assert!(!latches.claim(TaskId(7), Claim::range(REGION)));
        assert!(!latches.claim(TaskId(8), keys(&["e"])));
        assert_eq!(latches.release(TaskId(7)), tasks(&[8]), "who waited behind one that gave up");
    }

    #[test]
    fn random_claims_exclude_each_other_and_all_end() {
        use std::collections::BTreeMap;
        let mut draw = 12345u64;
        let mut random = move |below: u64| {
            draw = draw.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (draw >> 33) % below
        };
        let (mut latches, mut running, mut waiting) = (Latches::default(), BTreeMap::new(), BTreeMap::new());
        let mut done = 0;
        for id in 0..20_000 {
            let task = TaskId(id);
            let names: Vec<_> = (0..1 + random(3))
                .map(|_| ["a", "b", "c", "d", "e", "f"][random(6) as usize])
                .collect();
            let claim = match random(10) {
                0 => urgent(&names),
                _ => keys(&names),
            };
            match latches.claim(task, claim) {
                true => drop(running.insert(task, names)),
                false => drop(waiting.insert(task, names)),
            }
            while running.len() + waiting.len() > 8 {
                let at = random(running.len() as u64) as usize;
                let first = *running.keys().nth(at).expect("somebody always runs");
                running.remove(&first);
                done += 1;
                for task in latches.release(first) {
                    let names = waiting.remove(&task).expect("it waited");
                    running.insert(task, names);
                }
                let mut all: Vec<_> = running.values().flat_map(std::collections::BTreeSet::from_iter).collect();
                let count = all.len();
                all.sort();
                all.dedup();
                assert_eq!(all.len(), count, "two run on one key: {running:?}");
            }
        }
        assert!(done > 19_000);
    }
}
