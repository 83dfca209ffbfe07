//! Blobs that wait to be sent to a tier, each once, and a file that remembers their names over a kill.
//!
//! The file is a log: a record for each blob that came into the queue, one for each that left it. It is read at start and written anew when
//! most of it is past. It is not forced to disk: what a power cut takes from it is sent when somebody uploads it once more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use blob_store::{Content, Key};

use super::{Id, OwnedId};

/// Records that may be past before the log is written anew.
const PAST_MAX: usize = 4096;
/// Of the checksum of a record.
const SUM: usize = 4;
/// Of a record without its instance: what happened, kind of content, key, length of the instance, checksum.
const FIXED: usize = 1 + 1 + 32 + 2 + SUM;

const CAME: u8 = b'+';
const LEFT: u8 = b'-';
const PLACE: u8 = b'@';

/// A blob that waits.
pub(super) struct Job {
    pub id: OwnedId,
    pub attempts: u8,
}

/// Blobs to send.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Job>,
    known: BTreeSet<Key>,
    /// Being sent; those that were taken from what waits with their names.
    busy: BTreeMap<Key, Option<OwnedId>>,
    log: Option<Log>,
}

impl Queue {
    /// What the log at `path` remembers, if it is that of a tier at `place`: at most `max` blobs. Without a log what waits is forgotten by a
    /// kill, and nothing else changes, so its failures are told and that is all.
    pub fn open(path: &Path, place: &str, max: usize) -> Queue {
        let mut queue = Queue::default();
        for id in read(path, place).unwrap_or_default().into_iter().take(max) {
            queue.known.insert(id.key);
            queue.waiting.push_back(Job { id, attempts: 0 });
        }
        let log = Log::make(path, place, queue.waiting.iter().map(|job| job.id.as_id()));
        queue.log = log
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the queue will not outlive a kill"))
            .ok();
        queue
    }

    /// Blobs that wait or are being sent.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.busy.len()
    }

    /// Blobs that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Lines a blob up, if it is not there already; whether it was not.
    pub fn push(&mut self, id: Id<'_>) -> bool {
        let is_new = self.known.insert(id.key);
        if is_new {
            self.waiting.push_back(Job {
                id: id.to_owned(),
                attempts: 0,
            });
            self.note(CAME, id);
        }
        is_new
    }

    /// The next one that may be sent: one of a key at a time, so that the last change wins.
    pub fn take(&mut self) -> Option<Job> {
        let at = self.waiting.iter().position(|job| !self.is_busy(&job.id.key))?;
        let job = self.waiting.remove(at)?;
        self.known.remove(&job.id.key);
        self.busy.insert(job.id.key, Some(job.id.clone()));
        Some(job)
    }

    /// Holds a key as if it had been taken; false if somebody does.
    pub fn hold(&mut self, key: Key) -> bool {
        let is_free = !self.is_busy(&key);
        if is_free {
            self.busy.insert(key, None);
        }
        is_free
    }

    /// What was held or taken is not any more.
    pub fn release(&mut self, key: &Key) {
        self.busy.remove(key);
    }

    pub fn is_busy(&self, key: &Key) -> bool {
        self.busy.contains_key(key)
    }

    /// A blob that was taken is sent, or given up.
    pub fn done(&mut self, job: &Job) {
        self.release(&job.id.key);
        self.left(job.id.as_id());
    }

    /// A blob that was taken waits once more; false if a later change of it does already.
    pub fn again(&mut self, job: Job) -> bool {
        self.release(&job.id.key);
        let is_due = self.known.insert(job.id.key);
        if is_due {
            self.waiting.push_back(job);
        }
        is_due
    }

    /// It shall not be sent any more.
    pub fn forget(&mut self, id: Id<'_>) {
        if self.known.remove(&id.key) {
            self.waiting.retain(|job| job.id.key != id.key);
            self.left(id);
        }
    }

    /// The same for everything of an instance.
    pub fn forget_instance(&mut self, instance: &str) {
        let (gone, kept): (VecDeque<Job>, VecDeque<Job>) = self.waiting.drain(..).partition(|job| *job.id.instance == *instance);
        self.waiting = kept;
        for job in gone {
            self.known.remove(&job.id.key);
            self.left(job.id.as_id());
        }
    }

    fn left(&mut self, id: Id<'_>) {
        // A later change of the same blob may wait.
        if !self.known.contains(&id.key) {
            self.note(LEFT, id);
        }
    }

    fn note(&mut self, what: u8, id: Id<'_>) {
        let Some(log) = &mut self.log else { return };
        let noted = log.write(what, id).and_then(|()| {
            if log.records > PAST_MAX + 2 * (self.waiting.len() + self.busy.len()) {
                // What is being sent may not arrive.
                let busy = self.busy.values().flatten();
                let left = busy.chain(self.waiting.iter().map(|job| &job.id)).map(OwnedId::as_id);
                *log = Log::make(&log.path, &log.place, left)?;
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(path = %log.path.display(), %error, "the queue will not outlive a kill");
            self.log = None;
        }
    }
}

struct Log {
    file: File,
    path: PathBuf,
    place: String,
    records: usize,
}

impl Log {
    /// A new log in place of the old one, with these blobs.
    fn make<'a>(path: &Path, place: &str, waiting: impl Iterator<Item = Id<'a>>) -> io::Result<Log> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut bytes = encode(PLACE, place_id(place));
        let mut records = 1;
        for id in waiting {
            bytes.extend(encode(CAME, id));
            records += 1;
        }
        let new = path.with_extension("new");
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, path)?;
        Ok(Log {
            file,
            path: path.to_owned(),
            place: place.to_owned(),
            records,
        })
    }

    fn write(&mut self, what: u8, id: Id<'_>) -> io::Result<()> {
        self.records += 1;
        self.file.write_all(&encode(what, id))
    }
}

/// A log is that of one place: another tier has not got what this one waits for.
fn place_id(place: &str) -> Id<'static> {
    Id {
        key: Key::sha256(place.as_bytes()),
        content: Content::Named,
        instance: "",
    }
}

fn encode(what: u8, id: Id<'_>) -> Vec<u8> {
    // Names of instances are far shorter, as requests are.
    let instance = id.instance.as_bytes();
    let instance = instance.get(..instance.len().min(usize::from(u16::MAX))).unwrap_or_default();
    let mut bytes = Vec::with_capacity(FIXED + instance.len());
    bytes.push(what);
    bytes.push(match id.content {
        Content::Sha256 => 0,
        Content::Blake3 => 1,
        Content::Named => 2,
    });
    bytes.extend(id.key.0);
    bytes.extend((instance.len() as u16).to_le_bytes());
    bytes.extend(instance);
    let sum = Key::sha256(&bytes).0;
    bytes.extend(&sum[..SUM]);
    bytes
}

/// One record at the front of `bytes`; `None` where it is cut or damaged.
fn decode(bytes: &[u8]) -> Option<(u8, OwnedId, usize)> {
    let (&[what, content], rest) = bytes.split_first_chunk::<2>()?;
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (instance, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    let sum = rest.first_chunk::<SUM>()?;
    let end = FIXED - SUM + instance.len();
    if Key::sha256(bytes.get(..end)?).0.first_chunk::<SUM>()? != sum {
        return None;
    }
    let id = OwnedId {
        key: Key(*key),
        content: match content {
            0 => Content::Sha256,
            1 => Content::Blake3,
            2 => Content::Named,
            _ => return None,
        },
        instance: std::str::from_utf8(instance).ok()?.into(),
    };
    Some((what, id, end + SUM))
}

/// What waited when the log ended, oldest first. `None` if there is none of this place. What follows damage is lost.
fn read(path: &Path, place: &str) -> Option<Vec<OwnedId>> {
    let bytes = fs::read(path).ok()?;
    let (what, id, mut at) = decode(&bytes)?;
    if what != PLACE || id.key != place_id(place).key {
        return None;
    }
    let mut waiting: BTreeMap<Key, (usize, OwnedId)> = BTreeMap::new();
    while let Some((what, id, len)) = decode(bytes.get(at..)?) {
        if what == CAME {
            waiting.insert(id.key, (at, id));
        } else {
            waiting.remove(&id.key);
        }
        at += len;
    }
    let mut waiting: Vec<(usize, OwnedId)> = waiting.into_values().collect();
    waiting.sort_by_key(|(at, _)| *at);
    Some(waiting.into_iter().map(|(_, id)| id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> Id<'static> {
        Id {
            key: Key([number; 32]),
            content: if number.is_multiple_of(2) {
                Content::Named
            } else {
                Content::Sha256
            },
            instance: if number.is_multiple_of(2) { "ci/main" } else { "" },
        }
    }

    fn keys(queue: &Queue) -> Vec<u8> {
        queue.waiting.iter().map(|job| job.id.key.0[0]).collect()
    }

    #[test]
    fn what_waits_is_remembered_and_what_was_sent_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("tiers/a.queue");
        let open = |place: &str, max| Queue::open(&path, place, max);
        let mut queue = open("here", 100);
        (1..=6).for_each(|number| assert!(queue.push(id(number))));
        assert!(!queue.push(id(3)), "once");
        let (first, second) = (queue.take().expect("one"), queue.take().expect("another"));
        // Sent while it changed once more, and sent; then one that failed, one that is purged, an instance that is.
        assert!(queue.push(id(1)));
        queue.done(&first);
        assert!(queue.again(second));
        queue.forget(id(5));
        assert_eq!(keys(&open("here", 100)), [2, 3, 4, 6, 1]);
        assert_eq!(keys(&open("here", 2)), [2, 3]);
        assert!(keys(&open("elsewhere", 100)).is_empty());
    }

    #[test]
    fn a_purged_instance_is_not_remembered() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.queue");
        let mut queue = Queue::open(&path, "here", 100);
        (1..=6).for_each(|number| assert!(queue.push(id(number))));
        queue.forget_instance("ci/main");
        assert_eq!(keys(&Queue::open(&path, "here", 100)), [1, 3, 5]);
    }

    #[test]
    fn a_log_that_is_cut_anywhere_gives_what_is_whole() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.queue");
        let mut queue = Queue::open(&path, "here", 100);
        (1..=3).for_each(|number| assert!(queue.push(id(number))));
        let whole = fs::read(&path).expect("reads");
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).expect("writes");
            let found = read(&path, "here").unwrap_or_default().len();
            assert!(found <= 3 && (cut < whole.len() - 1 || found == 2), "{found} of {cut} bytes");
            // A byte that is another: nothing is made up.
            let mut damaged = whole.clone();
            damaged[cut] ^= 1;
            fs::write(&path, damaged).expect("writes");
            assert!(read(&path, "here").unwrap_or_default().len() <= 2, "byte {cut}");
        }
    }

    #[test]
    fn the_log_stays_short() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.queue");
        let mut queue = Queue::open(&path, "here", 100);
        assert!(queue.push(id(9)));
        for _ in 0..2 * PAST_MAX {
            assert!(queue.push(id(1)));
            queue.forget(id(1));
        }
        assert!(queue.push(id(2)));
        let len = fs::metadata(&path).expect("is there").len() as usize;
        assert!(len < (PAST_MAX + 10) * (FIXED + 8), "{len} bytes");
        assert_eq!(keys(&Queue::open(&path, "here", 100)), [9, 2]);
    }
}
