//! Tells when a file may have changed: by events of the folders that lead to it, and by looking now and then, since file systems over a
//! network, and files that are mounted by themselves, tell nothing.
//!
//! Folders are watched, not the file: editors put a new file in place of the old one, and an orchestrator that mounts configuration puts a new
//! link in place of the old one somewhere on the way. The events come from the system by way of `rustix`, which is here anyway; the crate
//! `notify` has a licence that we do not take (CC0 grants no patents).

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::sync::Notify;

/// How long it is waited for events before the file is looked at unasked.
const LOOK: Duration = Duration::from_secs(30);
/// The same where the system gives no events.
const LOOK_OFTEN: Duration = Duration::from_secs(1);
/// What follows an event so closely is waited for: a file that was just made is not written yet.
const SETTLE: Duration = Duration::from_millis(50);
/// Links on the way to a file, as in Linux.
const LINKS_MAX: usize = 40;

/// Watches the way to a file.
pub struct Watch {
    path: PathBuf,
    events: Option<Events>,
    /// Whether every folder on the way is watched.
    is_whole: bool,
}

/// Events of folders, which a thread of their own waits for.
struct Events {
    queue: Arc<OwnedFd>,
    came: Arc<Notify>,
}

impl Watch {
    /// Begins now.
    pub fn new(path: &Path) -> Watch {
        let events = Events::start().inspect_err(|error| tell(path, error)).ok();
        let mut watch = Watch {
            path: path.to_owned(),
            events,
            is_whole: true,
        };
        watch.renew();
        watch
    }

    /// Returns when something happened near the file, or after a while. May be dropped before: then nothing is lost but that it returned.
    pub async fn wait(&mut self) {
        match &self.events {
            Some(events) if self.is_whole => {
                let came = tokio::time::timeout(LOOK, events.came.notified()).await;
                if came.is_ok() {
                    tokio::time::sleep(SETTLE).await;
                }
            }
            _ => tokio::time::sleep(LOOK_OFTEN).await,
        }
        self.renew();
    }

    /// Watches the folders that lead to the file now: links may lead elsewhere than before, and a folder may be another one of the same name.
    fn renew(&mut self) {
        let Some(events) = &self.events else { return };
        let watched = folders(&self.path).iter().try_for_each(|folder| events.add(folder));
        let was_whole = std::mem::replace(&mut self.is_whole, watched.is_ok());
        if let Err(error) = watched
            && was_whole
        {
            tell(&self.path, &error);
        }
    }
}

fn tell(path: &Path, error: &io::Error) {
    tracing::warn!(path = %path.display(), %error, "no events of folders: the file is looked at every second");
}

impl Events {
    fn start() -> io::Result<Events> {
        let queue = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
        let came = Arc::new(Notify::new());
        let (waited, told) = (Arc::clone(&queue), Arc::clone(&came));
        // For as long as the process runs.
        let _thread = base::thread::spawn("config-watch", move || {
            let mut room = [0u8; 4096];
            loop {
                match rustix::io::read(&*waited, &mut room) {
                    Ok(_) => told.notify_one(),
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        tracing::warn!(%error, "read events of folders");
                        return;
                    }
                }
            }
        });
        Ok(Events { queue, came })
    }

    /// Watches a folder; once more changes nothing.
    fn add(&self, folder: &Path) -> io::Result<()> {
        let names = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE | WatchFlags::CLOSE_WRITE;
        let itself = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF | WatchFlags::ONLYDIR;
        inotify::add_watch(&*self.queue, folder, names | itself)?;
        Ok(())
    }
}

/// The folders in which a change of name can lead to another file: that of each link on the way, and that of the file.
fn folders(path: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut rest: VecDeque<OsString> = parts(path);
    let mut at = if path.is_absolute() {
        PathBuf::from("/")
    } else {
        PathBuf::from(".")
    };
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        let next = at.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < LINKS_MAX => {
                links += 1;
                found.insert(at.clone());
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                let mut way = parts(&target);
                way.append(&mut rest);
                rest = way;
            }
            // The file itself, or what should be there and is not.
            _ if rest.is_empty() || !next.is_dir() => {
                found.insert(at);
                return found;
            }
            _ => at = next,
        }
    }
    found
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn every_folder_that_can_lead_elsewhere_is_watched() {
        let dir = tempfile::tempdir().expect("a directory");
        // Some systems have links on the way to their temporary files.
        let base = dir.path().canonicalize().expect("is there");
        for name in ["mount/..one", "releases/7"] {
            std::fs::create_dir_all(base.join(name)).expect("makes");
        }
        std::fs::write(base.join("releases/7/proxy.toml"), "").expect("writes");
        let link = |target: &str, name: &str| symlink(target, base.join(name)).expect("links");
        link("..one", "mount/..data");
        link("..data/proxy.toml", "mount/proxy.toml");
        link(
            base.join("releases/7/proxy.toml").to_str().expect("is text"),
            "mount/..one/proxy.toml",
        );
        let watched = folders(&base.join("mount/proxy.toml"));
        let wanted = ["mount", "mount/..one", "releases/7"].map(|name| base.join(name));
        assert_eq!(watched, wanted.into());
        // What is not there may come; a ring of links ends.
        assert_eq!(folders(&base.join("none/proxy.toml")), [base.clone()].into());
        link("ring", "ring");
        assert_eq!(folders(&base.join("ring")), [base].into());
    }

    #[tokio::test]
    async fn a_new_file_in_place_of_the_old_one_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("proxy.toml");
        std::fs::write(&path, "1").expect("writes");
        let mut watch = Watch::new(&path);
        std::fs::write(dir.path().join("new"), "2").expect("writes");
        std::fs::rename(dir.path().join("new"), &path).expect("moves");
        let waited = tokio::time::timeout(LOOK / 2, watch.wait()).await;
        assert!(waited.is_ok(), "seen before it is looked at unasked");
    }
}
