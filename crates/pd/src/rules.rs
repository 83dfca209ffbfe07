//! Placement rules: how many peers of which kind the regions of a key range have, and on which stores.
//!
//! [`RuleSet`] is made of the rules in the replicated state and answers, for a key, with the rules of its segment: a range within which the
//! same rules hold. Regions are divided where segments meet and are not merged over it. Where no rule asks for peers that vote, the
//! rule `pd/default` does: as many voters as the cluster's number of peers, apart by the cluster's location labels.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use proto::ferrite_pd as record;
use proto::ferrite_pd::label_constraint::Op;
use proto::ferrite_pd::placement_rule::Role;
use proto::metapb::StoreLabel;

use crate::Error;
use crate::regions::{ends_after, invalid_reason};

/// Rules in one segment, and peers of a region under them: far more than anybody wants of copies.
pub const PEERS_MAX: usize = 16;
/// Rules of a cluster.
const RULES_MAX: usize = 1000;
/// Labels that a rule names, and values of one.
const LABELS_MAX: usize = 64;
const GROUP: &str = "pd";
const ID: &str = "default";

/// A rule as it holds in a segment.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub group: String,
    pub id: String,
    pub role: Role,
    pub count: usize,
    pub constraints: Vec<record::LabelConstraint>,
    /// Of its own; empty: the cluster's.
    pub location_labels: Vec<String>,
}

impl Rule {
    /// Whether a store with these labels may hold a peer of the rule.
    pub fn allows(&self, labels: &[StoreLabel]) -> bool {
        self.constraints.iter().all(|constraint| {
            let label = labels.iter().find(|label| label.key == constraint.key);
            let is_listed = label.is_some_and(|label| constraint.values.contains(&label.value));
            match constraint.op() {
                Op::In => is_listed,
                Op::NotIn => !is_listed,
                Op::Exists => label.is_some(),
                Op::NotExists => label.is_none(),
            }
        })
    }

    /// Whether its peers vote.
    pub fn votes(&self) -> bool {
        self.role != Role::Learner
    }

    /// For people.
    pub fn name(&self) -> String {
        format!("{}/{}", self.group, self.id)
    }
}

/// See the module.
#[derive(Debug)]
pub struct RuleSet {
    /// By the key with which they begin; the first begins with the empty key. Of each the narrowest rules come first.
    segments: BTreeMap<Bytes, Arc<[Rule]>>,
}

impl RuleSet {
    /// Makes the set of a cluster whose regions have `peers` where no rule says otherwise. Errors if some region could not be led, or
    /// would have too many peers.
    pub fn compile<'a>(rules: impl Iterator<Item = &'a record::PlacementRule> + Clone, peers: u32) -> Result<RuleSet, Error> {
        let ends = rules.clone().map(|rule| &rule.end_key).filter(|end| !end.is_empty());
        let borders: BTreeSet<Bytes> = rules.clone().map(|rule| &rule.start_key).chain(ends).cloned().collect();
        let first = std::iter::once(Bytes::new());
        let mut segments = BTreeMap::new();
        for border in first.chain(borders) {
            let covers = |rule: &&record::PlacementRule| rule.start_key <= border && ends_after(&rule.end_key, &border);
            let mut held: Vec<_> = rules.clone().filter(covers).collect();
            held.sort_by(|a, b| (&a.group, a.index, &a.id).cmp(&(&b.group, b.index, &b.id)));
            let segment = in_force(&held, peers);
            check_segment(&segment)?;
            segments.insert(border, segment.into());
        }
        Ok(RuleSet { segments })
    }

    /// The rules of the segment that holds a region key.
    pub fn at(&self, key: &[u8]) -> &Arc<[Rule]> {
        let mut before = self.segments.range::<[u8], _>((Bound::Unbounded, Bound::Included(key)));
        before
            .next_back()
            .map(|(_, rules)| rules)
            .expect("the first segment begins with the empty key")
    }

    /// Where segments meet inside a range, ascending.
    pub fn borders<'a>(&'a self, start: &'a Bytes, end: &'a Bytes) -> impl Iterator<Item = &'a Bytes> {
        let inside = self.segments.range::<Bytes, _>((Bound::Excluded(start), Bound::Unbounded));
        inside.map(|(border, _)| border).take_while(|border| ends_after(end, border))
    }
}

/// What holds in a segment, of the rules that cover it, in their order.
fn in_force(covering: &[&record::PlacementRule], peers: u32) -> Vec<Rule> {
    let mut held: Vec<&record::PlacementRule> = Vec::new();
    for rule in covering {
        if rule.overrides {
            held.retain(|other| other.group != rule.group);
        }
        held.push(rule);
    }
    let is_default = |rule: &record::PlacementRule| rule.group == GROUP && rule.id == ID;
    if held.iter().any(|rule| rule.role() != Role::Learner && !is_default(rule)) {
        held.retain(|rule| !is_default(rule));
    }
    let others: u32 = held.iter().map(|rule| rule.count).sum();
    let built_in = default_rule(peers.min((PEERS_MAX as u32).saturating_sub(others)));
    if held.iter().all(|rule| rule.role() == Role::Learner) {
        held.push(&built_in);
    }
    let mut rules: Vec<Rule> = held.into_iter().map(of_record).collect();
    // Peers go to rules in this order: one that may lie anywhere must not take what another needs.
    rules.sort_by_key(|rule| (std::cmp::Reverse(rule.constraints.len()), role_order(rule.role)));
    rules
}

fn role_order(role: Role) -> u8 {
    match role {
        Role::Leader => 0,
        Role::Follower => 1,
        Role::Voter => 2,
        Role::Learner => 3,
    }
}

fn of_record(rule: &record::PlacementRule) -> Rule {
    Rule {
        group: rule.group.clone(),
        id: rule.id.clone(),
        role: rule.role(),
        count: rule.count as usize,
        constraints: rule.constraints.clone(),
        location_labels: rule.location_labels.clone(),
    }
}

/// The rule that holds where no other asks for voters.
pub fn default_rule(peers: u32) -> record::PlacementRule {
    record::PlacementRule {
        group: GROUP.to_owned(),
        id: ID.to_owned(),
        count: peers.clamp(1, PEERS_MAX as u32),
        ..record::PlacementRule::default()
    }
}

fn check_segment(rules: &[Rule]) -> Result<(), Error> {
    let peers: usize = rules.iter().map(|rule| rule.count).sum();
    let leaders: usize = rules
        .iter()
        .filter(|rule| rule.role == Role::Leader)
        .map(|rule| rule.count)
        .sum();
    let may_lead = rules.iter().any(|rule| matches!(rule.role, Role::Leader | Role::Voter));
    let names: Vec<String> = rules.iter().map(Rule::name).collect();
    let names = names.join(" and ");
    if peers > PEERS_MAX {
        return Err(invalid_reason(format!(
            "{names} want {peers} peers of a region: at most {PEERS_MAX}"
        )));
    }
    if leaders > 1 {
        return Err(invalid_reason(format!("{names} want {leaders} leaders of a region")));
    }
    match may_lead {
        true => Ok(()),
        false => Err(invalid_reason(format!("{names} want followers alone: nobody could lead"))),
    }
}

/// Errors unless a rule is well formed by itself.
pub fn check(rule: &record::PlacementRule, rules: usize) -> Result<(), Error> {
    let is_name = |name: &str| !name.is_empty() && name.len() <= 128 && !name.contains('/');
    let valued = |constraint: &record::LabelConstraint| match constraint.op() {
        Op::In | Op::NotIn => !constraint.values.is_empty(),
        Op::Exists | Op::NotExists => constraint.values.is_empty(),
    };
    let known_op = |constraint: &record::LabelConstraint| Op::try_from(constraint.op).is_ok();
    let small = |constraint: &record::LabelConstraint| !constraint.key.is_empty() && constraint.values.len() <= LABELS_MAX;
    let fault = match rule {
        _ if rules >= RULES_MAX => "is one too many: drop others first",
        _ if !is_name(&rule.group) || !is_name(&rule.id) => "needs a group and an id of up to 128 bytes, without `/`",
        _ if !rule.end_key.is_empty() && rule.start_key >= rule.end_key => "has its borders in the wrong order",
        _ if rule.count == 0 || rule.count as usize > PEERS_MAX => "needs a count from 1 to 16",
        _ if Role::try_from(rule.role).is_err() || !rule.constraints.iter().all(known_op) => "is of a later version",
        _ if rule.constraints.len() > LABELS_MAX || rule.location_labels.len() > LABELS_MAX => "names too many labels",
        _ if !rule.constraints.iter().all(small) => "has a constraint without key or with too many values",
        _ if !rule.constraints.iter().all(valued) => "needs values for in and notIn, and none for exists and notExists",
        _ => return Ok(()),
    };
    Err(invalid_reason(format!("rule {}/{} {fault}", rule.group, rule.id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, range: [&str; 2], role: Role, count: u32) -> record::PlacementRule {
        let (group, id) = name.split_once('/').expect("group and id");
        record::PlacementRule {
            group: group.to_owned(),
            id: id.to_owned(),
            start_key: range[0].to_owned().into(),
            end_key: range[1].to_owned().into(),
            role: role as i32,
            count,
            ..record::PlacementRule::default()
        }
    }

    fn names(set: &RuleSet, key: &str) -> Vec<String> {
        set.at(key.as_bytes())
            .iter()
            .map(|rule| format!("{}:{}", rule.name(), rule.count))
            .collect()
    }

    #[test]
    fn segments_have_the_rules_that_cover_them() {
        let mut late = rule("a/late", ["d", "f"], Role::Voter, 1);
        (late.overrides, late.index) = (true, 1);
        let rules = [
            rule("a/five", ["b", "k"], Role::Voter, 5),
            late,
            rule("x/copy", ["", "c"], Role::Learner, 1),
        ];
        let set = RuleSet::compile(rules.iter(), 3).expect("good rules");
        for (key, wanted) in [
            ("", vec!["pd/default:3", "x/copy:1"]),
            ("b", vec!["a/five:5", "x/copy:1"]),
            ("c", vec!["a/five:5"]),
            ("d", vec!["a/late:1"]),
            ("ezzz", vec!["a/late:1"]),
            ("f", vec!["a/five:5"]),
            ("k", vec!["pd/default:3"]),
        ] {
            assert_eq!(names(&set, key), wanted, "{key}");
        }
        let borders =
            |start: &'static str, end: &'static str| -> Vec<Bytes> { set.borders(&start.into(), &end.into()).cloned().collect() };
        assert_eq!(borders("", ""), ["b", "c", "d", "f", "k"]);
        assert_eq!(
            borders("b", "d"),
            ["c"],
            "what a region begins or ends with does not divide it"
        );
    }

    #[test]
    fn the_default_can_be_replaced() {
        let set = RuleSet::compile([rule("pd/default", ["", ""], Role::Voter, 1)].iter(), 3).expect("good");
        assert_eq!(names(&set, "k"), ["pd/default:1"]);
        assert_eq!(names(&RuleSet::compile([].iter(), 5).expect("good"), ""), ["pd/default:5"]);
    }

    #[test]
    fn labels_decide_by_each_operation() {
        let label = |key: &str, value: &str| StoreLabel {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let with = |op: Op, values: &[&str]| Rule {
            constraints: vec![record::LabelConstraint {
                key: "zone".to_owned(),
                op: op as i32,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
            ..of_record(&default_rule(3))
        };
        let (in_z1, nowhere) = ([label("disk", "ssd"), label("zone", "z1")], []);
        for (op, values, in_zone, without) in [
            (Op::In, &["z1", "z2"][..], true, false),
            (Op::In, &["z2"], false, false),
            (Op::NotIn, &["z1"], false, true),
            (Op::NotIn, &["z2"], true, true),
            (Op::Exists, &[], true, false),
            (Op::NotExists, &[], false, true),
        ] {
            let rule = with(op, values);
            assert_eq!(
                (rule.allows(&in_z1), rule.allows(&nowhere)),
                (in_zone, without),
                "{op:?} {values:?}"
            );
        }
    }

    #[test]
    fn rules_that_cannot_hold_are_refused() {
        let leaders = [
            rule("a/one", ["", ""], Role::Leader, 1),
            rule("b/two", ["k", ""], Role::Leader, 1),
        ];
        let followers = [rule("a/one", ["", "k"], Role::Follower, 3)];
        let many = [
            rule("a/one", ["", ""], Role::Voter, 9),
            rule("a/two", ["", ""], Role::Learner, 8),
        ];
        for rules in [&leaders[..], &followers, &many] {
            assert!(RuleSet::compile(rules.iter(), 3).is_err(), "{rules:?}");
        }
        let constraint = |op: Op, values: &[&str]| record::PlacementRule {
            constraints: vec![record::LabelConstraint {
                key: "zone".to_owned(),
                op: op as i32,
                values: values.iter().map(|value| (*value).to_owned()).collect(),
            }],
            ..rule("a/one", ["", ""], Role::Voter, 3)
        };
        for bad in [
            rule("/one", ["", ""], Role::Voter, 3),
            rule("a/one", ["k", "b"], Role::Voter, 3),
            rule("a/one", ["", ""], Role::Voter, 0),
            rule("a/one", ["", ""], Role::Voter, 17),
            constraint(Op::In, &[]),
            constraint(Op::Exists, &["z1"]),
        ] {
            assert!(check(&bad, 0).is_err(), "{bad:?}");
        }
        let good = constraint(Op::In, &["z1"]);
        assert_eq!((check(&good, 0), check(&good, RULES_MAX).is_err()), (Ok(()), true));
    }
}
