use super::*;
use crate::balance::{balance_leader, balance_region};
use crate::testkit::{fleet, region, rules, short};

/// What is due: of rules, and then to even out stores.
fn told(of: &str, peers: &str, on: &str) -> String {
    let (info, fleet, rules) = (region(peers), fleet(on), rules(of));
    let fit = Fit::new(&info, &fleet, rules.at(b""), None);
    let plan = match check(&fit) {
        Verdict::Do(plan, _) => Some(plan),
        Verdict::Fine if fit.all_caught_up() => balance_leader(&fit).or_else(|| balance_region(&fit)),
        Verdict::Fine | Verdict::Wait => None,
    };
    plan.map_or("-".to_owned(), |plan| short(&plan))
}

#[test]
fn without_rules_each_case_has_its_plan() {
    let even = "1:5/2 2:5/2 3:5/1 4:5/0";
    for (name, peers, on, wanted) in [
        ("as it should be", "1 2 3", even, "-"),
        ("too few: the emptiest store", "1 2", "1:5/2 2:5/2 3:5/1 4:4/0", "add 4"),
        ("too few, no store is free", "1 2", "1:5/2 2:5/2 3:5/1s", "-"),
        ("a learner that lags is waited for", "1 2 +?3", even, "-"),
        ("one that has caught up votes", "1 2 +3", even, "promote 3"),
        (
            "a learner whose store died goes",
            "1 2 +3",
            "1:5/2 2:5/2 3:5/1d 4:5/0",
            "remove 3",
        ),
        ("a dead peer is replaced first", "1 2 !3", "1:5/2 2:5/2 3:5/1d 4:9/0", "add 4"),
        ("then it goes", "1 2 !3 4", "1:5/2 2:5/2 3:5/1d 4:9/0", "remove 3"),
        ("not while the new one lags", "1 2 !3 ?4", "1:5/2 2:5/2 3:5/1d 4:9/0", "-"),
        (
            "a store that is silent for a while is waited for",
            "1 2 !3",
            "1:5/2 2:5/2 3:5/1s 4:0/0",
            "-",
        ),
        (
            "one too many: the fullest store's",
            "1 2 3 4",
            "1:5/2 2:5/2 3:7/1 4:5/0",
            "remove 3",
        ),
        ("one too many, and it leads", "1 2 3 4", "1:9/2 2:5/2 3:7/1 4:5/0", "lead 4"),
        ("a store that leaves is left", "1 2 3", "1:5/2 2:5/2l 3:5/1 4:5/0", "add 4"),
        ("and its peer goes", "1 2 3 4", "1:5/2 2:1/2l 3:5/1 4:5/0", "remove 2"),
        ("a leader on it hands over", "2 1 3 4", "1:5/2 2:1/2l 3:5/1 4:5/3", "lead 3"),
        ("leaders are evicted", "1 2 3", "1:5/2e 2:5/2 3:5/1 4:5/0", "lead 3"),
        (
            "and not to where they are evicted too",
            "1 2 3",
            "1:5/2e 2:5/2 3:5/1e 4:5/0",
            "lead 2",
        ),
        ("leaders are spread", "1 2 3", "1:5/5 2:5/2 3:5/4", "lead 2"),
        ("two are not worth it", "1 2 3", "1:5/3 2:5/2 3:5/1e", "-"),
        ("no leader to one that lags", "1 ?2 3", "1:5/5 2:5/0 3:5/5", "-"),
        ("regions are spread", "1 2 3", "1:9/1 2:8/1 3:8/1 4:1/0", "add 4"),
        ("but not beyond what arrives", "1 2 3", "1:9/1 2:8/1 3:8/1 4:1/0a", "-"),
        ("zones before fill", "1 2", "1:5/1@z1 2:5/1@z2 3:1/0@z1 4:9/0@z3", "add 4"),
        (
            "hosts of a zone",
            "1 2",
            "1:5/1@z1/h1 2:5/1@z2/h2 3:1/0@z1/h1 4:9/0@z1/h9",
            "add 4",
        ),
        (
            "of two in a zone one goes",
            "1 2 3 4",
            "1:5/1@z1 2:9/1@z2 3:5/0@z3 4:5/0@z1",
            "remove 4",
        ),
        ("within a zone", "1 2 3", "1:9/1@z1 2:9/1@z2 3:9/1@z3 4:1/0@z3", "add 4"),
        (
            "balance keeps zones apart",
            "1 2 3",
            "1:9/1@z1 2:9/1@z2 3:2/1@z3 4:1/0@z3",
            "-",
        ),
        (
            "two near each other part",
            "1 2 3",
            "1:5/1@z1 2:5/1@z2 3:5/1@z1 4:9/0@z3",
            "add 4",
        ),
        (
            "the right zone is waited for",
            "1 2",
            "1:5/1@z1 2:5/1@z2 3:1/0a@z3 4:1/0@z1",
            "-",
        ),
        (
            "the zone of a store that leaves is free",
            "1 2 3",
            "1:5/1l@z1 2:5/1@z2 3:5/1@z3 4:9/0@z1 5:0/0@z2",
            "add 4",
        ),
        ("a full disk takes nothing", "1 2", "1:5/2 2:5/2 3:0/0f 4:4/0", "add 4"),
        ("leaders are granted", "1 2 3", "1:5/2 2:5/2 3:5/1g 4:5/0", "lead 3"),
        ("and stay", "3 2 1", "1:5/0 2:5/0 3:5/9g 4:5/0", "-"),
    ] {
        assert_eq!(told("", peers, on), wanted, "{name}: {peers} on {on}");
    }
}

#[test]
fn rules_say_which_stores_hold_what() {
    let zones = "1:5/1@z1 2:5/1@z2 3:5/1@z3 4:5/0@z1 5:5/0@z2";
    for (name, of, peers, on, wanted) in [
        (
            "a peer where none may be is replaced",
            "3 voter zone=z1,z2",
            "1 2 3",
            zones,
            "add 4",
        ),
        ("and removed", "3 voter zone=z1,z2", "1 2 3 5", zones, "remove 3"),
        (
            "a leader there hands over first",
            "3 voter zone=z1,z2",
            "3 2 1 5",
            zones,
            "lead 5",
        ),
        ("no store will do", "3 voter zone=z1", "1 2 4", zones, "-"),
        ("a zone that must not have it", "3 voter zone!=z1", "1 2 3", zones, "add 5"),
        (
            "one each",
            "1 voter zone=z1; 1 voter zone=z2; 1 voter zone=z3",
            "1 2 3",
            zones,
            "-",
        ),
        (
            "two in one",
            "1 voter zone=z1; 1 voter zone=z2; 1 voter zone=z3",
            "1 2 4",
            zones,
            "add 3",
        ),
        ("the leader's zone", "1 leader zone=z2; 2 follower", "1 2 3", zones, "lead 2"),
        ("has it", "1 leader zone=z2; 2 follower", "2 1 3", zones, "-"),
        ("no follower leads", "2 voter zone=z2; 1 follower", "1 2 5", zones, "lead 5"),
        (
            "a copy that does not vote",
            "3 voter zone=z1,z2; 1 learner zone=z3",
            "1 2 4",
            zones,
            "add 3",
        ),
        (
            "it stays a learner",
            "3 voter zone=z1,z2; 1 learner zone=z3",
            "1 2 4 +3",
            zones,
            "-",
        ),
        (
            "one that came for a voter votes",
            "3 voter; 1 learner zone=z3",
            "1 2 +4 +3",
            zones,
            "promote 4",
        ),
        ("a copy too many", "3 voter zone=z1,z2", "1 2 4 +3", zones, "remove 3"),
        ("fewer voters", "1 voter", "1 2 3", "1:5/2 2:5/2 3:9/1", "remove 2"),
        (
            "labels of disks",
            "3 voter disk=ssd",
            "1 2 3",
            "1:5/2#ssd 2:5/2#hdd 3:5/1#ssd 4:9/0#ssd 5:0/0",
            "add 4",
        ),
        (
            "balance within the rule",
            "3 voter disk",
            "1 2 3",
            "1:9/1#ssd 2:9/1#ssd 3:9/1#ssd 4:5/0#ssd 5:0/0",
            "add 4",
        ),
        (
            "a store that says nothing",
            "3 voter !disk",
            "1 2 3",
            "1:5/2 2:5/2 3:5/1#ssd 4:0/0#ssd 5:9/0",
            "add 5",
        ),
        (
            "a voter makes way for the learner",
            "2 voter; 1 learner zone=z3",
            "1 2 3",
            "1:5/2@z1 2:5/2@z2 3:9/1@z3",
            "remove 3",
        ),
    ] {
        assert_eq!(told(of, peers, on), wanted, "{name}: {peers} on {on} under {of}");
    }
}
