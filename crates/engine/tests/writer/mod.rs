//! The process that writes until it dies, and the state that it must have left.
#![allow(dead_code)] // each test binary uses a part

use std::io::{BufRead, Lines, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use engine::{Batch, Cf, Engine, FjallEngine, Op};

use crate::common::{Model, assert_same, small};

/// Key in the local family that each batch sets to its number.
const NUMBER: &[u8] = b"number";

/// The changes of batch `number`: over all families, some long, some deletes; follows from the number alone.
fn changes(number: u64) -> Batch {
    let mut random = number;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    let mut batch = Batch::new();
    for _ in 0..1 + next(6) {
        let cf = Cf::DATA[next(3) as usize];
        let key = format!("key{:03}", next(400));
        if next(5) == 0 {
            batch.delete(cf, key);
        } else {
            let len = if next(10) == 0 { next(9000) } else { next(200) };
            batch.put(cf, key, format!("{number}:{}", "v".repeat(len as usize)));
        }
    }
    batch.put(Cf::Local, NUMBER, number.to_be_bytes().to_vec());
    batch
}

fn number(engine: &dyn Engine) -> u64 {
    engine
        .get(Cf::Local, NUMBER)
        .unwrap()
        .map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().unwrap()))
}

/// Goes on writing where the directory stands, and prints the number of each batch that a sync answered for.
pub fn write_forever(dir: &Path) {
    let engine = FjallEngine::open(dir, &small()).unwrap();
    let mut at = number(&engine);
    println!("synced {at}");
    loop {
        at += 1;
        engine.write(changes(at)).unwrap();
        if at.is_multiple_of(7) || at % 50 < 3 {
            engine.sync().unwrap();
            println!("synced {at}");
            std::io::stdout().flush().unwrap();
        }
    }
}

/// Starts this binary as the writer over `dir`. It is silent: where its disk dies, it does too, loudly.
pub fn start(dir: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "child", "--nocapture"])
        .env("FERRITE_CRASH_DIR", dir);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

fn parse(line: &str) -> Option<u64> {
    line.rsplit_once("synced ")?.1.parse().ok()
}

/// Reads `count` acknowledgements; returns the last.
pub fn acknowledged(lines: &mut Lines<impl BufRead>, count: usize) -> u64 {
    let numbers = lines.by_ref().filter_map(|line| parse(&line.expect("the writer lives")));
    numbers.take(count).last().expect("the writer writes")
}

/// Reads what a dead writer still had printed.
pub fn last_of(lines: Lines<impl BufRead>) -> u64 {
    lines
        .map_while(Result::ok)
        .filter_map(|line| parse(&line))
        .last()
        .unwrap_or(0)
}

/// The engine must hold exactly the batches up to the number it tells; returns that.
pub fn check(engine: &dyn Engine, what: &str) -> u64 {
    let last = number(engine);
    let mut model = Model::default();
    for number in 1..=last {
        for op in changes(number).into_ops() {
            match op {
                Op::Put { cf, key, value } => drop(model[cf as usize].insert(key.to_vec(), value.to_vec())),
                Op::Delete { cf, key } => drop(model[cf as usize].remove(&key[..])),
            }
        }
    }
    assert_same(&*engine.snapshot(), &model, &format!("{what}, batches 1 to {last}"));
    last
}
