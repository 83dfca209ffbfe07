//! Uploads that broke off, kept for a while so that their clients may go on where they stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{MonoTime, Span};
use parking_lot::Mutex;

use crate::cache::Incoming;

/// Uploads kept at once: each holds what an upload holds. The oldest goes for a new one.
const PARKED_MAX: usize = 64;

/// Who uploads what: the name of the caller and of the resource, which has an id that the client made up.
pub type Name = (String, String);

/// What broke off, by name.
#[derive(Clone)]
pub struct Parked {
    all: Arc<Mutex<BTreeMap<Name, Entry>>>,
    life: Span,
}

struct Entry {
    incoming: Incoming,
    since: MonoTime,
}

impl Parked {
    /// Keeps each for `life`.
    pub fn new(life: Span) -> Parked {
        Parked {
            all: Arc::default(),
            life,
        }
    }

    /// Bytes of the body that came before an upload broke off.
    pub fn received(&self, name: &Name) -> Option<u64> {
        self.all.lock().get(name).map(|entry| entry.incoming.received())
    }

    /// The upload, to go on with.
    pub fn take(&self, name: &Name) -> Option<Incoming> {
        self.all.lock().remove(name).map(|entry| entry.incoming)
    }

    fn park(&self, name: Name, incoming: Incoming) {
        let since = MonoTime::now();
        let mut gone = Vec::new();
        {
            let mut all = self.all.lock();
            let oldest = || all.iter().min_by_key(|(_, entry)| entry.since).map(|(name, _)| name.clone());
            if all.len() >= PARKED_MAX
                && let Some(oldest) = oldest()
            {
                gone.extend(all.remove(&oldest));
            }
            gone.extend(all.insert(name.clone(), Entry { incoming, since }));
        }
        drop(gone);
        let (all, life) = (self.all.clone(), self.life);
        tokio::spawn(async move {
            tokio::time::sleep(life.0).await;
            let mut all = all.lock();
            let is_same = all.get(&name).is_some_and(|entry| entry.since == since);
            let gone = if is_same { all.remove(&name) } else { None };
            drop(all);
            drop(gone);
        });
    }
}

/// An upload under way. Dropped before it is finished, which is what happens when a connection breaks, it is parked.
pub struct Running {
    parked: Parked,
    name: Name,
    incoming: Option<Incoming>,
}

impl Running {
    pub fn new(parked: &Parked, name: Name, incoming: Incoming) -> Running {
        Running {
            parked: parked.clone(),
            name,
            incoming: Some(incoming),
        }
    }

    pub fn get(&mut self) -> &mut Incoming {
        self.incoming.as_mut().expect("taken only at the end")
    }

    /// For the end of the upload: nothing is parked any more.
    pub fn finish(mut self) -> Incoming {
        self.incoming.take().expect("taken only at the end")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(incoming) = self.incoming.take() else { return };
        if incoming.can_go_on() && incoming.received() > 0 {
            self.parked.park(std::mem::take(&mut self.name), incoming);
        }
    }
}
