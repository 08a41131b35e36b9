//! Another reading of the format, for tests: by hand from the facts sheet (§5 and §6), line by line and
//! byte by byte, and sharing nothing with the reader.

/// What an item is made or changed with, by an export or by hand.
const COMMANDS: [&str; 7] = ["add", "set", "remove", "unset", "move", "enable", "disable"];

/// The logical lines that are not comments, each with its menu: configuration, and what should not be
/// there. Behind a comment stands an item; a line there that can be none is what was wrapped of the
/// comment. What is blank at the end of a line means
/// nothing.
pub(super) fn configuration(text: &str) -> Vec<(String, String)> {
    let physical: Vec<&str> = text.split('\n').map(|l| l.trim_end_matches('\r')).collect();
    let mut read = Vec::new();
    let mut menu = String::new();
    // The comment right before, or what was wrapped of it last, with how many lines were and whether the
    // comment itself is wide; the dated line of a header is none that is wrapped.
    let mut comment: Option<(&str, usize, bool)> = None;
    let mut at = 0;
    while at < physical.len() {
        let line = physical[at];
        if line.starts_with('#') {
            let mut words: Vec<&str> = line.trim_end().split(' ').collect();
            // The channel of the version may stand behind it.
            let channel = |word: &str| {
                let name = word
                    .strip_prefix('(')
                    .and_then(|word| word.strip_suffix(')'));
                name.is_some_and(|name| {
                    !name.is_empty() && !form(name).contains(|c| !"a-".contains(c))
                })
            };
            words.pop_if(|word| channel(word));
            let dated = match words[..] {
                ["#", date, time, "by", "RouterOS", version] => {
                    let form = format!("{} {}", form(date), form(time));
                    !version.is_empty()
                        && !version.contains(|c: char| c.is_whitespace() || c.is_control())
                        && [
                            "aaa/00/0000 00:00:00",
                            "0000-00-00 00:00:00",
                            "0000/00/00 00:00:00",
                        ]
                        .contains(&form.as_str())
                }
                _ => false,
            };
            comment = (!dated).then_some((line, 0, is_wide(line)));
            at += 1;
            continue;
        }
        if let Some((before, rests, wide)) = comment.take() {
            let simple = |line: &str| !line.contains('"') && !line.contains('=');
            let follows = match rests {
                0 => wide || simple(line),
                _ => wide && is_wide(before) && simple(before),
            };
            if follows && rests < 2 && cannot_be_configuration(before, line) {
                comment = Some((line, rests + 1, wide));
                at += 1;
                continue;
            }
        }
        let (logical, next) = logical(&physical, at);
        at = next;
        let logical = logical.trim_end_matches([' ', '\t', '\r', '\n']);
        if logical.is_empty() {
            continue;
        }
        match path(logical) {
            Some(end) if end == logical.len() => logical.clone_into(&mut menu),
            Some(end) => {
                let (path, command) = logical.split_at(end);
                read.push((path.to_owned(), command[1..].to_owned()));
            }
            None => read.push((menu.clone(), logical.to_owned())),
        }
    }
    read
}

/// Whether a terminal of 79 columns is full of `line`.
fn is_wide(line: &str) -> bool {
    line.trim_end().chars().count() >= 79
}

/// What kinds of characters stand in `text`.
fn form(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '0'..='9' => '0',
            'a'..='z' => 'a',
            other => other,
        })
        .collect()
}

/// The logical line that begins with the physical line at `at`, and where the next one begins.
fn logical(physical: &[&str], mut at: usize) -> (String, usize) {
    let mut logical = String::new();
    let (mut quoted, mut wrapped) = (false, false);
    loop {
        let mut line = physical[at];
        at += 1;
        if wrapped {
            for _ in 0..4 {
                line = line.strip_prefix(' ').unwrap_or(line);
            }
        }
        wrapped = false;
        for character in line.chars() {
            match (wrapped, character) {
                (false, '\\') => wrapped = true,
                (false, '"') => {
                    quoted = !quoted;
                    logical.push('"');
                }
                _ => {
                    if std::mem::take(&mut wrapped) {
                        logical.push('\\');
                    }
                    logical.push(character);
                }
            }
        }
        if at == physical.len() || (!wrapped && !quoted) {
            return (logical, at);
        }
        if !wrapped {
            logical.push('\n');
        }
    }
}

/// Where the path ends that `line` begins with.
fn path(line: &str) -> Option<usize> {
    let mut end = 0;
    for word in line.strip_prefix('/')?.split(' ') {
        let verb = COMMANDS.contains(&word);
        let letters = "abcdefghijklmnopqrstuvwxyz0123456789-/";
        if verb || word.is_empty() || !word.chars().all(|letter| letters.contains(letter)) {
            break;
        }
        end += 1 + word.len();
    }
    (end > 0).then_some(end)
}

/// Whether `text` begins with the name of a menu, whatever follows.
fn is_menu(text: &str) -> bool {
    let word = text.strip_prefix('/').unwrap_or_default();
    let word = word.split(' ').next().unwrap_or_default();
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-/".contains(c);
    text == "/" || (!word.is_empty() && word.chars().all(letters))
}

/// Whether `line`, right behind `comment`, is neither a menu, a command or an item, nor what goes on with
/// one.
fn cannot_be_configuration(comment: &str, line: &str) -> bool {
    let text = line.trim();
    let first = text.split_whitespace().next().unwrap_or_default();
    if text.is_empty() || text.ends_with('\\') {
        return false;
    }
    let name: String = text
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let command = COMMANDS.contains(&name.as_str());
    if first.contains('=') || (text.contains('=') && command) {
        return false;
    }
    let broken = COMMANDS.iter().any(|command| command[1..] == name);
    if text.contains('=') && broken {
        return false;
    }
    // Behind one to three blanks RouterOS prints no configuration: one stands before what is wrapped of
    // a comment, four before what goes on with a line.
    let blanks = line.chars().take_while(|c| *c == ' ').count();
    let indent = line.chars().take_while(|c| c.is_whitespace()).count();
    let indented = indent == blanks && (1..4).contains(&blanks);
    let odd = match text.chars().next().unwrap_or_default() {
        '/' if !is_menu(text) => indent == 0,
        '/' => indented,
        ':' => indented && !text[1..].starts_with(|c: char| c.is_ascii_lowercase()),
        '#' => indented,
        '[' | '{' | '}' | '"' | '\\' => indent == 0 || indented,
        _ if command => indented,
        _ => return true,
    };
    if text.starts_with('/') && indented && !is_menu(text) {
        return true;
    }
    odd && !text.contains('=') && is_wide(comment) && lacks(comment, text)
}

/// What RouterOS says of an item that may take more than a terminal holds (§5). Behind `$` stands nothing;
/// `*` is any text and `+` some, `~` text without blanks, `%` digits.
const SENTENCES: [&str; 28] = [
    "# + not ready$",
    "# + not a bridge port$",
    "# received packet from ~ bad format$",
    "# poe-out status: ~",
    "# Warning: probe waiting startup-delay=~; ~ remaining$",
    "# *has changed, please restart device to apply settings$",
    "# *has changed, please restart the device in order to$",
    "# *has changed, please restart the device in order to apply the new setting$",
    "# *has changed, please restart the device in order to apply the new settings$",
    "# channel: %/* SSID: *, CAPsMAN forwarding$",
    "# channel: %/* SSID: *, local forwarding$",
    "# channel: %/* SSID: *, manager forwarding$",
    "# SSID: *, CAPsMAN forwarding$",
    "# SSID: *, local forwarding$",
    "# SSID: *, manager forwarding$",
    "# managed by CAPsMAN ~$",
    "# managed by CAPsMAN ~, traffic processing on ~$",
    "# operated by CAP ~, traffic processing on ~$",
    "# mode: ~, SSID: *, channel: ",
    "# mode: ~, SSID: *$",
    "# DHCP server can not run on slave*!$",
    "# DHCP client can not run on slave*!$",
    "# in/out-interface matcher not possible when interface ",
    "# in/out-bridge-port matcher not possible when interface ",
    "# duplicate vlan ids are not allowed ",
    "# getting cert status: ~",
    "# Suggestion to use stronger pre-shared key ",
    "# PPTP connections are considered unsafe, ",
];

/// Whether `comment` lacks what stands in `rest` to be one of them, but for a blank and a letter that may
/// be lost between; or the rest is the tail of a word that has a slash.
fn lacks(comment: &str, rest: &str) -> bool {
    let signs = |text: &str| text.trim().chars().map(Some).collect::<Vec<_>>();
    let (letter, blank) = (None, Some(' '));
    let breaks: [&[_]; 6] = [
        &[],
        &[blank],
        &[letter],
        &[blank, letter],
        &[letter, blank],
        &[blank, letter, blank],
    ];
    let tail = rest.starts_with('/') && !rest.contains(char::is_whitespace);
    let begun = signs(comment);
    comment.starts_with('#')
        && SENTENCES.iter().any(|sentence| {
            let goes_on = tail && (sentence.ends_with('$') || !rest.contains('"'));
            let lost = |lost: &[_]| reads(sentence, &[&begun, lost, &signs(rest)].concat());
            (goes_on || !reads(sentence, &begun)) && breaks.into_iter().any(lost)
        })
}

/// Whether `text`, some of whose letters are lost, is `sentence`.
fn reads(sentence: &str, text: &[Option<char>]) -> bool {
    let mut places = vec![0];
    for sign in sentence.chars() {
        let is = |at: &usize, what: fn(char) -> bool| text[*at].is_none_or(what);
        // Where a run of such signs may end.
        let run = |what: fn(char) -> bool, least: usize| {
            let mut ends = std::collections::BTreeSet::new();
            for start in &places {
                let stop = (*start..text.len()).find(|at| !is(at, what));
                ends.extend(start + least..stop.unwrap_or(text.len()) + 1);
            }
            ends.into_iter().collect()
        };
        places = match sign {
            '*' => run(|_| true, 0),
            '+' => run(|_| true, 1),
            '~' => run(|c| !c.is_whitespace(), 1),
            '%' => run(|c| c.is_ascii_digit(), 1),
            '$' => places.into_iter().filter(|at| *at == text.len()).collect(),
            sign => {
                let there = |at: &usize| text.get(*at).is_some_and(|c| c.is_none_or(|c| c == sign));
                let next = places.into_iter().filter(there);
                next.map(|at| at + 1).collect()
            }
        };
        if places.is_empty() {
            return false;
        }
    }
    true
}

#[test]
fn it_reads_what_the_facts_sheet_shows() {
    let text = "# 2026-01-02 03:04:05 by RouterOS 7.20\r\n# software id = \r\n#\r\n\
        /ip firewall filter\r\n# inactive time\r\nadd log-prefix=\\\r\n    #SMB protocol=udp\r\n\
        # x has changed, please restart the device in order to\r\n pply the new settings\r\n\
        add comment=\"two  \\\r\n    \\_words\\r\\\r\n    \\n# no comment\" a=b  \r\n\r\n\
        /ip pool add name=a\r\nstray\r\n/ip ssh\r\nset a=b";
    let expected = [
        ("/ip firewall filter", "add log-prefix=#SMB protocol=udp"),
        (
            "/ip firewall filter",
            "add comment=\"two  \\_words\\r\\n# no comment\" a=b",
        ),
        ("/ip pool", "add name=a"),
        ("/ip firewall filter", "stray"),
        ("/ip ssh", "set a=b"),
    ];
    let read = configuration(text);
    let read: Vec<_> = read
        .iter()
        .map(|(menu, line)| (menu.as_str(), line.as_str()))
        .collect();
    assert_eq!(read, expected);
}
