//! [`Buffer`]: what a transaction means to write: a plain value. Keys are in wire form.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::kvrpcpb;

use crate::Error;
use crate::keys::KeyRange;

/// What is to be done with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Put(Bytes),
    /// A put of a key that must not be there.
    Insert(Bytes),
    Delete,
    /// Nothing, but no other transaction may write it.
    Lock,
    /// Nothing, but it must not be there: inserted and deleted again.
    CheckNotExists,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffer(BTreeMap<Bytes, Op>);

impl Buffer {
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        let op = match self.0.get(&key) {
            Some(Op::Insert(_) | Op::CheckNotExists) => Op::Insert(value),
            _ => Op::Put(value),
        };
        self.0.insert(key, op);
    }

    /// Errors if this transaction has put the key there itself; what others did shows at commit.
    pub fn insert(&mut self, key: Bytes, value: Bytes) -> Result<(), Error> {
        let op = match self.0.get(&key) {
            Some(Op::Put(_) | Op::Insert(_)) => return Err(Error::AlreadyExists { key }),
            Some(Op::Delete) => Op::Put(value),
            Some(Op::Lock | Op::CheckNotExists) | None => Op::Insert(value),
        };
        self.0.insert(key, op);
        Ok(())
    }

    pub fn delete(&mut self, key: Bytes) {
        let op = match self.0.get(&key) {
            Some(Op::Insert(_) | Op::CheckNotExists) => Op::CheckNotExists,
            _ => Op::Delete,
        };
        self.0.insert(key, op);
    }

    pub fn lock(&mut self, key: Bytes) {
        self.0.entry(key).or_insert(Op::Lock);
    }

    /// What the transaction itself sees of a key; `None` if it must look at its snapshot.
    pub fn get(&self, key: &Bytes) -> Option<Option<Bytes>> {
        self.0.get(key).and_then(seen)
    }

    /// What the transaction itself sees of a range, in order.
    pub fn range(&self, range: &KeyRange) -> Vec<(Bytes, Option<Bytes>)> {
        let from = self.0.range::<Bytes, _>(&range.start..);
        let within = from.take_while(|(key, _)| range.end.is_empty() || **key < range.end);
        within.filter_map(|(key, op)| Some((key.clone(), seen(op)?))).collect()
    }

    pub fn mutations(self) -> impl Iterator<Item = kvrpcpb::Mutation> {
        self.0.into_iter().map(|(key, op)| {
            let (op, value) = match op {
                Op::Put(value) => (kvrpcpb::Op::Put, value),
                Op::Insert(value) => (kvrpcpb::Op::Insert, value),
                Op::Delete => (kvrpcpb::Op::Del, Bytes::new()),
                Op::Lock => (kvrpcpb::Op::Lock, Bytes::new()),
                Op::CheckNotExists => (kvrpcpb::Op::CheckNotExists, Bytes::new()),
            };
            kvrpcpb::Mutation {
                op: op.into(),
                key,
                value,
                ..Default::default()
            }
        })
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn seen(op: &Op) -> Option<Option<Bytes>> {
    match op {
        Op::Put(value) | Op::Insert(value) => Some(Some(value.clone())),
        Op::Delete | Op::CheckNotExists => Some(None),
        Op::Lock => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &[&str]) -> Option<Op> {
        let mut buffer = Buffer::default();
        for step in steps {
            match *step {
                "put" => buffer.put("k".into(), "p".into()),
                "insert" => buffer.insert("k".into(), "i".into()).ok()?,
                "delete" => buffer.delete("k".into()),
                "lock" => buffer.lock("k".into()),
                other => panic!("{other}"),
            }
        }
        buffer.0.remove(&Bytes::from("k"))
    }

    #[test]
    fn later_steps_keep_what_earlier_ones_demand() {
        let put = || Some(Op::Put("p".into()));
        let cases = [
            (&["lock", "put"][..], put()),
            (&["put", "lock"], put()),
            (&["put", "delete"], Some(Op::Delete)),
            (&["insert"], Some(Op::Insert("i".into()))),
            (&["insert", "put"], Some(Op::Insert("p".into()))),
            (&["insert", "delete"], Some(Op::CheckNotExists)),
            (&["insert", "delete", "put"], Some(Op::Insert("p".into()))),
            (&["insert", "delete", "delete"], Some(Op::CheckNotExists)),
            (&["insert", "delete", "insert"], Some(Op::Insert("i".into()))),
            (&["delete", "insert"], Some(Op::Put("i".into()))),
            (&["put", "insert"], None),
            (&["insert", "insert"], None),
        ];
        for (steps, wanted) in cases {
            assert_eq!(after(steps), wanted, "{steps:?}");
        }
    }

    #[test]
    fn a_transaction_sees_its_own_writes_and_not_its_locks() {
        let mut buffer = Buffer::default();
        buffer.put("a".into(), "1".into());
        buffer.delete("b".into());
        buffer.lock("c".into());
        buffer.put("d".into(), "4".into());
        assert_eq!(buffer.get(&"a".into()), Some(Some("1".into())));
        assert_eq!(buffer.get(&"b".into()), Some(None));
        assert_eq!(buffer.get(&"c".into()), None);
        let seen = buffer.range(&("a".."d").into());
        assert_eq!(seen, [("a".into(), Some("1".into())), ("b".into(), None)]);
        assert_eq!(buffer.range(&("b"..).into()).len(), 2);
    }
}
