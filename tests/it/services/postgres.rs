//! A private postgres for the tests.
