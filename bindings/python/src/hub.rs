//! Brings ends of calls to an event loop.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use binding::Outcome;
use pyo3::prelude::*;

use crate::values;

/// Ends of calls of one event loop, which watches `fileno` and calls `drain`.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Hub {
    ends: Arc<Ends>,
    reader: UnixStream,
}

/// Ends that wait, bounded by the calls in flight.
pub struct Ends {
    waiting: Mutex<Vec<(Py<PyAny>, Outcome)>>,
    /// Calls that were started and have not ended.
    under_way: AtomicUsize,
    writer: UnixStream,
}

impl Ends {
    /// Must come before each [`Ends::add`].
    pub fn expect_one(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    /// Without the interpreter's lock, on a thread of the library.
    pub fn add(self: Arc<Ends>, future: Py<PyAny>, outcome: Outcome) {
        let under_way = self.under_way.fetch_sub(1, Ordering::Relaxed) - 1;
        let mut waiting = self.waiting.lock().expect("nobody panics inside");
        waiting.push((future, outcome));
        let is_first = waiting.len() == 1;
        drop(waiting);
        if is_first {
            // It does not block; if the socket is full or closed there is a wake-up under way or nobody to wake.
            binding::wake_for_ends(under_way, move || drop((&self.writer).write(&[1])));
        }
    }
}

impl Hub {
    pub fn ends(&self) -> Arc<Ends> {
        self.ends.clone()
    }
}

#[pymethods]
impl Hub {
    #[new]
    fn new() -> PyResult<Hub> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        let waiting = Mutex::default();
        Ok(Hub {
            ends: Arc::new(Ends {
                waiting,
                under_way: AtomicUsize::new(0),
                writer,
            }),
            reader,
        })
    }

    /// What the event loop shall watch.
    fn fileno(&self) -> i32 {
        self.reader.as_raw_fd()
    }

    /// Hands the ends that have come to their futures.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mut bytes = [0; 64];
        while let Err(error) = (&self.reader).read(&mut bytes) {
            if error.kind() != ErrorKind::Interrupted {
                break;
            }
        }
        let ends = std::mem::take(&mut *self.ends.waiting.lock().expect("nobody panics inside"));
        for (future, outcome) in ends {
            let future = future.bind(py);
            if future.call_method0("done")?.is_truthy()? {
                // Cancelled: nobody wants to know.
                continue;
            }
            match values::from_outcome(py, outcome) {
                Ok(value) => future.call_method1("set_result", (value,))?,
                Err(error) => future.call_method1("set_exception", (error,))?,
            };
        }
        Ok(())
    }
}
