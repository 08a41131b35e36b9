//! Composition root: configuration to adapters to fleet.
