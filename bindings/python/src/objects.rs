//! The handles of the client as classes. Each method makes an operation; what it does is said in the Python part.

use std::time::Duration;

use binding::{Ask, Bytes};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::operation::Operation;
use crate::values::Blob;

#[pyfunction]
pub fn connect_raw(endpoints: String, options: String) -> Operation {
    Operation::new(binding::Raw::connect(endpoints, options))
}

#[pyfunction]
pub fn connect_txns(endpoints: String, options: String) -> Operation {
    Operation::new(binding::Txns::connect(endpoints, options))
}

/// Keys without transactions.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Raw(pub binding::Raw);

#[pymethods]
impl Raw {
    fn with_deadline(&self, seconds: f64) -> PyResult<Raw> {
        Ok(Raw(self.0.with_deadline(time(seconds)?)))
    }

    fn metrics(&self) -> String {
        self.0.metrics()
    }

    fn get(&self, key: Blob) -> Operation {
        Operation::new(self.0.get(key.0))
    }

    #[pyo3(signature = (key, value, ttl))]
    fn put(&self, key: Blob, value: Blob, ttl: Option<f64>) -> PyResult<Operation> {
        Ok(Operation::new(self.0.put(key.0, value.0, ttl.map(time).transpose()?)))
    }

    fn delete(&self, key: Blob) -> Operation {
        Operation::new(self.0.delete(key.0))
    }

    fn batch_get(&self, keys: Vec<Blob>) -> Operation {
        Operation::new(self.0.batch_get(bytes(keys)))
    }

    #[pyo3(signature = (pairs, ttl))]
    fn batch_put(&self, pairs: Vec<(Blob, Blob)>, ttl: Option<f64>) -> PyResult<Operation> {
        Ok(Operation::new(
            self.0.batch_put(byte_pairs(pairs), ttl.map(time).transpose()?),
        ))
    }

    fn batch_delete(&self, keys: Vec<Blob>) -> Operation {
        Operation::new(self.0.batch_delete(bytes(keys)))
    }

    fn delete_range(&self, start: Blob, end: Blob) -> Operation {
        Operation::new(self.0.delete_range(binding::range(start.0, end.0)))
    }

    #[pyo3(signature = (key, expected, new))]
    fn compare_and_swap(&self, key: Blob, expected: Option<Blob>, new: Option<Blob>) -> Operation {
        let (expected, new) = (expected.map(|expected| expected.0), new.map(|new| new.0));
        Operation::new(self.0.compare_and_swap(key.0, expected, new))
    }

    fn ttl(&self, key: Blob) -> Operation {
        Operation::new(self.0.ttl(key.0))
    }

    fn checksum(&self, start: Blob, end: Blob) -> Operation {
        Operation::new(self.0.checksum(binding::range(start.0, end.0)))
    }

    fn scan(&self, start: Blob, end: Blob, limit: u64, reverse: bool, keys_only: bool) -> Scan {
        Scan(self.0.scan(Ask::new(start.0, end.0, limit, reverse, keys_only)))
    }
}

/// A client for transactions.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Txns(pub binding::Txns);

#[pymethods]
impl Txns {
    fn with_deadline(&self, seconds: f64) -> PyResult<Txns> {
        Ok(Txns(self.0.with_deadline(time(seconds)?)))
    }

    fn metrics(&self) -> String {
        self.0.metrics()
    }

    fn begin(&self, options: String) -> Operation {
        Operation::new(self.0.begin(options))
    }

    fn timestamp(&self) -> Operation {
        Operation::new(self.0.timestamp())
    }

    fn snapshot(&self, ts: u64) -> Snapshot {
        Snapshot(self.0.snapshot(ts))
    }

    fn gc(&self, safe_point: u64) -> Operation {
        Operation::new(self.0.gc(safe_point))
    }

    fn resolve_locks(&self, start: Blob, end: Blob, ts: u64) -> Operation {
        Operation::new(self.0.resolve_locks(binding::range(start.0, end.0), ts))
    }
}

/// A transaction.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Txn(pub binding::Txn);

#[pymethods]
impl Txn {
    #[getter]
    fn start_ts(&self) -> u64 {
        self.0.start_ts()
    }

    fn get(&self, key: Blob) -> Operation {
        Operation::new(self.0.get(key.0))
    }

    fn batch_get(&self, keys: Vec<Blob>) -> Operation {
        Operation::new(self.0.batch_get(bytes(keys)))
    }

    fn get_for_update(&self, key: Blob) -> Operation {
        Operation::new(self.0.get_for_update(key.0))
    }

    fn batch_get_for_update(&self, keys: Vec<Blob>) -> Operation {
        Operation::new(self.0.batch_get_for_update(bytes(keys)))
    }

    fn put(&self, key: Blob, value: Blob) -> Operation {
        Operation::quick(self.0.put(key.0, value.0))
    }

    fn batch_put(&self, pairs: Vec<(Blob, Blob)>) -> Operation {
        Operation::quick(self.0.batch_put(byte_pairs(pairs)))
    }

    fn insert(&self, key: Blob, value: Blob) -> Operation {
        Operation::quick(self.0.insert(key.0, value.0))
    }

    fn delete(&self, key: Blob) -> Operation {
        Operation::quick(self.0.delete(key.0))
    }

    fn lock_keys(&self, keys: Vec<Blob>) -> Operation {
        Operation::quick(self.0.lock_keys(bytes(keys)))
    }

    fn savepoint(&self) -> Operation {
        Operation::quick(self.0.savepoint())
    }

    fn rollback_to(&self, savepoint: u64) -> Operation {
        Operation::quick(self.0.rollback_to(savepoint))
    }

    fn commit(&self) -> Operation {
        Operation::new(self.0.commit())
    }

    fn rollback(&self) -> Operation {
        Operation::new(self.0.rollback())
    }

    fn scan(&self, start: Blob, end: Blob, limit: u64, reverse: bool, keys_only: bool) -> Scan {
        Scan(self.0.scan(Ask::new(start.0, end.0, limit, reverse, keys_only)))
    }
}

/// Reads as of one time.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Snapshot(pub binding::Snap);

#[pymethods]
impl Snapshot {
    #[getter]
    fn ts(&self) -> u64 {
        self.0.ts()
    }

    fn get(&self, key: Blob) -> Operation {
        Operation::new(self.0.get(key.0))
    }

    fn batch_get(&self, keys: Vec<Blob>) -> Operation {
        Operation::new(self.0.batch_get(bytes(keys)))
    }

    fn scan(&self, start: Blob, end: Blob, limit: u64, reverse: bool, keys_only: bool) -> Scan {
        Scan(self.0.scan(Ask::new(start.0, end.0, limit, reverse, keys_only)))
    }
}

/// A scan under way.
#[pyclass(frozen, module = "ferrite_client._native")]
pub struct Scan(pub binding::Scan);

#[pymethods]
impl Scan {
    fn next(&self, pairs_max: usize) -> Operation {
        Operation::new(self.0.next(pairs_max))
    }
}

fn bytes(keys: Vec<Blob>) -> Vec<Bytes> {
    keys.into_iter().map(|key| key.0).collect()
}

fn byte_pairs(pairs: Vec<(Blob, Blob)>) -> Vec<(Bytes, Bytes)> {
    pairs.into_iter().map(|(key, value)| (key.0, value.0)).collect()
}

fn time(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(|_| PyValueError::new_err(format!("{seconds} is no number of seconds")))
}
