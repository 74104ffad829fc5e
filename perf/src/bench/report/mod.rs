//! The results for people: tables and charts.

pub(super) mod table;
