//! What follows from a store's heartbeat for the spread of regions, and what orders stand.

use proto::ferrite_pd::schedule::Kind;

use super::*;

impl<T> Machine<T> {
    /// A store that was drained and holds nothing any more is removed. Where orders were carried out meanwhile, regions that waited for their
    /// turn are asked to report.
    pub(super) fn after_store_heartbeat(&mut self, id: StoreId, effects: &mut Effects<T>) {
        effects.want_reports |= std::mem::take(&mut self.settled);
        let Some(store) = self.state.stores.get(&id) else { return };
        let is_empty = self.regions.load(id).regions == 0 && self.operators.arriving(id) == 0;
        // Its own account counts: a member that has come to lead does not know all regions yet.
        if store.state() == StoreState::Offline && is_empty && self.beats.region_count(id) == Some(0) {
            let kind = Some(Kind::RemoveStore(id.0));
            self.propose(Command::Schedule(record::Schedule { kind }), None, effects);
        }
    }

    /// Whether the directory agrees with what stores tell of themselves. A member that has come to lead hears of regions bit by bit; until
    /// then stores would seem emptier than they are.
    pub(super) fn knows_regions(&self) -> bool {
        let mut living = self.state.stores.values().filter(|store| !is_tombstone(store));
        let agrees = |store: &Store| {
            let id = StoreId(store.id);
            let held = self.regions.load(id).regions;
            self.beats
                .region_count(id)
                .is_some_and(|told| told.abs_diff(held) <= 2 + held / 10)
        };
        living.all(agrees)
    }

    pub(super) fn standing_orders(&self, now: MonoTime) -> Reply {
        let orders = self.operators.all();
        Reply::Operators(
            orders
                .map(|(region, issued)| (region, issued.operator.clone(), issued.age(now)))
                .collect(),
        )
    }
}
