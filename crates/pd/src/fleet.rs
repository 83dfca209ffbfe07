//! The stores as schedulers see them: a table that is kept up rather than made anew for every region that reports.
//!
//! What depends on the clock, on people or on a store's own heartbeat is looked at once a second and whenever a store or a setting
//! changes ([`Fleet::renew`]); what changes with a region, for the stores of that region alone ([`Fleet::recount`]).

use std::sync::Arc;
use std::time::Duration;

use base::{MonoTime, StoreId};
use proto::metapb::{Store, StoreLabel, StoreState};

use crate::operator::Operators;
use crate::regions::Directory;
use crate::scheduling::Scheduling;
use crate::stores::{Beats, Liveness};

/// Peers on their way to one store at a time, unless people say otherwise: each is a raft snapshot.
pub const ARRIVING_MAX: u64 = 4;
/// What a region costs its stores besides its bytes: stores of the same bytes are evened out by number.
pub const REGION_WEIGHT: u64 = 8 << 20;
/// A store takes no further peers when less than this part of its room is left.
const ROOM_PART_MIN: u64 = 10;
/// Between two looks at what the clock changes.
const RENEW: Duration = Duration::from_secs(1);

/// A store as schedulers see it.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub store: StoreId,
    pub liveness: Liveness,
    /// How many regions have a peer there, what these weigh, and how many are led there, with those on their way counted.
    pub regions: u64,
    pub weight: u64,
    pub leaders: u64,
    /// Peers on their way to it, and how many may be.
    pub arriving: u64,
    pub arriving_max: u64,
    /// Its disk has little room left.
    pub is_full: bool,
    /// It is to be emptied.
    pub leaves: bool,
    /// It must not lead.
    pub evicts: bool,
    /// It is to lead what it can.
    pub grants: bool,
    /// Where it stands, from the largest unit (a zone) to the smallest (a host), as far as it says; each stands for a value.
    pub location: Vec<u64>,
    pub labels: Arc<[StoreLabel]>,
}

impl Candidate {
    /// Whether a peer there counts.
    pub fn stays(&self) -> bool {
        self.liveness != Liveness::Down && !self.leaves
    }

    /// Whether it may take a further peer at some time.
    pub fn is_open(&self) -> bool {
        self.liveness == Liveness::Up && !self.leaves && !self.is_full
    }

    /// Whether it may take a further peer now.
    pub fn takes_peers(&self) -> bool {
        self.is_open() && self.arriving < self.arriving_max
    }

    pub fn may_lead(&self) -> bool {
        self.liveness == Liveness::Up && !self.leaves && !self.evicts
    }
}

/// Stands for the value of a label (FNV-1a): locations are compared for every region that reports.
pub fn location_unit(labels: &[StoreLabel], key: &str) -> Option<u64> {
    let label = labels.iter().find(|label| label.key == key)?;
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    Some(label.value.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
}

/// All that the table is made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    pub scheduling: &'a Scheduling,
    pub beats: &'a Beats,
    pub regions: &'a Directory,
    pub operators: &'a Operators,
}

/// How many regions a store has.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// By its own account, if it gave one.
    told: Option<u64>,
    held: u64,
}

impl Known {
    fn agrees(self) -> bool {
        self.told.is_some_and(|told| told.abs_diff(self.held) <= 2 + self.held / 10)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Fleet {
    /// In ascending order of their ids.
    stores: Vec<Candidate>,
    /// Of each store.
    known: Vec<Known>,
    /// Stores that tell of another number of regions than are known.
    disagreeing: usize,
    least_weight: u64,
    least_leaders: u64,
    renewed: Option<MonoTime>,
}

impl Fleet {
    /// A table that is what it is: for tests, and for questions.
    pub fn of(mut stores: Vec<Candidate>) -> Fleet {
        stores.sort_by_key(|candidate| candidate.store);
        let mut fleet = Fleet {
            known: vec![Known::default(); stores.len()],
            stores,
            ..Fleet::default()
        };
        fleet.look();
        fleet
    }

    /// The next look makes the table anew.
    pub fn outdate(&mut self) {
        self.renewed = None;
    }

    /// Makes the table of the stores that were not taken out, if it is time.
    pub fn renew<'a>(&mut self, now: MonoTime, stores: impl Iterator<Item = &'a Store>, sources: Sources<'_>) {
        if self.renewed.is_some_and(|at| now.since(at) < RENEW) {
            return;
        }
        self.renewed = Some(now);
        self.stores.clear();
        self.known.clear();
        for store in stores {
            let (told, held) = (sources.beats.region_count(StoreId(store.id)), 0);
            self.stores.push(candidate(now, store, sources));
            self.known.push(Known { told, held });
            self.count(self.stores.len() - 1, sources);
        }
        self.look();
    }

    /// Counts anew what these stores hold.
    pub fn recount(&mut self, touched: impl Iterator<Item = StoreId>, sources: Sources<'_>) {
        let mut is_other = false;
        for store in touched {
            if let Some(at) = self.place(store) {
                self.count(at, sources);
                is_other = true;
            }
        }
        if is_other {
            self.look();
        }
    }

    /// All stores, in ascending order of their ids.
    pub fn all(&self) -> &[Candidate] {
        &self.stores
    }

    pub fn get(&self, store: StoreId) -> Option<&Candidate> {
        self.place(store).map(|at| &self.stores[at])
    }

    /// Whether the directory agrees with what stores tell of themselves. A member that has come to lead hears of regions bit by bit; until
    /// then stores would seem emptier than they are.
    pub fn knows_regions(&self) -> bool {
        self.disagreeing == 0
    }

    /// The least weight of a store that takes peers.
    pub fn least_weight(&self) -> u64 {
        self.least_weight
    }

    /// The fewest leaders of a store that may lead.
    pub fn least_leaders(&self) -> u64 {
        self.least_leaders
    }

    fn place(&self, store: StoreId) -> Option<usize> {
        self.stores.binary_search_by_key(&store, |candidate| candidate.store).ok()
    }

    fn count(&mut self, at: usize, sources: Sources<'_>) {
        let store = &mut self.stores[at];
        let (load, moving) = (sources.regions.load(store.store), sources.operators.moving(store.store));
        store.regions = (load.regions + moving.arriving).saturating_sub(moving.departing);
        let weight = load.bytes + load.regions * REGION_WEIGHT;
        store.weight = (weight + moving.arriving_weight).saturating_sub(moving.departing_weight);
        store.leaders = load.leaders.saturating_add_signed(moving.leading);
        store.arriving = moving.arriving + moving.catching_up;
        self.known[at].held = load.regions;
    }

    /// Looks at all stores for what is asked of them together.
    fn look(&mut self) {
        self.disagreeing = self.known.iter().filter(|known| !known.agrees()).count();
        let (mut weight, mut leaders) = (u64::MAX, u64::MAX);
        for store in &self.stores {
            if store.takes_peers() {
                weight = weight.min(store.weight);
            }
            if store.may_lead() {
                leaders = leaders.min(store.leaders);
            }
        }
        (self.least_weight, self.least_leaders) = (weight, leaders);
    }
}

fn candidate(now: MonoTime, store: &Store, sources: Sources<'_>) -> Candidate {
    let id = StoreId(store.id);
    let (capacity, available) = sources.beats.room(id);
    Candidate {
        store: id,
        liveness: sources.beats.liveness(now, id),
        regions: 0,
        weight: 0,
        leaders: 0,
        arriving: 0,
        arriving_max: sources.scheduling.arriving_max(id),
        is_full: available < capacity / ROOM_PART_MIN,
        leaves: store.state() == StoreState::Offline,
        evicts: sources.scheduling.evicts(id),
        grants: sources.scheduling.grants(id),
        location: sources.scheduling.location(store),
        labels: store.labels.as_slice().into(),
    }
}
