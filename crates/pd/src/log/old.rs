//! Data of format 1, of placement drivers that had one member and no raft: read, never written.
//!
//! Frames of its log carry a `LogBatch` and the index of its first command; the frame of its snapshot carries a `State` and the index of
//! the last command in it.

use std::path::Path;

use prost::Message;
use proto::ferrite_pd as record;
use proto::ferrite_pd::LogBatch;

use super::Error;
use super::frame::{self, Frames, damaged, read_frame};
use crate::State;

pub(super) const FORMAT: u32 = 1;

/// The state that the commands of `log` and the snapshot before them make, and the index of the last of them.
pub(super) fn read(log: (&Path, &[u8]), snapshot: Option<(&Path, &[u8])>) -> Result<(State, u64), Error> {
    let (mut state, mut last) = match snapshot {
        Some((path, bytes)) => read_snapshot(path, bytes)?,
        None => (State::default(), 0),
    };
    let ((path, bytes), snapshot_index) = (log, last);
    let mut frames = Frames::new(path, bytes);
    let mut next = None;
    while let Some((first, payload)) = frames.next()? {
        let follows = match next {
            None => first <= last + 1, // after a snapshot the log may begin with commands that are in it
            Some(next) => first == next,
        };
        if !follows {
            return Err(damaged(path, frames.end, "commands before it are missing"));
        }
        let batch = LogBatch::decode(payload).map_err(|_| damaged(path, frames.end, "its commands cannot be read"))?;
        next = Some(first + batch.commands.len() as u64);
        for (index, command) in (first..).zip(batch.commands) {
            if index <= last {
                continue;
            }
            let command = command
                .kind
                .ok_or_else(|| damaged(path, frames.end, "this version does not know one of its commands"))?;
            // A refusal is a result like any other.
            let _outcome = state.apply(&command);
            last = index;
        }
    }
    if next.unwrap_or(1) <= snapshot_index {
        return Err(damaged(path, frames.end, "it ends before the snapshot does"));
    }
    Ok((state, last))
}

fn read_snapshot(path: &Path, bytes: &[u8]) -> Result<(State, u64), Error> {
    let (index, payload) = read_frame(&bytes[frame::HEAD_BYTES..]).map_err(|what| damaged(path, frame::HEAD_BYTES, what))?;
    let state = record::State::decode(payload).map_err(|_| damaged(path, frame::HEAD_BYTES, "its state cannot be read"))?;
    Ok((State::from_record(state), index))
}
