//! The log of a run: a running hash over every event handled, and on demand its text.
//!
//! Two runs of a seed are the same run exactly when their hashes are equal; the meta-test compares them.

use std::fmt;

use base::MonoTime;

/// Hashes lines, and prints them when asked to.
pub struct Trace {
    hash: u64,
    print: bool,
    line: String,
}

impl Trace {
    /// `print` writes every line to stderr as it comes.
    pub fn new(print: bool) -> Trace {
        Trace {
            hash: 0,
            print,
            line: String::new(),
        }
    }

    /// Notes that something happened.
    pub fn note(&mut self, now: MonoTime, what: fmt::Arguments<'_>) {
        use fmt::Write as _;
        self.line.clear();
        write!(self.line, "{} {what}", now.0).expect("writing to a String cannot fail");
        self.hash = (self.hash.rotate_left(5) ^ hash_words(self.line.as_bytes())).wrapping_mul(0x0000_0100_0000_01b3);
        self.tell(now, what);
    }

    /// Prints what helps a reader but is no event of its own; not part of the hash.
    pub fn tell(&self, now: MonoTime, what: fmt::Arguments<'_>) {
        if self.print {
            eprintln!("{:11.6} {what}", std::time::Duration::from_nanos(now.0).as_secs_f64());
        }
    }

    pub fn is_printing(&self) -> bool {
        self.print
    }

    /// Hash of everything noted so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// FNV-1a over words of eight bytes: the log is long, and only equality matters.
fn hash_words(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let hash = (&mut words).fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of eight bytes"));
        (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    });
    hash ^ crate::rng::fnv1a(words.remainder())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_of(lines: &[&str]) -> u64 {
        let mut trace = Trace::new(false);
        for (at, line) in lines.iter().enumerate() {
            trace.note(MonoTime(at as u64), format_args!("{line}"));
        }
        trace.hash()
    }

    #[test]
    fn every_line_and_its_place_counts() {
        let usual = hash_of(&["store1 starts", "client2 asks for a key", "x"]);
        assert_eq!(usual, hash_of(&["store1 starts", "client2 asks for a key", "x"]));
        assert_ne!(usual, hash_of(&["client2 asks for a key", "store1 starts", "x"]));
        assert_ne!(usual, hash_of(&["store1 starts", "client2 asks for a key", "y"]));
        assert_ne!(usual, hash_of(&["store1 starts", "client2 asks for b key", "x"]));
    }
}
