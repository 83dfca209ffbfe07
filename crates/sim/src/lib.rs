//! Whole clusters on one thread: stores, placement driver and clients under virtual time, with networks, disks and clocks that fail.
//!
//! [`world::World`] drives the very machines that production runs (`raftstore`'s peers and appliers, `txn`'s scheduler, `pd`'s machine)
//! through one queue of events. [`run`] takes a seed through chaos, healing and judgement; [`campaign`] takes many. Histories of what clients did
//! and saw go to [`check`], whose judges know nothing else. [`history`] and [`check`] serve tests of real processes as well.
//!
//! Invariants: one seed is one run, on every machine (every draw comes from [`rng`], every order is sorted, time is [`queue`]'s);
//! an outcome that a client cannot know is recorded as unknown; nothing here is used by production code.

pub mod campaign;
pub mod check;
pub mod client;
pub mod counts;
pub mod disk;
pub mod history;
pub mod members;
pub mod message;
pub mod network;
pub mod observer;
pub mod options;
pub mod placement;
pub mod planted;
pub mod queue;
pub mod rng;
pub mod routes;
pub mod run;
pub mod store;
pub mod trace;
pub mod txn_client;
pub mod workload;
pub mod world;
