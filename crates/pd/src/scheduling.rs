//! How regions are to be spread over stores: the part of the replicated state that people change.

use std::collections::BTreeSet;

use base::StoreId;
use proto::ferrite_pd as record;
use proto::ferrite_pd::schedule::Kind;
use proto::metapb::Store;

use crate::request::Reply;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheduling {
    evict_leaders: BTreeSet<StoreId>,
    is_balance_off: bool,
    location_labels: Vec<String>,
}

impl Scheduling {
    /// Whether `store` must not lead.
    pub fn evicts(&self, store: StoreId) -> bool {
        self.evict_leaders.contains(&store)
    }

    /// Whether stores that are fine are evened out.
    pub fn balances(&self) -> bool {
        !self.is_balance_off
    }

    /// Where a store stands: its values of the location labels, up to the first that it does not have.
    pub fn location(&self, store: &Store) -> Vec<String> {
        let value = |key: &String| {
            store
                .labels
                .iter()
                .find(|label| label.key == *key)
                .map(|label| label.value.clone())
        };
        self.location_labels.iter().map_while(value).collect()
    }

    /// Changes what does not concern a store's own record.
    pub fn apply(&mut self, change: &Kind) -> Reply {
        match change {
            Kind::EvictLeaders(store) => drop(self.evict_leaders.insert(StoreId(*store))),
            Kind::AdmitLeaders(store) => drop(self.evict_leaders.remove(&StoreId(*store))),
            Kind::Balance(on) => self.is_balance_off = !on,
            Kind::LocationLabels(labels) => self.location_labels.clone_from(&labels.keys),
            Kind::DrainStore(_) | Kind::KeepStore(_) | Kind::RemoveStore(_) => {}
        }
        Reply::Done
    }

    pub fn to_record(&self) -> record::Scheduling {
        record::Scheduling {
            evict_leaders: self.evict_leaders.iter().map(|store| store.0).collect(),
            is_balance_off: self.is_balance_off,
            location_labels: self.location_labels.clone(),
        }
    }

    pub fn from_record(record: record::Scheduling) -> Scheduling {
        Scheduling {
            evict_leaders: record.evict_leaders.into_iter().map(StoreId).collect(),
            is_balance_off: record.is_balance_off,
            location_labels: record.location_labels,
        }
    }
}
