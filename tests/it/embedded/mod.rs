//! Embedded mode: the real binary on a folder of its own, and nothing else but simulated routers.

mod acting;
mod ad_hoc;
mod check;
mod demo;
pub mod harness;
mod killed;
mod mirror;
mod places;
mod progress;
mod pruning;
mod readme;
mod service;
mod settings;
mod socket;
mod trouble;
