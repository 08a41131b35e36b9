//! Names in the mirror: any text of an operator becomes one plain path component, and back.

use uuid::Uuid;

use crate::domain::device::DeviceId;
use crate::domain::digest::Digest;

/// Longest component made of a name, in bytes: with the device's id and the suffix it stays below
/// the 255 that file systems allow.
const LONGEST: usize = 180;

/// The ending of every file.
const SUFFIX: &str = ".rsc";

/// Where a device's file is: `folder/bucket/file`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FilePath {
    /// The folder of its group or tenant.
    pub(super) folder: String,
    /// Two hex digits of a digest of the device's id. A change writes its folder's list of buckets
    /// and one bucket, so it costs about the same among ten devices and among ten thousand.
    pub(super) bucket: String,
    /// `NAME.ID.rsc`
    pub(super) file: String,
}

impl FilePath {
    /// The path of a device. Ids differ, so no two devices have the same path, not even on a file
    /// system that does not tell `A` from `a`.
    pub fn new(folder: &str, name: &str, device: DeviceId) -> Self {
        Self {
            folder: component(folder),
            bucket: bucket(device),
            file: format!("{}{}", component(name), ending(device)),
        }
    }

    /// The device's name in it, as far as it could be kept.
    pub fn name(&self) -> String {
        // An ending is `.`, a hyphenated UUID and the suffix.
        let length = self.file.len().checked_sub(1 + 36 + SUFFIX.len());
        plain(
            length
                .and_then(|at| self.file.get(..at))
                .unwrap_or(&self.file),
        )
    }

    /// The folder's name in it, as far as it could be kept.
    pub fn folder(&self) -> String {
        plain(&self.folder)
    }
}

impl std::fmt::Display for FilePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.folder, self.bucket, self.file)
    }
}

/// The bucket of a device.
pub(super) fn bucket(device: DeviceId) -> String {
    let mut digest = Digest::of(device.0.as_bytes()).to_string();
    digest.truncate(2);
    digest
}

/// How the name of a device's file ends.
pub(super) fn ending(device: DeviceId) -> String {
    format!(".{}{SUFFIX}", device.0.hyphenated())
}

/// `text` as one component of a path: letters, digits, `-`, `_` and inner dots as they are, any
/// other byte as `%` and two hex digits. What would be too long is cut and ends in `~` and a digest.
fn component(text: &str) -> String {
    let mut made = String::with_capacity(text.len());
    let reserved = is_reserved(text);
    for (at, c) in text.char_indices() {
        let edge = at == 0 || at + c.len_utf8() == text.len();
        let plain = c.is_alphanumeric() || c == '-' || c == '_' || (c == '.' && !edge);
        if plain && !(at == 0 && reserved) {
            made.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                made.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    match made.len() {
        0 => "%".to_owned(),
        1..=LONGEST => made,
        _ => {
            let mut digest = Digest::of(text.as_bytes()).to_string();
            digest.truncate(16);
            let mut end = LONGEST - digest.len() - 1;
            while !made.is_char_boundary(end) {
                end -= 1;
            }
            // Half an escape is none.
            let escape = made[..end].rfind('%').filter(|at| end - at < 3);
            made.truncate(escape.unwrap_or(end));
            format!("{made}~{digest}")
        }
    }
}

/// Names that Windows has for devices, with or without an extension.
/// <https://learn.microsoft.com/windows/win32/fileio/naming-a-file>
fn is_reserved(text: &str) -> bool {
    let stem = text.split('.').next().unwrap_or_default();
    let stem = stem.to_ascii_lowercase();
    let numbered = ["com", "lpt"].iter().any(|word| {
        let rest = stem.strip_prefix(word);
        rest.is_some_and(|rest| rest.chars().count() == 1)
    });
    numbered || ["con", "prn", "aux", "nul"].contains(&stem.as_str())
}

/// The text that [`component`] was made of; of one that was cut, what is left.
fn plain(component: &str) -> String {
    let kept = component.split('~').next().unwrap_or_default();
    percent_encoding::percent_decode_str(if kept == "%" { "" } else { kept })
        .decode_utf8_lossy()
        .into_owned()
}

/// Whether `file` is that of `device`.
pub(super) fn is_of(file: &[u8], ending: &str) -> bool {
    file.ends_with(ending.as_bytes())
}

/// The folder of devices that are in no group: their tenant's id, or `default` where there are no
/// tenants.
pub fn tenant_folder(tenant: Uuid) -> String {
    if tenant.is_nil() {
        "default".to_owned()
    } else {
        tenant.hyphenated().to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_a_file_system_or_git_would_obey_are_written_otherwise() {
        for (name, written) in [
            ("edge-1", "edge-1"),
            ("zürich.core", "zürich.core"),
            ("..", "%2E%2E"),
            (".git", "%2Egit"),
            (".GIT", "%2EGIT"),
            ("git~1", "git%7E1"),
            ("a/b\\c", "a%2Fb%5Cc"),
            ("50%", "50%25"),
            ("dot.", "dot%2E"),
            ("two words\n", "two%20words%0A"),
            ("", "%"),
            ("con", "%63on"),
            ("Aux.office", "%41ux.office"),
            (".g\u{200c}it", "%2Eg%E2%80%8Cit"),
        ] {
            assert_eq!(component(name), written);
            assert_eq!(plain(written), name);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_its_characters() {
        let [a, b] = ["a", "b"].map(|end| component(&format!("{}{end}", "ü/".repeat(200))));
        assert!(a.len() <= LONGEST && a != b, "{a}");
        assert!(plain(&a).starts_with("ü/ü/"), "{a}");
    }

    proptest! {
        #[test]
        fn any_name_is_one_component_and_comes_back(name in "\\PC{0,40}|[./%~\\\\\\x00-\\x20]{0,6}") {
            let written = component(&name);
            prop_assert!(!written.is_empty() && written.len() <= LONGEST);
            let bad = |c: char| c == '/' || c == '\\' || c.is_control() || c.is_whitespace();
            prop_assert!(!written.contains(bad) && !written.starts_with('.'));
            if !written.contains('~') {
                prop_assert_eq!(plain(&written), name);
            }
        }

        #[test]
        fn no_two_devices_share_a_path(name in "[aA.%/]{0,4}", other in "[aA.%/]{0,4}", ids: (u128, u128)) {
            prop_assume!(ids.0 != ids.1);
            let [a, b] = [(name, ids.0), (other, ids.1)].map(|(name, id)| {
                FilePath::new("x", &name, DeviceId(Uuid::from_u128(id))).to_string().to_lowercase()
            });
            prop_assert_ne!(a, b);
        }

        #[test]
        fn a_path_tells_the_name(folder in "\\PC{1,20}", name in "\\PC{1,20}", id: u128) {
            let device = DeviceId(Uuid::from_u128(id));
            let path = FilePath::new(&folder, &name, device);
            prop_assert_eq!(path.name(), name);
            prop_assert_eq!(path.folder(), folder);
            prop_assert!(is_of(path.file.as_bytes(), &ending(device)));
        }
    }
}
