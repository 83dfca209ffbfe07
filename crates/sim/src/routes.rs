//! [`Routes`]: which regions a client believes in, and whom it takes for their leaders. May be long out of date: stores refuse then,
//! and tell what is newer.

use std::collections::BTreeMap;

use base::{PeerId, RegionId};
use bytes::Bytes;
use engine::kv::{Context, Error};
use proto::metapb::{Peer, Region};

use crate::network::Node;

#[derive(Clone, Debug)]
pub struct Route {
    pub region: Region,
    pub leader: Option<Peer>,
}

impl Route {
    /// The context of a request to `peer`.
    pub fn context(&self, peer: &Peer, replica_read: bool) -> Context {
        Context {
            region: RegionId(self.region.id),
            epoch: raftstore::region::epoch(&self.region),
            peer: PeerId(peer.id),
            replica_read,
            ..Context::default()
        }
    }
}

/// By start key.
pub struct Routes(BTreeMap<Bytes, Route>);

impl Routes {
    /// Believes in these regions, as a client does that slept since they were true.
    pub fn new(regions: &[Region]) -> Routes {
        let route = |region: &Region| Route {
            region: region.clone(),
            leader: None,
        };
        Routes(
            regions
                .iter()
                .map(|region| (region.start_key.clone(), route(region)))
                .collect(),
        )
    }

    /// The region that holds `key`.
    pub fn find(&self, key: &Bytes) -> Option<&Route> {
        let (_, route) = self.0.range(..=key.clone()).next_back()?;
        (route.region.end_key.is_empty() || *key < route.region.end_key).then_some(route)
    }

    /// Takes in a region, unless a newer one is known; ranges that it overlaps make room.
    pub fn learn(&mut self, region: Region, leader: Option<Peer>) {
        if region.peers.is_empty() {
            return;
        }
        let overlaps = |route: &Route| raftstore::region::overlap(&route.region, &region);
        let newer = |route: &Route| version(&route.region) > version(&region);
        if self.0.values().any(|route| overlaps(route) && newer(route)) {
            return;
        }
        let known = self
            .0
            .get(&region.start_key)
            .filter(|route| route.region == region)
            .and_then(|route| route.leader);
        self.0.retain(|_, route| !overlaps(route));
        self.0.insert(
            region.start_key.clone(),
            Route {
                region,
                leader: leader.or(known),
            },
        );
    }

    /// Learns from what a store answered instead of serving.
    pub fn on_refusal(&mut self, error: Error, asked: Option<Node>) {
        match error {
            Error::NotLeader { region, leader } => self.lead(region, leader),
            Error::EpochNotMatch { current } => current.into_iter().for_each(|region| self.learn(region, None)),
            Error::KeyNotInRegion { region, .. } => self.learn(region, None),
            Error::RegionNotFound { .. } | Error::MismatchPeer { .. } | Error::StoreNotMatch { .. } => {
                if let Some(Node::Store(store)) = asked {
                    self.forget_leader(store);
                }
            }
            _ => {}
        }
    }

    fn lead(&mut self, region: RegionId, leader: Option<Peer>) {
        for route in self.0.values_mut().filter(|route| route.region.id == region.0) {
            route.leader.clone_from(&leader);
        }
    }

    pub fn forget_leader(&mut self, store: u64) {
        for route in self.0.values_mut() {
            route.leader.take_if(|leader| leader.store_id == store);
        }
    }
}

fn version(region: &Region) -> (u64, u64) {
    let epoch = raftstore::region::epoch(region);
    (epoch.version, epoch.conf_ver)
}
