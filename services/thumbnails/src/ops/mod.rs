//! What is done to pixels, one module an operation.

pub mod color;
pub mod filter;
pub mod resize;
pub mod smart;
pub mod trim;
pub mod watermark;
