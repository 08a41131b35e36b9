//! One short function per subcommand.
