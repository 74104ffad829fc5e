//! A second wire, and what holds of it: over the core alone, and over a driver and handles.

mod driven;
pub(crate) mod tiny;
mod valued;
