//! The control thread, which destroys peers, and the ticks.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base::{MonoTime, RegionId};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use engine::kv::Error as KvError;
use tracing::info;

use super::{Shared, answer_error, background, give_answers};
use crate::Result;
use crate::apply::ApplyTask;
use crate::peer::{Effects, Event, Peer};

pub(super) enum Control {
    /// This store's peer of the region was removed from it.
    Destroy { region: RegionId },
    /// These regions were merged away elsewhere, and are in the way of a raft snapshot.
    Clear(Vec<RegionId>),
    /// The region was taken over by its neighbour here.
    Merged { region: RegionId },
}

pub(super) fn start(shared: Arc<Shared>, inbox: Receiver<Control>) -> JoinHandle<()> {
    base::thread::spawn("raft-control", move || {
        while !shared.shutdown.is_stopped() {
            match inbox.recv_timeout(Duration::from_millis(50)) {
                Ok(control) => {
                    if let Err(error) = carry_out(&shared, control) {
                        return shared.die(&error);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    })
}

fn carry_out(shared: &Shared, control: Control) -> Result<()> {
    match control {
        Control::Destroy { region } => destroy(shared, region),
        Control::Clear(regions) => {
            regions.into_iter().try_for_each(|region| destroy(shared, region))?;
            // One of them may be what another region waits for.
            shared.appliers.broadcast(|| ApplyTask::Resume);
            Ok(())
        }
        Control::Merged { region } => {
            end(shared, region);
            shared.store.lock().end_merged(region)?;
            info!(region_id = region.0, "region merged into its neighbour");
            Ok(())
        }
    }
}

fn destroy(shared: &Shared, region: RegionId) -> Result<()> {
    let Some(peer) = end(shared, region) else {
        return Ok(());
    };
    shared.store.lock().destroy(peer.region(), peer.peer_id())?;
    info!(region_id = region.0, peer_id = peer.peer_id().0, "peer destroyed");
    Ok(())
}

/// Takes the peer away, and answers all who wait for it.
fn end(shared: &Shared, region: RegionId) -> Option<Peer> {
    let (mut peer, events) = shared.peers.remove(region)?;
    let mut fx = Effects::default();
    peer.destroy(&mut fx);
    give_answers(&mut fx);
    for event in events {
        answer_error(event, KvError::RegionNotFound { region });
    }
    if let Some((_, tasks)) = shared.appliers.remove(region) {
        tasks.into_iter().for_each(refuse_task);
    }
    shared.delegates.write().remove(&region);
    shared.applied.lock().remove(&region);
    shared.reporter.forget(region);
    Some(peer)
}

/// Entries that this peer will not apply: whether others do is not known here.
fn refuse_task(task: ApplyTask) {
    let ApplyTask::Entries(entries) = task else { return };
    for entry in entries {
        for reply in entry.replies {
            reply(Err(KvError::Deadline));
        }
        if let Some(reply) = entry.admin {
            reply(Err(KvError::Deadline.into()));
        }
    }
}

/// Ticks between two looks at the regions that hibernate: a walk over all of them.
const DOZE_TICKS: u64 = 10;

impl Shared {
    /// Ticks the peers that do not hibernate, and tells other stores that this one lives.
    fn tick(&self, number: u64, now: MonoTime) {
        self.peers.broadcast_awake(|| Event::Tick);
        let beat = self.with_beats(|beats| beats.on_tick(now, || self.registry.stores()));
        if !beat.send.is_empty() {
            self.transport.send(beat.send);
        }
        for store in beat.silent {
            self.peers.broadcast_hibernating(|_| true, || Event::StoreSilent(store));
        }
        if number.is_multiple_of(DOZE_TICKS) {
            crate::metrics::HIBERNATING.set(self.peers.count_hibernating() as i64);
            // A few at a time, so that a placement driver does not hear of thousands of regions at once.
            let turns = (self.config.doze_ticks() / DOZE_TICKS).max(1);
            let turn = number / DOZE_TICKS % turns;
            self.peers
                .broadcast_hibernating(|region| region.0 % turns == turn, || Event::Doze);
        }
    }
}

/// Ticks all peers. A tick that comes late comes once: lost time must not add up against a leader.
pub(super) fn start_ticks(shared: Arc<Shared>) -> JoinHandle<()> {
    base::thread::spawn("raft-tick", move || {
        let ticks = crossbeam_channel::tick(shared.config.tick.0);
        let mut flushed = MonoTime::now();
        let mut number = 0;
        while !shared.shutdown.is_stopped() {
            if ticks.recv_timeout(Duration::from_millis(50)).is_err() {
                continue;
            }
            let now = MonoTime::now();
            number += 1;
            shared.tick(number, now);
            if now.since(flushed) >= shared.config.flush_interval.0 {
                flushed = now;
                // Full: the one before is not done yet.
                let _busy = shared.background.try_send(background::Job::Flush);
            }
        }
    })
}
