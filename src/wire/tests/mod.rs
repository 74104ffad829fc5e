//! A second wire, and its properties: over the core alone, and over a driver and handles.

mod driven;
pub(crate) mod tiny;
mod valued;
