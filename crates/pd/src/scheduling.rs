//! How regions are to be spread over stores: the part of the replicated state that people change.

use std::collections::{BTreeMap, BTreeSet};

use base::StoreId;
use proto::ferrite_pd as record;
use proto::ferrite_pd::Scheduler;
use proto::ferrite_pd::schedule::Kind;
use proto::metapb::Store;

use crate::Error;
use crate::fleet::{ARRIVING_MAX, location_unit};
use crate::regions::invalid_reason;
use crate::request::Reply;
use crate::rules::{self, RuleSet};

/// All schedulers.
pub const SCHEDULERS: [Scheduler; 6] = [
    Scheduler::BalanceLeader,
    Scheduler::BalanceRegion,
    Scheduler::HotRegion,
    Scheduler::MergeRegion,
    Scheduler::ShuffleLeader,
    Scheduler::ShuffleRegion,
];

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheduling {
    evict_leaders: BTreeSet<StoreId>,
    grant_leaders: BTreeSet<StoreId>,
    location_labels: Vec<String>,
    /// Those that are not as by default.
    switched: BTreeSet<Scheduler>,
    /// Until when, in seconds since 1970.
    pauses: BTreeMap<Scheduler, u64>,
    /// Of store 0: of all without one.
    arriving_max: BTreeMap<StoreId, u32>,
    /// By group and id.
    rules: BTreeMap<(String, String), record::PlacementRule>,
}

/// Whether a scheduler runs unless it is switched.
fn runs_by_default(scheduler: Scheduler) -> bool {
    match scheduler {
        Scheduler::BalanceLeader | Scheduler::BalanceRegion | Scheduler::HotRegion | Scheduler::MergeRegion => true,
        Scheduler::ShuffleLeader | Scheduler::ShuffleRegion | Scheduler::NoScheduler => false,
    }
}

impl Scheduling {
    /// Whether `store` must not lead.
    pub fn evicts(&self, store: StoreId) -> bool {
        self.evict_leaders.contains(&store)
    }

    /// Whether `store` is to lead what it can.
    pub fn grants(&self, store: StoreId) -> bool {
        self.grant_leaders.contains(&store)
    }

    /// Whether a scheduler is switched on.
    pub fn is_on(&self, scheduler: Scheduler) -> bool {
        runs_by_default(scheduler) != self.switched.contains(&scheduler)
    }

    /// Whether a scheduler is on and not paused.
    pub fn runs(&self, scheduler: Scheduler, now_seconds: u64) -> bool {
        self.is_on(scheduler) && self.paused_seconds(scheduler, now_seconds) == 0
    }

    /// For how long a scheduler is still paused.
    pub fn paused_seconds(&self, scheduler: Scheduler, now_seconds: u64) -> u64 {
        self.pauses
            .get(&scheduler)
            .map_or(0, |until| until.saturating_sub(now_seconds))
    }

    /// How many peers may be on their way to a store.
    pub fn arriving_max(&self, store: StoreId) -> u64 {
        let own = self.arriving_max.get(&store).or_else(|| self.arriving_max.get(&StoreId(0)));
        own.map_or(ARRIVING_MAX, |max| u64::from(*max))
    }

    /// Where a store stands: its values of the location labels, up to the first that it does not have.
    pub fn location(&self, store: &Store) -> Vec<u64> {
        let unit = |key: &String| location_unit(&store.labels, key);
        self.location_labels.iter().map_while(unit).collect()
    }

    /// The rules, for a cluster whose regions have `peers` where no rule says otherwise.
    pub fn rules(&self, peers: u32) -> RuleSet {
        RuleSet::compile(self.rules.values(), peers).expect("rules are checked before they are taken")
    }

    /// The rules as people set them, with the one that holds where no other does.
    pub fn rule_records(&self, peers: u32) -> Vec<record::PlacementRule> {
        let built_in = rules::default_rule(peers);
        let is_replaced = self.rules.contains_key(&(built_in.group.clone(), built_in.id.clone()));
        self.rules
            .values()
            .cloned()
            .chain((!is_replaced).then_some(built_in))
            .collect()
    }

    /// Changes what does not concern a store's own record.
    pub fn apply(&mut self, change: &Kind) -> Result<Reply, Error> {
        match change {
            Kind::EvictLeaders(store) => drop(self.evict_leaders.insert(StoreId(*store))),
            Kind::AdmitLeaders(store) => drop(self.evict_leaders.remove(&StoreId(*store))),
            Kind::GrantLeaders(store) => drop(self.grant_leaders.insert(StoreId(*store))),
            Kind::RevokeLeaders(store) => drop(self.grant_leaders.remove(&StoreId(*store))),
            Kind::Balance(on) => {
                for scheduler in [Scheduler::BalanceLeader, Scheduler::BalanceRegion] {
                    self.switch(scheduler, *on)?;
                }
            }
            Kind::LocationLabels(labels) => self.location_labels.clone_from(&labels.keys),
            Kind::Scheduler(change) => self.switch(change.scheduler(), change.on)?,
            Kind::Pause(pause) => self.pause(pause)?,
            Kind::StoreLimit(limit) => self.limit(*limit),
            Kind::PutRule(rule) => self.put_rule(rule)?,
            Kind::DropRule(name) => self.drop_rule(name)?,
            Kind::DrainStore(_) | Kind::KeepStore(_) | Kind::RemoveStore(_) | Kind::LoseStore(_) => {}
        }
        Ok(Reply::Done)
    }

    fn switch(&mut self, scheduler: Scheduler, on: bool) -> Result<(), Error> {
        check_known(scheduler)?;
        match on == runs_by_default(scheduler) {
            true => self.switched.remove(&scheduler),
            false => self.switched.insert(scheduler),
        };
        Ok(())
    }

    fn pause(&mut self, pause: &record::SchedulerPause) -> Result<(), Error> {
        check_known(pause.scheduler())?;
        match pause.for_seconds {
            0 => drop(self.pauses.remove(&pause.scheduler())),
            _ => drop(self.pauses.insert(pause.scheduler(), pause.until_seconds)),
        }
        Ok(())
    }

    fn limit(&mut self, limit: record::StoreLimit) {
        match limit.arriving_max {
            0 => self.arriving_max.remove(&StoreId(limit.store)),
            max => self.arriving_max.insert(StoreId(limit.store), max),
        };
    }

    fn put_rule(&mut self, rule: &record::PlacementRule) -> Result<(), Error> {
        let key = (rule.group.clone(), rule.id.clone());
        let others = self.rules.keys().filter(|other| **other != key).count();
        rules::check(rule, others)?;
        let mut changed = self.rules.clone();
        changed.insert(key, rule.clone());
        self.take_rules(changed)
    }

    fn drop_rule(&mut self, name: &record::RuleName) -> Result<(), Error> {
        let mut changed = self.rules.clone();
        if changed.remove(&(name.group.clone(), name.id.clone())).is_none() {
            return Err(invalid_reason(format!("there is no rule {}/{}", name.group, name.id)));
        }
        self.take_rules(changed)
    }

    fn take_rules(&mut self, rules: BTreeMap<(String, String), record::PlacementRule>) -> Result<(), Error> {
        // Whether they can hold does not depend on the number of peers where they say nothing: the fewest are taken.
        RuleSet::compile(rules.values(), 1)?;
        self.rules = rules;
        Ok(())
    }

    pub fn to_record(&self) -> record::Scheduling {
        let pause = |(scheduler, until): (&Scheduler, &u64)| record::SchedulerPause {
            scheduler: *scheduler as i32,
            for_seconds: 0,
            until_seconds: *until,
        };
        let limit = |(store, max): (&StoreId, &u32)| record::StoreLimit {
            store: store.0,
            arriving_max: *max,
        };
        record::Scheduling {
            evict_leaders: self.evict_leaders.iter().map(|store| store.0).collect(),
            is_balance_off: false,
            location_labels: self.location_labels.clone(),
            switched: self.switched.iter().map(|scheduler| *scheduler as i32).collect(),
            pauses: self.pauses.iter().map(pause).collect(),
            grant_leaders: self.grant_leaders.iter().map(|store| store.0).collect(),
            store_limits: self.arriving_max.iter().map(limit).collect(),
            rules: self.rules.values().cloned().collect(),
        }
    }

    pub fn from_record(record: record::Scheduling) -> Scheduling {
        let mut scheduling = Scheduling {
            switched: record.switched().collect(),
            pauses: record
                .pauses
                .iter()
                .map(|pause| (pause.scheduler(), pause.until_seconds))
                .collect(),
            evict_leaders: record.evict_leaders.into_iter().map(StoreId).collect(),
            grant_leaders: record.grant_leaders.into_iter().map(StoreId).collect(),
            location_labels: record.location_labels,
            arriving_max: record
                .store_limits
                .iter()
                .map(|limit| (StoreId(limit.store), limit.arriving_max))
                .collect(),
            rules: record
                .rules
                .into_iter()
                .map(|rule| ((rule.group.clone(), rule.id.clone()), rule))
                .collect(),
        };
        if record.is_balance_off {
            scheduling
                .switched
                .extend([Scheduler::BalanceLeader, Scheduler::BalanceRegion]);
        }
        scheduling
    }
}

fn check_known(scheduler: Scheduler) -> Result<(), Error> {
    match scheduler {
        Scheduler::NoScheduler => Err(invalid_reason("this version does not know that scheduler".to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::ferrite_pd::placement_rule::Role;

    fn switched(scheduler: Scheduler, on: bool) -> Kind {
        Kind::Scheduler(record::SchedulerSwitch {
            scheduler: scheduler as i32,
            on,
        })
    }

    #[test]
    fn schedulers_are_switched_and_paused() {
        let mut scheduling = Scheduling::default();
        let running = |scheduling: &Scheduling, now| SCHEDULERS.map(|one| scheduling.runs(one, now));
        assert_eq!(running(&scheduling, 0), [true, true, true, true, false, false]);
        for change in [
            Kind::Balance(false),
            switched(Scheduler::BalanceLeader, true),
            switched(Scheduler::ShuffleLeader, true),
            Kind::Pause(record::SchedulerPause {
                scheduler: Scheduler::HotRegion as i32,
                for_seconds: 60,
                until_seconds: 1060,
            }),
        ] {
            scheduling.apply(&change).expect("a good change");
        }
        assert_eq!(running(&scheduling, 1000), [true, false, false, true, true, false]);
        assert_eq!(scheduling.paused_seconds(Scheduler::HotRegion, 1000), 60);
        assert!(scheduling.runs(Scheduler::HotRegion, 1060), "a pause ends");
        assert!(scheduling.apply(&switched(Scheduler::NoScheduler, true)).is_err());
        assert_eq!(Scheduling::from_record(scheduling.to_record()), scheduling);
    }

    #[test]
    fn what_an_earlier_version_switched_off_stays_off() {
        let record = record::Scheduling {
            is_balance_off: true,
            ..record::Scheduling::default()
        };
        let scheduling = Scheduling::from_record(record);
        assert!(!scheduling.is_on(Scheduler::BalanceLeader) && !scheduling.is_on(Scheduler::BalanceRegion));
        assert_eq!(Scheduling::from_record(scheduling.to_record()), scheduling);
    }

    #[test]
    fn rules_are_put_replaced_and_dropped() {
        let mut scheduling = Scheduling::default();
        let rule = |role: Role, count| record::PlacementRule {
            group: "a".to_owned(),
            id: "one".to_owned(),
            role: role as i32,
            count,
            ..record::PlacementRule::default()
        };
        let name = record::RuleName {
            group: "a".to_owned(),
            id: "one".to_owned(),
        };
        for count in [5, 2] {
            scheduling
                .apply(&Kind::PutRule(rule(Role::Voter, count)))
                .expect("a good rule");
            assert_eq!(scheduling.rules(3).at(b"k")[0].count, count as usize);
        }
        assert!(
            scheduling.apply(&Kind::PutRule(rule(Role::Follower, 3))).is_err(),
            "nobody could lead"
        );
        assert_eq!(
            scheduling.rule_records(3).len(),
            2,
            "refused rules change nothing, and there is a default"
        );
        assert_eq!(Scheduling::from_record(scheduling.to_record()), scheduling);
        scheduling.apply(&Kind::DropRule(name.clone())).expect("it is there");
        assert!(scheduling.apply(&Kind::DropRule(name)).is_err(), "it is not");
        assert_eq!(scheduling, Scheduling::default());
    }

    #[test]
    fn limits_are_of_a_store_or_of_all() {
        let mut scheduling = Scheduling::default();
        for (store, arriving_max) in [(0, 9), (4, 1), (5, 2), (5, 0)] {
            let limit = record::StoreLimit { store, arriving_max };
            scheduling.apply(&Kind::StoreLimit(limit)).expect("any limit will do");
        }
        assert_eq!([3, 4, 5].map(|store| scheduling.arriving_max(StoreId(store))), [9, 1, 9]);
    }
}
