//! The proxy before real servers: Debian's redis-server, memcached and nutcracker.

mod cluster;
mod harness;
mod memcached;
mod operation;
mod parser;
mod private;
mod redis;
mod twemproxy;
