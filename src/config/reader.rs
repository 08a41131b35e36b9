//! Reads one setting at a time, notes what it found, and collects every problem on the way.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::environment::{Environment, read_secret};
use super::key::{self, placeholder};
use super::problem::Problem;
use super::settings::{Flag, Number, Text};
use super::urls::{check_urls, mask_urls, urls};
use crate::credentials::Key;

/// Where the value of a setting was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nowhere.
    Default,
    /// In the variable.
    Variable,
    /// In the file that `<name>_FILE` names.
    File(PathBuf),
}

/// A setting as it is in effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effective {
    /// The variable.
    pub name: &'static str,
    /// Its value, masked when it is a secret; `None` when it has none.
    pub value: Option<String>,
    /// Where it was found.
    pub source: Source,
}

/// A value that was found, and where.
struct Found {
    text: SecretString,
    source: Source,
}

pub(super) struct Reader<'a> {
    environment: &'a Environment,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
    pub(super) effective: Vec<Effective>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            problems: Vec::new(),
            warnings: Vec::new(),
            effective: Vec::new(),
        }
    }

    /// Whether a variable, or the one that names its file, is set to anything.
    pub(super) fn mentions(&self, text: &Text) -> bool {
        let file = format!("{}_FILE", text.name);
        self.environment.get(text.name).is_some()
            || (text.secret && self.environment.get(&file).is_some())
    }

    pub(super) fn problem(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// A variable that is set to nothing is a problem: an empty `DATABASE_URL` is a secret that
    /// went missing, not a wish for embedded mode.
    fn variable(&mut self, name: &str, secret: bool) -> Option<String> {
        let value = self.environment.get(name)?;
        match value.to_str() {
            Some("") => {
                self.problem(Problem::of(
                    name,
                    "is set but empty; give it a value or unset it",
                ));
                None
            }
            Some(text) => Some(text.to_owned()),
            None => {
                let problem = Problem::of(name, "is not valid UTF-8");
                let lossy = value.to_string_lossy().into_owned();
                self.problem(if secret {
                    problem
                } else {
                    problem.with_value(lossy)
                });
                None
            }
        }
    }

    /// The value of a secret from the variable or its file; of the two only one may be set.
    fn secret(&mut self, text: &Text) -> Option<Found> {
        let file_variable = format!("{}_FILE", text.name);
        let both = self.environment.get(text.name).is_some()
            && self.environment.get(&file_variable).is_some();
        if both {
            self.problem(Problem::of(
                text.name,
                format!("and {file_variable} are both set; unset one of them"),
            ));
            return None;
        }
        if let Some(value) = self.variable(text.name, true) {
            return Some(Found {
                text: value.into(),
                source: Source::Variable,
            });
        }
        let path = self.variable(&file_variable, false)?;
        match read_secret(Path::new(&path)) {
            Ok(file) => {
                if file.exposed {
                    self.warnings.push(format!(
                        "{file_variable}={path:?} may be read or changed by everybody on this \
                         machine; run chmod o= on it"
                    ));
                }
                Some(Found {
                    text: file.text.into(),
                    source: Source::File(path.into()),
                })
            }
            Err(reason) => {
                let reason = format!("names a file that {reason}");
                self.problem(Problem::of(file_variable, reason).with_value(path));
                None
            }
        }
    }

    fn found(&mut self, text: &Text) -> Option<Found> {
        if text.secret {
            return self.secret(text);
        }
        self.variable(text.name, false).map(|value| Found {
            text: value.into(),
            source: Source::Variable,
        })
    }

    fn note(&mut self, name: &'static str, value: Option<String>, source: Source) {
        self.effective.push(Effective {
            name,
            value,
            source,
        });
    }

    pub(super) fn number(&mut self, number: &Number) -> u64 {
        let found = self.variable(number.name, false);
        let value = found.as_ref().map(|text| number.parse(text));
        if let (Some(text), Some(None)) = (&found, value) {
            let reason = format!("must be {}", number.allowed());
            self.problem(Problem::of(number.name, reason).with_value(text));
        }
        let source = if found.is_some() {
            Source::Variable
        } else {
            Source::Default
        };
        let value = value.flatten().unwrap_or(number.default);
        self.note(number.name, Some(number.show(value)), source);
        value
    }

    pub(super) fn seconds(&mut self, number: &Number) -> Duration {
        Duration::from_secs(self.number(number))
    }

    /// A number that fits a `usize`, as every range of the table does on 32 bits and more.
    pub(super) fn size(&mut self, number: &Number) -> usize {
        usize::try_from(self.number(number)).unwrap_or(usize::MAX)
    }

    pub(super) fn flag(&mut self, flag: &Flag) -> bool {
        let found = self.variable(flag.name, false);
        let value = found.as_ref().map(|text| Flag::parse(text));
        if let (Some(text), Some(None)) = (&found, value) {
            let reason = format!("must be {}", Flag::ALLOWED);
            self.problem(Problem::of(flag.name, reason).with_value(text));
        }
        let source = if found.is_some() {
            Source::Variable
        } else {
            Source::Default
        };
        let value = value.flatten().unwrap_or(flag.default);
        self.note(flag.name, Some(value.to_string()), source);
        value
    }

    /// Reads a text and gives it its type; the listing shows what `mask` makes of it.
    pub(super) fn text<T>(
        &mut self,
        text: &Text,
        parse: impl FnOnce(&str) -> Result<T, String>,
        mask: impl FnOnce(&str) -> String,
    ) -> Option<T> {
        let found = self.found(text);
        let Some(Found { text: raw, source }) = found else {
            // What `default` documents is worked out by the caller, who then notes it.
            if text.default.is_none() {
                self.note(text.name, None, Source::Default);
            }
            return None;
        };
        let raw = raw.expose_secret();
        let shown = mask(raw);
        match parse(raw) {
            Ok(value) => {
                self.note(text.name, Some(shown), source);
                Some(value)
            }
            Err(reason) => {
                let problem = Problem::of(text.name, reason);
                // A URL may carry a password where none belongs.
                let hide = text.secret || raw.contains('@');
                self.problem(if hide {
                    problem
                } else {
                    problem.with_value(raw)
                });
                None
            }
        }
    }

    /// A text that is no secret, with a default and how that is shown.
    pub(super) fn or_default<T: Clone>(
        &mut self,
        text: &Text,
        default: (T, String),
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> T {
        let before = self.effective.len();
        let form = text.form;
        let value = self.text(
            text,
            |raw| parse(raw).ok_or_else(|| format!("must be {form}")),
            str::to_owned,
        );
        if self.effective.len() == before {
            self.note(text.name, Some(default.1), Source::Default);
        }
        value.unwrap_or(default.0)
    }

    pub(super) fn directory(&mut self, text: &Text) -> PathBuf {
        let default = text.default.unwrap_or(".");
        self.or_default(text, (default.into(), default.to_owned()), |raw| {
            (!raw.contains('\0')).then(|| PathBuf::from(raw))
        })
    }

    pub(super) fn optional_directory(&mut self, text: &Text) -> Option<PathBuf> {
        let form = text.form;
        let parse = |raw: &str| {
            let path = (!raw.contains('\0')).then(|| PathBuf::from(raw));
            path.ok_or_else(|| format!("must be {form}"))
        };
        self.text(text, parse, str::to_owned)
    }

    pub(super) fn socket(&mut self, text: &Text, default: SocketAddr) -> SocketAddr {
        self.or_default(text, (default, default.to_string()), |raw| raw.parse().ok())
    }

    pub(super) fn token(&mut self, text: &Text) -> Option<SecretString> {
        let form = text.form;
        self.text(
            text,
            |raw| {
                let visible = raw.bytes().all(|byte| byte.is_ascii_graphic());
                (visible && raw.len() <= 4096)
                    .then(|| SecretString::from(raw))
                    .ok_or_else(|| format!("must be {form}"))
            },
            hidden,
        )
    }

    /// The credential key. One that everybody knows is a problem when `strict`.
    pub(super) fn key(&mut self, text: &Text, strict: bool) -> Option<Key> {
        let form = text.form;
        let key = self.text(
            text,
            |raw| Key::from_base64(raw).map_err(|_| format!("must be {form}")),
            hidden,
        )?;
        self.judge(text.name, key::weakness(&key), strict);
        Some(key)
    }

    /// Makes a weakness of a secret a problem when `strict`, else a warning.
    pub(super) fn judge(&mut self, name: &str, weakness: Option<&str>, strict: bool) {
        match weakness {
            Some(why) if strict => self.problem(Problem::of(
                name,
                format!("{why}, which only ENVIRONMENT=dev allows; make a secret of your own"),
            )),
            Some(why) => self.warnings.push(format!(
                "{name} {why}; outside ENVIRONMENT=dev it will be refused"
            )),
            None => {}
        }
    }

    /// Judges the passwords in URLs that were found right.
    pub(super) fn refuse_placeholder_password(
        &mut self,
        text: &Text,
        found: Option<&SecretString>,
        strict: bool,
    ) {
        let Some(raw) = found else { return };
        let known = urls(text.form, raw.expose_secret())
            .into_iter()
            .filter_map(|part| Url::parse(part).ok())
            .any(|url| url.password().is_some_and(placeholder));
        let weakness = known.then_some("has a placeholder for its password");
        self.judge(text.name, weakness, strict);
    }

    pub(super) fn url(&mut self, text: &Text) -> Option<SecretString> {
        let form = text.form;
        self.text(
            text,
            |raw| check_urls(form, raw).map(|()| raw.into()),
            |raw| mask_urls(form, raw),
        )
    }
}

/// What stands for a secret.
pub(super) fn hidden(_: &str) -> String {
    "***".to_owned()
}
