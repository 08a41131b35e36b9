//! The service as its users run it: the real binary against real servers and simulated routers.

mod archive;
mod commands;
mod connections;
mod demand;
mod faults;
pub mod harness;
mod judge;
mod lifecycle;
mod openbao;
mod operator;
mod outages;
mod outbox;
pub mod poll;
mod readme;
mod replicas;
mod rights;
mod secrets;
mod suspects;
