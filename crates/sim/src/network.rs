//! The network: per message loss, delay, reordering and duplicates, per link partitions (both ways, one way, rings).
//!
//! Links are directed. Without reordering a link delivers in the order of sending, as a stream does; a message in flight when its
//! link is cut is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use base::MonoTime;

use crate::rng::Rng;

/// A process on the network: store, placement driver or client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    Store(u64),
    Pd,
    Client(u64),
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Store(id) => write!(f, "store{id}"),
            Node::Pd => write!(f, "pd"),
            Node::Client(id) => write!(f, "client{id}"),
        }
    }
}

/// Longer than an election takes: a late vote meets another term.
pub const LATE_MAX: Duration = Duration::from_secs(3);

/// How bad the network is.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    pub loss: f64,
    pub delay_min: Duration,
    /// Mean of what is added to `delay_min`.
    pub delay_mean: Duration,
    /// Probability that a message overtakes or is overtaken; zero keeps links in order.
    pub reorder: f64,
    /// Probability that a message comes up to [`LATE_MAX`] late, after all that were sent behind it.
    pub late: f64,
    /// Probability that a message between stores arrives twice.
    pub duplicate: f64,
}

impl NetworkOptions {
    /// A local network on a good day.
    pub fn healthy() -> NetworkOptions {
        NetworkOptions {
            loss: 0.0,
            delay_min: Duration::from_micros(100),
            delay_mean: Duration::from_micros(200),
            reorder: 0.0,
            late: 0.0,
            duplicate: 0.0,
        }
    }
}

/// A shape of cut among stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Two groups that do not hear each other.
    Halves,
    /// One group hears the other, but is not heard.
    OneWay,
    /// Everyone hears only the neighbours on a ring.
    Ring,
    /// One store hears nobody and is not heard.
    Isolate,
}

pub struct Network {
    rng: Rng,
    pub options: NetworkOptions,
    cut: BTreeSet<(Node, Node)>,
    /// When the last message of a link arrives.
    last: BTreeMap<(Node, Node), MonoTime>,
    pub lost: u64,
    pub duplicated: u64,
}

impl Network {
    pub fn new(rng: Rng, options: NetworkOptions) -> Network {
        Network {
            rng,
            options,
            cut: BTreeSet::new(),
            last: BTreeMap::new(),
            lost: 0,
            duplicated: 0,
        }
    }

    /// When a message sent now arrives: never, once or twice. `repeatable` says whether the message may be duplicated.
    pub fn send(&mut self, now: MonoTime, from: Node, to: Node, repeatable: bool) -> Vec<MonoTime> {
        if self.rng.chance(self.options.loss) || !self.connected(from, to) {
            self.lost += 1;
            return Vec::new();
        }
        let mut arrivals = vec![self.arrival(now, from, to)];
        if repeatable && self.rng.chance(self.options.duplicate) {
            self.duplicated += 1;
            arrivals.push(self.arrival(now, from, to));
        }
        arrivals
    }

    fn arrival(&mut self, now: MonoTime, from: Node, to: Node) -> MonoTime {
        let mut at = now + self.options.delay_min + self.rng.exponential(self.options.delay_mean);
        let late = self.rng.chance(self.options.late);
        if late {
            at = at + self.rng.span(Duration::ZERO, LATE_MAX);
        }
        if late || self.rng.chance(self.options.reorder) {
            return at;
        }
        let last = self.last.entry((from, to)).or_default();
        *last = at.max(*last);
        *last
    }

    /// Whether a message from `from` reaches `to` at this time.
    pub fn connected(&self, from: Node, to: Node) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// Cuts links among `nodes`, in addition to what is cut already. `nodes` has at least two members.
    pub fn cut(&mut self, shape: Cut, nodes: &[Node]) {
        let mut nodes = nodes.to_vec();
        self.rng.shuffle(&mut nodes);
        let split = match shape {
            Cut::Isolate => 1,
            _ => 1 + self.rng.below(nodes.len() - 1),
        };
        let (left, right) = nodes.split_at(split);
        match shape {
            Cut::Halves | Cut::Isolate => self.separate(left, right),
            Cut::OneWay => self.silence(left, right),
            Cut::Ring => {
                let count = nodes.len();
                for (at, &from) in nodes.iter().enumerate() {
                    let neighbours = [nodes[(at + 1) % count], nodes[(at + count - 1) % count]];
                    let far = nodes.iter().filter(|&&to| to != from && !neighbours.contains(&to));
                    self.cut.extend(far.map(|&to| (from, to)));
                }
            }
        }
    }

    /// Cuts both ways between two groups.
    pub fn separate(&mut self, left: &[Node], right: &[Node]) {
        self.silence(left, right);
        self.silence(right, left);
    }

    /// Cuts the way from `from` to `to`.
    pub fn silence(&mut self, from: &[Node], to: &[Node]) {
        self.cut.extend(from.iter().flat_map(|&a| to.iter().map(move |&b| (a, b))));
    }

    /// Mends one cut link, chosen at random ("swizzle": links come back one by one); false when none is cut.
    pub fn mend_one(&mut self) -> bool {
        let cut: Vec<_> = self.cut.iter().copied().collect();
        if cut.is_empty() {
            return false;
        }
        self.cut.remove(self.rng.pick(&cut))
    }

    /// Mends every link; whether any was cut.
    pub fn mend_all(&mut self) -> bool {
        !std::mem::take(&mut self.cut).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [Node; 5] = [Node::Store(1), Node::Store(2), Node::Store(3), Node::Store(4), Node::Store(5)];

    fn network(change: impl FnOnce(&mut NetworkOptions)) -> Network {
        let mut options = NetworkOptions::healthy();
        change(&mut options);
        Network::new(Rng::stream(1, "network"), options)
    }

    #[test]
    fn a_link_keeps_order_unless_told_to_reorder() {
        let arrivals = |reorder| {
            let mut network = network(|options| options.reorder = reorder);
            let times = (0..200).flat_map(|n| network.send(MonoTime(n * 1000), NODES[0], NODES[1], true));
            times.collect::<Vec<_>>()
        };
        assert!(arrivals(0.0).is_sorted());
        assert!(!arrivals(1.0).is_sorted());
    }

    #[test]
    fn loss_and_duplicates_follow_their_rates() {
        let mut network = network(|options| (options.loss, options.duplicate) = (0.3, 0.2));
        let arrived: usize = (0..10_000)
            .map(|_| network.send(MonoTime(0), NODES[0], NODES[1], true).len())
            .sum();
        assert!((6_800..7_200).contains(&(10_000 - network.lost)), "lost {}", network.lost);
        assert_eq!(arrived as u64, 10_000 - network.lost + network.duplicated);
        assert!(
            (1_200..1_600).contains(&network.duplicated),
            "duplicated {}",
            network.duplicated
        );
        network.options.loss = 0.0;
        assert_eq!(network.send(MonoTime(0), NODES[0], NODES[1], false).len(), 1);
    }

    #[test]
    fn cuts_have_their_shapes_and_mend() {
        let links = |network: &Network| {
            let all = NODES
                .iter()
                .flat_map(|&a| NODES.iter().map(move |&b| (a, b)))
                .filter(|(a, b)| a != b);
            all.filter(|&(a, b)| !network.connected(a, b)).collect::<BTreeSet<_>>()
        };
        let mut network = network(|_| {});
        network.cut(Cut::Isolate, &NODES);
        assert_eq!(links(&network).len(), 8);
        assert!(network.mend_all());

        network.cut(Cut::Ring, &NODES);
        assert_eq!(links(&network).len(), 10);
        assert!(
            NODES
                .iter()
                .all(|&a| NODES.iter().filter(|&&b| a != b && network.connected(a, b)).count() == 2)
        );
        network.mend_all();

        network.cut(Cut::OneWay, &NODES);
        let cut = links(&network);
        assert!(!cut.is_empty() && cut.iter().all(|&(a, b)| !cut.contains(&(b, a))));
        network.mend_all();

        network.cut(Cut::Halves, &NODES);
        let cut = links(&network);
        assert!(!cut.is_empty() && cut.iter().all(|&(a, b)| cut.contains(&(b, a))));
        let mended = std::iter::from_fn(|| network.mend_one().then_some(())).count();
        assert_eq!(mended, cut.len());
        assert!(links(&network).is_empty() && !network.mend_all());
    }
}
