//! What the frames promise.
