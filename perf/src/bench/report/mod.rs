//! The results for people: tables and charts.

pub(super) mod charts;
mod svg;
pub(super) mod table;
