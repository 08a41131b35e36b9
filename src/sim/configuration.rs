//! A generated router configuration, true in form, and what an export shows of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::export::{Export, Filler, mix};
use super::text::{Version, header, value, write_wrapped};
use crate::domain::Timestamp;

/// Every generated secret contains this text, so that a test can look for leaks.
pub const SECRET_MARK: &str = "sim-secret";

/// About what an export has beside its address lists.
const USUAL_REST: u64 = 3_000;

/// The configuration of a simulated router. Edits are plain changes of its fields.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// `/system identity`.
    pub identity: String,
    /// The version in the header; it decides between the dialects of 6 and 7.
    pub version: Version,
    /// The export is filled with address lists up to about this size; 0 adds none.
    pub size_bytes: u64,
    /// Comments of firewall rules beside the generated ones, in order.
    pub firewall_rules: Vec<String>,
    /// The text of `/system note`; empty for none.
    pub note: String,
    /// Each export has its number in `/system note`, before that text.
    pub numbered: bool,
    seed: u64,
    fixture: Option<Arc<str>>,
}

/// How one export is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rendering {
    /// The router's clock.
    pub now: Timestamp,
    /// Whether secrets are shown.
    pub secrets: bool,
    /// Counts exports of a router: comments about momentary state change with it.
    pub number: u64,
    /// Leave out a menu that did not answer in time, with RouterOS's comment about it.
    pub menu_timeout: bool,
}

impl Configuration {
    /// A configuration whose unimportant values follow from `seed`.
    pub fn generate(
        identity: impl Into<String>,
        version: Version,
        size_bytes: u64,
        seed: u64,
    ) -> Self {
        Self {
            identity: identity.into(),
            version,
            size_bytes,
            firewall_rules: Vec::new(),
            note: String::new(),
            numbered: false,
            seed,
            fixture: None,
        }
    }

    /// Exports `text` as it is, except for the header's date and CRLF line ends. The version is
    /// that of its header; secrets are shown always, since nobody knows which they are.
    pub fn fixture(text: &str) -> Self {
        let first = text.lines().next().unwrap_or_default();
        let version = first.rsplit_once("by RouterOS ").map_or("7", |(_, v)| v);
        let mut made = Self::generate("fixture", Version::new(version.trim()), 0, 0);
        made.fixture = Some(text.into());
        made
    }

    /// Adds a firewall rule, which every export shows from then on.
    pub fn add_firewall_rule(&mut self, comment: impl Into<String>) {
        self.firewall_rules.push(comment.into());
    }

    /// The export, piece by piece; each piece is one logical line with its CRLFs.
    pub fn export(&self, rendering: Rendering) -> Export {
        if let Some(text) = &self.fixture {
            return Export::of_pieces(self.fixture_pieces(text, rendering.now));
        }
        let head: VecDeque<_> = self.head(rendering).pieces.into();
        let tail: VecDeque<_> = self.tail(rendering).pieces.into();
        let fixed: usize = head.iter().chain(&tail).map(Vec::len).sum();
        Export {
            head,
            filler: Filler {
                next: 0,
                // Not what is left beside the rest: a comment more must not be an entry less.
                budget: self.size_bytes.saturating_sub(USUAL_REST),
                seed: self.seed,
            },
            tail,
            fixed: fixed as u64,
        }
    }

    fn fixture_pieces(&self, text: &str, now: Timestamp) -> VecDeque<Vec<u8>> {
        let mut pieces = VecDeque::from([format!("{}\r\n", header(&self.version, now)).into()]);
        let mut piece = String::new();
        for line in text.lines().skip(1) {
            piece.push_str(line);
            piece.push_str("\r\n");
            if !line.ends_with('\\') {
                pieces.push_back(std::mem::take(&mut piece).into_bytes());
            }
        }
        pieces
    }

    fn secret(&self, what: &str) -> String {
        format!(
            "{SECRET_MARK}-{what}-{:08x}",
            mix(self.seed ^ what.len() as u64) as u32
        )
    }

    fn head(&self, rendering: Rendering) -> Writer {
        let v7 = self.version.hides_secrets();
        let shown = |key: &str, what: &str| match rendering.secrets {
            true => format!(" {key}={}", self.secret(what)),
            false => String::new(),
        };
        let flip = rendering.number % 2 == 1;
        let mut out = Writer::default();
        let id = mix(self.seed);
        out.comment(&header(&self.version, rendering.now));
        out.comment(&format!("# software id = {}", software_id(id)));
        out.comment("#");
        let model = if v7 {
            "RB5009UPr+S+"
        } else {
            "RouterBOARD 962UiGS-5HacT2HnT"
        };
        out.comment(&format!("# model = {model}"));
        out.comment(&format!("# serial number = {:012X}", id & 0xFFFF_FFFF_FFFF));
        out.menu("/interface bridge");
        out.line("add admin-mac=02:00:5E:10:00:01 auto-mac=no comment=defconf name=bridge");
        out.menu("/interface ethernet");
        out.line(
            "set [ find default-name=ether1 ] comment=\"uplink, customer side\" name=ether1-wan",
        );
        if flip {
            out.comment("# poe-out status: short_circuit");
        }
        out.line("set [ find default-name=ether2 ] poe-out=forced-on");
        if v7 {
            out.menu("/interface wireguard");
            let key = shown("private-key", "wireguard");
            out.line(&format!(
                "add listen-port=13231 mtu=1420 name=wireguard1{key}"
            ));
        }
        out.menu("/interface list");
        out.line("add comment=defconf name=WAN");
        out.line("add comment=defconf name=LAN");
        out.menu("/interface wireless security-profiles");
        out.line("set [ find default=yes ] supplicant-identity=MikroTik");
        let key = shown("wpa2-pre-shared-key", "wireless");
        out.line(&format!(
            "add authentication-types=wpa2-psk mode=dynamic-keys name=office supplicant-identity=\"\"{key}"
        ));
        out.menu("/interface wireless");
        let channel = [36, 52, 100, 112][(rendering.number % 4) as usize];
        out.comment("# managed by CAPsMAN");
        out.comment(&format!(
            "# channel: {}/20-Ceee/ac/DP(17dBm), SSID: office, CAPsMAN forwarding",
            5000 + channel * 5
        ));
        out.line(
            "set [ find default-name=wlan1 ] band=5ghz-a/n/ac channel-width=20/40/80mhz-XXXX \
             distance=indoors frequency=auto mode=ap-bridge security-profile=office ssid=office",
        );
        out.menu("/ip pool");
        out.line("add name=dhcp ranges=192.0.2.100-192.0.2.199");
        out.menu("/ip dhcp-server");
        if flip {
            out.comment("# Interface not running");
        }
        out.line("add address-pool=dhcp interface=bridge lease-time=1h name=defconf");
        out.menu("/snmp community");
        let key = shown("authentication-password", "snmp");
        out.line(&format!(
            "add addresses=198.51.100.0/24 name=monitoring security=private{key}"
        ));
        out.menu("/interface bridge port");
        for port in 2..=5 {
            out.line(&format!(
                "add bridge=bridge comment=defconf interface=ether{port}"
            ));
        }
        if rendering.menu_timeout {
            let slash = [
                "#error exporting /ipv6 route",
                "#error exporting \"/ipv6/route\" (timeout)",
            ];
            out.comment(slash[usize::from(v7)]);
        }
        out.menu("/ip address");
        out.line("add address=192.0.2.1/24 comment=defconf interface=bridge network=192.0.2.0");
        let last = 2 + id % 250;
        out.line(&format!(
            "add address=203.0.113.{last}/24 interface=ether1-wan network=203.0.113.0"
        ));
        out.menu("/ip dns");
        out.line("set allow-remote-requests=yes servers=192.0.2.53,2001:db8::53");
        out
    }

    fn tail(&self, rendering: Rendering) -> Writer {
        let shown = |key: &str, what: &str| match rendering.secrets {
            true => format!(" {key}={}", self.secret(what)),
            false => String::new(),
        };
        let mut out = Writer::default();
        out.menu("/ip firewall filter");
        out.line(
            "add action=accept chain=input comment=\"defconf: accept established,related,untracked\" \
             connection-state=established,related,untracked",
        );
        out.line("add action=drop chain=input comment=\"defconf: drop invalid\" connection-state=invalid");
        if rendering.number % 3 == 2 {
            out.comment("# inactive time");
        }
        out.line(
            "add action=drop chain=forward comment=\"no guests at night\" src-address=192.0.2.128/25 \
             time=22h-6h,sun,mon,tue,wed,thu,fri,sat",
        );
        for rule in &self.firewall_rules {
            out.line(&format!(
                "add action=accept chain=forward comment={}",
                value(rule)
            ));
        }
        out.line(
            "add action=drop chain=input comment=\"defconf: drop all not coming from LAN\" \
             in-interface-list=!LAN log=yes log-prefix=\"#drop input: \"",
        );
        out.menu("/ip firewall nat");
        if rendering.number % 2 == 1 {
            out.comment("# pppoe-out1 not ready");
        }
        out.line(
            "add action=masquerade chain=srcnat comment=\"defconf: masquerade\" ipsec-policy=out,none \
             out-interface=pppoe-out1 out-interface-list=WAN",
        );
        out.menu("/ip ipsec identity");
        let key = shown("secret", "ipsec");
        out.line(&format!("add comment=\"site B\" peer=site-b{key}"));
        out.menu("/ppp secret");
        let key = shown("password", "ppp");
        out.line(&format!(
            "add name=customer1{key} profile=default-encryption service=pppoe"
        ));
        out.menu("/radius");
        let key = shown("secret", "radius");
        out.line(&format!("add address=198.51.100.10{key} service=ppp,login"));
        out.menu("/system clock");
        out.line("set time-zone-name=Etc/UTC");
        out.menu("/system identity");
        out.line(&format!("set name={}", value(&self.identity)));
        let note = match self.numbered {
            true => format!("export {}; {}", rendering.number, self.note),
            false => self.note.clone(),
        };
        if !note.is_empty() {
            out.menu("/system note");
            out.line(&format!("set note={}", value(&note)));
        }
        out.menu("/system script");
        let source = "# keeps the uplink alive; \u{43f}\u{440}\u{43e}\u{432}\u{435}\u{440}\u{43a}\u{430}\r\n\
            :local target \"192.0.2.254\"\r\n:if ([/ping $target count=3] = 0) do={\r\n\
            \x20   :log warning \"uplink lost?\"\r\n    /interface disable ether1-wan\r\n}\r\n";
        out.line(&format!(
            "add dont-require-permissions=no name=watch-uplink owner=admin policy=read,write,test source={}",
            value(source)
        ));
        out
    }
}

/// Collects pieces: a menu, a line or a comment each.
#[derive(Default)]
struct Writer {
    pieces: Vec<Vec<u8>>,
}

impl Writer {
    fn menu(&mut self, path: &str) {
        self.comment(path);
    }

    /// A line that is never wrapped.
    fn comment(&mut self, text: &str) {
        self.pieces.push(format!("{text}\r\n").into_bytes());
    }

    fn line(&mut self, text: &str) {
        let mut piece = Vec::with_capacity(text.len() + 16);
        write_wrapped(&mut piece, text);
        self.pieces.push(piece);
    }
}

fn software_id(id: u64) -> String {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ012345";
    let letter = |n: u64| char::from(LETTERS[(id >> (5 * n) & 31) as usize]);
    let half = |from: u64| -> String { (from..from + 4).map(letter).collect() };
    format!("{}-{}", half(0), half(4))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn text(configuration: &Configuration, number: u64, secrets: bool) -> String {
        let rendering = Rendering {
            now: datetime!(2026-01-02 03:04:05 UTC),
            secrets,
            number,
            menu_timeout: false,
        };
        let bytes: Vec<u8> = configuration.export(rendering).flatten().collect();
        String::from_utf8(bytes).expect("ASCII")
    }

    proptest! {
        #[test]
        fn every_export_has_the_form_of_routeros(
            seed in any::<u64>(),
            size in 0_u64..60_000,
            version in prop::sample::select(vec!["6.49.18", "7.9", "7.16.2"]),
            identity in "\\PC{0,60}",
            numbers in any::<(u8, u8)>(),
            secrets in any::<bool>(),
        ) {
            let made = Configuration::generate(identity, Version::new(version), size, seed);
            let export = text(&made, numbers.0.into(), secrets);
            prop_assert!(export.is_ascii());
            prop_assert!(export.ends_with("\r\n"));
            prop_assert!(!export.replace("\r\n", "").contains(['\r', '\n']));
            prop_assert!(export.lines().all(|line| line.len() <= 79 || line.starts_with('#')));
            prop_assert_eq!(export.contains(SECRET_MARK), secrets);
            let wanted = size.max(USUAL_REST);
            prop_assert!((export.len() as u64).abs_diff(wanted) < 1_500, "{}", export.len());

            // Unchanged means unchanged but for whole lines that begin with `#`.
            let items = |text: &str| -> Vec<String> {
                let joined = text.replace("\\\r\n    ", "");
                joined.lines().filter(|line| !line.starts_with('#')).map(Into::into).collect()
            };
            prop_assert_eq!(items(&export), items(&text(&made, numbers.1.into(), secrets)));
        }
    }
}
