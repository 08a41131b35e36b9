//! The moving parts: reconciler, workers, attempts.
pub mod slots;
