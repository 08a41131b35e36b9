//! Our CSV: a header that names the columns, then a row per device.

use secrecy::{ExposeSecret, SecretString};

use super::records::{self, Record};
use super::{Collector, Import, ImportedDevice, InputFile, PrivateKey, decode};
use crate::domain::host_key::Fingerprint;
use crate::domain::session::{DeviceSettings, SshAlgorithms};

/// The form of the file, for `--help`.
pub const CSV_FORMAT: &str = "\
CSV in UTF-8 (RFC 4180). The first line names the columns, in any order; name and address must be
there. Capitals do not matter, nor does - or a space for _.

  name                    the device's name (or: hostname)
  address                 IP address or DNS name (or: ip_address, ip)
  port                    SSH port, 22 where empty (or: ssh_port)
  username                user on the router (or: user)
  password                password; \"\" in quotes is the empty password, nothing is none
  private_key_file        path of a private key
  private_key             the private key itself, in quotes
  private_key_passphrase  what the private key is encrypted with
  tenant                  owner (or: tenant_id)
  group                   label
  tags                    words, divided by ; where there are several (\\; is one in a word)
  host_key                fingerprint of the host key to trust, SHA256:…; the next one seen where empty
  command_timeout         seconds for one whole session, 1 to 3600; the service's where empty
  ssh_algorithms          modern or compatible; the service's where empty

Columns whose name begins with x- are yours and are ignored; any other is an error, so that a
mistyped column does not go unnoticed. Spaces around values are ignored, except in secrets.";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Column {
    Name,
    Address,
    Port,
    Username,
    Password,
    PrivateKeyFile,
    PrivateKey,
    Passphrase,
    Tenant,
    Group,
    Tags,
    HostKey,
    CommandTimeout,
    SshAlgorithms,
    /// `x-…`: not ours.
    Other,
}

/// Each column with its name, and its other names.
pub(super) const COLUMNS: [(Column, &str, &[&str]); 14] = [
    (Column::Name, "name", &["hostname"]),
    (Column::Address, "address", &["ip_address", "ip"]),
    (Column::Port, "port", &["ssh_port"]),
    (Column::Username, "username", &["user"]),
    (Column::Password, "password", &[]),
    (Column::PrivateKeyFile, "private_key_file", &[]),
    (Column::PrivateKey, "private_key", &[]),
    (Column::Passphrase, "private_key_passphrase", &[]),
    (Column::Tenant, "tenant", &["tenant_id"]),
    (Column::Group, "group", &[]),
    (Column::Tags, "tags", &[]),
    (Column::HostKey, "host_key", &["ssh_host_key_fingerprint"]),
    (Column::CommandTimeout, "command_timeout", &[]),
    (Column::SshAlgorithms, "ssh_algorithms", &[]),
];

impl Column {
    pub(super) fn name(self) -> &'static str {
        COLUMNS
            .iter()
            .find(|(column, ..)| *column == self)
            .map_or("x-", |(_, name, _)| name)
    }

    fn of_header(text: &str) -> Option<Self> {
        let name = text.trim().to_lowercase().replace([' ', '-'], "_");
        if name.starts_with("x_") {
            return Some(Self::Other);
        }
        let found = COLUMNS
            .iter()
            .find(|(_, first, others)| *first == name || others.contains(&name.as_str()));
        found.map(|(column, ..)| *column)
    }
}

const FILE: InputFile = InputFile::Csv;

/// Reads an inventory in the form of [`CSV_FORMAT`].
///
/// Rows without any value are ignored, as spreadsheets leave them. Credentials may be missing:
/// see [`ImportedDevice::has_login`].
pub fn from_csv(bytes: &[u8]) -> Import {
    let mut collector = Collector::default();
    match decode(FILE, bytes) {
        Ok(text) => rows(text, &mut collector),
        Err(problem) => collector.import.problems.push(problem),
    }
    collector.finish()
}

fn rows(text: &str, collector: &mut Collector) {
    let (records, torn) = records::read(text);
    if let Some(torn) = torn {
        collector.problem(FILE, Some(torn.line), torn.why);
    }
    let Some((header, rows)) = records.split_first() else {
        if collector.import.problems.is_empty() {
            collector.problem(
                FILE,
                None,
                "the file is empty; its first line names the columns",
            );
        }
        return;
    };
    let Some(columns) = columns(header, collector) else {
        return;
    };
    for row in rows {
        if row.fields.iter().all(|field| field.text.trim().is_empty()) {
            continue;
        }
        let (has, wants) = (row.fields.len(), columns.len());
        if has == wants {
            self::device(&columns, row, collector);
        } else {
            let text = format!(
                "there are {has} values, but {wants} columns in the header; a value with a comma \
                 belongs in quotes"
            );
            collector.problem(FILE, Some(row.line), text);
        }
    }
}

/// The columns that the header names; `None` where rows cannot be read by it.
fn columns(header: &Record, collector: &mut Collector) -> Option<Vec<Column>> {
    let line = Some(header.line);
    if let [only] = header.fields.as_slice() {
        for (separator, name) in [(';', "semicolons"), ('\t', "tabs"), ('|', "bars")] {
            if only.text.contains(separator) {
                let text = format!("the columns are separated by {name}; save with commas");
                collector.problem(FILE, line, text);
                return None;
            }
        }
    }
    let mut columns: Vec<Column> = Vec::new();
    let mut unknown = Vec::new();
    for (index, field) in header.fields.iter().enumerate() {
        match Column::of_header(&field.text) {
            Some(column) if column != Column::Other && columns.contains(&column) => {
                let text = format!("there are two columns for {}", column.name());
                collector.problem(FILE, line, text);
                columns.push(column);
            }
            Some(column) => columns.push(column),
            None => {
                unknown.push(index + 1);
                columns.push(Column::Other);
            }
        }
    }
    let missing: Vec<&str> = [Column::Name, Column::Address]
        .into_iter()
        .filter(|needed| !columns.contains(needed))
        .map(Column::name)
        .collect();
    // Not one known name: most likely there is no header, and the values are no column names.
    if unknown.len() == header.fields.len() {
        let text = "this is no header: the first line names the columns, such as name,address";
        collector.problem(FILE, line, text);
        return None;
    }
    for number in unknown {
        let text = header.fields[number - 1]
            .text
            .trim()
            .escape_debug()
            .to_string();
        let known = COLUMNS.map(|(_, name, _)| name).join(", ");
        let text = format!(
            "column {number} ({text:.40}) is unknown; there are {known}, and x-… for your own"
        );
        collector.problem(FILE, line, text);
    }
    if !missing.is_empty() {
        let text = format!("there is no column {}", missing.join(" and no column "));
        collector.problem(FILE, line, text);
    }
    (missing.is_empty()).then_some(columns)
}

fn device(columns: &[Column], row: &Record, collector: &mut Collector) {
    let field = |column: Column| {
        let index = columns.iter().position(|found| *found == column)?;
        row.fields.get(index)
    };
    let text = |column: Column| {
        let text = field(column)?.text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let secret = |column: Column| {
        let field = field(column)?;
        let there = field.quoted || !field.text.trim().is_empty();
        there.then(|| SecretString::from(field.text.as_ref()))
    };
    let port = text(Column::Port).map_or(Ok(22), |port| port.parse::<u16>());
    let key = secret(Column::PrivateKey).filter(|key| !key.expose_secret().trim().is_empty());
    let private_key = match (text(Column::PrivateKeyFile), key) {
        (Some(_), Some(_)) => {
            let both = "there is both a private_key and a private_key_file; give one";
            collector.problem(FILE, Some(row.line), both);
            return;
        }
        (Some(path), None) => Some(PrivateKey::File(path)),
        (None, Some(key)) => Some(PrivateKey::Text(key)),
        (None, None) => None,
    };
    let timeout = text(Column::CommandTimeout).map(|seconds| {
        let seconds = seconds.parse().ok().and_then(DeviceSettings::timeout_of);
        seconds.ok_or_else(|| {
            let longest = DeviceSettings::LONGEST_TIMEOUT;
            format!("the command_timeout is not a number of seconds from 1 to {longest}")
        })
    });
    let algorithms = text(Column::SshAlgorithms).map(|name| {
        SshAlgorithms::from_name(&name).ok_or_else(|| {
            let names = SshAlgorithms::NAMES.join(" or ");
            format!("the ssh_algorithms are not {names}")
        })
    });
    let host_key = text(Column::HostKey).map(|text| {
        Fingerprint::parse(&text).ok_or_else(|| {
            "the host_key is not a fingerprint: SHA256: and 43 characters of base64, as ssh-keygen \
             -lf prints it"
                .to_owned()
        })
    });
    let (timeout, algorithms) = (timeout.transpose(), algorithms.transpose());
    let host_key = host_key.transpose();
    for text in [
        timeout.as_ref().err(),
        algorithms.as_ref().err(),
        host_key.as_ref().err(),
    ]
    .into_iter()
    .flatten()
    {
        collector.problem(FILE, Some(row.line), text);
    }
    let device = ImportedDevice {
        line: row.line,
        name: text(Column::Name).unwrap_or_default(),
        address: text(Column::Address).unwrap_or_default(),
        // 0 is refused with everything else that is wrong with the device.
        port: port.unwrap_or(0),
        username: text(Column::Username),
        password: secret(Column::Password),
        private_key,
        private_key_passphrase: secret(Column::Passphrase),
        tenant: text(Column::Tenant),
        group: text(Column::Group),
        tags: text(Column::Tags).map_or_else(Vec::new, |text| tags(&text)),
        host_key: host_key.unwrap_or_default(),
        settings: DeviceSettings {
            command_timeout: timeout.unwrap_or_default(),
            ssh_algorithms: algorithms.unwrap_or_default(),
        },
    };
    collector.device(FILE, device);
}

/// The words of a cell, without the blanks around them; a `\` takes the character behind it as it
/// is.
fn tags(cell: &str) -> Vec<String> {
    let mut tags = vec![String::new()];
    let mut characters = cell.chars();
    while let Some(character) = characters.next() {
        let character = match character {
            ';' => {
                tags.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(tag) = tags.last_mut() {
            tag.push(character);
        }
    }
    let trimmed = tags.iter().map(|tag| tag.trim().to_owned());
    trimmed.filter(|tag| !tag.is_empty()).collect()
}

/// Words as [`tags`] reads them.
pub(super) fn tags_cell(tags: &[String]) -> Option<String> {
    let escaped = tags
        .iter()
        .map(|tag| tag.replace('\\', "\\\\").replace(';', "\\;"));
    let cell = escaped.collect::<Vec<_>>().join(";");
    (!cell.is_empty()).then_some(cell)
}
