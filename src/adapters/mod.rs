//! Each file implements one port for one product, and imports no sibling.

pub mod archive;
pub mod git;
pub mod in_process;
pub mod jetstream;
mod moves_on;
pub mod postgres;
pub mod redis;
pub mod sqlite;
mod stored;
