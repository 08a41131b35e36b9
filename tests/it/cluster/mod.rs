//! The service as its users run it: the real binary against real servers and simulated routers.

mod commands;
mod faults;
pub mod harness;
mod judge;
mod lifecycle;
mod operator;
mod outages;
pub mod poll;
mod readme;
mod replicas;
mod secrets;
