//! What is set for one device: good values, bad ones, and back to those of the service.

use serde_json::{Value, json};

use super::harness::{Folder, router};

const ADD: [&str; 7] = [
    "devices",
    "add",
    "edge-1",
    "192.0.2.1",
    "--user",
    "backup",
    "--password-stdin",
];

async fn shown(folder: &Folder) -> (Value, Value) {
    let show = ["devices", "show", "edge-1", "--json"];
    let done = folder.cli(&show, "").await.exits(0);
    let shown: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let field = |name: &str| shown[name].clone();
    (field("command_timeout_seconds"), field("ssh_algorithms"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_has_settings_of_its_own_until_they_are_taken_back() {
    let folder = Folder::new();
    let own = ["--command-timeout", "3600", "--ssh-algorithms", "modern"];
    let add = [&ADD[..], &own].concat();
    folder.cli(&add, "word\n").await.exits(0);
    assert_eq!(shown(&folder).await, (json!(3600), json!("modern")));
    let done = folder
        .cli(&["devices", "show", "edge-1"], "")
        .await
        .exits(0);
    for line in ["command timeout  3600 s\n", "SSH algorithms   modern\n"] {
        assert!(done.stdout.contains(line), "no {line:?} in {done:?}");
    }

    // Each alone, and the other stays as it is.
    for (option, value, expected) in [
        ("--command-timeout", "1", (json!(1), json!("modern"))),
        (
            "--ssh-algorithms",
            "compatible",
            (json!(1), json!("compatible")),
        ),
        (
            "--command-timeout",
            "default",
            (Value::Null, json!("compatible")),
        ),
        ("--ssh-algorithms", "default", (Value::Null, Value::Null)),
    ] {
        let edit = ["devices", "edit", "edge-1", option, value];
        folder.cli(&edit, "").await.exits(0);
        assert_eq!(shown(&folder).await, expected, "{option} {value}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_cannot_be_are_refused_with_what_can_be() {
    let folder = Folder::new();
    let timeout = "3600";
    let names = "modern, compatible";
    for (option, value, said) in [
        ("--command-timeout", "0", timeout),
        ("--command-timeout", "3601", timeout),
        ("--command-timeout", "soon", "--command-timeout"),
        ("--command-timeout", "default", "--command-timeout"),
        ("--ssh-algorithms", "weak", names),
        ("--ssh-algorithms", "default", names),
        ("--ssh-algorithms", "", names),
    ] {
        let add = [&ADD[..], &[option, value]].concat();
        let done = folder.cli(&add, "word\n").await.exits(2);
        assert!(done.stderr.contains(said), "{option} {value}: {done:?}");
    }
    assert!(!folder.data().exists(), "nothing was made");

    folder.cli(&ADD, "word\n").await.exits(0);
    for (option, value, said) in [
        (
            "--command-timeout",
            "0",
            "seconds from 1 to 3600, or default",
        ),
        (
            "--command-timeout",
            "3601",
            "seconds from 1 to 3600, or default",
        ),
        ("--ssh-algorithms", "weak", names),
    ] {
        let edit = ["devices", "edit", "edge-1", option, value];
        let done = folder.cli(&edit, "").await.exits(2);
        assert!(done.stderr.contains(said), "{option} {value}: {done:?}");
    }
    assert_eq!(shown(&folder).await, (Value::Null, Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_nothing_is_no_edit() {
    let folder = Folder::new();
    folder.cli(&ADD, "word\n").await.exits(0);
    for device in ["edge-1", "nobody"] {
        let done = folder.cli(&["devices", "edit", device], "").await.exits(2);
        assert_eq!(done.stdout, "");
        assert!(done.stderr.contains("nothing to change"), "{done:?}");
    }
    let password = ["devices", "edit", "edge-1", "--password-stdin"];
    let done = folder.cli(&password, "other\n").await.exits(2);
    assert!(done.stderr.contains("needs --user, too"), "{done:?}");
    // An empty group is an edit: it takes the group away.
    let group = ["devices", "edit", "edge-1", "--group", ""];
    let done = folder.cli(&group, "").await.exits(0);
    assert_eq!(done.stdout, "edited edge-1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_devices_keeps_everything_on_its_way_to_another_folder() {
    let folder = Folder::new();
    let router = router("edge-1", [127, 87, 2, 1]);
    let address = router.address();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let tenant = "00000000-0000-0000-0000-0000000000aa";
    let add = [
        "devices",
        "add",
        "edge-1",
        &ip,
        "--port",
        &port,
        "--user",
        "backup",
        "--password-stdin",
        "--tenant",
        tenant,
        "--group",
        "core",
        "--tag",
        "pop 3",
        "--tag",
        "a;b,c\\",
        "--command-timeout",
        "90",
        "--ssh-algorithms",
        "compatible",
    ];
    folder.cli(&add, &router.password()).await.exits(0);
    folder.cli(&["backup", "edge-1"], "").await.exits(0);
    let plain = ["devices", "add", "edge-2", "192.0.2.2", "--password-stdin"];
    folder.cli(&plain, "word\n").await.exits(0);

    let csv = folder.path().join("devices.csv");
    let csv = csv.to_str().expect("a path");
    let export = ["devices", "export", "--secrets", "--output", csv];
    folder.cli(&export, "").await.exits(0);
    let other = Folder::new();
    other.cli(&["devices", "import", csv], "").await.exits(0);
    let list = async |folder: &Folder| {
        let done = folder.cli(&["devices", "list", "--json"], "").await;
        let mut list: Value = serde_json::from_str(&done.exits(0).stdout).expect("JSON");
        for device in list.as_array_mut().expect("a list") {
            let device = device.as_object_mut().expect("a device");
            // A new id, and no history.
            for known in [
                "id",
                "condition",
                "last_success_at",
                "last_attempt_at",
                "routeros_version",
            ] {
                device.remove(known);
            }
        }
        list
    };
    let there = list(&other).await;
    assert_eq!(there, list(&folder).await);
    assert_eq!(there[0]["tags"], json!(["pop 3", "a;b,c\\"]));
    assert_eq!(there[0]["host_key"], router.fingerprint().as_str());
    assert_eq!(there[0]["tenant"], tenant);

    // The password came along, and so did the trust: another key gets no password.
    other.cli(&["backup", "edge-1"], "").await.exits(0);
    router.rotate_host_key();
    let refused = other.cli(&["backup", "edge-1"], "").await.exits(1);
    assert!(refused.stdout.contains("host_key_mismatch"), "{refused:?}");
    let empty = Folder::new();
    empty.cli(&["devices", "import", csv], "").await.exits(0);
    let logins = router.logins().len();
    empty.cli(&["backup", "edge-1"], "").await.exits(1);
    assert_eq!(router.logins().len(), logins, "no password was sent");

    let bad = ["devices", "edit", "edge-2", "--tag", " blank"];
    let refused = other.cli(&bad, "").await.exits(1);
    assert!(refused.stderr.contains("is no tag"), "{refused:?}");
}
