//! A private nats for the tests.
