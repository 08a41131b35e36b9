//! The service as its users run it: the real binary against real servers and simulated routers.

mod commands;
mod harness;
mod lifecycle;
mod operator;
mod poll;
mod readme;
mod replicas;
