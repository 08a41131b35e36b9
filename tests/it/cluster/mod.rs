//! The service as its users run it: the real binary against real servers and simulated routers.

mod archive;
mod commands;
mod faults;
pub mod harness;
mod lifecycle;
mod operator;
pub mod poll;
mod readme;
mod replicas;
mod secrets;
