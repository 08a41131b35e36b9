//! Leases and presence within one process.
