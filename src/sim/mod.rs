//! A simulated RouterOS router, for tests, the demo and trying things out.
