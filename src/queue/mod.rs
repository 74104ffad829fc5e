//! Lock-free leaves.
