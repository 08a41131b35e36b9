//! Integration tests: the store, by the contract of the port and by the ways of each database.

mod contract;
mod hints;
pub mod migrations;
mod outage;
mod postgres;
mod rights;
mod settlements;
mod sqlite;
mod unreadable;
