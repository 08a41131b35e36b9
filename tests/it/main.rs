//! The one integration binary: real servers, real processes, simulated routers.

mod coordinator;
mod http;
mod services;
mod sim;
mod sink;
mod ssh;
mod store;
