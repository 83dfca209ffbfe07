//! The raft log's thread: one sync for the writes of many regions, group after group.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use base::RegionId;
use crossbeam_channel::Receiver;

use super::Shared;
use crate::peer::{Event, RaftWrite};
use crate::storage::Fetch;
use crate::{Error, metrics};

/// What a poll of peers wants of the raft log.
#[derive(Default)]
pub(super) struct Io {
    pub writes: Vec<RaftWrite>,
    pub fetches: Vec<(RegionId, Fetch)>,
}

impl Io {
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.fetches.is_empty()
    }
}

/// Bytes of entries after which a group is closed.
const GROUP_BYTES: usize = 4 << 20;

pub(super) fn start(shared: Arc<Shared>, inbox: Receiver<Io>) -> JoinHandle<()> {
    base::thread::spawn("raft-log", move || {
        while !shared.shutdown.is_stopped() {
            let Ok(mut group) = inbox.recv_timeout(Duration::from_millis(50)) else {
                continue;
            };
            let mut bytes = weight(&group);
            while bytes < GROUP_BYTES {
                let Ok(more) = inbox.try_recv() else { break };
                bytes += weight(&more);
                group.writes.extend(more.writes);
                group.fetches.extend(more.fetches);
            }
            if let Err(error) = write(&shared, group.writes).and_then(|()| fetch(&shared, group.fetches)) {
                // After a failed sync nothing that was written may be believed: stop, restart, recover.
                return shared.die(&error);
            }
        }
    })
}

fn weight(io: &Io) -> usize {
    io.writes
        .iter()
        .flat_map(|write| &write.entries)
        .map(|entry| entry.data.len())
        .sum()
}

fn write(shared: &Shared, mut writes: Vec<RaftWrite>) -> Result<(), Error> {
    if writes.is_empty() {
        return Ok(());
    }
    let sync = writes.iter().any(|write| write.sync);
    let timer = metrics::LOG_WRITE.start_timer();
    shared
        .log
        .write(&writes, sync)
        .map_err(|source| Error::Log { act: "write", source })?;
    timer.observe_duration();
    metrics::LOG_GROUP.observe(writes.len() as f64);
    let messages: Vec<_> = writes
        .iter_mut()
        .flat_map(|write| std::mem::take(&mut write.send_after))
        .collect();
    if !messages.is_empty() {
        shared.transport.send(messages);
    }
    for write in writes.iter().filter(|write| write.ready > 0) {
        // A region that was destroyed meanwhile needs no news.
        let _gone = shared.peers.send(write.region, Event::Persisted { ready: write.ready });
    }
    Ok(())
}

fn fetch(shared: &Shared, fetches: Vec<(RegionId, Fetch)>) -> Result<(), Error> {
    for (region, fetch) in fetches {
        let entries = shared.log.entries(region, fetch.low, fetch.high, fetch.bytes_max);
        let entries = entries.map_err(|source| Error::Log { act: "read", source })?;
        let _gone = shared.peers.send(region, Event::Fetched { fetch, entries });
    }
    Ok(())
}
