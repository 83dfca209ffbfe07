//! The service as a process and as a library: manners of HTTP, the golden set, the hostile set. Pictures are made here.

mod common;
mod crafted;
mod ferrite;
mod golden;
mod hostile;
mod http;
mod origin;
mod sources;
