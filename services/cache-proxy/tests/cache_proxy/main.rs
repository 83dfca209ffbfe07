//! The proxy before real servers: Debian's redis-server, memcached and nutcracker.

mod clients;
mod cluster;
mod ferrite;
mod frames;
mod harness;
mod items;
mod memcached;
mod operation;
mod parser;
mod private;
mod redis;
mod sentinel;
mod twemproxy;
