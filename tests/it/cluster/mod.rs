//! The service as its users run it: the real binary against real servers and simulated routers.

mod harness;
mod poll;
mod readme;
mod replicas;
