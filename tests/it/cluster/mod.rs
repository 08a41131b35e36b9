//! The service as its users run it: the real binary against real servers and simulated routers.

mod commands;
mod faults;
pub mod harness;
mod lifecycle;
mod operator;
mod outbox;
pub mod poll;
mod readme;
mod replicas;
mod secrets;
