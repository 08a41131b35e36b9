//! What we know about RouterOS text: pure, text in, value out.
