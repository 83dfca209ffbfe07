//! Lists that only grow: what every read of a list must hold, whoever appended.
//!
//! For each list: nothing stands there that was never appended; nothing stands there twice; of any two reads one continues the
//! other; a read that began after another had ended is at least as long; an element acknowledged before a read began is in it;
//! and elements stand in the order in which their appends followed each other in real time (so each client's own order is kept).

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, by_key};
use crate::history::{Op, Operation, Outcome};

/// Checks every list of a history; the first fault found is returned.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    by_key(operations)
        .into_iter()
        .try_for_each(|(key, operations)| List::new(key, &operations).check())
}

struct List<'a> {
    key: &'a str,
    /// By element.
    appends: BTreeMap<&'a str, &'a Operation>,
    /// Known reads, in the order in which they began.
    reads: Vec<(&'a Operation, &'a [String])>,
}

impl<'a> List<'a> {
    fn new(key: &'a str, operations: &[&'a Operation]) -> List<'a> {
        let mut list = List {
            key,
            appends: BTreeMap::new(),
            reads: Vec::new(),
        };
        for &operation in operations {
            match &operation.op {
                Op::Append { element, .. } => drop(list.appends.insert(element.as_str(), operation)),
                Op::List { elements, .. } if operation.outcome == Outcome::Ok => {
                    list.reads.push((operation, elements.as_slice()));
                }
                _ => {}
            }
        }
        list
    }

    fn check(&self) -> Result<(), Violation> {
        let Some((_, longest)) = self.reads.iter().max_by_key(|(_, elements)| elements.len()) else {
            return Ok(());
        };
        self.check_elements(longest)?;
        for (_, elements) in &self.reads {
            if let Some(place) = (0..elements.len()).find(|&place| elements[place] != longest[place]) {
                return Err(Violation::Diverged {
                    key: self.key.into(),
                    place,
                });
            }
        }
        self.check_order(longest)?;
        self.check_growth()?;
        self.reads
            .iter()
            .try_for_each(|&(read, elements)| self.check_none_lost(read, elements))
    }

    /// The longest read speaks for all, once all others are known to be its prefixes.
    fn check_elements(&self, elements: &[String]) -> Result<(), Violation> {
        let mut seen = BTreeSet::new();
        for element in elements {
            let Some(append) = self.appends.get(element.as_str()) else {
                return Err(Violation::NeverWritten {
                    key: self.key.into(),
                    value: element.clone(),
                });
            };
            if !seen.insert(element) {
                return Err(Violation::Twice {
                    key: self.key.into(),
                    element: element.clone(),
                });
            }
            // Read before its append was called: as impossible as never written.
            let first_read = self
                .reads
                .iter()
                .filter(|(_, read)| read.contains(element))
                .map(|(read, _)| read.returned)
                .min();
            if first_read.is_some_and(|returned| returned < append.called) {
                return Err(Violation::NeverWritten {
                    key: self.key.into(),
                    value: element.clone(),
                });
            }
        }
        Ok(())
    }

    /// If one append ended before another was called, its element stands before the other's.
    fn check_order(&self, elements: &[String]) -> Result<(), Violation> {
        let mut latest_call: Option<(u64, &str)> = None;
        for element in elements {
            let append = self.appends[element.as_str()];
            match latest_call {
                Some((called, before)) if append.returned < called => {
                    let (first, second) = (element.clone(), before.to_string());
                    return Err(Violation::OutOfOrder {
                        key: self.key.into(),
                        first,
                        second,
                    });
                }
                Some((called, _)) if called >= append.called => {}
                _ => latest_call = Some((append.called, element)),
            }
        }
        Ok(())
    }

    fn check_growth(&self) -> Result<(), Violation> {
        let mut ended: Vec<_> = self
            .reads
            .iter()
            .map(|(read, elements)| (read.returned, elements.len()))
            .collect();
        ended.sort_unstable();
        let mut ended = ended.into_iter().peekable();
        let mut earlier = 0;
        for (read, elements) in &self.reads {
            while let Some((_, len)) = ended.next_if(|&(returned, _)| returned < read.called) {
                earlier = len.max(earlier);
            }
            if elements.len() < earlier {
                return Err(Violation::WentBack {
                    key: self.key.into(),
                    earlier,
                    later: elements.len(),
                });
            }
        }
        Ok(())
    }

    fn check_none_lost(&self, read: &Operation, elements: &[String]) -> Result<(), Violation> {
        let present: BTreeSet<_> = elements.iter().map(String::as_str).collect();
        let due = self.appends.iter().filter(|(_, append)| append.returned < read.called);
        for (&element, _) in due {
            if !present.contains(element) {
                return Err(Violation::Lost {
                    key: self.key.into(),
                    element: element.into(),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(process: u64, element: &str, called: u64, returned: u64) -> Operation {
        let outcome = if returned == u64::MAX { Outcome::Unknown } else { Outcome::Ok };
        Operation {
            process,
            op: Op::Append {
                key: "l".into(),
                element: element.into(),
            },
            called,
            returned,
            outcome,
        }
    }

    fn list(elements: &str, called: u64, returned: u64) -> Operation {
        let elements = elements.split_whitespace().map(String::from).collect();
        Operation {
            process: 9,
            op: Op::List {
                key: "l".into(),
                elements,
            },
            called,
            returned,
            outcome: Outcome::Ok,
        }
    }

    const NEVER: u64 = u64::MAX;

    #[test]
    fn good_histories_pass() {
        let appends = [
            append(1, "a", 0, 3),
            append(2, "b", 1, 4),
            append(1, "c", 5, 6),
            append(3, "u", 2, NEVER),
        ];
        for reads in [
            vec![list("", 0, 10)],
            vec![list("a", 1, 2), list("a b", 5, 6), list("a b c", 7, 8)],
            vec![list("b a c", 7, 8)],
            // the unknown one came late, or never
            vec![list("b a c", 7, 8), list("b a c u", 7, 9)],
            vec![list("u b a c", 7, 8)],
        ] {
            let mut operations = appends.to_vec();
            operations.extend(reads.clone());
            assert_eq!(check(&operations), Ok(()), "{reads:?}");
        }
    }

    #[test]
    fn bad_histories_are_caught() {
        let appends = [
            append(1, "a", 0, 3),
            append(2, "b", 1, 4),
            append(1, "c", 5, 6),
            append(3, "u", 2, NEVER),
        ];
        let verdict = |reads: &[Operation]| {
            let mut operations = appends.to_vec();
            operations.extend(reads.iter().cloned());
            check(&operations).unwrap_err()
        };
        assert!(matches!(verdict(&[list("a b", 7, 8)]), Violation::Lost { element, .. } if element == "c"));
        assert!(matches!(verdict(&[list("a b x", 7, 8)]), Violation::NeverWritten { value, .. } if value == "x"));
        assert!(matches!(verdict(&[list("a b c a", 7, 8)]), Violation::Twice { element, .. } if element == "a"));
        assert!(matches!(verdict(&[list("a c b", 7, 8)]), Violation::OutOfOrder { .. }));
        assert!(matches!(verdict(&[list("c a b", 7, 8)]), Violation::OutOfOrder { .. }));
        assert!(matches!(
            verdict(&[list("a b c", 7, 8), list("b a c", 7, 8)]),
            Violation::Diverged { place: 0, .. }
        ));
        assert!(matches!(
            verdict(&[list("a b c u", 7, 8), list("a b c", 9, 10)]),
            Violation::WentBack { .. }
        ));
        assert!(matches!(verdict(&[list("a b c", 3, 4)]), Violation::NeverWritten { value, .. } if value == "c"));
    }

    #[test]
    fn a_read_of_nothing_after_an_acknowledged_append_is_caught() {
        let operations = [append(1, "a", 0, 1), list("", 2, 3)];
        assert!(matches!(check(&operations), Err(Violation::Lost { .. })));
    }
}
