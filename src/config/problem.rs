//! What is wrong with the configuration, for the operator: all of it at once.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The variable.
    pub variable: String,
    /// Its value as it was found; `None` when it is a secret, or not set.
    pub value: Option<String>,
    /// What is wrong, and what is allowed.
    pub reason: String,
}

impl Problem {
    /// A problem with a variable whose value is a secret, missing, or not to blame.
    pub(super) fn of(variable: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            variable: variable.into(),
            value: None,
            reason: reason.into(),
        }
    }

    /// The same, showing the value.
    pub(super) fn with_value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(value.into());
        self
    }
}

/// How much of a value a message shows, in characters.
const SHOWN: usize = 80;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)?;
        if let Some(value) = &self.value {
            let shown: String = value.chars().take(SHOWN).collect();
            let rest = if shown.len() < value.len() { "…" } else { "" };
            write!(f, "={shown:?}{rest}")?;
        }
        write!(f, " {}", self.reason)
    }
}

/// The configuration cannot be used. The command ends with exit code 3.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ConfigError {
    /// Everything that is wrong, in the order of the table of settings.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "invalid configuration: {one}"),
            many => {
                write!(f, "invalid configuration, {} problems:", many.len())?;
                many.iter()
                    .try_for_each(|problem| write!(f, "\n  - {problem}"))
            }
        }
    }
}
