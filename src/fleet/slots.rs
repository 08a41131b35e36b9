//! Bounded concurrency with two lanes: requests go ahead of scheduled work without starving it.
