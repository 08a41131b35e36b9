//! The control socket of embedded mode: what a running service is asked through
//! `DATA_DIR/control.sock`, so that nothing needs it stopped.

pub mod client;
pub mod desk;
pub mod server;
pub mod wire;

use std::path::{Path, PathBuf};

/// The socket in `DATA_DIR`; only its owner may connect.
pub const SOCKET: &str = "control.sock";

/// The socket of `data_dir`.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join(SOCKET)
}
