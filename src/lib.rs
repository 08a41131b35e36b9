//! Configuration backup for fleets of MikroTik RouterOS routers.
//!
//! Decisions are in the middle, IO is at the edge. Arrows point one way:
//! `main -> cli -> app -> fleet -> ports -> domain`, adapters and http beside fleet.
//! `ARCHITECTURE.md` tells the rest.

pub mod adapters;
pub mod api;
pub mod app;
pub mod archive;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod credentials;
pub mod domain;
pub mod fleet;
pub mod http;
pub mod import;
pub mod intake;
pub mod lifecycle;
pub mod metrics;
pub mod mirror;
pub mod ports;
pub mod report;
pub mod routeros;
pub mod sim;
pub mod ssh;
pub mod telemetry;
pub mod trigger;
