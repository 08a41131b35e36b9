//! Owns the table of comments that RouterOS itself prints into an export.
//!
//! Nobody can write such a comment: what an operator notes on an item is its `comment=` property.
//! The texts say what an item is doing at the moment (volatile) or what follows from configuration,
//! hardware or version (static). Both go: a static one changes only with what it follows from, and of
//! that the lines of the configuration tell, or it is no change, as an upgrade is none. New texts come
//! with every release; one that no rule knows is kept and reported. Order means nothing: a comment goes
//! when a rule of its menu matches it, and counts for the first of them by name.

use super::normalize::NORMALIZATION_VERSION;
use crate::domain::digest::Digest;

/// Whether a comment changes without a change of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Reports momentary state, which changes by itself.
    Volatile,
    /// Follows from configuration, hardware or version, and changes with them alone.
    Static,
}

/// One known comment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its stable name in ledgers.
    pub name: &'static str,
    /// What it follows from.
    pub kind: Kind,
    /// The menus it stands in, with all below them; empty where it may stand in any.
    pub menus: &'static [&'static str],
    /// Regular expression for the whole comment, blanks at its end removed.
    pub pattern: &'static str,
    /// A menu and a line as a router printed it (names invented).
    pub example: (&'static str, &'static str),
    /// Who saw it.
    pub source: &'static str,
}

const ANY: &[&str] = &[];
const FIREWALL: &[&str] = &[
    "/ip firewall",
    "/ipv6 firewall",
    "/interface bridge filter",
    "/interface bridge nat",
    "/queue",
];
const DHCP: &[&str] = &[
    "/ip dhcp-server",
    "/ip dhcp-client",
    "/ip dhcp-relay",
    "/ipv6 dhcp-server",
    "/ipv6 dhcp-client",
    "/ipv6 dhcp-relay",
];
/// The state of an interface stands before its queue as well: index 26137214071 (7.6), 2914808239 (6.45.9).
const QUEUE: &str = "/queue interface";
const ETHERNET: &[&str] = &["/interface ethernet", QUEUE];
const VRRP: &[&str] = &["/interface vrrp", QUEUE];
const LTE: &[&str] = &["/interface lte", QUEUE];
const PPPOE: &[&str] = &["/interface pppoe-client", "/interface pppoe-server", QUEUE];
const PPTP: &[&str] = &["/interface pptp-server", "/interface pptp-client", QUEUE];
const WIRELESS: &[&str] = &["/interface wireless", QUEUE];
const RADIO: &[&str] = &[
    "/interface wireless",
    "/interface wifi",
    "/interface wifiwave2",
    QUEUE,
];
const WIFI: &[&str] = &["/interface wifi", "/interface wifiwave2", QUEUE];

const fn volatile(
    name: &'static str,
    menus: &'static [&'static str],
    pattern: &'static str,
    example: (&'static str, &'static str),
    source: &'static str,
) -> Rule {
    Rule {
        name,
        kind: Kind::Volatile,
        menus,
        pattern,
        example,
        source,
    }
}

const fn fixed(
    name: &'static str,
    menus: &'static [&'static str],
    pattern: &'static str,
    example: (&'static str, &'static str),
    source: &'static str,
) -> Rule {
    Rule {
        name,
        kind: Kind::Static,
        menus,
        pattern,
        example,
        source,
    }
}

/// The table. Sources: `ox` is ytti/oxidized (issue or model), `scan` a scan of 1,708 real exports
/// with the version seen, `forum` the vendor's forum, `index` a file of the public file index with its
/// number. What print shows behind `;;;` an export has behind `#`.
static RULES: [Rule; 48] = [
    volatile(
        "inactive-time",
        FIREWALL,
        r"^# inactive time$",
        ("/ip firewall filter", "# inactive time"),
        "ox#1138; scan 6.49.18",
    ),
    volatile(
        "interface-not-ready",
        ANY,
        r"^# .+ not ready$",
        ("/ip firewall nat", "# pppoe-out1 not ready"),
        "scan 6.44.1-7.15.3; forum; ox model",
    ),
    volatile(
        "vrrp-bad-packet",
        VRRP,
        r"^# received packet from \S+ bad format$",
        (
            "/interface vrrp",
            "# received packet from 192.0.2.9 bad format",
        ),
        "ox#1807",
    ),
    volatile(
        "poe-out-status",
        ETHERNET,
        r"^# poe-out status: \S",
        ("/interface ethernet", "# poe-out status: short_circuit"),
        "ox#2141, ox#3863; recording of an RB5009 on 7.18.2",
    ),
    volatile(
        "dhcp-interface-not-running",
        DHCP,
        r"^# Interface not running$",
        ("/ip dhcp-server", "# Interface not running"),
        "scan 7.16.2",
    ),
    volatile(
        "dhcp-interface-not-active",
        DHCP,
        r"^# Interface not active$",
        ("/ip dhcp-client", "# Interface not active"),
        "scan 7.16; ox recording 7.18.2",
    ),
    volatile(
        "not-running",
        ANY,
        r"^# not running$",
        ("/interface vrrp", "# not running"),
        "public file index",
    ),
    volatile(
        "duplicate-address",
        &["/ipv6 address", "/ip address"],
        r"^# duplicate address detected$",
        ("/ipv6 address", "# duplicate address detected"),
        "scan 7.7",
    ),
    volatile(
        "netwatch-startup-delay",
        &["/tool netwatch"],
        r"^# Warning: probe waiting startup-delay=\S+; \S+ remaining$",
        (
            "/tool netwatch",
            "# Warning: probe waiting startup-delay=1m; 4s remaining",
        ),
        "scan 7.17.2, 7.18.2: a countdown",
    ),
    volatile(
        "firmware-upgraded",
        &["/system routerboard"],
        r"^# Firmware upgraded successfully, please reboot for changes to take effect!$",
        (
            "/system routerboard settings",
            "# Firmware upgraded successfully, please reboot for changes to take effect!",
        ),
        "scan 6.47.8-7.18.2; ox model: until the next reboot",
    ),
    volatile(
        "restart-device",
        ANY,
        // Up to the break where it was seen wrapped, and to its end; whatever else may stand behind
        // the words is none of it.
        r"^# .*has changed, please restart the device in order to(?: apply the new settings| apply the new setting)?$",
        (
            "/ip neighbor discovery-settings",
            "# ipv6 neighbor configuration has changed, please restart the device in order to",
        ),
        "scan 7.19.4; ox model (without the last letter): until the next reboot, and may be wrapped",
    ),
    volatile(
        "restart-to-apply",
        ANY,
        r"^# .*has changed, please restart device to apply settings$",
        (
            "/ipv6 settings",
            "# ipv6 *accept router advertisements* configuration has changed, please restart \
             device to apply settings",
        ),
        "index 54515190112, in three menus; 39955330934: until the next reboot",
    ),
    volatile(
        "lte-sim",
        LTE,
        r"^# SIM not (?:inserted|present)$",
        ("/interface lte", "# SIM not inserted"),
        "index 68883876017; 52265488096 on 7.1rc6: until there is one",
    ),
    volatile(
        "lte-firmware",
        LTE,
        r"^# A newer version of modem firmware is available!$",
        (
            "/interface lte",
            "# A newer version of modem firmware is available!",
        ),
        "index 23428430442: comes when the vendor releases one",
    ),
    volatile(
        "wireless-managed",
        RADIO,
        r"^# managed by CAPsMAN$",
        ("/interface wireless", "# managed by CAPsMAN"),
        "scan 6.45-7.20; wifiwave2 and wifi without its manager's address: index 17378875874, \
         17530204928, 15390384751, 15816736704",
    ),
    volatile(
        "wireless-channel",
        WIRELESS,
        r"^# channel: \d+/.* SSID: .*, (?:CAPsMAN|local|manager) forwarding$",
        (
            "/interface wireless",
            "# channel: 5500/20-Ceee/ac/DP(17dBm), SSID: Example, CAPsMAN forwarding",
        ),
        "scan 6.45-7.20: the most frequent false difference; `manager`: the vendor's manual, index \
         69124516967",
    ),
    volatile(
        "wireless-virtual",
        WIRELESS,
        r"^# SSID: .*, (?:CAPsMAN|local|manager) forwarding$",
        ("/interface wireless", "# SSID: Example, local forwarding"),
        "the vendor's manual, as print shows it, index 1419028008, 71187827273: virtual interfaces, which \
         have no channel",
    ),
    volatile(
        "wireless-cap-empty",
        &[
            "/interface wireless cap",
            "/interface wifi cap",
            "/interface wifiwave2 cap",
        ],
        r"^#$",
        ("/interface wireless cap", "# "),
        "scan 6.45-7.20",
    ),
    volatile(
        "wifi-managed",
        WIFI,
        r"^# managed by CAPsMAN \S+, traffic processing on \S+$",
        (
            "/interface wifi",
            "# managed by CAPsMAN 02:00:5E:00:53:01%bridge, traffic processing on CAP",
        ),
        "public file index; forum",
    ),
    volatile(
        "wifi-managed-centrally",
        WIFI,
        r"^# managed by CAPsMAN \S+$",
        (
            "/interface wifi",
            "# managed by CAPsMAN 02:00:5E:00:53:01%bridge",
        ),
        "index 69307544271 (7.17.2), 69335853787 (7.21.2): one radio so, the other with the rest",
    ),
    volatile(
        "wifi-ssid-not-set",
        WIFI,
        r"^# SSID not set$",
        ("/interface wifi", "# SSID not set"),
        "as print shows it, index 71189814525: until the manager has sent its configuration",
    ),
    volatile(
        "wifi-not-created",
        WIFI,
        r"^# failed to create interface$",
        ("/interface wifi", "# failed to create interface"),
        "as print shows it, index 58273364142 (7.18.2): until the radio takes the virtual interface",
    ),
    volatile(
        "wifi-operated",
        WIFI,
        r"^# operated by CAP \S+, traffic processing on \S+$",
        (
            "/interface wifi",
            "# operated by CAP 02:00:5E:00:53:02%bridge, traffic processing on CAP",
        ),
        "public file index; forum",
    ),
    volatile(
        "wifi-mode",
        WIFI,
        r"^# mode: \S+, SSID: .*, channel: ",
        (
            "/interface wifi",
            "# mode: AP, SSID: Example, channel: 5180/ax/Ceee",
        ),
        "public file index; forum",
    ),
    volatile(
        "wifi-mode-virtual",
        WIFI,
        // One with a channel as well: of the two the other counts.
        r"^# mode: \S+, SSID: .*$",
        ("/interface wifi", "# mode: AP, SSID: Example"),
        "index 27318506807, 68998472550 (7.21.1): before the virtual interfaces of a radio",
    ),
    volatile(
        "wifi-availability-check",
        WIFI,
        r"^# DFS channel availability check \(\d+ min\)$",
        (
            "/interface wifi",
            "# DFS channel availability check (1 min)",
        ),
        "index 30902678298 on 7.16.2: the minutes after a radio has chosen its channel",
    ),
    volatile(
        "wifi-no-capsman",
        WIFI,
        r"^# no connection to CAPsMAN(?:, managed locally)?$",
        (
            "/interface wifi",
            "# no connection to CAPsMAN, managed locally",
        ),
        "scan 7.19.4",
    ),
    volatile(
        "nd-dns-not-started",
        &["/ipv6 nd"],
        r"^# automatic dns option advertising is not started, re-apply dns config$",
        (
            "/ipv6 nd",
            "# automatic dns option advertising is not started, re-apply dns config",
        ),
        "index 71026429834, 71450094471 (7.24.5), 69352470082 and more; 70917689953 tells how it moved \
         from one interface to another",
    ),
    volatile(
        "container-exited",
        &["/container"],
        r"^# exited with (?:status|signal) \d+$",
        ("/container", "# exited with status 137"),
        "index 52173404785 (7.20beta4), 53138200155 (7.20.6); with a signal: the vendor's documentation",
    ),
    volatile(
        "share-expired",
        &["/ip cloud back-to-home-file"],
        r"^# Share expired$",
        ("/ip cloud back-to-home-file", "# Share expired"),
        "index 52173404785 on 7.20beta4: from a certain time on",
    ),
    volatile(
        "share-certificate",
        &["/ip cloud back-to-home-file"],
        r"^# getting cert status: \S",
        (
            "/ip cloud back-to-home-file",
            "# getting cert status: requesting SSL certificate",
        ),
        "the vendor's manual, as print shows it, index 71104739530, 71634081448: about a minute",
    ),
    volatile(
        "dhcp-no-address",
        DHCP,
        r"^# No IP address on interface$",
        ("/ip dhcp-server", "# No IP address on interface"),
        "index 21770775231 (7.19.4), 21336945637 (7.19.3), 21190010555, 52077107078: the address may be \
         a dynamic one",
    ),
    volatile(
        "mtu-above-l2mtu",
        &["/interface", QUEUE],
        r"^# MTU > L2MTU$",
        ("/interface vlan", "# MTU > L2MTU"),
        "index 53715837463 (7.16.1), 8207277222 (7.14.3): the L2 MTU of a bridge is that of its ports, \
         which come and go",
    ),
    fixed(
        "not-a-bridge-port",
        &["/interface bridge"],
        r"^# .+ not a bridge port$",
        ("/interface bridge vlan", "# ether7 not a bridge port"),
        "index 70900186751, 46098501693 (7.19.1)",
    ),
    fixed(
        "device-mode",
        ANY,
        r"^# inactivated, not allowed by device-mode$",
        ("/ip socks", "# inactivated, not allowed by device-mode"),
        "index 56605388767, 56336073115 (7.19.6), in four menus: changes with a button",
    ),
    fixed(
        "dhcp-on-slave",
        DHCP,
        r"^# DHCP (?:server|client) can not run on slave.*!$",
        (
            "/ip dhcp-server",
            "# DHCP server can not run on slave interface!",
        ),
        "scan",
    ),
    fixed(
        "matcher-not-possible",
        FIREWALL,
        r"^# in/out-(?:interface|bridge-port) matcher not possible when interface ",
        (
            "/ip firewall filter",
            "# in/out-interface matcher not possible when interface (ether2) is slave - \
             use master instead (bridge1)",
        ),
        "forum; public file index",
    ),
    fixed(
        "no-interface",
        ANY,
        r"^# no interface$",
        ("/ip firewall nat", "# no interface"),
        "index 10969057909 on 7.20, 7873023744, 32285906339 and more: the item names an interface \
         that was removed, mostly as an orphan such as *2",
    ),
    fixed(
        "no-supported-channel",
        RADIO,
        r"^# no supported channel and secondary channel combination$",
        (
            "/interface wireless",
            "# no supported channel and secondary channel combination",
        ),
        "index 69030089123: follows from band, width and country",
    ),
    fixed(
        "duplicate-vlan-ids",
        &["/interface bridge vlan"],
        r"^# duplicate vlan ids are not allowed ",
        (
            "/interface bridge vlan",
            "# duplicate vlan ids are not allowed within the same bridge",
        ),
        "public file index",
    ),
    fixed(
        "stronger-key-suggested",
        &["/ip ipsec identity"],
        r"^# Suggestion to use stronger pre-shared key ",
        (
            "/ip ipsec identity",
            "# Suggestion to use stronger pre-shared key or different authentication method",
        ),
        "public file index",
    ),
    fixed(
        "unreachable-entry",
        &["/ip ipsec peer"],
        r"^# This entry is unreachable$",
        ("/ip ipsec peer", "# This entry is unreachable"),
        "public file index",
    ),
    fixed(
        "modem-threshold-ignored",
        &["/system leds"],
        r"^# using RSRP, modem-signal-t\w*eshold ignored$",
        (
            "/system leds",
            "# using RSRP, modem-signal-treshold ignored",
        ),
        "scan 6.45 (with its misspelling)",
    ),
    fixed(
        "cpu-frequency",
        &["/system routerboard"],
        r"^# Warning: cpu not running at default frequency$",
        (
            "/system routerboard settings",
            "# Warning: cpu not running at default frequency",
        ),
        "scan 7.11.2",
    ),
    fixed(
        "no-cloud-on-x86",
        &["/ip cloud"],
        r"^# Cloud services not supported on x86$",
        ("/ip cloud", "# Cloud services not supported on x86"),
        "scan 7.17.2",
    ),
    fixed(
        "pptp-unsafe",
        PPTP,
        r"^# PPTP connections are considered unsafe, ",
        (
            "/interface pptp-server server",
            "# PPTP connections are considered unsafe, it is suggested to use a more modern VPN \
             protocol instead",
        ),
        "scan 7.17.2: follows from the version; of a client as print shows it, index 13182666635",
    ),
    fixed(
        "pppoe-on-slave",
        PPPOE,
        r"^# (?:Client is on|Service is on a) slave interface$",
        ("/interface pppoe-client", "# Client is on slave interface"),
        "index 2914808239 (6.45.9), 40003313766; the server's: 18018562667 (7.18.2), 61367831257",
    ),
    fixed(
        "bridge-extender-disabled",
        &["/interface bridge"],
        r"^# disabled$",
        ("/interface bridge port-controller", "# disabled"),
        "scan 6.49, verbose only",
    ),
];

/// The whole table.
pub fn rules() -> &'static [Rule] {
    &RULES
}

/// The fingerprint of the table without anything configured: 16 hexadecimal digits.
pub fn rules_fingerprint() -> String {
    fingerprint(&RULES, [])
}

/// The fingerprint of the table and of what is `ignored` beside it.
pub(super) fn fingerprint_with<'a>(ignored: impl IntoIterator<Item = &'a str>) -> String {
    fingerprint(&RULES, ignored)
}

fn fingerprint<'a>(rules: &[Rule], ignored: impl IntoIterator<Item = &'a str>) -> String {
    let mut lines: Vec<String> = rules
        .iter()
        .map(|rule| {
            let menus = rule.menus.join(",");
            format!("{}\n{:?}\n{menus}\n{}", rule.name, rule.kind, rule.pattern)
        })
        .collect();
    // No name of a rule is empty.
    lines.extend(ignored.into_iter().map(|pattern| format!("\n{pattern}")));
    lines.sort_unstable();
    let version = NORMALIZATION_VERSION.to_be_bytes();
    let fields =
        std::iter::once(version.as_slice()).chain(lines.iter().map(|line| line.as_bytes()));
    let mut digest = Digest::of_fields(fields).to_string();
    digest.truncate(16);
    digest
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_rule_has_a_source() {
        let names: BTreeSet<_> = RULES.iter().map(|rule| rule.name).collect();
        assert_eq!(names.len(), RULES.len());
        assert!(RULES.iter().all(|rule| !rule.source.is_empty()));
    }

    #[test]
    fn the_fingerprint_ignores_the_order_and_notices_everything_else() {
        let mut reversed = RULES;
        reversed.reverse();
        assert_eq!(fingerprint(&reversed, []), rules_fingerprint());
        assert_eq!(rules_fingerprint().len(), 16);
        let mut changed = RULES;
        changed[0].kind = Kind::Static;
        assert_ne!(fingerprint(&changed, []), rules_fingerprint());
        assert_ne!(fingerprint(&RULES[1..], []), rules_fingerprint());
    }
}
