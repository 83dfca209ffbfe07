//! Raft snapshots as files: `made-<region>-<term>-<index>.snap` to be sent, `got-….snap` received.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use base::RegionId;
use engine::Engine;
use proto::metapb::Region;

use super::{Checker, Generate, Generated, Key, Part, Snapshots};
use crate::{Error, Result};

/// A folder of raft snapshots. A file gets its final name only once it is whole and durable.
#[derive(Debug)]
pub struct FileSnapshots {
    dir: PathBuf,
}

fn name(kind: &str, key: Key) -> String {
    format!("{kind}-{}-{}-{}.snap", key.region, key.position.term, key.position.index)
}

/// A raft snapshot being received. Dropped before [`finish`](Receiving::finish), it leaves nothing.
#[derive(Debug)]
pub struct Receiving {
    temporary: PathBuf,
    dir: PathBuf,
    key: Key,
    out: Option<BufWriter<File>>,
    checker: Checker,
}

impl FileSnapshots {
    /// Opens the folder, making it if need be; removes what an earlier run left half done or made for sending.
    pub fn open(dir: &Path) -> io::Result<FileSnapshots> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let received = path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("got-"));
            if !received || path.extension().is_none_or(|extension| extension != "snap") {
                fs::remove_file(&path)?;
            }
        }
        Ok(FileSnapshots { dir: dir.to_owned() })
    }

    fn made(&self, key: Key) -> PathBuf {
        self.dir.join(name("made", key))
    }

    fn got(&self, key: Key) -> PathBuf {
        self.dir.join(name("got", key))
    }

    /// The parts of a snapshot made here, to be sent.
    pub fn read_made(&self, key: Key) -> io::Result<impl Iterator<Item = io::Result<Part>> + Send + use<>> {
        let (_, mut input) = open(&self.made(key))?;
        let mut done = false;
        Ok(std::iter::from_fn(move || {
            if done {
                return None;
            }
            let part = super::read_part(&mut input);
            done = !matches!(part, Ok(Part::Chunk { .. }));
            Some(part)
        }))
    }

    /// Begins to receive one. `sender` keeps two senders of the same snapshot apart.
    pub fn receive(&self, key: Key, region: &Region, sender: u64) -> io::Result<Receiving> {
        let temporary = self.dir.join(format!("{}.{sender}.tmp", name("got", key)));
        let out = create(&temporary, region)?;
        Ok(Receiving {
            temporary,
            dir: self.dir.clone(),
            key,
            out: Some(out),
            checker: Checker::default(),
        })
    }

    fn open_got(&self, key: Key) -> Result<(Region, BufReader<File>)> {
        open(&self.got(key)).map_err(|source| Error::Snapshot {
            act: "open",
            region: key.region,
            source,
        })
    }

    /// Removes made snapshots of a region but the newest.
    fn retire(&self, region: RegionId, keep: Key) {
        let (prefix, keep) = (format!("made-{region}-"), name("made", keep));
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            if file.starts_with(&prefix) && file != keep {
                // A sender that has it open reads on; what stays for any other reason goes at the next start.
                drop(fs::remove_file(entry.path()));
            }
        }
    }
}

fn create(path: &Path, region: &Region) -> io::Result<BufWriter<File>> {
    let mut out = BufWriter::with_capacity(256 << 10, File::create(path)?);
    super::write_head(region, &mut out)?;
    Ok(out)
}

/// The region that the file is of, and its parts to be read.
fn open(path: &Path) -> io::Result<(Region, BufReader<File>)> {
    let mut input = BufReader::with_capacity(256 << 10, File::open(path)?);
    Ok((super::read_head(&mut input)?, input))
}

/// Makes a file durable under its final name.
fn publish(out: BufWriter<File>, from: &Path, to: &Path, dir: &Path) -> io::Result<()> {
    out.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    fs::rename(from, to)?;
    File::open(dir)?.sync_all()
}

impl Receiving {
    /// Takes the next part, checked.
    pub fn part(&mut self, part: &Part) -> io::Result<()> {
        self.checker.check(part)?;
        let out = self.out.as_mut().expect("only finish takes the file");
        super::write_part(part, out)
    }

    /// Makes the whole snapshot durable and known. Errors when parts are missing.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.checker.whole {
            return Err(super::bad("the stream ended early"));
        }
        let out = self.out.take().expect("finish is called once");
        publish(out, &self.temporary, &self.dir.join(name("got", self.key)), &self.dir)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // Gone already after finish; otherwise half done, and removed at the next start if not now.
        drop(fs::remove_file(&self.temporary));
    }
}

impl Snapshots for FileSnapshots {
    fn generate(&self, job: &Generate) -> Result<Generated> {
        let temporary = self.dir.join(format!("{}.tmp", name("made", job.key)));
        let make = || {
            let mut out = create(&temporary, &job.region)?;
            super::write_parts(&*job.data, &job.region, &mut |part| super::write_part(&part, &mut out))?;
            publish(out, &temporary, &self.made(job.key), &self.dir)
        };
        make().map_err(|source| Error::Snapshot {
            act: "make",
            region: job.key.region,
            source,
        })?;
        self.retire(job.key.region, job.key);
        Ok(Generated {
            key: job.key,
            region: job.region.clone(),
        })
    }

    fn region(&self, key: Key) -> Result<Region> {
        Ok(self.open_got(key)?.0)
    }

    fn load(&self, key: Key, engine: &dyn Engine) -> Result<()> {
        let (_, mut input) = self.open_got(key)?;
        super::load_parts(key, engine, &mut || super::read_part(&mut input))
    }

    fn contains(&self, key: Key) -> bool {
        self.got(key).exists()
    }

    fn remove(&self, key: Key) {
        // What cannot be removed now only takes room.
        drop(fs::remove_file(self.got(key)));
    }
}
