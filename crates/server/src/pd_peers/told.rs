//! Replies about the spread of regions in the form that goes over the wire.

use pd::hot::{Rates, StoreHeat};
use pd::request::Standing;
use pd::{Operator, Reply};
use proto::ferrite_pd::*;

/// Each request has its kind of reply.
fn mismatch(reply: Reply) -> ! {
    unreachable!("a reply to another request: {reply:?}")
}

pub fn operators(reply: Reply) -> OperatorsAnswer {
    match reply {
        Reply::Operators(standing) => OperatorsAnswer {
            operators: standing.into_iter().map(operator).collect(),
        },
        other => mismatch(other),
    }
}

fn operator(standing: Standing) -> StandingOperator {
    let (kind, peer) = match standing.operator {
        Operator::AddLearner(peer) => ("add-learner", Some(peer)),
        Operator::Promote(peer) => ("promote", Some(peer)),
        Operator::Remove(peer) => ("remove", Some(peer)),
        Operator::TransferLeader(peer) => ("transfer-leader", Some(peer)),
        Operator::Split(_) => ("split", None),
        Operator::Merge(_) => ("merge", None),
    };
    StandingOperator {
        region_id: standing.region.0,
        kind: kind.to_owned(),
        peer,
        age_seconds: standing.age.as_secs(),
        reason: standing.why.name().to_owned(),
    }
}

pub fn members(reply: Reply) -> MembersAnswer {
    match reply {
        Reply::Members { all, .. } => MembersAnswer { members: all },
        other => mismatch(other),
    }
}

pub fn scheduling(reply: Reply) -> SchedulingAnswer {
    match reply {
        Reply::Scheduling(answer) => *answer,
        other => mismatch(other),
    }
}

pub fn rules_checked(reply: Reply) -> CheckRulesAnswer {
    let Reply::RulesChecked(report) = reply else { mismatch(reply) };
    let fault = |(region, fault): (base::RegionId, String)| RuleFault {
        region_id: region.0,
        fault,
    };
    CheckRulesAnswer {
        regions: report.regions as u64,
        faults: report.faults.into_iter().map(fault).collect(),
        next_key: report.next.unwrap_or_default(),
    }
}

pub fn hot(reply: Reply) -> HotAnswer {
    let Reply::Hot(report) = reply else { mismatch(reply) };
    let store = |(store, heat): (base::StoreId, StoreHeat)| HotStore {
        store_id: store.0,
        read_load: heat.reads,
        write_load: heat.writes,
        peer_load: heat.reads + heat.peer_writes,
        regions: heat.regions,
    };
    let region = |(region, leader, rates): (base::RegionId, base::StoreId, Rates)| HotRegion {
        region_id: region.0,
        leader_store: leader.0,
        written_bytes: rates.written_bytes,
        written_keys: rates.written_keys,
        read_bytes: rates.read_bytes,
        read_keys: rates.read_keys,
    };
    HotAnswer {
        stores: report.stores.into_iter().map(store).collect(),
        regions: report.regions.into_iter().map(region).collect(),
    }
}
