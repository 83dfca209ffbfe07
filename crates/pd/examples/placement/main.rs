//! How the placement driver does with many stores and regions: `cargo xtask bench placement [STORES REGIONS]`.
//!
//! A cluster whose regions lie on most of its stores gets further stores, comes to rest, gives one store up and comes to rest again. Printed
//! is what that took, with a line per goal; exit code 1 if one is missed. The short version is a test.

mod world;

use std::process::ExitCode;
use std::time::Duration;

use base::MonoTime;
use proto::ferrite_pd::schedule::Kind;

use world::{REGION_HEARTBEAT, World};

/// Peers on their way to one store at a time. More than by default: the time until rest is theirs, and not what is measured.
const ARRIVING_MAX: u32 = 64;
/// What did not come to rest by then never will.
const ROUNDS_MAX: u64 = 20_000;
/// How long nothing must happen for it to be rest: every region has reported meanwhile, twice.
const QUIET: u64 = 2 * REGION_HEARTBEAT + 10;

/// How a cluster came to rest.
#[derive(Debug, Default)]
struct Rest {
    /// Rounds until the last move.
    rounds: u64,
    peers_added: u64,
    /// As many had to move.
    needed: u64,
    leaders_moved: u64,
    /// Of rounds with moves: half took less, and the longest.
    round_median: Duration,
    round_max: Duration,
    heartbeats_per_second: u64,
}

/// Lets the world go on until nothing moves.
fn come_to_rest(world: &mut World) -> Option<Rest> {
    let (before, began, spent) = (peers(world), world.counts, world.spent);
    let (mut rounds, mut last, mut times) = (0, 0, Vec::new());
    while rounds - last < QUIET {
        let (counts, so_far) = (world.counts, world.spent);
        world.round();
        rounds += 1;
        times.push(world.spent - so_far);
        if (counts.peers_added, counts.leaders_moved) != (world.counts.peers_added, world.counts.leaders_moved) {
            last = rounds;
        }
        if rounds > ROUNDS_MAX {
            return None;
        }
    }
    times.sort();
    let came =
        |(store, held): &(u64, u64)| held.saturating_sub(before.iter().find(|(id, _)| id == store).map_or(0, |found| found.1));
    let heartbeats = world.counts.heartbeats - began.heartbeats;
    Some(Rest {
        rounds: last,
        peers_added: world.counts.peers_added - began.peers_added,
        needed: peers(world).iter().map(came).sum(),
        leaders_moved: world.counts.leaders_moved - began.leaders_moved,
        round_median: times[times.len() / 2],
        round_max: *times.last().expect("there were rounds"),
        heartbeats_per_second: (heartbeats as f64 / (world.spent - spent).as_secs_f64()) as u64,
    })
}

fn peers(world: &World) -> Vec<(u64, u64)> {
    world.stores().map(|store| (store, world.peers_on(store))).collect()
}

/// How much more the fullest store of a zone has than the zone's mean, in hundredths; of weight, and of leaders over all stores.
fn unevenness(world: &World) -> (u64, u64) {
    let loads = world.loads();
    let over = |loads: &[u64]| {
        let mean = loads.iter().sum::<u64>() / loads.len().max(1) as u64;
        let most = loads.iter().max().copied().unwrap_or_default();
        (100 * most).checked_div(mean).unwrap_or(100).saturating_sub(100)
    };
    let zone = |zone: u64| -> Vec<u64> {
        let of_zone = loads.iter().filter(|(store, ..)| store.0 % 3 == zone);
        of_zone.map(|(_, weight, _)| *weight).collect()
    };
    let weight = (0..3).map(|at| over(&zone(at))).max().unwrap_or_default();
    let leaders: Vec<u64> = loads.iter().map(|(_, _, leaders)| *leaders).collect();
    (weight, over(&leaders))
}

/// Memory of this process, in bytes.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or_default();
    pages * 4096
}

fn tell(name: &str, rest: &Rest, world: &World) {
    let (weight, leaders) = unevenness(world);
    println!(
        "{name}: rest after {} rounds of 1 s; {} peers moved where {} had to, {} leaders; a round took {:.1?} (median), {:.1?} at most; \
         {} heartbeats a second; fullest store {weight}% above its zone's mean, most leaders {leaders}% above the mean",
        rest.rounds,
        rest.peers_added,
        rest.needed,
        rest.leaders_moved,
        rest.round_median,
        rest.round_max,
        rest.heartbeats_per_second
    );
}

fn goal(name: &str, found: u64, wanted: u64, at_most: bool) -> bool {
    let met = if at_most { found <= wanted } else { found >= wanted };
    let (sign, told) = (if at_most { "<=" } else { ">=" }, if met { "met" } else { "missed" });
    println!("goal {name}: {found} (wanted {sign} {wanted}): {told}");
    met
}

fn run(stores: u64, regions: usize) -> bool {
    let joining = (stores / 50).max(1);
    println!(
        "{stores} stores in 3 zones, {joining} of them new, {regions} regions of 3 copies; {ARRIVING_MAX} copies on their way to a store"
    );
    let mut world = World::new(stores, stores - joining, regions, MonoTime::now);
    let empty = memory();
    world.report_all();
    let first = world.spent;
    let bytes = memory().saturating_sub(empty) / regions.max(1) as u64;
    let spent = world.spent;
    world.report_all();
    let again = world.spent - spent;
    println!(
        "all regions told: {first:.2?} the first time, {again:.2?} again; {bytes} bytes of the placement driver for each ({} MiB)",
        (bytes * regions as u64) >> 20
    );
    world.limit(ARRIVING_MAX);
    world.all_stores_heartbeat();
    let Some(grown) = come_to_rest(&mut world) else {
        return goal("rest", 0, 1, false);
    };
    tell("grown", &grown, &world);
    let (weight, leaders) = unevenness(&world);
    let leaving = world.peers_on(1);
    world.change(Kind::DrainStore(1));
    let Some(drained) = come_to_rest(&mut world) else {
        return goal("rest", 0, 1, false);
    };
    tell("drained", &drained, &world);
    let rate = grown.heartbeats_per_second.min(drained.heartbeats_per_second);
    let wasted = (100 * (grown.peers_added - grown.needed))
        .checked_div(grown.needed)
        .unwrap_or(0);
    [
        goal("heartbeats_per_second", rate, 100_000, false),
        goal(
            "round_ms_max",
            grown.round_max.max(drained.round_max).as_millis() as u64,
            1000,
            true,
        ),
        goal("moves_wasted_percent", wasted, 10, true),
        goal("drain_moves_percent", 100 * drained.peers_added / leaving.max(1), 110, true),
        goal("weight_above_mean_percent", weight, 10, true),
        goal("leaders_above_mean_percent", leaders, 15, true),
        goal("left_on_drained_store", world.peers_on(1), 0, true),
        goal("badly_spread", world.badly_spread() as u64, 0, true),
        goal("bytes_per_region", bytes, 1024, true),
    ]
    .iter()
    .all(|met| *met)
}

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let (stores, regions) = match numbers.as_slice() {
        [] => (100, 1_000_000),
        [stores, regions] if *stores >= 6 && *regions >= 1 => (*stores, *regions as usize),
        _ => {
            eprintln!("placement: wanted nothing, or a number of stores (6 at least) and one of regions");
            return ExitCode::from(2);
        }
    };
    ExitCode::from(u8::from(!run(stores, regions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time stands still: what is asserted does not depend on the machine.
    fn world(stores: u64, filled: u64, regions: usize) -> World {
        let mut world = World::new(stores, filled, regions, || MonoTime(0));
        world.report_all();
        world.limit(ARRIVING_MAX);
        world.all_stores_heartbeat();
        world
    }

    #[test]
    fn ten_stores_come_to_rest_with_few_moves() {
        let mut world = world(10, 9, 10_000);
        let grown = come_to_rest(&mut world).expect("it comes to rest");
        let (weight, leaders) = unevenness(&world);
        assert!(weight <= 10 && leaders <= 15, "{weight}% and {leaders}% above the mean");
        assert!(grown.needed > 1000, "{grown:?}");
        assert!(grown.peers_added <= grown.needed + grown.needed / 10, "{grown:?}");
        assert!(grown.rounds <= 400, "{grown:?}");

        let leaving = world.peers_on(1);
        world.change(Kind::DrainStore(1));
        let drained = come_to_rest(&mut world).expect("it comes to rest");
        assert_eq!((world.peers_on(1), world.badly_spread()), (0, 0));
        assert!(
            drained.peers_added <= leaving + leaving / 10,
            "{leaving} had to go: {drained:?}"
        );
        assert!(!world.stores().any(|store| store == 1), "an empty store is removed");
    }

    #[test]
    fn the_same_world_takes_the_same_moves() {
        let run = || {
            let mut world = world(7, 6, 500);
            come_to_rest(&mut world).expect("it comes to rest");
            (world.counts, world.loads())
        };
        assert_eq!(run(), run());
    }
}
