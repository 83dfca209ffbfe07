//! Calls that Python may await or wait for.

use std::sync::Mutex;
use std::time::Duration;

use binding::{Call, Outcome};
use futures::FutureExt;
use futures::future::BoxFuture;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use crate::hub::Hub;
use crate::values;

/// How often a blocking call looks whether Ctrl-C was pressed.
const SIGNALS_EVERY: Duration = Duration::from_millis(100);

/// A call that has not begun.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Operation {
    work: Mutex<Option<BoxFuture<'static, Outcome>>>,
    /// Whether it has mostly nothing to wait for.
    is_quick: bool,
}

/// A call under way.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Started(Call);

impl Operation {
    pub fn new(work: impl Future<Output = Outcome> + Send + 'static) -> Operation {
        Operation {
            work: Mutex::new(Some(work.boxed())),
            is_quick: false,
        }
    }

    /// One that has mostly nothing to wait for.
    pub fn quick(work: impl Future<Output = Outcome> + Send + 'static) -> Operation {
        Operation {
            is_quick: true,
            ..Operation::new(work)
        }
    }

    fn take(&self) -> PyResult<BoxFuture<'static, Outcome>> {
        let work = self.work.lock().expect("nobody panics inside").take();
        work.ok_or_else(|| PyRuntimeError::new_err("a call can be awaited or waited for only once"))
    }
}

#[pymethods]
impl Operation {
    /// What the call gives, if it ends at once; else Ellipsis.
    fn now(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        if self.is_quick {
            let mut work = self.work.lock().expect("nobody panics inside");
            if let Some(outcome) = work.as_mut().and_then(binding::at_once) {
                *work = None;
                return values::from_outcome(py, outcome);
            }
        }
        Ok(py.Ellipsis())
    }

    /// Begins; the end goes to `future` through the event loop's `hub`.
    fn start(&self, hub: &Hub, future: Py<PyAny>) -> PyResult<Started> {
        let work = self.take()?;
        let ends = hub.ends();
        ends.expect_one();
        Ok(Started(binding::start(work, move |outcome| ends.add(future, outcome))))
    }

    /// Runs it to its end on this thread, without the interpreter's lock.
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mut work = self.take()?;
        loop {
            match py.detach(|| binding::wait_for(&mut work, SIGNALS_EVERY)) {
                Some(outcome) => return values::from_outcome(py, outcome),
                None => py.check_signals()?,
            }
        }
    }
}

#[pymethods]
impl Started {
    /// Ends it as cancelled, unless it has ended.
    fn cancel(&self) {
        self.0.cancel();
    }
}
