//! What people and clients ask of the spread of regions, and what they are told of it.

use super::*;
use crate::fit::Fit;
use crate::operator::{Progress, Why};
use crate::request::{HotReport, RuleReport, Standing, Want};
use crate::scheduling::SCHEDULERS;

/// Regions that one look at rules takes at most: everybody else waits meanwhile.
const LOOK_MAX: usize = 10_000;

impl<T> Machine<T> {
    pub(super) fn standing_orders(&self, now: MonoTime) -> Reply {
        let standing = |(region, issued): (RegionId, &crate::operator::Issued)| Standing {
            region,
            operator: issued.operator.clone(),
            why: issued.why,
            age: issued.age(now),
        };
        Reply::Operators(self.operators.all().map(standing).collect())
    }

    /// The order of a region, or how its last one ended.
    pub(super) fn order_of(&self, region: RegionId) -> Option<(Why, Progress)> {
        let wished = self.wishes.why(region).map(|why| (why, Progress::Runs));
        wished.or_else(|| self.operators.progress(region))
    }

    pub(super) fn on_give_up(&mut self, region: RegionId) -> Result<Reply, Error> {
        let wished = self.wishes.give_up(region);
        if let Some(why) = wished {
            self.operators.remember(region, why, Progress::GivenUp);
        }
        let stands = matches!(self.operators.progress(region), Some((_, Progress::Runs)));
        self.operators.settle(region, Progress::GivenUp);
        self.operators.end_move(region);
        match wished.is_some() || stands {
            true => Ok(Reply::Done),
            false => Err(crate::regions::invalid_reason(format!("region {region} has no order"))),
        }
    }

    /// Does something for a region that needs to know how it fits its rules.
    fn with_fit<R>(&mut self, now: MonoTime, id: RegionId, act: impl FnOnce(&mut Wishes, &Fit<'_>) -> R) -> Result<R, Error> {
        self.renew_fleet(now);
        let info = self.regions.get(&Lookup::Id(id)).cloned();
        let info = info.ok_or_else(|| crate::regions::invalid_reason(format!("there is no region {id}")))?;
        let fit = Fit::new(
            &info,
            &self.fleet,
            self.rules.at(&info.region.start_key),
            self.operators.moves_from(id),
        );
        Ok(act(&mut self.wishes, &fit))
    }

    pub(super) fn on_want(&mut self, now: MonoTime, region: RegionId, want: &Want) -> Result<Reply, Error> {
        let wanted = self.with_fit(now, region, |wishes, fit| match want {
            Want::Leader(to) => wishes.lead(now, fit, *to),
            Want::Move(from, to) => wishes.transfer(now, fit, *from, *to),
        });
        wanted?.map(|()| Reply::Done)
    }

    pub(super) fn on_scatter(&mut self, now: MonoTime, regions: &[RegionId], group: &str) -> Reply {
        let mut failed = Vec::new();
        for region in regions {
            let scattered = self.with_fit(now, *region, |wishes, fit| wishes.scatter(now, fit, group));
            if !matches!(scattered, Ok(Ok(()))) {
                failed.push(*region);
            }
        }
        Reply::Scattered { failed }
    }

    pub(super) fn scheduling(&self, wall: WallTime) -> Reply {
        let scheduling = &self.state.scheduling;
        let state = |scheduler| record::SchedulerState {
            scheduler: scheduler as i32,
            on: scheduling.is_on(scheduler),
            paused_seconds: scheduling.paused_seconds(scheduler, wall.seconds()),
        };
        Reply::Scheduling(Box::new(record::SchedulingAnswer {
            scheduling: Some(scheduling.to_record()),
            schedulers: SCHEDULERS.map(state).into(),
            rules: scheduling.rule_records(self.state.max_peer_count),
        }))
    }

    /// Looks at so many regions from a key on, and tells which are not as rules want them.
    pub(super) fn check_rules(&mut self, now: MonoTime, start: &bytes::Bytes, limit: usize) -> Reply {
        self.renew_fleet(now);
        let limit = limit.clamp(1, LOOK_MAX);
        let range = KeyRange {
            start: start.clone(),
            end: bytes::Bytes::new(),
        };
        let mut report = RuleReport::default();
        let mut regions = self.regions.scan(&range, limit + 1);
        for info in regions.by_ref().take(limit) {
            report.regions += 1;
            if let Some(fault) = fault(info, &self.fleet, &self.rules) {
                report.faults.push((info.id(), fault));
            }
        }
        report.next = regions.next().map(|info| info.region.start_key.clone());
        Reply::RulesChecked(report)
    }

    pub(super) fn hot_report(&self, limit: usize) -> Reply {
        Reply::Hot(HotReport {
            stores: self.hot.stores().collect(),
            regions: self.hot.hottest(limit),
        })
    }
}

/// Why a region is not as rules want it, if it is not.
fn fault(info: &RegionInfo, fleet: &Fleet, rules: &RuleSet) -> Option<String> {
    let held = rules.at(&info.region.start_key);
    if rules.borders(&info.region.start_key, &info.region.end_key).next().is_some() {
        return Some("rules differ within it: it is to be divided".to_owned());
    }
    let fit = Fit::new(info, fleet, held, None);
    if let Some(rule) = fit.lacking() {
        return Some(format!("{} lacks a peer", rule.name()));
    }
    if let Some((_, peer)) = fit.spare().next() {
        return Some(format!("the peer on store {} serves no rule", peer.store_id));
    }
    if !fit.is_exact() {
        return Some("a learner is to vote".to_owned());
    }
    let leads = fit.peers().iter().position(|peer| fit.is_leader(peer));
    let may_lead = leads.is_some_and(|at| fit.may_lead(at));
    (!may_lead).then(|| format!("the peer on store {} must not lead", info.leader.store_id))
}
