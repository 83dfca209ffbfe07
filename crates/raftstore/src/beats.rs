//! Which other stores live, and which have no room left.
//!
//! A region that hibernates sends nothing, so that its silence tells nothing. Instead stores tell each other, once for all their
//! regions, that they live. When one falls silent, the regions with a peer there wake (`peer::hibernate`) and find out for themselves.
//! A store whose disk is almost full says so on the same way: leaders refuse what would fill it up, for a store that cannot append stops.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base::{MonoTime, StoreId};
use proto::metapb::Peer;

use crate::RaftMessage;
use crate::config::Config;

/// Ticks between looks at which stores there are.
const LOOK_TICKS: u64 = 10;

/// What a tick asks of a shell.
#[derive(Debug, Default)]
pub struct Beat {
    pub send: Vec<RaftMessage>,
    /// Stores that fell silent just now.
    pub silent: Vec<StoreId>,
}

pub struct Beats {
    me: StoreId,
    every: u64,
    silence_max: Duration,
    ticks: u64,
    /// When each store that shares a region with this one was heard last; it counts from when it came to be known.
    heard: BTreeMap<StoreId, MonoTime>,
    silent: BTreeSet<StoreId>,
    /// Stores that said so last; this one among them.
    full: BTreeSet<StoreId>,
}

impl Beats {
    pub fn new(me: StoreId, config: &Config) -> Beats {
        Beats {
            me,
            every: u64::from(config.heartbeat_ticks),
            silence_max: config.tick.0 * config.election_ticks,
            ticks: 0,
            heard: BTreeMap::new(),
            silent: BTreeSet::new(),
            full: BTreeSet::new(),
        }
    }

    /// Whether this store's disk is almost full.
    pub fn set_full(&mut self, is_full: bool) {
        self.note_full(self.me, is_full);
    }

    fn note_full(&mut self, store: StoreId, is_full: bool) {
        match is_full {
            true => self.full.insert(store),
            false => self.full.remove(&store),
        };
    }

    pub fn is_full(&self, store: StoreId) -> bool {
        self.full.contains(&store)
    }

    /// Whether any store is, this one among them.
    pub fn is_any_full(&self) -> bool {
        !self.full.is_empty()
    }

    /// A message of this store's, if it is one of those that [`Beats::on_tick`] sends.
    pub fn on_message(&mut self, message: &RaftMessage, now: MonoTime) {
        let (Some(from), Some(to)) = (&message.from, &message.to) else {
            return;
        };
        let store = StoreId(from.store_id);
        if let Some(heard) = self.heard.get_mut(&store).filter(|_| to.store_id == self.me.0) {
            *heard = now;
            self.silent.remove(&store);
            self.note_full(store, message.disk_full);
        }
    }

    /// A tick passed. `neighbours` are the stores with a peer of a region that has one here.
    pub fn on_tick(&mut self, now: MonoTime, neighbours: impl FnOnce() -> BTreeSet<StoreId>) -> Beat {
        if self.ticks.is_multiple_of(LOOK_TICKS) {
            let neighbours = neighbours();
            self.heard.retain(|store, _| neighbours.contains(store));
            self.silent.retain(|store| neighbours.contains(store));
            self.full.retain(|store| *store == self.me || neighbours.contains(store));
            for store in neighbours.into_iter().filter(|store| *store != self.me) {
                self.heard.entry(store).or_insert(now);
            }
        }
        let mut beat = Beat::default();
        if self.ticks.is_multiple_of(self.every) {
            let is_full = self.is_full(self.me);
            beat.send = self.heard.keys().map(|&to| message(self.me, to, is_full)).collect();
        }
        self.ticks += 1;
        for (&store, &heard) in &self.heard {
            if now.since(heard) >= self.silence_max && self.silent.insert(store) {
                beat.silent.push(store);
                // The dead take no writes anyhow.
                self.full.remove(&store);
            }
        }
        beat
    }

    /// Whether the store has not been heard for an election timeout.
    pub fn is_silent(&self, store: StoreId) -> bool {
        self.silent.contains(&store)
    }
}

fn message(from: StoreId, to: StoreId, disk_full: bool) -> RaftMessage {
    let on = |store: StoreId| {
        Some(Peer {
            store_id: store.0,
            ..Peer::default()
        })
    };
    RaftMessage {
        from: on(from),
        to: on(to),
        is_beat: true,
        disk_full,
        ..RaftMessage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: MonoTime = MonoTime(1_000_000_000);

    fn two() -> BTreeSet<StoreId> {
        [StoreId(1), StoreId(2)].into()
    }

    /// Ticks `of`, and `to` hears what it sends.
    fn tick(of: &mut Beats, to: &mut Beats, now: MonoTime) -> Vec<StoreId> {
        let beat = of.on_tick(now, two);
        beat.send.iter().for_each(|message| to.on_message(message, now));
        beat.silent
    }

    #[test]
    fn a_store_that_falls_silent_is_told_once_and_again_after_it_spoke() {
        let config = Config::default();
        let (mut one, mut two) = (Beats::new(StoreId(1), &config), Beats::new(StoreId(2), &config));
        let mut now = START;
        let mut step = |one: &mut Beats, two: Option<&mut Beats>| {
            now = now + config.tick.0;
            if let Some(two) = two {
                tick(two, one, now);
            }
            one.on_tick(now, self::two).silent
        };
        for _ in 0..50 {
            assert_eq!(step(&mut one, Some(&mut two)), []);
        }
        let silent: Vec<_> = (0..30).map(|_| step(&mut one, None)).collect();
        let told: Vec<_> = silent.iter().enumerate().filter(|(_, stores)| !stores.is_empty()).collect();
        assert!(matches!(told[..], [(8..=10, stores)] if *stores == [StoreId(2)]), "{told:?}");
        assert!(one.is_silent(StoreId(2)));
        for _ in 0..5 {
            assert_eq!(step(&mut one, Some(&mut two)), []);
        }
        assert!(!one.is_silent(StoreId(2)));
        let told: usize = (0..30).map(|_| step(&mut one, None).len()).sum();
        assert_eq!(told, 1);
    }

    #[test]
    fn beats_go_to_neighbours_and_are_heard_from_them_alone() {
        let config = Config::default();
        let mut one = Beats::new(StoreId(1), &config);
        let sent = one.on_tick(START, two).send;
        let to: Vec<_> = sent.iter().filter_map(|message| message.to).map(|to| to.store_id).collect();
        assert_eq!(to, [2]);
        one.on_message(&message(StoreId(3), StoreId(1), true), START);
        one.on_message(&message(StoreId(2), StoreId(9), true), START + config.tick.0 * 100);
        assert_eq!(one.on_tick(START + config.tick.0 * 100, two).silent, [StoreId(2)]);
        assert!(!one.is_any_full());
    }

    #[test]
    fn a_store_is_full_until_it_says_otherwise_or_dies() {
        let config = Config::default();
        let (mut one, mut other) = (Beats::new(StoreId(1), &config), Beats::new(StoreId(2), &config));
        let mut now = START;
        let mut step = |one: &mut Beats, other: Option<&mut Beats>| {
            now = now + config.tick.0;
            if let Some(other) = other {
                tick(other, one, now);
            }
            let _beat = one.on_tick(now, two);
            one.is_full(StoreId(2))
        };
        assert!(!step(&mut one, Some(&mut other)));
        for is_full in [true, false, true] {
            other.set_full(is_full);
            step(&mut one, Some(&mut other));
            step(&mut one, Some(&mut other));
            assert_eq!(step(&mut one, Some(&mut other)), is_full);
        }
        assert!((0..20).map(|_| step(&mut one, None)).any(|is_full| !is_full), "it is dead");
    }
}
