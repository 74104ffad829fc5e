//! Nothing: depending on ringmux with its features `cli` and `manage` is all that this package does.
