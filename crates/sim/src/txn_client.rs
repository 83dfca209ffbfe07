//! The transactional client of the simulation: Percolator's other half, as clients of this wire do it (two phases, async commit, one
//! phase; optimistic and pessimistic), and clients that die in the middle of it.
//!
//! A transaction is a [`program`]: an async block that only the world polls, so that its steps read from top to bottom and can still be
//! cut off between any two of them. [`session`] finds regions and asks them until they answer, [`resolve`] decides what becomes of
//! others' locks, [`transaction`] runs one [`script`], [`client`] is what the world sees.

pub mod client;
pub mod program;
pub mod resolve;
pub mod script;
pub mod session;
pub mod transaction;
