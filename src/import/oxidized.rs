//! Oxidized's inventory: the nodes of `router.db`, with what its `config` says about them.
//!
//! The rules are those of Oxidized itself, read from its sources
//! (<https://github.com/ytti/oxidized>, `lib/oxidized/`), for what its documentation leaves open:
//!
//! - `source/csv.rb`: lines that begin with `#` after blanks are comments; a line is split at the
//!   delimiter, `map` and `vars_map` number its parts from 0. Parts that are missing are nil.
//! - `source/source.rb`: the parts `nil` and `false` mean nothing; `model_map` and `group_map` take
//!   texts and regular expressions, the first match counts.
//! - `node.rb`, `resolve_key`: a setting of the node comes before its group's setting for the model
//!   (`groups.G.models.M`), its group's, its model's (`models.M`) and the global one. An empty part
//!   is a value, so an empty user name is an empty user name; nil is none. A key that is there
//!   counts even if its value is nil.
//! - `config/vars.rb`: the same order for `vars`, except that a variable of `vars_map` counts even
//!   where its part is nil.
//! - `node.rb`, `initialize`: `ip` is used if it is an IP address (a prefix length is cut off), else
//!   the name.
//! - `input/sshbase.rb`: the variables `ssh_port`, `ssh_keys`, `auth_methods`, `ssh_proxy`.

mod config;
mod delimiter;
mod yaml;

use std::net::IpAddr;

use super::{Collector, Finding, Import, ImportedDevice, InputFile, PrivateKey, decode};
use crate::domain::session::DeviceSettings;
use config::{Config, Setting};
use yaml::Node as Yaml;

const FILE: InputFile = InputFile::RouterDb;

/// The model of RouterOS: `lib/oxidized/model/routeros.rb`.
const MODEL: &str = "routeros";

/// Reads the nodes of a `router.db` by the `config` that belongs to it.
///
/// Nodes that are not RouterOS, or that are only reached in a way that this program does not know,
/// are skipped. `ssh_keys` are returned as paths, of which only the first is used.
pub fn from_oxidized(config: &str, router_db: &[u8]) -> Import {
    let mut collector = Collector::default();
    match Config::parse(config) {
        Ok(config) => nodes(&config, router_db, &mut collector),
        Err(problems) => collector.import.problems = problems,
    }
    collector.finish()
}

/// The path of the `router.db` that a `config` names (`source.csv.file`); a leading `~` is not
/// expanded. `None` where it names none, and Oxidized's own default is `~/.config/oxidized/router.db`.
///
/// # Errors
/// What is wrong with the `config`.
pub fn router_db_path(config: &str) -> Result<Option<String>, Vec<Finding>> {
    Config::parse(config).map(|config| config.router_db)
}

fn nodes(config: &Config, router_db: &[u8], collector: &mut Collector) {
    // A binary OpenPGP packet begins with a set high bit: RFC 9580, section 4.2.
    let packet = config.gpg && router_db.first().is_some_and(|byte| byte & 0x80 != 0);
    let binary = packet && std::str::from_utf8(router_db).is_err();
    if binary || router_db.starts_with(b"-----BEGIN PGP MESSAGE") {
        let text = "the file is encrypted with GPG; decrypt it (gpg --decrypt) and import that";
        collector.problem(FILE, None, text);
        return;
    }
    let text = match decode(FILE, router_db) {
        Ok(text) => text,
        Err(problem) => {
            collector.import.problems.push(problem);
            return;
        }
    };
    for (index, line) in text.split('\n').enumerate() {
        let line = line.trim_end_matches('\r');
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('#') {
            continue;
        }
        let parts = config.delimiter.split(line);
        let node = Node {
            config,
            line: index + 1,
            group: config.group_of(part(&config.map, "group", &parts)),
            parts,
        };
        if let Err(problem) = node.read(collector) {
            collector.import.problems.push(problem);
        }
    }
}

/// The part of a line that a map names, as `node_var_interpolate` sees it.
fn part<'a>(map: &[(String, i64)], key: &str, parts: &[&'a str]) -> Option<&'a str> {
    let position = map.iter().rev().find(|(name, _)| name == key)?.1;
    // Ruby counts negative positions from the end.
    let index = match usize::try_from(position) {
        Ok(index) => index,
        Err(_) => parts
            .len()
            .checked_sub(usize::try_from(position.unsigned_abs()).ok()?)?,
    };
    let text = parts.get(index)?;
    (!matches!(*text, "nil" | "false")).then_some(*text)
}

/// One line of `router.db`.
struct Node<'a> {
    config: &'a Config,
    line: usize,
    parts: Vec<&'a str>,
    group: Option<String>,
}

impl<'a> Node<'a> {
    fn part(&self, key: &str) -> Option<&'a str> {
        part(&self.config.map, key, &self.parts)
    }

    /// `resolve_key`: the node's own part, or what the config says.
    fn setting(&self, key: &str) -> Result<Option<String>, Finding> {
        if let Some(text) = self.part(key) {
            return Ok(Some(text.to_owned()));
        }
        let setting = self.config.setting(self.group.as_deref(), MODEL, key);
        setting.map_or(Ok(None), |setting| setting.text(key))
    }

    /// `vars`: the node's own part, even if it is nil, or what the config says.
    fn variable(&self, name: &str) -> Option<Variable<'_>> {
        let mapped = self.config.vars_map.iter().any(|(key, _)| key == name);
        if mapped {
            part(&self.config.vars_map, name, &self.parts).map(Variable::Part)
        } else {
            let group = self.group.as_deref();
            let variable = self.config.variable(group, MODEL, name);
            variable
                .filter(|setting| !setting.is_nil())
                .map(Variable::Config)
        }
    }

    fn model(&self) -> Result<Option<String>, Finding> {
        if let Some(model) = self.part("model") {
            return Ok(Some(self.config.model_of(model)));
        }
        let setting = self.config.model_setting(self.group.as_deref());
        setting.map_or(Ok(None), |setting| setting.text("model"))
    }

    fn read(&self, collector: &mut Collector) -> Result<(), Finding> {
        let model = self.model()?;
        if !model
            .as_deref()
            .is_some_and(|model| model.eq_ignore_ascii_case(MODEL))
        {
            self.skip(collector, not_routeros(model.as_deref()));
            return Ok(());
        }
        let inputs = self.inputs()?;
        let ssh = |inputs: &String| inputs.split(',').any(|input| input.trim() == "ssh");
        if !inputs.as_ref().is_none_or(ssh) {
            let why = "its input is not ssh; set input to ssh if the router answers there";
            self.skip(collector, why.to_owned());
            return Ok(());
        }
        if self
            .variable("ssh_proxy")
            .is_some_and(|proxy| !proxy.is_empty())
        {
            let why = "it is reached through ssh_proxy, and this program knows no jump hosts";
            self.skip(collector, why.to_owned());
            return Ok(());
        }
        let device = self.device(collector)?;
        collector.device(FILE, device);
        Ok(())
    }

    /// `resolve_input`: here the global value is not `input`, a map, but `input.default`.
    fn inputs(&self) -> Result<Option<String>, Finding> {
        if let Some(text) = self.part("input") {
            return Ok(Some(text.to_owned()));
        }
        let setting = self
            .config
            .local_setting(self.group.as_deref(), MODEL, "input");
        let default = || Ok(self.config.input.clone());
        setting.map_or_else(default, |setting| setting.text("input"))
    }

    fn device(&self, collector: &mut Collector) -> Result<ImportedDevice, Finding> {
        let name = self.part("name").unwrap_or_default();
        let username = self.setting("username")?;
        let methods = self.methods()?;
        let allows = |method: &str| {
            methods
                .as_ref()
                .is_none_or(|all| all.iter().any(|m| m == method))
        };
        let password = self
            .setting("password")?
            .filter(|_| allows("password") || allows("keyboard-interactive"));
        let private_key = self.private_key(collector)?.filter(|_| allows("publickey"));
        if username
            .as_deref()
            .is_none_or(|name| name.trim().is_empty())
        {
            let text = if username.is_some() {
                "the username is empty; Oxidized takes that for an empty user name: write nil to \
                 use that of the group, the model or all"
            } else {
                "there is no username: neither here, nor in groups, models or for all in config"
            };
            collector.problem(FILE, Some(self.line), text);
        } else if password.is_none() && private_key.is_none() {
            let text = "there is neither password nor key (ssh_keys) that auth_methods allows: \
                        neither here, nor in groups, models or for all in config";
            collector.problem(FILE, Some(self.line), text);
        }
        Ok(ImportedDevice {
            line: self.line,
            name: name.to_owned(),
            address: address(self.part("ip"), name),
            // 0 is refused with everything else that is wrong with the device.
            port: self.port()?.unwrap_or(0),
            // A missing user was told above.
            username: Some(username.unwrap_or_default()),
            password: password.map(Into::into),
            private_key: private_key.map(PrivateKey::File),
            private_key_passphrase: None,
            tenant: None,
            group: self.group.clone().filter(|group| !group.is_empty()),
            tags: Vec::new(),
            host_key: None,
            settings: DeviceSettings::default(),
        })
    }

    /// `ssh_port`, 22 without; `None` where it is no port.
    fn port(&self) -> Result<Option<u16>, Finding> {
        let text = match self.variable("ssh_port") {
            None => return Ok(Some(22)),
            Some(Variable::Part(text)) => text.trim().to_owned(),
            Some(Variable::Config(setting)) => setting.text("ssh_port")?.unwrap_or_default(),
        };
        // Oxidized would try port 0 for an empty text: no router is behind that.
        Ok(if text.is_empty() {
            Some(22)
        } else {
            text.parse().ok()
        })
    }

    fn private_key(&self, collector: &mut Collector) -> Result<Option<String>, Finding> {
        let keys = match self.variable("ssh_keys") {
            None => return Ok(None),
            Some(Variable::Part(text)) => vec![text.to_owned()],
            Some(Variable::Config(setting)) => setting.texts("ssh_keys")?,
        };
        let mut keys = keys.into_iter().filter(|key| !key.trim().is_empty());
        let first = keys.next();
        if keys.next().is_some() {
            let text = "ssh_keys names several keys; only the first is used";
            collector.note(FILE, Some(self.line), text);
        }
        Ok(first)
    }

    /// `auth_methods`; `None` is Oxidized's default: none, publickey and password.
    fn methods(&self) -> Result<Option<Vec<String>>, Finding> {
        let texts = match self.variable("auth_methods") {
            None => return Ok(None),
            Some(Variable::Part(text)) => vec![text.to_owned()],
            Some(Variable::Config(setting)) => setting.texts("auth_methods")?,
        };
        let each = |text: String| {
            let methods = text.split(',').map(|method| method.trim().to_owned());
            methods
                .filter(|method| !method.is_empty())
                .collect::<Vec<_>>()
        };
        let methods: Vec<_> = texts.into_iter().flat_map(each).collect();
        Ok((!methods.is_empty()).then_some(methods))
    }

    fn skip(&self, collector: &mut Collector, why: String) {
        collector.import.skipped.push(super::Skipped {
            line: self.line,
            name: self.part("name").unwrap_or_default().to_owned(),
            why,
        });
    }
}

/// A variable of a node.
enum Variable<'a> {
    Part(&'a str),
    Config(Setting<'a>),
}

impl Variable<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::Part(text) => text.trim().is_empty(),
            Self::Config(setting) => {
                matches!(&setting.value.node, Yaml::Scalar { text, .. } if text.trim().is_empty())
            }
        }
    }
}

/// `Node#initialize`: the `ip` if it is one, without its prefix length, else the name.
fn address(ip: Option<&str>, name: &str) -> String {
    let ip = ip.and_then(|ip| ip.split('/').next()).unwrap_or_default();
    let ip = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    ip.parse::<IpAddr>()
        .map_or_else(|_| name.trim().to_owned(), |ip| ip.to_string())
}

fn not_routeros(model: Option<&str>) -> String {
    // What does not look like a model is some other part of a line that `map` numbers wrongly.
    let word = |text: &&str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        !text.is_empty() && text.len() <= 32 && text.chars().all(plain)
    };
    match model {
        None => "it has no model".to_owned(),
        Some(model) if model.eq_ignore_ascii_case("mikrotik") => {
            format!("its model is {model}; if that is RouterOS, say so in model_map")
        }
        Some(model) => match Some(model).filter(word) {
            Some(model) => format!("its model is {model}, not {MODEL}"),
            None => "its model is not the name of a model; is map right?".to_owned(),
        },
    }
}
