//! Work that may take long: making raft snapshots, walking over regions, syncing the engine, purging the raft log.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tracing::warn;

use base::RegionId;
use engine::{Cf, keys};
use proto::metapb::Region;

use super::Shared;
use crate::peer::Event;
use crate::size::{self, Limits, Measured};
use crate::snapshot::{Generate, Snapshots};
use crate::{Error, Result};

/// Bytes on disk are compressed: below this share of the largest size a region is surely small.
const SMALL_SHARE: u64 = 32;

pub(super) enum Job {
    /// Write a raft snapshot out.
    Generate(Generate),
    /// Tell how large a region is.
    Measure(Arc<Region>),
    /// Make the engine durable, so that the raft log may be compacted, and give back the log's room.
    Flush,
}

pub(super) fn start(shared: Arc<Shared>, inbox: Receiver<Job>) -> JoinHandle<()> {
    base::thread::spawn("raft-back", move || {
        let mut told = HashMap::new();
        while !shared.shutdown.is_stopped() {
            let outcome = match inbox.recv_timeout(Duration::from_millis(50)) {
                Ok(Job::Generate(job)) => {
                    generate(&shared, &job);
                    Ok(())
                }
                Ok(Job::Measure(region)) => {
                    measure(&shared, &region);
                    Ok(())
                }
                Ok(Job::Flush) => flush(&shared, &mut told),
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

/// A region that the engine takes for small on disk is believed, so that a start with thousands of them does not read them all.
fn measure(shared: &Shared, region: &Region) {
    let limits = Limits::of(&shared.config);
    let (start, end) = (keys::data_key(&region.start_key), keys::data_end_key(&region.end_key));
    let sizes = Cf::DATA
        .into_iter()
        .map(|cf| shared.engine.approximate_size(cf, &start, &end));
    let measured = sizes
        .sum::<engine::Result<u64>>()
        .and_then(|bytes| match bytes < limits.bytes_max / SMALL_SHARE {
            true => Ok(Measured {
                version: crate::region::epoch(region).version,
                bytes,
                ..Measured::default()
            }),
            false => size::measure(&*shared.engine, region, &limits),
        });
    if let Err(error) = &measured {
        warn!(region_id = region.id, error = %base::log::chain(error), "walk over a region");
    }
    // A region that is gone has no size.
    let _gone = shared.peers.send(RegionId(region.id), Event::Measured(measured.ok()));
}

/// Makes the engine durable. `told` is what regions heard last: those that nobody wrote to since need no news.
fn flush(shared: &Shared, told: &mut HashMap<RegionId, u64>) -> Result<()> {
    // Noted before the sync: what was applied until now will be durable after it.
    let applied: Vec<_> = shared
        .applied
        .lock()
        .iter()
        .map(|(&region, &index)| (region, index))
        .collect();
    shared.engine.sync().map_err(|source| Error::Engine { act: "sync", source })?;
    for (region, applied) in &applied {
        if told.get(region) != Some(applied) {
            let _gone = shared.peers.send(*region, Event::Durable { applied: *applied });
        }
    }
    *told = applied.into_iter().collect();
    shared.log.purge().map_err(|source| Error::Log { act: "purge", source })
}
