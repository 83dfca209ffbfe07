//! Thumbnails over HTTP: a picture from somewhere, in the size and format that the URL asks for, in imgproxy's grammar of URLs.
//!
//! A request comes in at [`serve`]; [`url`] reads and verifies its path, [`source`] brings the bytes, [`cache`] keeps results, and
//! [`pool`] runs [`pipeline`] on threads of its own: header ([`header`]), limits ([`limits`]), plan ([`geometry`]), decoding and encoding
//! ([`codec`]), operations ([`ops`]). [`service`] is the way of one request through all of that.
//!
//! Invariants: nothing is decoded before its header met the limits; work on pixels never runs on tokio's threads; memory of decoding is
//! admitted by estimate, and what does not fit is refused early; a source is dialled only at an address that was checked; every wait ends.

pub mod bytes;
pub mod cache;
pub mod cli;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod error;
pub mod exif;
pub mod flight;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod geometry;
pub mod header;
pub mod iptc;
pub mod limits;
pub mod metrics;
pub mod ops;
pub mod picture;
pub mod pipeline;
pub mod pool;
pub mod rate;
pub mod serve;
pub mod service;
pub mod source;
pub mod url;
pub mod xmp;
