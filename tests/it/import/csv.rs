//! Our CSV: what is read, what is refused, what an export shows.

use mikrotik_backup::import::{CSV_FORMAT, Secrets, from_csv, to_csv};

use super::{assert_devices, assert_problems, fixture, texts};

#[test]
fn a_csv_inventory_is_read() {
    let import = from_csv(fixture("fleet.csv").as_bytes());
    assert_devices(
        &import,
        &[
            (
                "edge-1",
                "192.0.2.1",
                22,
                "backup",
                Some("correct horse"),
                None,
            ),
            (
                "edge, old",
                "2001:db8::1",
                2222,
                "backup",
                Some("say \"hi\", twice"),
                None,
            ),
            (
                "cpe-1",
                "cpe-1.example.net",
                22,
                "backup",
                None,
                Some("~/.ssh/backup_ed25519"),
            ),
            ("factory", "192.0.2.9", 22, "admin", Some(""), None),
            ("later", "192.0.2.10", 22, "", None, None),
        ],
    );
    let lines: Vec<usize> = import.devices.iter().map(|device| device.line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 6]);
    assert_eq!(import.devices[0].tenant.as_deref(), Some("Northwind"));
    assert_eq!(import.devices[3].group.as_deref(), Some("cpe"));
    assert!(import.devices[3].has_login() && !import.devices[4].has_login());
    assert!(import.skipped.is_empty() && import.notes.is_empty());
}

#[test]
fn columns_come_in_any_order_and_under_their_other_names() {
    let text = "\u{feff}Tenant-ID,SSH port,user,IP,Hostname\r\n\
                7f9c,8022, backup ,192.0.2.1,edge-1\r\n";
    let import = from_csv(text.as_bytes());
    assert_devices(
        &import,
        &[("edge-1", "192.0.2.1", 8022, "backup", None, None)],
    );
    assert_eq!(import.devices[0].tenant.as_deref(), Some("7f9c"));
}

#[test]
fn each_fault_of_a_csv_file_is_told_with_its_line_and_nothing_is_imported() {
    let good = "name,address,port,password,user\nedge-1,192.0.2.1,22,hunter2,backup\n";
    assert_eq!(from_csv(good.as_bytes()).devices.len(), 1);
    for (tail, problem) in [
        (
            "edge-2,192.0.2.2,hunter2,22,backup\n",
            "line 3: … port … 1 to 65535",
        ),
        ("edge-2,192.0.2.2,0,,\n", "line 3: … port … 1 to 65535"),
        ("edge-2,192.0.2.2,65536,,\n", "line 3: … port … 1 to 65535"),
        ("edge-2,192.0.2.2:22,,,\n", "line 3: … its own column"),
        ("edge-2,,,,\n", "line 3: … the address is empty"),
        (",192.0.2.2,,,\n", "line 3: … the name is empty"),
        ("#edge-2,192.0.2.2,,,\n", "line 3: … no comments"),
        (
            "\n\nedge-1,192.0.2.2,,,\n",
            "line 5: … edge-1 is already in line 2",
        ),
        (
            "edge-2,192.0.2.2,,hunter2\n",
            "line 3: … 4 values … 5 columns",
        ),
        (
            "edge-2,192.0.2.2,,hunter2,,\n",
            "line 3: … 6 values … 5 columns",
        ),
        ("edge-2,192.0.2.2,,hunter2,\n", "line 3: … no username"),
        (
            "edge-2,192.0.2.2,,\"hunter2,backup\nedge-3,,,\n",
            "line 3: … never closed",
        ),
        (
            "edge-2,192.0.2.2,,\"hunter2\nx\",backup\n",
            "line 3: … password … control character",
        ),
        (
            "edge-2,192.0.2.2,,hun\u{0}ter2,backup\n",
            "line 3: … password … control character",
        ),
    ] {
        let import = from_csv(format!("{good}{tail}").as_bytes());
        assert_problems(&import, &[problem]);
        assert!(!texts(&import.problems)[0].contains("hunter2"), "{problem}");
    }
    for (text, problem) in [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("edge-1,192.0.2.1,22,hunter2\n", "line 1: … no header"),
        ("name;address\nedge-1;192.0.2.1\n", "line 1: … semicolons"),
        ("name\nedge-1\n", "line 1: … no column address"),
        (
            "name,address,adress\n",
            "line 1: … column 3 (adress) is unknown",
        ),
        ("name,address,\n", "line 1: … column 3 () is unknown"),
        ("name,address,ip\n", "line 1: … two columns for address"),
        (
            "name,address,private_key,private_key_file\nedge-1,192.0.2.1,-----BEGIN,~/.ssh/id\n",
            "line 2: … both",
        ),
        (
            "name,address,user,private_key\nedge-1,192.0.2.1,backup,~/.ssh/id\n",
            "line 2: … private_key_file",
        ),
        (
            "name,address,user,private_key_passphrase\nedge-1,192.0.2.1,backup,hunter2\n",
            "line 2: … no private key",
        ),
    ] {
        assert_problems(&from_csv(text.as_bytes()), &[problem]);
    }
}

#[test]
fn all_problems_of_a_csv_file_are_listed_at_once_in_order() {
    let text = "name,address,port,nickname\na,192.0.2.1,x,\nb,192.0.2.2,22,\nb,,70000,\n";
    assert_problems(
        &from_csv(text.as_bytes()),
        &[
            "line 1: … nickname",
            "line 2: … port",
            "line 4: … already in line 3",
            "line 4: … address is empty",
            "line 4: … port",
        ],
    );
}

#[test]
fn text_in_another_encoding_is_told_with_the_line_where_it_begins() {
    let latin = b"name,address\nedge-1,192.0.2.1\nn\xf6rd,192.0.2.2\n";
    assert_problems(&from_csv(latin), &["line 3: … not UTF-8"]);
    let utf16: Vec<u8> = "\u{feff}name"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_problems(&from_csv(&utf16), &["UTF-16"]);
}

#[test]
fn tags_and_host_keys_are_read_as_they_are_written() {
    let key = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    let text = format!(
        "name,address,tags,host_key\nedge-1,192.0.2.1,core; pop 3 ;;a\\;b\\\\c,{key}\n\
         edge-2,192.0.2.2,core,\nedge-3,192.0.2.3,,\n"
    );
    let devices = from_csv(text.as_bytes()).devices;
    assert_eq!(devices[0].tags, ["core", "pop 3", "a;b\\c"]);
    assert_eq!(devices[1].tags, ["core"]);
    assert_eq!(devices[2].tags, Vec::<String>::new());
    let keys: Vec<_> = devices
        .iter()
        .map(|device| device.host_key.as_ref())
        .collect();
    assert_eq!(keys[0].map(|key| key.as_str()), Some(key));
    assert_eq!(keys[1..], [None, None]);
    for (row, problem) in [
        (
            "edge-1,192.0.2.1,,aa:bb:cc",
            "line 2: … host_key is not a fingerprint",
        ),
        (
            "edge-1,192.0.2.1,\"a\nb\",",
            "line 2: … tags … control character",
        ),
    ] {
        let text = format!("name,address,tags,host_key\n{row}\n");
        assert_problems(&from_csv(text.as_bytes()), &[problem]);
    }
}

#[test]
fn the_same_name_is_fine_for_another_tenant() {
    let text = "name,address,tenant\nedge-1,192.0.2.1,a\nedge-1,192.0.2.1,b\n";
    assert_eq!(from_csv(text.as_bytes()).devices.len(), 2);
}

#[test]
fn debug_shows_no_secret() {
    let text = "name,address,user,password,private_key,private_key_passphrase\n\
                edge-1,192.0.2.1,backup,hunter2,-----BEGIN hunter3,hunter4\n";
    let import = from_csv(text.as_bytes());
    assert_eq!(import.devices.len(), 1);
    assert!(!format!("{import:?}").contains("hunter"));
}

#[test]
fn an_export_holds_secrets_only_where_they_are_asked_for() {
    let devices = from_csv(fixture("fleet.csv").as_bytes()).devices;
    let plain = to_csv(&devices, Secrets::Omit);
    assert!(plain.contains("~/.ssh/backup_ed25519"));
    for secret in ["correct horse", "hi", "password"] {
        assert!(!plain.contains(secret), "{secret}");
    }
    let back = from_csv(plain.as_bytes());
    assert_eq!((back.problems, back.devices.len()), (vec![], devices.len()));
    assert!(to_csv(&devices, Secrets::Include).contains("correct horse"));
}

#[test]
fn the_help_names_every_column_of_an_export() {
    let export = to_csv(&[], Secrets::Include);
    for column in export.trim().split(',') {
        assert!(CSV_FORMAT.contains(&format!("\n  {column} ")), "{column}");
    }
}
