//! A private redis for the tests.
