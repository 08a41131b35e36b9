//! The service as its users run it: the real binary against real servers and simulated routers.

mod faults;
mod harness;
mod poll;
mod secrets;
