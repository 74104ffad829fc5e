//! Nothing: depending on ringmux with its feature `cli` is all that this package does.
