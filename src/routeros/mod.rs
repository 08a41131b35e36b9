//! What we know about RouterOS text: pure, text in, value out.
//!
//! `bytes` makes text of what the channel delivered, `dialogue` decides which export command to
//! send and whether the answer is a whole export, `normalize` makes two exports of an unchanged
//! router equal. `reader` is the one place that knows what a line is.

mod bytes;
mod commands;
mod comments;
mod complete;
mod console;
mod copy;
mod counting;
mod dialogue;
mod diff;
#[cfg(test)]
mod doubtful_tests;
mod form;
mod header;
mod joined;
mod missing;
mod normalize;
mod normalizer;
#[cfg(test)]
mod oracle;
mod pattern;
mod probe;
mod reader;
mod redact;
mod rules;
mod search;
mod secrets;
mod shape;
mod suspicion;
#[cfg(test)]
mod sweep_tests;
mod terse;
#[cfg(test)]
mod tests;
mod version;
mod wrapped;
#[cfg(test)]
mod wrapping_tests;

pub use bytes::{decode, encode};
pub use commands::{Command, commands};
pub use counting::counts_connections;
pub use dialogue::{Answer, Dialogue, Export, ExportCommand, Verdict, gap};
pub use diff::{Change, Diff, Hunk, HunkLine, MenuChange, Side, Style, diff, render};
pub use header::Header;
pub use missing::{missing_menus, remember};
pub use normalize::{NORMALIZATION_VERSION, Normalized, normalize, normalize_text, renormalize};
pub use normalizer::{IgnoreError, Normalizer};
pub use redact::{MASK, Redacted, redact};
pub use rules::{Kind, Rule, rules, rules_fingerprint};
pub use search::{History, Hit, Matcher, PatternError, Span, history, not_exported};
pub use suspicion::{Remembered, StrayLike, Suspicion, suspicion, suspicion_of_first};
pub use version::{Version, version_in_resource_print};
