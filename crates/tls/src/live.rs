//! Something made of files, made anew when they change.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::MonoTime;
use parking_lot::Mutex;

use crate::{Error, Pem};

/// Between two looks at the files. A look is a few system calls.
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Make<T> = Box<dyn Fn() -> Result<T, Error> + Send + Sync>;

/// See the module. Nobody waits for a change: whoever asks is the one who looks.
pub struct Live<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: Arc<T>,
    /// Of the files when they were last read, whether or not they could be used.
    seen: Vec<Option<Stamp>>,
    looked: MonoTime,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None` if there is no such file. Follows links, by which some systems replace all files at once.
    fn of(path: &Path) -> Option<Stamp> {
        let meta = std::fs::metadata(path).ok()?;
        Some(Stamp {
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl<T> Live<T> {
    /// Makes the first; its error is the caller's. Of `sources` those that are files are looked at from then on.
    pub fn new<'a>(
        sources: impl IntoIterator<Item = &'a Pem>,
        make: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Live<T>, Error> {
        let files: Vec<PathBuf> = sources.into_iter().filter_map(Pem::path).map(Path::to_owned).collect();
        // Before they are read: what is written in between is a change.
        let seen = stamps(&files);
        let current = Arc::new(make()?);
        Ok(Live {
            files,
            make: Box::new(make),
            state: Mutex::new(State {
                current,
                seen,
                looked: MonoTime::now(),
            }),
        })
    }

    /// Of the files as they are now, or were a second ago.
    pub fn current(&self) -> Arc<T> {
        self.at(MonoTime::now())
    }

    fn at(&self, now: MonoTime) -> Arc<T> {
        let mut state = self.state.lock();
        if self.files.is_empty() || now.since(state.looked) < LOOK_EVERY {
            return state.current.clone();
        }
        state.looked = now;
        let seen = stamps(&self.files);
        if seen != state.seen {
            state.seen = seen;
            match (self.make)() {
                Ok(made) => {
                    state.current = Arc::new(made);
                    tracing::info!(files = ?self.files, "certificates changed and are in use");
                }
                // Files are replaced one after the other: the next look finds the rest.
                Err(error) => {
                    tracing::warn!(error = %base::log::chain(&error), "changed certificates cannot be used; the last ones stay");
                }
            }
        }
        state.current.clone()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|path| Stamp::of(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_and_a_bad_one_is_not_taken() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("f");
        std::fs::write(&path, "1").expect("writes");
        let of = path.clone();
        let make = move || {
            let text = std::fs::read_to_string(&of).unwrap_or_default();
            text.parse::<u32>().map_err(|_| Error::NoKey { file: text })
        };
        let live = Live::new([&Pem::from(path.clone())], make).expect("a number");
        let start = MonoTime::now();
        let after = |seconds| *live.at(start + Duration::from_secs(seconds));
        std::fs::write(&path, "22").expect("writes");
        assert_eq!(after(0), 1, "it was looked at just now");
        assert_eq!(after(2), 22);
        std::fs::write(&path, "none").expect("writes");
        assert_eq!(after(4), 22);
        std::fs::remove_file(&path).expect("removes");
        assert_eq!(after(6), 22);
        let next = dir.path().join("g");
        std::fs::write(&next, "33").expect("writes");
        std::fs::rename(&next, &path).expect("renames");
        assert_eq!(after(8), 33);
    }

    #[test]
    fn the_first_must_do() {
        let fails = || Err::<(), _>(Error::NoKey { file: "f".into() });
        assert!(Live::new([], fails).is_err());
    }
}
