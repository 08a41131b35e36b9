//! Integration tests: coordinator.
