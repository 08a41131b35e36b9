//! The tracing subscriber: our own modules at the chosen level, dependencies never below info.
