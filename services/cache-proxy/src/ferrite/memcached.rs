//! Items of memcached before a Ferrite cluster. What the text, meta and binary protocols ask comes to the same few acts, which are done here;
//! each protocol reads its requests and writes its answers in a module of its own.

mod binary;
mod meta;
mod text;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::{Change, Item, Job, Outcome, Store, Work};
use crate::memcached::Session;
use crate::memcached::frame::Packet;
use crate::memcached::scan::{Expected, Form as ReplyForm, Quiet};
use crate::meter::Tally;

/// Expiry times up to this are seconds from now, larger ones moments.
const SPAN_MAX: i64 = 60 * 60 * 24 * 30;
const BAD_LINE: &str = "CLIENT_ERROR bad command line format";

/// What is done with an item. Times are memcached's: seconds from now, or a moment, or below zero for what is past.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Get,
    /// Gives it another expiry, and is told what is there.
    Touch {
        time: i64,
    },
    Put(Put),
    Count(Count),
    Delete,
    /// Everything under the pool's prefix goes.
    Clear,
}

/// A write of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Put {
    pub mode: Mode,
    pub flags: u32,
    pub time: i64,
    pub data: Bytes,
    /// Whether what would be appended to is made if it is not there.
    pub makes: bool,
}

/// When and how a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
}

/// Counting up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub is_up: bool,
    pub delta: u64,
    /// Value and time of what is made if nothing is there.
    pub initial: Option<(u64, i64)>,
    /// A new time for what is there.
    pub time: Option<i64>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// There is no such item.
    Missing,
    /// The mode of a write did not suit what is there.
    NotStored,
    /// The item is not the one that was to be compared with.
    Differs,
    NotNumeric,
}

/// What came of it, with the item as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub verdict: Verdict,
    pub item: Option<Item>,
}

impl Answer {
    fn not(verdict: Verdict) -> (Answer, Change) {
        (Answer { verdict, item: None }, Change::None)
    }

    fn found(item: &Item) -> Answer {
        Answer {
            verdict: Verdict::Done,
            item: Some(item.clone()),
        }
    }

    fn put(item: Item) -> (Answer, Change) {
        (Answer::found(&item), Change::Put(item))
    }
}

/// A request, whatever protocol it came in.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Several for reads of the text protocol, none for [`Ask::Clear`], else one.
    pub keys: Vec<Bytes>,
    pub ask: Ask,
    /// The item must be this one, by [`unique`].
    pub compare: Option<u64>,
    pub form: Form,
}

/// How the answer is written.
#[derive(Clone, Debug)]
pub(crate) enum Form {
    Text(text::Form),
    Meta(meta::Form),
    Binary(binary::Form),
}

impl Call {
    /// Does it with what is there.
    fn act(&self, old: Option<&Item>, now: u64) -> (Answer, Change) {
        if let (Some(wanted), Some(old)) = (self.compare, old)
            && unique(old) != wanted
        {
            return Answer::not(Verdict::Differs);
        }
        match (&self.ask, old) {
            (Ask::Clear, _) => Answer::not(Verdict::Done),
            (Ask::Put(put), old) => put.act(old, self.compare.is_some(), now),
            (Ask::Count(count), old) => count.act(old, now),
            (_, None) => Answer::not(Verdict::Missing),
            (Ask::Get, Some(old)) => (Answer::found(old), Change::None),
            (Ask::Touch { time }, Some(old)) => Answer::put(Item {
                expires: expiry(*time, now),
                ..old.clone()
            }),
            (Ask::Delete, Some(_)) => (Answer::not(Verdict::Done).0, Change::Delete),
        }
    }

    /// What is written whatever is there.
    fn blind(&self, now: u64) -> Option<Item> {
        match &self.ask {
            Ask::Put(put) if put.mode == Mode::Set && self.compare.is_none() => Some(put.item(now)),
            _ => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>, key: &[u8], answer: &Answer, now: u64) {
        match &self.form {
            Form::Text(form) => form.write(out, key, &self.ask, answer),
            Form::Meta(form) => form.write(out, answer, now),
            Form::Binary(form) => form.write(out, key, &self.ask, answer),
        }
    }
}

impl Put {
    fn item(&self, now: u64) -> Item {
        Item {
            flags: self.flags,
            expires: expiry(self.time, now),
            data: self.data.clone(),
        }
    }

    fn act(&self, old: Option<&Item>, compares: bool, now: u64) -> (Answer, Change) {
        let new = self.item(now);
        match (self.mode, old) {
            (Mode::Set, None) if compares => Answer::not(Verdict::Missing),
            (Mode::Set, _) | (Mode::Add, None) | (Mode::Replace, Some(_)) => Answer::put(new),
            (Mode::Append, Some(old)) => Answer::put(old.with([&old.data[..], &new.data].concat())),
            (Mode::Prepend, Some(old)) => Answer::put(old.with([&new.data[..], &old.data].concat())),
            (Mode::Append | Mode::Prepend, None) if self.makes => Answer::put(new),
            _ => Answer::not(Verdict::NotStored),
        }
    }
}

impl Count {
    fn act(&self, old: Option<&Item>, now: u64) -> (Answer, Change) {
        let Some(old) = old else {
            return match self.initial {
                Some((value, time)) => Answer::put(Item {
                    expires: expiry(time, now),
                    ..Item::new(value.to_string())
                }),
                None => Answer::not(Verdict::Missing),
            };
        };
        let Some(value) = unsigned(old.data.trim_ascii_end()) else {
            return Answer::not(Verdict::NotNumeric);
        };
        let value = match self.is_up {
            true => value.wrapping_add(self.delta),
            false => value.saturating_sub(self.delta),
        };
        Answer::put(Item {
            expires: self.time.map_or(old.expires, |time| expiry(time, now)),
            ..old.with(value.to_string())
        })
    }
}

/// A number of up to 64 bits, without a sign.
fn unsigned(digits: &[u8]) -> Option<u64> {
    let is_plain = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()
}

/// What `cas` compares: the same for the same content, else different but for one case in 2^64. Never 0, which asks for no comparison in
/// the binary protocol.
fn unique(item: &Item) -> u64 {
    let digest = Sha256::digest(item.encode());
    digest.first_chunk::<8>().map_or(1, |bytes| u64::from_be_bytes(*bytes).max(1))
}

/// Milliseconds since 1970; a time that is past expires at once.
fn expiry(time: i64, now: u64) -> u64 {
    match time {
        0 => 0,
        time if time < 0 => 1,
        time if time <= SPAN_MAX => now.saturating_add(time as u64 * 1000),
        time => (time as u64).saturating_mul(1000),
    }
}

impl Session {
    /// A request of the text protocol or its meta commands. `key` is what it is counted under.
    pub(crate) fn ask_store(&mut self, words: &[&[u8]], key: &[u8], block: &[u8], expected: Expected, tally: Tally) {
        let block = block.strip_suffix(b"\r\n").unwrap_or(block);
        let call = match expected.form {
            ReplyForm::Meta => meta::call(words, key, block),
            _ => text::call(words, block),
        };
        match call {
            Ok(call) => self.push(call, expected, tally),
            Err(_) if expected.quiet == Quiet::Everything => {}
            Err(line) => self.line(&line),
        }
    }

    /// A packet of the binary protocol; `loud` is its opcode without quietness. `Err` is the status to answer.
    pub(crate) fn ask_store_binary(
        &mut self,
        packet: &Packet<'_>,
        loud: u8,
        expected: Expected,
        tally: Tally,
    ) -> Result<(), u16> {
        let call = binary::call(packet, loud)?;
        self.push(call, expected, tally);
        Ok(())
    }

    /// Removes everything under the pool's prefix.
    pub(crate) fn clear_store(&mut self, expected: Expected, tally: Tally) {
        let form = match expected.form {
            ReplyForm::Binary { opcode, opaque } => Form::Binary(binary::Form { opcode, opaque }),
            _ => Form::Text(text::Form::Line),
        };
        let call = Call {
            keys: Vec::new(),
            ask: Ask::Clear,
            compare: None,
            form,
        };
        self.push(call, expected, tally);
    }

    fn push(&mut self, call: Call, expected: Expected, tally: Tally) {
        let Some(store) = &self.view.store else {
            return;
        };
        let number = self.mailbox.expect(tally);
        let job = Job {
            keys: call.keys.clone(),
            is_write: call.ask != Ask::Get,
            work: Work::Memcached(Box::new(call)),
            number,
            expected,
        };
        self.ferrite.push(store, &self.mailbox, job);
    }
}

pub(super) async fn run(store: &Store, call: &Call) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let now = base::WallTime::now().0;
    match (&call.ask, call.keys.as_slice()) {
        (Ask::Clear, _) => {
            store.clear().await?;
            call.write(&mut out, b"", &Answer::not(Verdict::Done).0, now);
        }
        (Ask::Get, keys) => {
            for (key, item) in keys.iter().zip(store.get_many(keys).await?) {
                let (answer, _none) = call.act(item.as_ref(), now);
                call.write(&mut out, key, &answer, now);
            }
        }
        (_, [key]) if let Some(item) = call.blind(now) => {
            store.put(key, &item).await?;
            call.write(&mut out, key, &Answer::found(&item), now);
        }
        (_, keys) => {
            let changes = keys
                .iter()
                .map(|key| store.update(key, move |old, now| Ok(change(call, key, old, now))));
            let parts = futures::future::try_join_all(changes).await?;
            out = parts.concat();
        }
    }
    if let Form::Text(form) = &call.form {
        form.end(&mut out);
    }
    Ok(out)
}

fn change(call: &Call, key: &[u8], old: Option<&Item>, now: u64) -> Outcome {
    let (answer, change) = call.act(old, now);
    let mut reply = Vec::new();
    call.write(&mut reply, key, &answer, now);
    Outcome { reply, change }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 5_000;

    fn put(mode: Mode) -> Ask {
        Ask::Put(Put {
            mode,
            flags: 7,
            time: 10,
            data: Bytes::from_static(b"x"),
            makes: false,
        })
    }

    fn act(ask: Ask, compare: Option<u64>, old: Option<&Item>) -> (Verdict, Change) {
        let call = Call {
            keys: Vec::new(),
            ask,
            compare,
            form: Form::Text(text::Form::Line),
        };
        let (answer, change) = call.act(old, NOW);
        (answer.verdict, change)
    }

    #[test]
    fn writes_by_mode_and_comparison() {
        let old = Item::new("10");
        let new = Change::Put(Item {
            flags: 7,
            expires: 15_000,
            data: Bytes::from_static(b"x"),
        });
        let longer = |data: &'static str| Change::Put(Item::new(data));
        for (mode, compare, there, verdict, change) in [
            (Mode::Set, None, false, Verdict::Done, new.clone()),
            (Mode::Add, None, true, Verdict::NotStored, Change::None),
            (Mode::Add, None, false, Verdict::Done, new.clone()),
            (Mode::Replace, None, false, Verdict::NotStored, Change::None),
            (Mode::Append, None, true, Verdict::Done, longer("10x")),
            (Mode::Prepend, None, true, Verdict::Done, longer("x10")),
            (Mode::Append, None, false, Verdict::NotStored, Change::None),
            (Mode::Set, Some(unique(&old)), true, Verdict::Done, new),
            (Mode::Set, Some(5), true, Verdict::Differs, Change::None),
            (Mode::Set, Some(5), false, Verdict::Missing, Change::None),
        ] {
            let found = act(put(mode), compare, there.then_some(&old));
            assert_eq!(found, (verdict, change), "{mode:?} {compare:?} {there}");
        }
    }

    #[test]
    fn counting_makes_wraps_and_stops() {
        let count = |is_up, delta, initial| {
            Ask::Count(Count {
                is_up,
                delta,
                initial,
                time: None,
            })
        };
        let old = Item::new("10");
        let is = |data: &'static str| (Verdict::Done, Change::Put(Item::new(data)));
        assert_eq!(act(count(true, 5, None), None, Some(&old)), is("15"));
        assert_eq!(act(count(false, 50, None), None, Some(&old)), is("0"));
        assert_eq!(act(count(true, u64::MAX, None), None, Some(&old)), is("9"));
        assert_eq!(act(count(true, 5, Some((3, 0))), None, None), is("3"));
        assert_eq!(act(count(true, 5, None), None, None), (Verdict::Missing, Change::None));
        for text in ["x", "", "+1", "18446744073709551616"] {
            let old = Item::new(text);
            let found = act(count(true, 1, None), None, Some(&old));
            assert_eq!(found, (Verdict::NotNumeric, Change::None), "{text}");
        }
    }

    #[test]
    fn times_are_spans_moments_or_past() {
        let touched = |time| act(Ask::Touch { time }, None, Some(&Item::new("1"))).1;
        let until = |expires| {
            Change::Put(Item {
                expires,
                ..Item::new("1")
            })
        };
        assert_eq!(touched(0), until(0));
        assert_eq!(touched(-1), until(1));
        assert_eq!(touched(10), until(15_000));
        assert_eq!(touched(SPAN_MAX + 1), until((SPAN_MAX as u64 + 1) * 1000));
        assert_eq!(touched(i64::MAX), until(u64::MAX));
    }
}
