//! Values of Rust as values of Python, and the other way round.

use binding::{Bytes, Outcome, Reply};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::objects::{Raw, Txn, Txns};

/// From this size on the bytes of Python are shared; below it a copy costs less.
const SHARED_BYTES: usize = 4096;

/// `bytes` or `bytearray`.
pub struct Blob(pub Bytes);

impl<'py> FromPyObject<'_, 'py> for Blob {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Blob> {
        let backed: PyBackedBytes = object.extract()?;
        Ok(Blob(match backed.len() < SHARED_BYTES {
            true => Bytes::copy_from_slice(&backed),
            false => Bytes::from_owner(backed),
        }))
    }
}

/// What Python's call gives or raises.
pub fn from_outcome(py: Python<'_>, outcome: Outcome) -> PyResult<Py<PyAny>> {
    match outcome {
        Ok(reply) => from_reply(py, reply),
        Err(failure) => {
            static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let make = MAKE.get_or_try_init(py, || py.import("ferrite_client.errors")?.getattr("_make").map(Bound::unbind))?;
            let key = failure.key.map(|key| PyBytes::new(py, &key));
            let error = make
                .bind(py)
                .call1((failure.class.name(), failure.message, failure.hint, failure.retryable, key))?;
            Err(PyErr::from_value(error))
        }
    }
}

fn from_reply(py: Python<'_>, reply: Reply) -> PyResult<Py<PyAny>> {
    let value = match reply {
        Reply::Done => py.None(),
        Reply::Value(value) => optional(py, value),
        Reply::Pairs(pairs) | Reply::Page(pairs) => {
            let pairs = pairs
                .iter()
                .map(|(key, value)| (PyBytes::new(py, key), PyBytes::new(py, value)));
            let pairs: Vec<_> = pairs.collect();
            PyList::new(py, pairs)?.into_any().unbind()
        }
        Reply::Swap(swap) => {
            let done = swap.done.into_pyobject(py)?.to_owned().into_any().unbind();
            PyTuple::new(py, [done, optional(py, swap.previous)])?.into_any().unbind()
        }
        Reply::Ttl(None) => py.None(),
        Reply::Ttl(Some(ttl)) => {
            let seconds = binding::ttl_seconds(ttl).map_or(f64::INFINITY, |seconds| seconds as f64);
            seconds.into_pyobject(py)?.into_any().unbind()
        }
        Reply::Checksum(sum) => (sum.crc64_xor, sum.pairs, sum.bytes).into_pyobject(py)?.into_any().unbind(),
        Reply::Ts(number) => number.into_pyobject(py)?.into_any().unbind(),
        Reply::Count(count) => count.into_pyobject(py)?.into_any().unbind(),
        Reply::Raw(raw) => Bound::new(py, Raw(raw))?.into_any().unbind(),
        Reply::Txns(txns) => Bound::new(py, Txns(txns))?.into_any().unbind(),
        Reply::Txn(txn) => Bound::new(py, Txn(txn))?.into_any().unbind(),
    };
    Ok(value)
}

fn optional(py: Python<'_>, value: Option<Bytes>) -> Py<PyAny> {
    match value {
        Some(value) => PyBytes::new(py, &value).into_any().unbind(),
        None => py.None(),
    }
}
