//! What the fuzz targets check.

mod checks;

pub use checks::*;
