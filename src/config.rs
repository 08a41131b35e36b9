//! Every setting: type, default, unit, check. The one reader of the environment and of files.
