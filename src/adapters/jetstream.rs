//! Snapshots into NATS JetStream.
