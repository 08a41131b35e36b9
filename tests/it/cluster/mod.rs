//! The service as its users run it: the real binary against real servers and simulated routers.

mod commands;
mod faults;
mod harness;
mod lifecycle;
mod operator;
mod poll;
mod readme;
mod replicas;
mod secrets;
