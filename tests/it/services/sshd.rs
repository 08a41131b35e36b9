//! A private sshd for the tests.
