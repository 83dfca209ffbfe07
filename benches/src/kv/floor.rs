//! The floor of any durable write: append to a file and `fdatasync`, one thread, nothing else.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use base::MonoTime;

use super::load::{Sample, Window};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Floor {
    pub record_bytes: usize,
    /// Into a file that was written in full before, as logs with recycled files do: the file system has only data to sync. Else
    /// into a growing file, where each sync also commits its new length.
    pub recycled: bool,
}

pub const FLOORS: [Floor; 4] = [
    Floor {
        record_bytes: 4 << 10,
        recycled: false,
    },
    Floor {
        record_bytes: 4 << 10,
        recycled: true,
    },
    Floor {
        record_bytes: 64 << 10,
        recycled: false,
    },
    Floor {
        record_bytes: 64 << 10,
        recycled: true,
    },
];

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB, {} file",
            self.record_bytes >> 10,
            if self.recycled { "recycled" } else { "growing" }
        )
    }
}

const RECYCLED_BYTES: u64 = 32 << 20;

impl Floor {
    /// Writes records in `dir`, syncing each, for `span`. An operation is one record durable.
    pub fn measure(self, dir: &Path, span: Duration) -> Result<Sample> {
        let path = dir.join("floor");
        let file = File::create(&path)?;
        let record = vec![0x5a; self.record_bytes];
        if self.recycled {
            for offset in (0..RECYCLED_BYTES).step_by(self.record_bytes) {
                file.write_all_at(&record, offset)?;
            }
        }
        file.sync_all()?;

        let begin = MonoTime::now();
        let (mut now, mut offset, mut latencies_us) = (begin, 0, Vec::new());
        while now.since(begin) < span {
            file.write_all_at(&record, offset)?;
            file.sync_data()?;
            offset += self.record_bytes as u64;
            if self.recycled {
                offset %= RECYCLED_BYTES;
            }
            let done = MonoTime::now();
            latencies_us.push(done.since(now).as_micros() as u32);
            now = done;
        }
        std::fs::remove_file(&path)?;
        Ok(Sample::new(
            latencies_us,
            0,
            Window {
                span: now.since(begin),
                cpu: Duration::ZERO,
            },
        ))
    }
}
