//! Embedded mode: the real binary on a folder of its own, and nothing else but simulated routers.

mod acting;
mod check;
mod demo;
pub mod harness;
mod killed;
mod mirror;
mod progress;
mod pruning;
mod readme;
mod service;
mod socket;
mod trouble;
