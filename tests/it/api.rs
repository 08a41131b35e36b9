//! The HTTP API as any client sees it: over TCP and over the control socket, against its own
//! OpenAPI document.

mod access;
pub mod client;
mod document;
mod oddities;
mod requests;
