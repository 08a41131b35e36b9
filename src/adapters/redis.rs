//! Leases and presence in Redis, Valkey or Dragonfly.
