//! What a region's leader is told, and what follows from a store's heartbeat for the spread of regions.

use proto::ferrite_pd::Scheduler;
use proto::ferrite_pd::schedule::Kind;

use super::*;
use crate::balance::{balance_leader, balance_region, shuffle_leader, shuffle_region};
use crate::checker::{Verdict, check};
use crate::fit::Fit;
use crate::fleet::Sources;
use crate::operator::{Plan, Progress, Why};
use crate::stores::Liveness;
use crate::wishes::Next;

/// Between two moves without need: more would be a load rather than a test.
const SHUFFLE_PAUSE: Duration = Duration::from_millis(200);

/// Reports that are asked for in a second, on average and at most.
const ASKED_PER_SECOND: u64 = 1000;

/// Whether a command may change what schedulers see of stores and rules.
pub(super) fn concerns(command: &Command) -> bool {
    match command {
        Command::Init(_) | Command::Bootstrap(_) | Command::PutStore(_) | Command::PutClusterConfig(_) | Command::Schedule(_) => {
            true
        }
        Command::PutMember(_)
        | Command::ReserveIds(_)
        | Command::ReserveTso(_)
        | Command::UpdateGcSafePoint(_)
        | Command::PutServiceSafePoint(_)
        | Command::AdvanceGcSafePoint(_)
        | Command::AdvanceTxnSafePoint(_)
        | Command::PutPin(_)
        | Command::DropPin(_)
        | Command::ChangeMember(_) => false,
    }
}

/// The change as it is replicated: applying it asks no clock.
pub(super) fn at(mut change: record::Schedule, now_seconds: u64) -> record::Schedule {
    if let Some(Kind::Pause(pause)) = &mut change.kind {
        pause.until_seconds = now_seconds.saturating_add(pause.for_seconds);
    }
    change
}

/// A plan and where it comes from; nothing is to be done; or something is, by other means.
enum Due {
    Plan(Plan, Why),
    Operator(Operator),
    Nothing,
}

/// A peer on one of the stores in `from` for one in `to`, no nearer to the others: rules would move it back.
fn move_towards(fit: &Fit<'_>, from: &[StoreId], to: &[StoreId]) -> Option<Plan> {
    let mut going = fit.served().filter(|(_, peer, _)| from.contains(&StoreId(peer.store_id)));
    going.find_map(|(at, peer, rule)| {
        let others = fit.others_of(rule, Some(at));
        let here = fit.store_of(peer).map_or(0, |store| fit.apart(store, others, rule));
        let mut free = fit.free_stores(rule).filter(|store| to.contains(&store.store));
        let target = free.find(|store| fit.apart(store, others, rule) >= here)?;
        Some(Plan::AddLearner {
            to: target.store,
            instead_of: Some(StoreId(peer.store_id)),
        })
    })
}

impl<T> Machine<T> {
    /// Rules or stores are not what they were.
    pub(super) fn on_scheduling_changed(&mut self) {
        self.rules = self.state.scheduling.rules(self.state.max_peer_count);
        self.fleet.outdate();
    }

    /// Whether a store is told to be lost that spoke a moment ago. One that holds data must be drained; and one that serves still would take
    /// writes that nobody can read later.
    pub(super) fn is_too_early(&self, now: MonoTime, change: &record::Schedule) -> bool {
        match change.kind {
            Some(Kind::LoseStore(store)) => self.beats.liveness(now, StoreId(store)) == Liveness::Up,
            _ => false,
        }
    }

    /// Brings the table of stores up to date.
    pub(super) fn renew_fleet(&mut self, now: MonoTime) {
        let touched: Vec<StoreId> = self.regions.take_touched().chain(self.operators.take_touched()).collect();
        let sources = Sources {
            scheduling: &self.state.scheduling,
            beats: &self.beats,
            regions: &self.regions,
            operators: &self.operators,
        };
        self.fleet.recount(touched.into_iter(), sources);
        let living = self.state.stores.values().filter(|store| !is_tombstone(store));
        self.fleet.renew(now, living, sources);
    }

    /// What the region's leader should do next. Until it is done, it is told the same again.
    pub(super) fn operator(&mut self, now: MonoTime, wall: WallTime, id: RegionId) -> Option<Operator> {
        let info = self.regions.get(&Lookup::Id(id))?.clone();
        self.hot.on_heartbeat(now, &info);
        // Others may have waited for it.
        self.reports_due |= self.operators.review(now, &info);
        self.renew_fleet(now);
        if let Some(standing) = self.operators.standing(id, &self.fleet) {
            return Some(standing);
        }
        match self.due(now, wall, &info) {
            Due::Plan(plan, why) => self.operators.issue(now, &info, (plan, why), || self.ids.next().map(PeerId)),
            due => {
                self.operators.settle(id, Progress::GivenUp);
                match due {
                    Due::Operator(operator) => Some(operator),
                    _ => None,
                }
            }
        }
    }

    fn due(&mut self, now: MonoTime, wall: WallTime, info: &Arc<RegionInfo>) -> Due {
        let id = info.id();
        let rules = self.rules.at(&info.region.start_key).clone();
        let fit = Fit::new(info, &self.fleet, &rules, self.operators.moves_from(id));
        if fit.is_exact() {
            self.operators.end_move(id);
        }
        let verdict = check(&fit);
        if let Verdict::Do(plan, why) = verdict {
            return Due::Plan(plan, why);
        }
        let borders = self.rules.borders(&info.region.start_key, &info.region.end_key);
        let mut cuts: Vec<_> = borders.take(crate::splits::AT_ONCE).cloned().collect();
        if cuts.is_empty() {
            cuts = self.splits.within(now, &info.region);
        }
        if !cuts.is_empty() {
            return Due::Operator(Operator::Split(cuts));
        }
        if verdict == Verdict::Wait {
            return Due::Nothing;
        }
        match self.wishes.next(now, &fit) {
            Some(Next::Do(plan, why)) => return Due::Plan(plan, why),
            Some(Next::Wait) => return Due::Nothing,
            Some(Next::End(why, end)) => self.operators.remember(id, why, end),
            None => {}
        }
        if !fit.all_caught_up() || !self.fleet.knows_regions() {
            return Due::Nothing;
        }
        let (scheduling, now_seconds) = (&self.state.scheduling, wall.seconds());
        let runs = |scheduler| scheduling.runs(scheduler, now_seconds);
        if runs(Scheduler::HotRegion)
            && let Some((plan, why)) = self.hot.plan(now, &fit)
        {
            return Due::Plan(plan, why);
        }
        let rests = self.hot.rests(now, id);
        if runs(Scheduler::BalanceLeader)
            && !rests
            && let Some(plan) = balance_leader(&fit)
        {
            return Due::Plan(plan, Why::BalanceLeader);
        }
        if runs(Scheduler::BalanceRegion)
            && !rests
            && let Some(plan) = balance_region(&fit)
        {
            return Due::Plan(plan, Why::BalanceRegion);
        }
        if now.since(self.shuffled) >= SHUFFLE_PAUSE {
            let leader = runs(Scheduler::ShuffleLeader).then(|| shuffle_leader(&fit, now)).flatten();
            let shuffled = leader.or_else(|| runs(Scheduler::ShuffleRegion).then(|| shuffle_region(&fit, now)).flatten());
            if let Some((plan, why)) = shuffled {
                self.shuffled = now;
                return Due::Plan(plan, why);
            }
        }
        match runs(Scheduler::MergeRegion) {
            true => self.merge(now, info, &rules),
            false => Due::Nothing,
        }
    }

    fn merge(&mut self, now: MonoTime, info: &Arc<RegionInfo>, rules: &Arc<[crate::rules::Rule]>) -> Due {
        let (all, fleet) = (&self.rules, &self.fleet);
        let fits = |info: &RegionInfo| {
            let same = Arc::ptr_eq(all.at(&info.region.start_key), rules);
            same && Fit::new(info, fleet, rules, None).is_exact()
        };
        match self.merges.step(now, info, &self.regions, fits, self.merge_after) {
            Some(merges::Step::Move { from, to }) => {
                let fit = Fit::new(info, fleet, rules, None);
                move_towards(&fit, &from, &to).map_or(Due::Nothing, |plan| Due::Plan(plan, Why::Merge))
            }
            Some(merges::Step::Merge(operator)) => Due::Operator(operator),
            None => Due::Nothing,
        }
    }

    /// Asks leaders to report all regions now, but not so often that this would be most of what they report: the more there are, the more
    /// of them report anyway at any time.
    pub(super) fn ask_for_reports(&mut self, now: MonoTime, effects: &mut Effects<T>) {
        let pause = Duration::from_secs(self.regions.len() as u64 / ASKED_PER_SECOND);
        self.reports_due = now.since(self.reports_asked) < pause;
        if !self.reports_due {
            self.reports_asked = now;
            effects.want_reports = true;
        }
    }

    /// A store that was drained and holds nothing any more is removed. Where orders were carried out meanwhile, regions that waited for their
    /// turn are asked to report.
    pub(super) fn after_store_heartbeat(&mut self, now: MonoTime, id: StoreId, effects: &mut Effects<T>) {
        if self.reports_due {
            self.ask_for_reports(now, effects);
        }
        let regions = &self.regions;
        let is_there = |region| regions.get(&Lookup::Id(region)).is_some();
        self.operators.tidy(is_there);
        self.wishes.tidy(now, is_there);
        self.hot.tidy(now);
        let Some(store) = self.state.stores.get(&id) else { return };
        let is_empty = self.regions.load(id).regions == 0 && self.operators.moving(id).arriving == 0;
        // Its own account counts: a member that has come to lead does not know all regions yet.
        if store.state() == StoreState::Offline && is_empty && self.beats.region_count(id) == Some(0) {
            let kind = Some(Kind::RemoveStore(id.0));
            self.propose(Command::Schedule(record::Schedule { kind }), None, effects);
        }
    }
}
