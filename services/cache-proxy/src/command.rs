//! The table of commands, read from `commands/redis.tsv`: arity, flags, where keys are, and what the proxy does with each.
//!
//! A backend's `COMMAND` answer extends it for modules ([`Table::extend`]). Nothing in the code names a command to find its keys.

use std::fmt::Write as _;
use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashMap;

use crate::resp::number;
use crate::resp::reply::Value;
use crate::resp::request::Arg;

const REDIS: &str = include_str!("../commands/redis.tsv");

/// Longest name that is looked up, `command|subcommand`.
const NAME_MAX: usize = 64;

/// What the proxy does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    /// Sent to the server of its keys, which must be one.
    Key,
    /// Sent to any server.
    Any,
    /// Split by server; the lists of values are joined in the order of keys.
    SplitList,
    /// Split by server; `OK` if all say so.
    SplitOk,
    /// Split by server; numbers are added.
    SplitSum,
    /// Answered by the proxy.
    Local,
    /// Waits at the server, so on a connection of the client's own.
    Block,
    /// Part of a transaction.
    Txn,
    /// Subscriptions.
    PubSub,
    /// Sends a message to the server of subscriptions.
    Publish,
    /// Asks the server of subscriptions.
    PubSubInfo,
    /// The stream of all requests.
    Monitor,
    /// In admin mode, sent to every server: all must say `OK`.
    FanOk,
    /// In admin mode, sent to every server: numbers are added.
    FanSum,
    /// In admin mode, sent to every server: lists are joined.
    FanJoin,
    /// In admin mode, sent to every server; the first answer counts, an error of any before it.
    FanFirst,
    /// In admin mode, walks server after server.
    Scan,
    /// Cannot work through a proxy.
    Refuse,
}

const HANDLINGS: &[(&str, Handling, &str)] = &[
    ("key", Handling::Key, "to the server of its keys"),
    ("any", Handling::Any, "to any server"),
    ("split-list", Handling::SplitList, "split by server, values joined in order"),
    ("split-ok", Handling::SplitOk, "split by server"),
    ("split-sum", Handling::SplitSum, "split by server, counts added"),
    ("local", Handling::Local, "answered by the proxy"),
    ("block", Handling::Block, "on a connection of the client's own"),
    ("txn", Handling::Txn, "transaction on a connection of the client's own"),
    ("pubsub", Handling::PubSub, "subscription on a connection of the client's own"),
    ("publish", Handling::Publish, "to the server of subscriptions"),
    ("pubsub-info", Handling::PubSubInfo, "to the server of subscriptions"),
    (
        "monitor",
        Handling::Monitor,
        "on a connection of the client's own; admin mode, one server",
    ),
    ("fan-ok", Handling::FanOk, "admin mode: to every server"),
    ("fan-sum", Handling::FanSum, "admin mode: to every server, counts added"),
    ("fan-join", Handling::FanJoin, "admin mode: to every server, lists joined"),
    ("fan-script", Handling::FanFirst, "admin mode: to every server"),
    ("fan-config", Handling::FanFirst, "admin mode: to every server"),
    ("scan", Handling::Scan, "admin mode: server after server"),
    ("refuse", Handling::Refuse, "refused"),
];

/// Where keys begin.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Begin {
    Index(usize),
    /// After a word, looked for from an argument on; backwards from the end if negative.
    Word(Vec<u8>, i64),
}

/// Which arguments from there on are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follow {
    /// To `last` (from the first key, or from the end if negative) by `step`; of those the first 1/`limit`.
    Range { last: i64, step: usize, limit: usize },
    /// As many as the argument `count` tells, from `first` on by `step`.
    Count { count: usize, first: usize, step: usize },
}

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    begin: Begin,
    follow: Follow,
}

/// Facts of a command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Lower case; a subcommand as `command|subcommand`.
    pub name: String,
    /// Number of arguments with the name; negative: at least.
    pub arity: i64,
    pub is_write: bool,
    pub is_read: bool,
    pub handling: Handling,
    /// Groups such as `string`, by commas.
    pub groups: String,
    keys: Vec<KeySpec>,
    /// The one plain key at argument 1, by far the usual case.
    is_first_key: bool,
}

impl Command {
    /// Whether `count` arguments, the name included, are as many as it takes.
    pub fn takes(&self, count: usize) -> bool {
        let count = count as i64;
        if self.arity < 0 {
            count >= -self.arity
        } else {
            count == self.arity
        }
    }

    /// Whether it reads and does not write: what a replica may answer.
    pub fn is_readonly(&self) -> bool {
        self.is_read && !self.is_write
    }

    /// How many arguments one key of a split command takes: 2 for pairs of key and value.
    pub fn split_step(&self) -> usize {
        match self.keys.first().map(|spec| spec.follow) {
            Some(Follow::Range { step, .. }) => step,
            _ => 1,
        }
    }

    /// First key, last key and step, as `COMMAND` tells them; zeros if they are elsewhere.
    pub fn key_range(&self) -> (i64, i64, i64) {
        match self.keys.first() {
            Some(KeySpec {
                begin: Begin::Index(first),
                follow:
                    Follow::Range {
                        last,
                        step,
                        limit: 0 | 1,
                    },
            }) => {
                let first = *first as i64;
                (first, if *last < 0 { *last } else { first + last }, *step as i64)
            }
            _ => (0, 0, 0),
        }
    }

    /// Puts the indexes of the keys of a request into `found`. The error tells what does not add up.
    pub fn keys(&self, request: &[u8], args: &[Arg], found: &mut Vec<u32>) -> Result<(), &'static str> {
        found.clear();
        if self.is_first_key {
            found.push(1);
            return Ok(());
        }
        for spec in &self.keys {
            spec.find(request, args, found)?;
        }
        Ok(())
    }

    /// Whether it waits for data: unless it has no option to (`BLOCK`), always.
    pub fn blocks(&self, request: &[u8], args: &[Arg]) -> bool {
        let waits_if_asked = self.keys.iter().any(|spec| matches!(spec.begin, Begin::Word(..)));
        !waits_if_asked || args.iter().skip(1).any(|arg| arg.of(request).eq_ignore_ascii_case(b"block"))
    }
}

impl KeySpec {
    fn find(&self, request: &[u8], args: &[Arg], found: &mut Vec<u32>) -> Result<(), &'static str> {
        let Some(begin) = self.begin(request, args) else {
            return Ok(());
        };
        let count = args.len();
        match self.follow {
            Follow::Range { last, step, limit } => {
                let mut end = if last < 0 {
                    count as i64 + last
                } else {
                    (begin as i64) + last
                };
                if limit > 1 {
                    end = begin as i64 + (end - begin as i64 + 1) / limit as i64 - 1;
                }
                let end = usize::try_from(end).unwrap_or(0).min(count.saturating_sub(1));
                if begin <= end {
                    found.extend((begin..=end).step_by(step.max(1)).map(|at| at as u32));
                }
            }
            Follow::Count { count: at, first, step } => {
                let told = args.get(begin + at).and_then(|arg| number(arg.of(request)));
                let keys = told.and_then(|told| usize::try_from(told).ok());
                let keys = keys.ok_or("value is not an integer or out of range")?;
                if keys > count || begin + first + keys * step.max(1) > count + step.max(1) - 1 {
                    return Err("Number of keys can't be greater than number of args");
                }
                found.extend((0..keys).map(|key| (begin + first + key * step.max(1)) as u32));
            }
        }
        Ok(())
    }

    fn begin(&self, request: &[u8], args: &[Arg]) -> Option<usize> {
        match &self.begin {
            Begin::Index(at) => (*at < args.len()).then_some(*at),
            Begin::Word(word, from) => {
                let is_word = |arg: &Arg| arg.of(request).eq_ignore_ascii_case(word);
                let at = if *from < 0 {
                    let end = args.len().checked_sub(from.unsigned_abs() as usize)?;
                    args.get(1..=end)?.iter().rposition(is_word)? + 1
                } else {
                    let from = *from as usize;
                    args.get(from..)?.iter().position(is_word)? + from
                };
                (at + 1 < args.len()).then_some(at + 1)
            }
        }
    }

    fn parse(text: &str) -> Option<KeySpec> {
        let (begin, follow) = text.split_once('/')?;
        let begin = match begin.split_at_checked(1)? {
            ("i", at) => Begin::Index(at.parse().ok()?),
            ("k", rest) => {
                let (word, from) = rest.split_once(':')?;
                Begin::Word(word.as_bytes().to_vec(), from.parse().ok()?)
            }
            _ => return None,
        };
        let (kind, numbers) = follow.split_at_checked(1)?;
        let numbers: Vec<i64> = numbers.split(',').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [a, b, c] = numbers.as_slice() else { return None };
        let (b, c) = (usize::try_from(*b).ok()?, usize::try_from(*c).ok()?);
        let follow = match kind {
            "r" => Follow::Range {
                last: *a,
                step: b,
                limit: c,
            },
            "n" => Follow::Count {
                count: usize::try_from(*a).ok()?,
                first: b,
                step: c,
            },
            _ => return None,
        };
        Some(KeySpec { begin, follow })
    }
}

/// FNV-1a: names are short, and the table is ours, so nobody chooses what collides.
#[derive(Clone, Copy)]
struct NameHasher(u64);

impl Default for NameHasher {
    fn default() -> Self {
        NameHasher(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All commands by name.
#[derive(Clone, Debug)]
pub struct Table {
    commands: Vec<Command>,
    by_name: HashMap<Vec<u8>, Entry, BuildHasherDefault<NameHasher>>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: u16,
    /// Whether its second word belongs to the name.
    has_subcommands: bool,
}

impl Table {
    /// The table of Redis.
    pub fn redis() -> Table {
        let commands = REDIS.lines().filter(|line| !line.starts_with('#')).map(|line| {
            // The file is ours and a test reads it.
            parse_line(line).expect("a line of commands/redis.tsv")
        });
        let mut table = Table {
            commands: Vec::new(),
            by_name: HashMap::default(),
        };
        commands.for_each(|command| table.add(command));
        table
    }

    fn add(&mut self, command: Command) {
        let name = command.name.as_bytes().to_vec();
        if let Some(bar) = memchr::memchr(b'|', &name)
            && let Some(parent) = name.get(..bar).and_then(|parent| self.by_name.get_mut(parent))
        {
            parent.has_subcommands = true;
        }
        let at = self.commands.len() as u16;
        self.commands.push(command);
        self.by_name.insert(
            name,
            Entry {
                at,
                has_subcommands: false,
            },
        );
    }

    /// Adds what the answer to `COMMAND` tells of commands that are not known yet; those without keys are left out. Returns how many.
    pub fn extend(&mut self, answer: &Value) -> usize {
        let before = self.commands.len();
        for fact in answer.list() {
            if let Some(command) = from_fact(fact)
                && !self.by_name.contains_key(command.name.as_bytes())
                && self.commands.len() < usize::from(u16::MAX)
            {
                self.add(command);
            }
        }
        self.commands.len() - before
    }

    /// The command that a request names, and its index.
    pub fn find(&self, request: &[u8], args: &[Arg]) -> Option<(u16, &Command)> {
        let mut name = [0u8; NAME_MAX];
        let first = args.first()?.of(request);
        let room = name.get_mut(..first.len())?;
        room.copy_from_slice(first);
        room.make_ascii_lowercase();
        let entry = *self.by_name.get(&*room)?;
        if entry.has_subcommands
            && let Some(second) = args.get(1)
        {
            let second = second.of(request);
            let end = first.len() + 1 + second.len();
            if let Some(full) = name.get_mut(..end) {
                full[first.len()] = b'|';
                full[first.len() + 1..].copy_from_slice(second);
                full[first.len() + 1..].make_ascii_lowercase();
                if let Some(sub) = self.by_name.get(&*full) {
                    return Some((sub.at, self.commands.get(usize::from(sub.at))?));
                }
            }
        }
        Some((entry.at, self.commands.get(usize::from(entry.at))?))
    }

    /// By name, `command` or `command|subcommand`.
    pub fn named(&self, name: &str) -> Option<(u16, &Command)> {
        let entry = self.by_name.get(name.to_ascii_lowercase().as_bytes())?;
        Some((entry.at, self.commands.get(usize::from(entry.at))?))
    }

    /// All commands, by index.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }
}

fn parse_line(line: &str) -> Option<Command> {
    let mut columns = line.split('\t');
    let name = columns.next()?.to_owned();
    let arity = columns.next()?.parse().ok()?;
    let flags = columns.next()?;
    let keys = columns.next()?;
    let word = columns.next()?;
    let (_, handling, _) = HANDLINGS.iter().find(|(known, ..)| *known == word)?;
    let groups = columns.next()?.to_owned();
    let specs = keys.split(' ').filter(|spec| *spec != "-");
    let keys = specs.map(KeySpec::parse).collect::<Option<Vec<_>>>()?;
    let has = |flag| flags.split(',').any(|part| part == flag);
    Some(command(name, arity, (has("write"), has("read")), *handling, groups, keys))
}

fn command(
    name: String,
    arity: i64,
    (is_write, is_read): (bool, bool),
    handling: Handling,
    groups: String,
    keys: Vec<KeySpec>,
) -> Command {
    let plain = KeySpec {
        begin: Begin::Index(1),
        follow: Follow::Range {
            last: 0,
            step: 1,
            limit: 0,
        },
    };
    Command {
        name,
        arity,
        is_write,
        is_read,
        handling,
        groups,
        is_first_key: keys == [plain] && (arity >= 2 || arity <= -2),
        keys,
    }
}

/// One element of `COMMAND`: name, arity, flags, first key, last key, step.
fn from_fact(fact: &Value) -> Option<Command> {
    let [name, arity, flags, first, last, step, ..] = fact.list() else {
        return None;
    };
    let name = name.text()?.to_ascii_lowercase();
    let first = usize::try_from(first.integer()?).ok().filter(|first| *first > 0)?;
    let last = last.integer()?;
    let step = usize::try_from(step.integer()?).ok()?.max(1);
    let flags: Vec<_> = flags.list().iter().filter_map(Value::text).collect();
    let has = |flag: &str| flags.contains(&flag);
    let follow = Follow::Range {
        last: if last < 0 { last } else { last - first as i64 },
        step,
        limit: 0,
    };
    let handling = if has("blocking") { Handling::Block } else { Handling::Key };
    let begin = Begin::Index(first);
    Some(command(
        name,
        arity.integer()?,
        (has("write"), has("readonly")),
        handling,
        "module".into(),
        vec![KeySpec { begin, follow }],
    ))
}

/// The table as a page for users.
pub fn page() -> String {
    let mut page = String::from(
        "# Cache proxy: commands\n\n<!-- Made from services/cache-proxy/commands/redis.tsv; edit there. -->\n\n\
         What is not in this table is refused by name unless `learn-commands` finds it at a server; the connection stays. Arity counts the \
         name; negative: at least. *Ferrite*: also served by pools of a Ferrite cluster.\n\n\
         | command | arity | flags | group | what the proxy does |\n|---|---|---|---|---|\n",
    );
    for command in Table::redis().commands() {
        let what = HANDLINGS.iter().find(|(_, handling, _)| *handling == command.handling);
        let flags = match (command.is_write, command.is_read) {
            (true, _) => "write",
            (_, true) => "read",
            _ => "",
        };
        let ferrite = if crate::ferrite::serves(&command.name) {
            "; *Ferrite*"
        } else {
            ""
        };
        let groups = if command.groups == "-" { "" } else { &command.groups };
        let _written = writeln!(
            page,
            "| `{}` | {} | {flags} | {groups} | {}{ferrite} |",
            command.name.to_ascii_uppercase().replace('|', " "),
            command.arity,
            what.map_or("", |(.., what)| what),
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::request::{Found, Limits, RequestParser};
    use crate::resp::write;

    fn keys(words: &str) -> Result<Vec<String>, &'static str> {
        let words: Vec<_> = words.split(' ').map(str::as_bytes).collect();
        let mut request = Vec::new();
        write::request(&mut request, &words);
        let mut parser = RequestParser::default();
        let limits = Limits {
            args: 100,
            bytes: 10_000,
        };
        assert_eq!(parser.parse(&request, limits), Ok(Found::Request(request.len())));
        let table = Table::redis();
        let (_, command) = table.find(&request, parser.args()).expect("is known");
        assert!(command.takes(words.len()), "{words:?}");
        let mut found = Vec::new();
        command.keys(&request, parser.args(), &mut found)?;
        let text = |at: &u32| String::from_utf8_lossy(parser.args()[*at as usize].of(&request)).into_owned();
        Ok(found.iter().map(text).collect())
    }

    #[test]
    fn keys_are_found_by_their_specifications() {
        for (request, wanted) in [
            ("GET a", "a"),
            ("mget a b c", "a b c"),
            ("MSET a 1 b 2", "a b"),
            ("BITOP AND d a b", "d a b"),
            ("OBJECT encoding a", "a"),
            ("EVAL script 2 a b c", "a b"),
            ("EVAL script 0 x", ""),
            ("XREAD COUNT 2 STREAMS a b 0 0", "a b"),
            ("XREADGROUP GROUP g c STREAMS s >", "s"),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "d a b"),
            ("SORT a BY w STORE d", "a d"),
            ("BLPOP a b 0", "a b"),
            ("LMPOP 2 a b LEFT", "a b"),
            ("XGROUP CREATE s g $", "s"),
            ("MEMORY USAGE a", "a"),
            ("GEORADIUS g 1 2 3 m STORE d", "g d"),
            ("PING", ""),
        ] {
            assert_eq!(keys(request).map(|keys| keys.join(" ")), Ok(wanted.into()), "{request}");
        }
        assert!(keys("EVAL script x a").is_err());
        assert!(keys("EVAL script 9 a").is_err());
        assert!(keys("EVAL script -1 a").is_err());
    }

    #[test]
    fn a_module_is_learnt() {
        let mut table = Table::redis();
        let answer = Value::read(b"*2\r\n*6\r\n$8\r\njson.get\r\n:-2\r\n*1\r\n+readonly\r\n:1\r\n:1\r\n:1\r\n*6\r\n$3\r\nget\r\n:9\r\n*0\r\n:1\r\n:1\r\n:1\r\n");
        assert_eq!(table.extend(&answer.expect("reads")), 1);
        let (_, command) = table.named("JSON.GET").expect("was learnt");
        assert!(command.is_readonly() && command.takes(2));
        assert_eq!(table.named("get").map(|(_, get)| get.arity), Some(2));
    }

    #[test]
    fn the_page_is_fresh() {
        let path = std::path::Path::new("../../docs/cache-proxy-commands.md");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, page()).expect("writes");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == page(),
            "docs/cache-proxy-commands.md is stale; run: BLESS=1 cargo test -p ferrite-cache-proxy --lib page"
        );
    }
}
