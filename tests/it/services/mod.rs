//! Real servers for the tests: found on PATH, started on private sockets or ports, stopped however
//! the test run ends.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod clock;
pub mod disk;
pub mod nats;
pub mod openbao;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod sshd;
pub mod stopwatch;
pub mod tls;
