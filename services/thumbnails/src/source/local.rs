//! Files below one folder.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::{Fetched, SourceError, Validators, Want};
use crate::config::LocalConfig;

/// The folder. The kernel sees to it that no path leads out of it, be it by `..` or by a link.
#[derive(Clone)]
pub struct Local {
    root: Arc<OwnedFd>,
}

impl Local {
    /// Opens the folder; none if it is off.
    pub fn new(config: &LocalConfig) -> anyhow::Result<Option<Local>> {
        if config.root.as_os_str().is_empty() {
            return Ok(None);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&config.root, flags, Mode::empty())
            .with_context(|| format!("open local.root {}", config.root.display()))?;
        Ok(Some(Local { root: Arc::new(root) }))
    }

    /// Reads the file at `path` below the folder.
    pub fn fetch(&self, path: &str, want: &Want<'_>) -> Result<Fetched, SourceError> {
        let path = path.trim_start_matches('/');
        if path.is_empty() || path.contains('\0') {
            return Err(SourceError::Address("an empty path".into()));
        }
        // A pipe would keep us waiting; it is refused below.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&*self.root, path, flags, Mode::empty(), resolve).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG => SourceError::NotFound,
            Errno::XDEV | Errno::LOOP | Errno::ACCESS | Errno::PERM => {
                SourceError::Refused("the path leads out of the folder, or may not be read".into())
            }
            error => SourceError::Down(error.to_string()),
        })?;
        let mut file = File::from(file);
        let down = |error: std::io::Error| SourceError::Down(error.to_string());
        let meta = file.metadata().map_err(down)?;
        if !meta.is_file() {
            return Err(SourceError::NotFound);
        }
        let modified = meta.modified().ok();
        let since = modified
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .unwrap_or(Duration::ZERO);
        let validators = Validators {
            etag: Some(format!("\"{:x}-{:x}\"", since.as_nanos(), meta.len())),
            last_modified: modified.map(httpdate::fmt_http_date),
            ..Validators::default()
        };
        if want.known.is_some_and(|known| known.etag == validators.etag) {
            return Ok(Fetched::Unchanged(validators));
        }
        let bytes_max = want.bytes_max;
        if meta.len() > bytes_max {
            return Err(SourceError::TooLarge { max: bytes_max });
        }
        let wanted = want.start.unwrap_or(bytes_max + 1);
        let mut bytes = Vec::with_capacity(meta.len().min(wanted) as usize);
        // The file may grow while it is read.
        file.by_ref().take(wanted).read_to_end(&mut bytes).map_err(down)?;
        if bytes.len() as u64 > bytes_max {
            return Err(SourceError::TooLarge { max: bytes_max });
        }
        Ok(Fetched::Found {
            total: Some(meta.len().max(bytes.len() as u64)),
            bytes: bytes.into(),
            validators,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("inner")).expect("makes");
        std::fs::write(folder.path().join("secret"), "secret").expect("writes");
        std::fs::write(root.join("inner/a b"), "picture").expect("writes");
        symlink("../secret", root.join("out")).expect("links");
        symlink(folder.path(), root.join("up")).expect("links");
        symlink("inner/a b", root.join("within")).expect("links");
        symlink("/proc/self/root", root.join("magic")).expect("links");
        rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).expect("makes");
        let local = Local::new(&LocalConfig { root }).expect("opens").expect("is on");
        for path in ["inner/a b", "/inner/a b", "///inner/a b", "within", "inner/../inner/a b"] {
            let Ok(Fetched::Found {
                bytes,
                validators,
                total,
            }) = local.fetch(path, &Want::whole(100))
            else {
                panic!("{path}")
            };
            assert_eq!((&bytes[..], total), (&b"picture"[..], Some(7)));
            let known = Some(&validators);
            let again = Want {
                known,
                ..Want::whole(100)
            };
            assert!(matches!(local.fetch(path, &again), Ok(Fetched::Unchanged(_))));
            let start = Want {
                start: Some(3),
                ..Want::whole(100)
            };
            let started = local.fetch(path, &start);
            assert!(matches!(started, Ok(Fetched::Found { bytes, total: Some(7), .. }) if bytes == "pic"));
        }
        for path in [
            "../secret",
            "inner/../../secret",
            "out",
            "up/secret",
            "magic/etc/passwd",
            "/../secret",
            "..",
            "inner",
            "pipe",
            "",
            "/",
            "nothing",
            "a\0b",
        ] {
            let fetched = local.fetch(path, &Want::whole(100));
            assert!(
                fetched.as_ref().is_err_and(|error| error.status().is_client_error()),
                "{path}: {fetched:?}"
            );
        }
        assert!(matches!(
            local.fetch("within", &Want::whole(3)),
            Err(SourceError::TooLarge { max: 3 })
        ));
    }
}
