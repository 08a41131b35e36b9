//! The one integration binary: real servers, real processes, simulated routers.

mod api;
mod archive;
mod arrows;
mod cli_read;
mod cluster;
mod coordinator;
mod corpus_report;
mod deploy;
mod embedded;
mod fuzz_corpora;
mod http;
mod import;
mod mirror;
mod outbox;
mod routeros;
mod services;
mod sim;
mod sink;
mod sink_contract;
mod ssh;
mod store;
mod transit;
