//! The extension under the package `ferrite_client`: calls of the client as lazy operations, and their ends brought to event loops.
//!
//! A method makes an [`operation::Operation`], which does nothing until Python awaits it or waits for it. The package's Python part gives it its idiom
//! and types. Ends come to an event loop through a socket that it watches ([`hub::Hub`]), so that no thread of the library ever
//! needs the interpreter's lock.

mod hub;
mod objects;
mod operation;
mod values;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<hub::Hub>()?;
    module.add_class::<operation::Operation>()?;
    module.add_class::<operation::Started>()?;
    module.add_class::<objects::Raw>()?;
    module.add_class::<objects::Txns>()?;
    module.add_class::<objects::Txn>()?;
    module.add_class::<objects::Snapshot>()?;
    module.add_class::<objects::Scan>()?;
    module.add_function(wrap_pyfunction!(objects::connect_raw, module)?)?;
    module.add_function(wrap_pyfunction!(objects::connect_txns, module)?)?;
    Ok(())
}
