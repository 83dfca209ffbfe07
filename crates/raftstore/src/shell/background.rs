//! Work that may take long: making raft snapshots, syncing the engine, purging the raft log.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tracing::warn;

use super::Shared;
use crate::peer::Event;
use crate::snapshot::{Generate, Snapshots};
use crate::{Error, Result};

pub(super) enum Job {
    /// Write a raft snapshot out.
    Generate(Generate),
    /// Make the engine durable, so that the raft log may be compacted, and give back the log's room.
    Flush,
}

pub(super) fn start(shared: Arc<Shared>, inbox: Receiver<Job>) -> JoinHandle<()> {
    base::thread::spawn("raft-back", move || {
        while !shared.shutdown.is_stopped() {
            let outcome = match inbox.recv_timeout(Duration::from_millis(50)) {
                Ok(Job::Generate(job)) => {
                    generate(&shared, &job);
                    Ok(())
                }
                Ok(Job::Flush) => flush(&shared),
                Err(_) => Ok(()),
            };
            if let Err(error) = outcome {
                return shared.die(&error);
            }
        }
    })
}

fn generate(shared: &Shared, job: &Generate) {
    let generated = shared.snapshots.generate(job);
    if let Err(error) = &generated {
        warn!(region_id = job.key.region.0, error = %base::log::chain(error), "make raft snapshot");
    }
    // A region that is gone needs no snapshot.
    let _gone = shared.peers.send(job.key.region, Event::Generated(generated.ok()));
}

fn flush(shared: &Shared) -> Result<()> {
    // Noted before the sync: what was applied until now will be durable after it.
    let applied: Vec<_> = shared
        .applied
        .lock()
        .iter()
        .map(|(&region, &index)| (region, index))
        .collect();
    shared.engine.sync().map_err(|source| Error::Engine { act: "sync", source })?;
    for (region, applied) in applied {
        let _gone = shared.peers.send(region, Event::Durable { applied });
    }
    shared.log.purge().map_err(|source| Error::Log { act: "purge", source })
}
