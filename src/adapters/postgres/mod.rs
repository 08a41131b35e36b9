//! Devices, state and journal in PostgreSQL.
