//! Tests of ringmux with other implementations of the wires that it speaks, in a package of their own: what those depend on stays
//! out of the library's own tests. See `tests/`.
