//! Five Raft nodes in one process, on one thread, in memory: how a group is formed, works, changes its leader and replaces
//! a dead member. Run it with `cargo run --example five_nodes [-- --seed 7]` and read `docs/tutorial-raft.md` beside it.
//!
//! Nothing here waits or draws by chance: time is a count of ticks, messages travel in order, election timeouts come from
//! the seed. The same seed prints the same lines. Exit code 0 if every check held, 1 if not.

mod cluster;
mod disk;
mod node;

use std::collections::BTreeMap;
use std::process::ExitCode;

use raft::eraftpb::ConfChangeType;

use cluster::{Cluster, check};
use disk::Disk;
use node::{Node, conf_change, new_node};

/// The state the first node starts from: a snapshot of nothing, so that whoever joins later needs a snapshot too.
const START: (u64, u64) = (1, 1);

fn heading(text: &str, look_at: &str) {
    println!("\n{text}\n   look at: {look_at}");
}

fn one_voter(cluster: &mut Cluster) -> Result<(), String> {
    heading(
        "1. One voter. Node 1 starts alone, as a follower like every node (Raft paper, section 5.2).",
        "node.rs: new_node, tick",
    );
    let mut disk = Disk {
        start: START,
        applied_index: START.0,
        ..Disk::default()
    };
    (disk.hard_state.term, disk.hard_state.commit) = (START.1, START.0);
    disk.members.set_voters(vec![1]);
    cluster.nodes.insert(1, new_node(1, disk));
    cluster.wait("node 1 leads", |c| c.leader() == Some(1))?;
    let term = cluster.leading()?.raft.term;
    cluster.say(format!(
        "heard no leader for its election timeout, voted for itself: a majority of one. Leads term {term}."
    ));
    check(term == START.1 + 1, "one election is one term")
}

fn five_voters(cluster: &mut Cluster) -> Result<(), String> {
    heading(
        "2. Five voters. Each joins by a conf change, an entry of the log like any other (section 6; thesis 4.1).",
        "node.rs: conf_change, apply; disk.rs: install",
    );
    for id in 2..=5 {
        cluster.start_empty(id);
        cluster.change_members(conf_change(&[(ConfChangeType::AddNode, id)]))?;
        let voters: Vec<_> = (1..=id).collect();
        cluster.wait("the new voter knows the group", |c| c.agrees(0, &voters))?;
        let start = cluster.nodes[&id].store().start.0;
        cluster.say(format!(
            "node {id} came empty, got a snapshot of index {start} and the log behind it. Voters {voters:?}."
        ));
    }
    check(
        cluster.snapshots_sent == 4,
        format!("four snapshots, not {}", cluster.snapshots_sent),
    )
}

fn hundred_entries(cluster: &mut Cluster) -> Result<(), String> {
    heading(
        "3. A hundred entries: proposed at the leader, committed once three of five hold them, applied by all (5.3).",
        "node.rs: on_ready",
    );
    for n in 0..100 {
        cluster.propose(&format!("key{n:03}=value{n}"))?;
    }
    let (committed, term) = (cluster.leading()?.raft.raft_log.committed, cluster.leading()?.raft.term);
    cluster.say(format!(
        "the leader has committed index {committed}: no tick has passed, messages alone did it."
    ));
    cluster.wait("all apply 100 entries", |c| c.agrees(100, &[1, 2, 3, 4, 5]))?;
    cluster.say(format!(
        "all five have applied key000 .. key099. Index {committed} = start + conf changes + first entry of term {term} + 100."
    ));
    check(
        committed == START.0 + 4 + 1 + 100,
        format!("no entry more than was proposed, but the index is {committed}"),
    )
}

fn hand_over(cluster: &mut Cluster) -> Result<(), String> {
    heading(
        "4. Handing over. The leader brings node 3 up to date and tells it to campaign at once (thesis 3.10).",
        "main.rs: hand_over",
    );
    let term = cluster.leading()?.raft.term;
    cluster.leading()?.transfer_leader(3);
    cluster.settle();
    let (leader, now) = (cluster.leader(), cluster.leading()?.raft.term);
    cluster.say(format!(
        "node 3 leads term {now}. Nobody waited for a timeout, and votes were given though a leader was heard."
    ));
    check(
        leader == Some(3) && now == term + 1,
        format!("node 3 should lead term {}, but {leader:?} leads {now}", term + 1),
    )
}

fn replace_node(cluster: &mut Cluster) -> Result<(), String> {
    heading(
        "5. A dead leader, replaced. Node 3 dies with its disk; node 6 takes its place under a new id (section 7).",
        "disk.rs: compact, snapshot; cluster.rs: deliver",
    );
    cluster.nodes.remove(&3);
    cluster.say("node 3 is gone. The others notice only that its heartbeats stop.");
    cluster.wait("a new leader", |c| c.leader().is_some())?;
    let (leader, term) = (cluster.leading()?.raft.id, cluster.leading()?.raft.term);
    cluster.say(format!(
        "node {leader} lost patience first: a round of pre-votes, a round of votes, leads term {term}."
    ));

    for n in 100..105 {
        cluster.propose(&format!("key{n:03}=value{n}"))?;
    }
    cluster.wait("four of five go on", |c| {
        c.nodes.values().all(|node| node.store().applied.len() == 105)
    })?;
    cluster.nodes.values_mut().for_each(|node| node.mut_store().compact());
    let start = cluster.leading()?.store().start.0;
    cluster.say(format!(
        "four of five still are a majority: five entries more. All forget their logs up to index {start}."
    ));

    cluster.start_empty(6);
    cluster.change_members(conf_change(&[(ConfChangeType::RemoveNode, 3), (ConfChangeType::AddNode, 6)]))?;
    cluster.wait("node 6 has taken the place of 3", |c| c.agrees(105, &[1, 2, 4, 5, 6]))?;
    let disk = cluster.nodes[&6].store();
    cluster.say("two changes at once are a joint change: majorities of old and new members, then of the new alone (section 6).");
    cluster.say(format!(
        "node 6 was sent a snapshot of index {} with {} lines, then the log behind it.",
        disk.start.0,
        disk.applied.len()
    ));
    check(
        disk.start.0 >= start,
        "the log before the snapshot was forgotten by all: node 6 cannot have it",
    )
}

fn all_equal(cluster: &mut Cluster) -> Result<(), String> {
    heading(
        "6. The sum. Five entries more through the new group, then every log is compared with every other.",
        "main.rs: all_equal",
    );
    for n in 105..110 {
        cluster.propose(&format!("key{n:03}=value{n}"))?;
    }
    cluster.wait("all apply 110 entries", |c| c.agrees(110, &[1, 2, 4, 5, 6]))?;
    let wanted: Vec<_> = (0..110).map(|n| format!("key{n:03}=value{n}")).collect();
    let entries = |node: &Node| {
        node.store()
            .entries
            .iter()
            .map(|e| (e.index, (e.term, e.data.clone())))
            .collect::<BTreeMap<_, _>>()
    };
    for (id, node) in &cluster.nodes {
        check(
            node.store().applied == wanted,
            format!("node {id} applied something else or in another order"),
        )?;
        let mine = entries(node);
        for (other_id, other) in &cluster.nodes {
            let theirs = entries(other);
            let differs = mine
                .iter()
                .find(|(index, entry)| theirs.get(index).is_some_and(|other| other != *entry));
            check(differs.is_none(), format!("logs of {id} and {other_id} differ: {differs:?}"))?;
        }
        let (start, last) = (node.store().start.0, node.raft.raft_log.last_index());
        cluster.say(format!(
            "node {id}: snapshot up to {start}, log up to {last}, 110 lines applied, as proposed."
        ));
    }
    Ok(())
}

/// The whole story. The error tells which check did not hold.
fn run(seed: u64) -> Result<Cluster, String> {
    let mut cluster = Cluster::new(seed);
    for step in [one_voter, five_voters, hundred_entries, hand_over, replace_node, all_equal] {
        step(&mut cluster)?;
    }
    Ok(cluster)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seed = match &arguments[..] {
        [] => Some(7),
        [flag, value] if flag == "--seed" => value.parse().ok(),
        _ => None,
    };
    let Some(seed) = seed else {
        eprintln!("usage: five_nodes [--seed NUMBER]");
        return ExitCode::from(2);
    };
    println!("Five Raft nodes in memory, seed {seed}. A tick is the unit of time; docs/tutorial-raft.md walks through the code.");
    match run(seed) {
        Ok(cluster) => {
            println!(
                "\nEvery check held, in {} ticks and {} snapshots.",
                cluster.ticks, cluster.snapshots_sent
            );
            ExitCode::SUCCESS
        }
        Err(what) => {
            println!("\nCHECK FAILED: {what}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn story_ends_well_for_any_seed() {
        for seed in 0..50 {
            let cluster = run(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
            assert_eq!(cluster.nodes.keys().copied().collect::<Vec<_>>(), [1, 2, 4, 5, 6]);
        }
    }

    #[test]
    fn same_seed_takes_same_time() {
        assert_eq!(run(7).map(|c| (c.ticks, c.leader())), run(7).map(|c| (c.ticks, c.leader())));
    }
}
