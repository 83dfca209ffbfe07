//! The raft pool and the apply pool.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base::{MonoTime, RegionId};
use crossbeam_channel::Sender;
use engine::kv::RegionView;

use super::io::Io;
use super::mailbox::Ready;
use super::{Shared, background, control, give_answers};
use crate::apply::{Applier, ApplyTask, Outcome};
use crate::message;
use crate::metrics;
use crate::peer::{Effects, Event, Peer};

/// How long a thread waits for work before it looks whether to stop.
const WAIT: Duration = Duration::from_millis(50);

pub(super) fn start_raft(n: u32, shared: Arc<Shared>, ready: Ready<Peer, Event>, io: Sender<Io>) -> JoinHandle<()> {
    base::thread::spawn(&format!("raft-{n}"), move || {
        while !shared.shutdown.is_stopped() {
            let mut batch = Batch::default();
            let polled = ready.poll(WAIT, &mut |peer, events| {
                metrics::EVENTS.observe(events.len() as f64);
                // Read after the events were taken: a lease must be checked against a time after the request arrived.
                let fx = peer.step(MonoTime::now(), events);
                carry_out(&shared, peer, fx, &mut batch);
            });
            if !polled.is_empty() {
                // Before another thread can poll these peers: the log must get a peer's writes in the order of its steps.
                batch.send(&shared, &io);
            }
        }
    })
}

/// What the peers of one poll want sent and written, together.
#[derive(Default)]
struct Batch {
    messages: Vec<crate::RaftMessage>,
    io: Io,
}

impl Batch {
    fn send(self, shared: &Shared, io: &Sender<Io>) {
        if !self.messages.is_empty() {
            shared.transport.send(self.messages);
        }
        if !self.io.is_empty() && io.send(self.io).is_err() {
            assert!(
                shared.shutdown.is_stopped(),
                "the raft log's thread ended before the store was told to stop"
            );
        }
    }
}

fn carry_out(shared: &Shared, peer: &mut Peer, mut fx: Effects, batch: &mut Batch) {
    let region = peer.region_id();
    if let Some(publish) = fx.publish.take() {
        let mut delegates = shared.delegates.write();
        match publish {
            Some(delegate) => drop(delegates.insert(region, delegate)),
            None => drop(delegates.remove(&region)),
        }
    }
    batch.messages.append(&mut fx.send);
    for message in fx.tell.drain(..) {
        match message.to.is_some_and(|to| to.store_id == shared.store_id.0) {
            true => shared.deliver(RegionId(message.region_id), message),
            false => batch.messages.push(message),
        }
    }
    batch.io.writes.append(&mut fx.writes);
    batch.io.fetches.extend(fx.fetch.drain(..).map(|fetch| (region, fetch)));
    for task in fx.apply.drain(..) {
        // An applier goes away only after its peer.
        let _gone = shared.appliers.send(region, task);
    }
    if !fx.serve.is_empty() {
        // One for the reads of this step, never one of an earlier step: that may lack what was acknowledged before these reads came.
        let snapshot = shared.engine.snapshot();
        for read in fx.serve.drain(..) {
            let view = RegionView::new(snapshot.clone(), read.region, read.term);
            (read.reply)(Ok(Arc::new(view)));
        }
    }
    for message in fx.send_snapshot.drain(..) {
        send_snapshot(shared, region, message);
    }
    if let Some(changed) = fx.region_changed.take() {
        shared.registry.on_region_changed(&changed);
    }
    if fx.snapshot_refused {
        shared.registry.release(region);
    }
    for child in fx.campaign.drain(..) {
        // A new region that is gone again needs no leader here.
        let _gone = shared.peers.send(child, Event::Campaign);
    }
    if let Some(measure) = fx.measure.take()
        && shared.background.try_send(background::Job::Measure(measure)).is_err()
    {
        // Too much to do: the peer asks again.
        let _gone = shared.peers.send(region, Event::Measured(None));
    }
    if let Some(wanted) = fx.split_wanted.take() {
        shared.reporter.split_wanted(wanted);
    }
    fx.report_parts.drain(..).for_each(|report| shared.reporter.report(report));
    if let Some(report) = fx.report.take() {
        shared.reporter.report(report);
    }
    give_answers(&mut fx);
    if let Some(hibernates) = fx.hibernates {
        shared.peers.set_hibernates(region, hibernates);
        if hibernates {
            shared.tell_of_silent_stores(peer.region());
        }
    }
    if fx.destroy {
        // The control thread lives as long as anybody can send.
        drop(shared.control.send(control::Control::Destroy { region }));
    }
}

fn send_snapshot(shared: &Shared, region: RegionId, message: crate::RaftMessage) {
    let (Some(meta), Some(to)) = (&message.snapshot, &message.to) else {
        return;
    };
    let key = message::snapshot_key(region, meta);
    let (to, peers) = (base::PeerId(to.id), shared.peers.clone());
    let done = Box::new(move |ok| {
        // A region that is gone needs no news.
        let _gone = peers.send(region, Event::SnapshotSent { to, ok });
    });
    shared.transport.send_snapshot(message, key, done);
}

pub(super) fn start_apply(n: u32, shared: Arc<Shared>, ready: Ready<Applier, ApplyTask>) -> JoinHandle<()> {
    base::thread::spawn(&format!("apply-{n}"), move || {
        while !shared.shutdown.is_stopped() {
            let polled = ready.poll(WAIT, &mut |applier, tasks| {
                let mut tasks = VecDeque::from(merge(tasks));
                while let Some(task) = tasks.pop_front() {
                    let timer = metrics::APPLY.start_timer();
                    match applier.run(task) {
                        Ok(mut outcome) => {
                            for resumed in std::mem::take(&mut outcome.resumed).into_iter().rev() {
                                tasks.push_front(resumed);
                            }
                            if let Err(error) = finish(&shared, applier.region_id(), outcome) {
                                return shared.die(&error);
                            }
                        }
                        Err(error) => return shared.die(&error),
                    }
                    timer.observe_duration();
                }
            });
            drop(polled);
        }
    })
}

/// Joins neighbouring entries, so that they share an engine batch.
fn merge(tasks: impl IntoIterator<Item = ApplyTask>) -> Vec<ApplyTask> {
    let mut merged: Vec<ApplyTask> = Vec::new();
    for task in tasks {
        match (merged.last_mut(), task) {
            (Some(ApplyTask::Entries(before)), ApplyTask::Entries(entries)) => before.extend(entries),
            (_, task) => merged.push(task),
        }
    }
    merged
}

fn finish(shared: &Shared, region: RegionId, outcome: Outcome) -> crate::Result<()> {
    // Before the region's peer hears of the split, which may let them stand for election.
    shared.bear(outcome.born)?;
    if let Some(merged) = outcome.merged {
        // The control thread lives as long as anybody can send.
        drop(shared.control.send(control::Control::Merged { region: merged }));
    }
    // Of those below, regions that are gone need no news.
    if let Some(wakes) = outcome.wakes {
        let _gone = shared.appliers.send(wakes, ApplyTask::Resume);
    }
    if let Some(wait) = outcome.waits {
        let _gone = match wait.is_gone {
            true => shared.peers.send(region, Event::SourceGone),
            false => shared.peers.send(wait.source, Event::CatchUp { at: wait.at }),
        };
    }
    for left in outcome.leaves {
        let _gone = shared.peers.send(left, Event::Left);
    }
    let mut answers = outcome.answers;
    if answers.len() == 1 {
        answers.drain(..).for_each(|(reply, result)| reply(result));
    } else if !answers.is_empty() {
        let answer = move || answers.into_iter().for_each(|(reply, result)| reply(result));
        (shared.answer)(Box::new(answer));
    }
    for (reply, result) in outcome.admin_answers {
        reply(result);
    }
    if let Some(applied) = outcome.applied {
        shared.applied.lock().insert(region, applied.position.index);
        // A peer that is gone needs no news.
        let _gone = shared.peers.send(region, Event::Applied(applied));
    }
    if let Some(job) = outcome.generate
        && let Err(refused) = shared.background.try_send(background::Job::Generate(job))
    {
        drop(refused);
        // Too much to do: raft asks again.
        let _gone = shared.peers.send(region, Event::Generated(None));
    }
    Ok(())
}
