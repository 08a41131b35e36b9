//! Signals, soft and hard cancellation, the grace period, the task tracker.
