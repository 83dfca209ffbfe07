//! The placement driver's members in a world of their own: three machines with their raft groups, networks, disks and clocks that fail, and
//! clients that ask any of them for timestamps and ids.
//!
//! Judged from outside: timestamps rise in the order of real time, whoever gave them; no id is given twice; after healing a member leads and
//! all hold the same state.

mod clients;
mod member;

use std::collections::BTreeMap;
use std::time::Duration;

use base::MonoTime;
use pd::group::TICK;
use pd::log::Stored;
use pd::{MemberId, Reply, Request};
use proto::ferrite_pd::{GroupMessage, Member as Record};

use self::clients::{Ask, Client};
use self::member::{Member, Out};
use crate::check;
use crate::counts::Counts;
use crate::disk::{Disk, DiskOptions};
use crate::history::History;
use crate::network::{Cut, Network, NetworkOptions, Node};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::run::{FailureReport, Report, Task};
use crate::trace::Trace;

const MEMBERS: u64 = 3;
const CLIENTS: u64 = 5;
const BEGIN: MonoTime = MonoTime(1_000_000_000_000);
const WALL_BEGIN_MS: u64 = 1_700_000_000_000;
/// How long faults come, and how long everything may take to go on after them.
const CHAOS: Duration = Duration::from_secs(40);
const HEAL: Duration = Duration::from_secs(20);
/// Mean time between faults of a kind.
const FAULT_EVERY: Duration = Duration::from_secs(4);

/// What members and clients say.
#[derive(Clone, Debug)]
enum Message {
    Group(Box<GroupMessage>),
    Ask { id: u64, request: Request },
    Answer { id: u64, reply: Result<Reply, pd::Error> },
}

enum Event {
    Deliver { from: Node, to: Node, message: Message },
    Tick { member: u64, life: u64 },
    Synced { member: u64, life: u64, number: u64 },
    Next { client: u64 },
    Late { client: u64, id: u64 },
    Fault(Fault),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Some,
    Restart(u64),
    Resume(u64),
    Mend,
    DiskRecovers(u64),
}

/// A member's process with its machine.
struct Slot {
    life: u64,
    disk: Disk,
    stored: Stored,
    /// None while it is down.
    running: Option<Member>,
    /// What came while the process was stopped.
    inbox: Option<Vec<(Node, Message)>>,
    wall_off_ms: i64,
}

struct World {
    seed: u64,
    queue: Queue<Event>,
    network: Network,
    slots: BTreeMap<u64, Slot>,
    clients: Vec<Client>,
    history: History,
    ids: BTreeMap<u64, u64>,
    id_twice: Option<u64>,
    counts: Counts,
    trace: Trace,
    rng: Rng,
    chaos: bool,
    next_process: u64,
}

/// Runs a seed.
pub fn run(task: Task) -> (Report, History) {
    let mut world = World::new(task.seed, task.trace);
    let failure = world.live().err().map(|what| FailureReport {
        step: world.queue.handled(),
        what,
    });
    let report = Report {
        seed: task.seed,
        failure,
        hash: world.trace.hash(),
        virtual_time: world.queue.now().since(BEGIN),
        counts: std::mem::take(&mut world.counts),
    };
    (report, world.history)
}

fn record(id: u64) -> Record {
    let url = vec![format!("http://pd-{id}")];
    Record {
        id,
        name: format!("pd-{id}"),
        peer_urls: url.clone(),
        client_urls: url,
        is_learner: false,
    }
}

fn network_options(rng: &mut Rng) -> NetworkOptions {
    let mut options = NetworkOptions::healthy();
    options.delay_mean = rng.span(Duration::from_micros(100), Duration::from_millis(20));
    if rng.chance(0.5) {
        options.loss = rng.unit() * 0.1;
    }
    if rng.chance(0.5) {
        (options.reorder, options.late, options.duplicate) = (rng.unit() * 0.3, rng.unit() * 0.02, rng.unit() * 0.1);
    }
    options
}

fn disk_options(rng: &mut Rng) -> DiskOptions {
    let mut options = DiskOptions::healthy();
    if rng.chance(0.5) {
        (options.stall, options.stall_mean) = (0.02, Duration::from_millis(500));
    }
    options
}

impl World {
    fn new(seed: u64, print: bool) -> World {
        let mut rng = Rng::stream(seed, "members");
        let founders: Vec<Record> = (1..=MEMBERS).map(record).collect();
        let disks = disk_options(&mut rng);
        let slot = |id: u64| Slot {
            life: 0,
            disk: Disk::new(Rng::stream(seed, &format!("disk-pd{id}")), disks.clone()),
            stored: Stored::founding(MemberId(id), founders.clone()),
            running: None,
            inbox: None,
            wall_off_ms: 0,
        };
        let options = network_options(&mut rng);
        let mut world = World {
            seed,
            queue: Queue::starting_at(BEGIN),
            network: Network::new(Rng::stream(seed, "network"), options),
            slots: (1..=MEMBERS).map(|id| (id, slot(id))).collect(),
            clients: (1..=CLIENTS).map(|id| Client::new(id, seed)).collect(),
            history: History::new(),
            ids: BTreeMap::new(),
            id_twice: None,
            counts: Counts::default(),
            trace: Trace::new(print),
            rng,
            chaos: true,
            next_process: CLIENTS + 1,
        };
        for id in 1..=MEMBERS {
            world.start(id);
        }
        for client in 1..=CLIENTS {
            world.queue.push(BEGIN, Event::Next { client });
        }
        world.after_exponential(FAULT_EVERY, Event::Fault(Fault::Some));
        world
    }

    fn live(&mut self) -> Result<(), String> {
        self.run_for(CHAOS)?;
        self.heal();
        self.run_for(HEAL / 2)?;
        let before: Vec<u64> = self.clients.iter().map(|client| client.done).collect();
        self.run_for(HEAL / 2)?;
        let stuck = self
            .clients
            .iter()
            .zip(before)
            .find(|(client, before)| client.done <= *before);
        if let Some((client, _)) = stuck {
            return Err(format!("no progress: client {} within {HEAL:?} after healing", client.id));
        }
        self.judge()
    }

    fn judge(&mut self) -> Result<(), String> {
        let operations = self.history.operations().map_err(|error| error.to_string())?;
        check::timestamp::check(&operations).map_err(|violation| violation.to_string())?;
        self.clients.iter_mut().for_each(|client| client.rest = true);
        self.run_for(Duration::from_secs(2))?;
        let states: Vec<_> = self
            .slots
            .values()
            .filter_map(|slot| slot.running.as_ref()?.state())
            .collect();
        match states.iter().all(|state| *state == states[0]) && states.len() as u64 == MEMBERS {
            true => Ok(()),
            false => Err("members hold different states".to_owned()),
        }
    }

    fn run_for(&mut self, span: Duration) -> Result<(), String> {
        let end = self.queue.now() + span;
        while let Some(event) = self.queue.pop(end) {
            self.handle(event);
            if let Some(id) = self.id_twice {
                return Err(format!("id {id} was given twice"));
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) {
        let now = self.queue.now();
        match event {
            Event::Deliver { from, to, message } => {
                if !self.network.connected(from, to) {
                    return;
                }
                self.trace.note(now, format_args!("{from}->{to} {message:?}"));
                match (to, message) {
                    (Node::Store(member), message) => self.member_message(member, from, message),
                    (Node::Client(client), Message::Answer { id, reply }) => self.on_answer(client, id, reply),
                    _ => {}
                }
            }
            Event::Tick { member, life } => self.on_tick(member, life),
            Event::Synced { member, life, number } => {
                if self.slots[&member].life == life {
                    self.trace.note(now, format_args!("pd{member} synced {number}"));
                    self.with_member(member, |running, now, wall, out| running.on_synced(now, wall, number, out));
                }
            }
            Event::Next { client } => self.begin(client),
            Event::Late { client, id } => self.on_late(client, id),
            Event::Fault(fault) => self.on_fault(fault),
        }
    }

    fn on_tick(&mut self, member: u64, life: u64) {
        if self.slots[&member].life != life {
            return;
        }
        self.queue.push(self.queue.now() + TICK, Event::Tick { member, life });
        if self.slots[&member].inbox.is_none() {
            self.trace.note(self.queue.now(), format_args!("pd{member} ticks"));
            self.with_member(member, |running, now, wall, out| running.on_tick(now, wall, out));
        }
    }

    fn member_message(&mut self, member: u64, from: Node, message: Message) {
        let slot = self.slots.get_mut(&member).expect("messages name members");
        if let Some(inbox) = &mut slot.inbox {
            return inbox.push((from, message));
        }
        self.with_member(member, |running, now, wall, out| {
            running.on_message(now, wall, from, message, out)
        });
    }

    /// Lets a running member do something, and carries out what comes of it.
    fn with_member(&mut self, member: u64, act: impl FnOnce(&mut Member, MonoTime, base::WallTime, &mut Out)) {
        let (now, mut out) = (self.queue.now(), Out::default());
        let wall = self.wall(member);
        let slot = self.slots.get_mut(&member).expect("members are never removed");
        let Some(running) = &mut slot.running else { return };
        act(running, now, wall, &mut out);
        let life = slot.life;
        for number in out.writes {
            let at = slot.disk.sync(now);
            self.queue.push(at, Event::Synced { member, life, number });
        }
        self.counts.add_many("pd_led", out.led);
        for (to, message) in out.send {
            self.send(Node::Store(member), to, message);
        }
    }

    fn wall(&self, member: u64) -> base::WallTime {
        let elapsed = self.queue.now().since(BEGIN).as_millis() as i64;
        base::WallTime((WALL_BEGIN_MS as i64 + elapsed + self.slots[&member].wall_off_ms) as u64)
    }

    fn send(&mut self, from: Node, to: Node, message: Message) {
        let repeatable = matches!(message, Message::Group(_));
        for at in self.network.send(self.queue.now(), from, to, repeatable) {
            let message = message.clone();
            self.queue.push(at, Event::Deliver { from, to, message });
        }
    }

    fn start(&mut self, id: u64) {
        let (now, seed) = (self.queue.now(), self.rng.seed());
        let slot = self.slots.get_mut(&id).expect("members are never removed");
        slot.running = Some(Member::new(&slot.stored, record(id), seed ^ self.seed, now));
        let life = slot.life;
        self.queue.push(now + TICK, Event::Tick { member: id, life });
        self.with_member(id, |running, now, wall, out| running.begin(now, wall, out));
    }

    fn crash(&mut self, id: u64) {
        let slot = self.slots.get_mut(&id).expect("members are never removed");
        let Some(running) = slot.running.take() else { return };
        slot.stored = running.crash(&mut self.rng, &mut self.counts);
        (slot.life, slot.inbox) = (slot.life + 1, None);
        slot.disk.reset();
        self.counts.add("pd_crash");
        self.trace.note(self.queue.now(), format_args!("pd{id} crashes"));
    }

    fn resume(&mut self, id: u64) {
        let slot = self.slots.get_mut(&id).expect("members are never removed");
        let Some(mut inbox) = slot.inbox.take() else { return };
        self.trace.note(self.queue.now(), format_args!("pd{id} resumes"));
        // Threads wake in any order: requests may be handled before the raft thread's turn.
        if self.rng.chance(0.7) {
            inbox.sort_by_key(|(_, message)| matches!(message, Message::Group(_)));
        }
        for (from, message) in inbox {
            self.member_message(id, from, message);
        }
    }

    fn on_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Some if self.chaos => {
                self.after_exponential(FAULT_EVERY, Event::Fault(Fault::Some));
                self.some_fault();
            }
            Fault::Some => {}
            Fault::Restart(id) => {
                if self.slots[&id].running.is_none() {
                    self.counts.add("pd_restart");
                    self.start(id);
                }
            }
            Fault::Resume(id) => self.resume(id),
            Fault::Mend => drop(self.network.mend_all()),
            Fault::DiskRecovers(id) => self.slots.get_mut(&id).expect("members are never removed").disk.slowness = 1,
        }
    }

    /// A member, more often the one that leads.
    fn pick(&mut self) -> u64 {
        let leads = |(id, slot): (&u64, &Slot)| slot.running.as_ref().filter(|running| running.leads()).map(|_| *id);
        let leaders: Vec<u64> = self.slots.iter().filter_map(leads).collect();
        match !leaders.is_empty() && self.rng.chance(0.6) {
            true => *self.rng.pick(&leaders),
            false => self.rng.between(1, MEMBERS),
        }
    }

    fn some_fault(&mut self) {
        let id = self.pick();
        let lasts = self.rng.span(Duration::from_millis(50), Duration::from_secs(4));
        match self.rng.below(7) {
            0 => {
                let all = self.rng.chance(0.2);
                for id in if all { (1..=MEMBERS).collect() } else { vec![id] } {
                    self.crash(id);
                    self.after(lasts, Event::Fault(Fault::Restart(id)));
                }
            }
            1 => {
                let slot = self.slots.get_mut(&id).expect("picked from the members");
                if slot.running.is_some() && slot.inbox.is_none() {
                    slot.inbox = Some(Vec::new());
                    self.counts.add("pd_pause");
                    self.after(lasts, Event::Fault(Fault::Resume(id)));
                }
            }
            2 | 3 => {
                // Clients go on to reach all members.
                let nodes: Vec<Node> = (1..=MEMBERS).map(Node::Store).collect();
                let cut = *self.rng.pick(&[Cut::Halves, Cut::OneWay, Cut::Isolate]);
                self.network.cut(cut, &nodes);
                self.counts.add("pd_partition");
                self.after(lasts, Event::Fault(Fault::Mend));
            }
            4 => {
                self.slots.get_mut(&id).expect("picked from the members").wall_off_ms =
                    self.rng.between(0, 7_200_000) as i64 - 3_600_000;
                self.counts.add("pd_clock_jump");
            }
            5 => {
                self.slots.get_mut(&id).expect("picked from the members").disk.slowness = self.rng.between(10, 200) as u32;
                self.after(lasts, Event::Fault(Fault::DiskRecovers(id)));
            }
            _ => {
                let to = MemberId(self.rng.between(1, MEMBERS));
                self.counts.add("pd_transfer_asked");
                self.with_member(id, |running, now, wall, out| running.transfer(now, wall, to, out));
            }
        }
    }

    fn heal(&mut self) {
        self.chaos = false;
        self.network.mend_all();
        self.network.options = NetworkOptions::healthy();
        for id in 1..=MEMBERS {
            let slot = self.slots.get_mut(&id).expect("members are never removed");
            (slot.disk.options, slot.disk.slowness) = (DiskOptions::healthy(), 1);
            self.on_fault(Fault::Restart(id));
            self.resume(id);
        }
    }

    fn after(&mut self, span: Duration, event: Event) {
        self.queue.push(self.queue.now() + span, event);
    }

    fn after_exponential(&mut self, mean: Duration, event: Event) {
        let span = self.rng.exponential(mean);
        self.after(span, event);
    }
}

/// What a client asks for.
fn request(ask: Ask) -> Request {
    match ask {
        Ask::Timestamp => Request::Tso { count: 1 },
        Ask::Ids => Request::AllocIds { count: 3 },
    }
}
