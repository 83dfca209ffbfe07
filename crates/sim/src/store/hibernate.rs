//! Ticks, and the regions that need none.

use base::{MonoTime, RegionId, StoreId};
use raftstore::peer::Event;

use super::{Out, Store};

impl Store {
    pub(super) fn tick(&mut self, now: MonoTime, out: &mut Out) {
        self.ticks += 1;
        let registry = self.control.registry().clone();
        let beat = self.beats.on_tick(now, || registry.stores());
        beat.send.into_iter().for_each(|message| self.send_raft(message, out));
        let turns = self.config.doze_ticks();
        let regions: Vec<_> = self.cells.iter().map(|(&id, cell)| (id, cell.hibernates)).collect();
        for (region, hibernates) in regions {
            if !hibernates {
                self.post(now, region, Event::Tick, out);
                continue;
            }
            for &store in &beat.silent {
                self.counts.add("store_silent_while_hibernating");
                self.post(now, region, Event::StoreSilent(store), out);
            }
            if region.0 % turns == self.ticks % turns {
                self.post(now, region, Event::Doze, out);
            }
        }
    }

    /// A region's peer fell asleep, or woke.
    pub(super) fn on_hibernates(&mut self, now: MonoTime, region: RegionId, hibernates: bool, out: &mut Out) {
        let Some(cell) = self.cells.get_mut(&region) else { return };
        cell.hibernates = hibernates;
        let of_leader = cell.peer.is_leader();
        let name = match (hibernates, of_leader) {
            (true, true) => "hibernates",
            (true, false) => "follower_hibernates",
            (false, true) => "hibernation_ended",
            (false, false) => "follower_woke",
        };
        self.counts.add(name);
        let stores: Vec<_> = cell.peer.region().peers.iter().map(|peer| StoreId(peer.store_id)).collect();
        let silent = |store: &StoreId| self.beats.is_silent(*store);
        for store in stores.into_iter().filter(silent).filter(|_| hibernates).collect::<Vec<_>>() {
            self.post(now, region, Event::StoreSilent(store), out);
        }
    }
}
