//! What a store must still know after a fault: each key's last acknowledged value, and the last one that may have arrived.

use std::collections::BTreeMap;

/// Of one key: values are numbers that only grow, and a writer sends the next only after the last one's outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    /// Highest number whose write was answered with success; 0 for none.
    acknowledged: u64,
    /// Highest number ever sent.
    sent: u64,
}

/// All keys that one writer owns.
#[derive(Debug, Default)]
pub struct Model {
    keys: BTreeMap<Vec<u8>, Known>,
    pub acknowledged: u64,
}

/// A read that contradicts what was acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong(pub String);

impl Model {
    /// Number of the value to send next for `key`.
    pub fn next(&mut self, key: &[u8]) -> u64 {
        let known = self.keys.entry(key.to_vec()).or_default();
        known.sent += 1;
        known.sent
    }

    /// The write of `number` was answered with success.
    pub fn acknowledge(&mut self, key: &[u8], number: u64) {
        let known = self.keys.get_mut(key).expect("sent before acknowledged");
        assert!(
            number > known.acknowledged && number <= known.sent,
            "number {number} was not sent: {known:?}"
        );
        known.acknowledged = number;
        self.acknowledged += 1;
    }

    pub fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.keys.keys()
    }

    /// Compares a read with what must be there. What is read is then as good as acknowledged: it must not vanish later.
    pub fn check(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), Wrong> {
        let known = self.keys.get_mut(key).expect("only known keys are read");
        let name = String::from_utf8_lossy(key);
        let number = match value {
            None => 0,
            Some(value) => {
                parse(key, value).ok_or_else(|| Wrong(format!("{name}: value was never written: {} bytes", value.len())))?
            }
        };
        if number < known.acknowledged {
            return Err(Wrong(format!(
                "{name}: write {} was acknowledged, {number} is there: lost",
                known.acknowledged
            )));
        }
        if number > known.sent {
            return Err(Wrong(format!("{name}: {number} is there, but only {} were sent", known.sent)));
        }
        known.acknowledged = number;
        Ok(())
    }
}

/// The value of `number`: tells key and number, then bytes that follow from both, so that a torn or swapped value shows.
pub fn value_of(key: &[u8], number: u64, bytes: usize) -> Vec<u8> {
    let mut value = format!("{}={number} ", String::from_utf8_lossy(key)).into_bytes();
    let mut state = key.iter().fold(number, |state, byte| {
        (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }) | 1;
    while value.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.push(state as u8);
    }
    value
}

/// Number of a value of `key`, if every byte of it is what was written.
fn parse(key: &[u8], value: &[u8]) -> Option<u64> {
    let rest = value.strip_prefix(key)?.strip_prefix(b"=")?;
    let digits = rest.split(|byte| *byte == b' ').next()?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value == value_of(key, number, value.len())).then_some(number)
}

#[test]
fn a_lost_write_a_torn_value_and_an_invented_one_are_found() {
    let mut model = Model::default();
    for _ in 0..3 {
        let number = model.next(b"k");
        if number < 3 {
            model.acknowledge(b"k", number);
        }
    }
    let value = |number| value_of(b"k", number, 100);
    assert!(model.check(b"k", Some(&value(1))).is_err(), "lost");
    assert!(model.check(b"k", None).is_err(), "lost");
    assert!(model.check(b"k", Some(&value(4))).is_err(), "never sent");
    assert!(model.check(b"k", Some(&value_of(b"j", 2, 100))).is_err(), "another key's");
    let mut torn = value(2);
    torn[60] ^= 1;
    assert!(model.check(b"k", Some(&torn)).is_err(), "torn");
    assert_eq!(model.check(b"k", Some(&value(2))), Ok(()));
    assert_eq!(
        model.check(b"k", Some(&value(3))),
        Ok(()),
        "unknown outcome may have happened"
    );
    assert!(
        model.check(b"k", Some(&value(2))).is_err(),
        "what was read once must not vanish"
    );
}
