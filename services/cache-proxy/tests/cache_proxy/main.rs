//! The proxy before real servers: Debian's redis-server, memcached and nutcracker.

mod cluster;
mod harness;
mod memcached;
mod private;
mod redis;
mod twemproxy;
