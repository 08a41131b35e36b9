//! The `mikrotik-backup` binary.

fn main() {}
