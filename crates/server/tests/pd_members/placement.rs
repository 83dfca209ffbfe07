//! Placement rules, wishes and what is told of them, over a placement driver and four stores in processes.

use std::time::Duration;

use base::MonoTime;
use serde_json::Value;

use crate::common::{Cluster, PATIENCE, Part};

/// What a command prints, a line each.
fn told(cluster: &Cluster, line: &[&str]) -> Vec<Value> {
    let output = cluster.ctl(&[line, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("an object a line"))
        .collect()
}

fn must(cluster: &Cluster, line: &[&str]) {
    let output = cluster.ctl(line);
    assert!(
        output.status.success(),
        "{line:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Waits until what a command prints is as wanted.
fn wait_for(cluster: &Cluster, line: &[&str], wanted: impl Fn(&[Value]) -> bool) {
    let deadline = MonoTime::now() + 2 * PATIENCE;
    loop {
        let told = told(cluster, line);
        if wanted(&told) {
            return;
        }
        assert!(MonoTime::now() < deadline, "{line:?} tells {told:?}\n{}", cluster.logs());
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn numbers(value: &Value) -> Vec<u64> {
    let mut numbers: Vec<u64> = value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    numbers.sort_unstable();
    numbers
}

/// Ids of the stores of a zone.
fn zone(cluster: &Cluster, zone: &str) -> Vec<u64> {
    let label = Value::from(format!("zone={zone}"));
    let is_there = |store: &&Value| store["labels"].as_array().is_some_and(|labels| labels.contains(&label));
    let mut ids: Vec<u64> = told(cluster, &["store"])
        .iter()
        .filter(is_there)
        .filter_map(|store| store["id"].as_u64())
        .collect();
    ids.sort_unstable();
    ids
}

#[test]
fn rules_decide_where_copies_and_leaders_are() {
    let parts = [Part::Pd, Part::Store, Part::Store, Part::Store, Part::Store];
    let mut cluster = Cluster::start(&parts, &[]);
    for (node, zone) in [(1, "zone=z1"), (2, "zone=z1"), (3, "zone=z2"), (4, "zone=z3")] {
        cluster.restart_with(node, &["--labels", zone]);
    }
    must(&cluster, &["scheduler", "location-labels", "zone"]);
    let (z1, z2, z3) = (zone(&cluster, "z1"), zone(&cluster, "z2"), zone(&cluster, "z3"));
    assert_eq!((z1.len(), z2.len(), z3.len()), (2, 1, 1));
    let one_in_each = |region: &Value| {
        let voters = numbers(&region["voters"]);
        voters.len() == 3 && voters.contains(&z2[0]) && voters.contains(&z3[0])
    };
    wait_for(&cluster, &["region"], |regions| {
        !regions.is_empty() && regions.iter().all(one_in_each)
    });

    // The leader in one zone, copies that follow elsewhere, and one that does not vote.
    must(
        &cluster,
        &[
            "rule",
            "set",
            "app/leader",
            "--role",
            "leader",
            "--count",
            "1",
            "--constraint",
            "zone=z2",
        ],
    );
    must(
        &cluster,
        &[
            "rule",
            "set",
            "app/follower",
            "--role",
            "follower",
            "--count",
            "2",
            "--constraint",
            "zone=z1",
        ],
    );
    must(
        &cluster,
        &[
            "rule",
            "set",
            "app/copy",
            "--role",
            "learner",
            "--count",
            "1",
            "--constraint",
            "zone=z3",
        ],
    );
    let as_ruled = |region: &Value| {
        let voters = [z1.clone(), z2.clone()].concat();
        let held = numbers(&region["voters"]).len() == 3 && numbers(&region["voters"]).iter().all(|store| voters.contains(store));
        held && region["leader"].as_u64() == Some(z2[0]) && numbers(&region["learners"]) == z3
    };
    wait_for(&cluster, &["region"], |regions| {
        !regions.is_empty() && regions.iter().all(as_ruled)
    });
    must(&cluster, &["put", "a", "1"]);
    must(&cluster, &["rule", "check"]);
    assert_eq!(told(&cluster, &["rule", "list"]).len(), 4, "and the default");

    // Without the rules one copy in each zone again; what people ask for is done, and only what rules allow.
    for rule in ["app/follower", "app/copy"] {
        must(&cluster, &["rule", "remove", rule]);
    }
    assert!(!cluster.ctl(&["rule", "remove", "app/copy"]).status.success(), "it is gone");
    assert!(
        !cluster
            .ctl(&["rule", "set", "app/leader", "--role", "follower", "--count", "3"])
            .status
            .success()
    );
    must(&cluster, &["rule", "remove", "app/leader"]);
    wait_for(&cluster, &["region"], |regions| regions.iter().all(one_in_each));
    must(&cluster, &["scheduler", "remove", "balance-leader"]);
    let region = told(&cluster, &["region"])[0].clone();
    let (id, other) = (region["id"].to_string(), z3[0]);
    must(&cluster, &["operator", "add", "transfer-leader", &id, &other.to_string()]);
    wait_for(&cluster, &["region", &id], |regions| {
        regions[0]["leader"].as_u64() == Some(other)
    });
    assert!(
        !cluster
            .ctl(&["operator", "add", "transfer-leader", &id, "999"])
            .status
            .success()
    );
    let state = |name: &str| {
        let all = told(&cluster, &["scheduler", "list"]);
        all.iter()
            .find(|one| one["scheduler"] == name)
            .map(|one| one["state"].clone())
    };
    assert_eq!(
        (state("balance-leader"), state("balance-region")),
        (Some("off".into()), Some("on".into()))
    );
    assert_eq!(cluster.ctl(&["hot"]).status.code(), Some(0));
    assert!(!told(&cluster, &["member"]).iter().any(|member| member["role"] == "learner"));
    must(&cluster, &["put", "a", "2"]);
}
