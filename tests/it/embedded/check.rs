//! `check` of devices that are in the folder of embedded mode.

use mikrotik_backup::domain::device::DeviceId;
use mikrotik_backup::sim::{Configuration, Fault, Router};

use super::harness::{Done, Folder, UNKNOWN_COMMENT, router};
use crate::services::process::require;

impl Done {
    /// The line of `check` about `step`.
    #[track_caller]
    fn step(&self, verdict: &str, step: &str) -> &str {
        let begin = format!("  {verdict:<4}  {step}");
        let line = self.stdout.lines().find(|line| line.starts_with(&begin));
        line.unwrap_or_else(|| panic!("no {verdict} {step} in {self:?}"))
    }
}

async fn inserted(folder: &Folder, address: [u8; 4]) -> (Router, DeviceId) {
    let router = router("doctor", address);
    let device = folder.insert(&router).await;
    (router, device)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_checked_by_name_id_or_address_with_what_is_stored_of_it() {
    let folder = Folder::new();
    let (router, device) = inserted(&folder, [127, 87, 1, 1]).await;
    let id = device.to_string();
    for target in ["doctor", &id, "127.87.1.1"] {
        let done = folder.cli(&["check", target], "").await.exits(0);
        let title = format!("doctor ({})\n", router.address());
        assert!(done.stdout.starts_with(&title), "{done:?}");
        assert!(done.step("ok", "login").contains("user backup"));
        assert!(done.step("note", "host key").contains("nothing is pinned"));
        assert!(done.stdout.ends_with("A backup would succeed.\n"));
        assert!(!done.stdout.contains(&router.password()), "{done:?}");
    }
    assert!(folder.journal().await.is_empty(), "nothing is stored");

    folder.cli(&["backup", "doctor"], "").await.exits(0);
    let done = folder.cli(&["check", "doctor"], "").await.exits(0);
    assert!(done.step("note", "host key").contains("as pinned"));
    let hash = folder.journal().await[0].sha256_hash.clone();
    let hash = hash.expect("what was stored");
    assert!(done.step("ok", "export").ends_with(&hash), "{done:?}");

    // A changed key gets no password, and a login that is named is no way around that.
    router.rotate_host_key();
    let logins = router.logins().len();
    let user = ["check", "doctor", "--user", "backup", "--password-stdin"];
    for arguments in [&["check", "doctor"][..], &user] {
        let done = folder.cli(arguments, &router.password()).await.exits(1);
        assert!(done.step("FAIL", "host key").contains("host_key_mismatch"));
        assert!(
            done.stdout.contains("mikrotik-backup host-key show doctor"),
            "{done:?}"
        );
    }
    assert_eq!(router.logins().len(), logins);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_the_folder_is_no_hindrance() {
    let folder = Folder::new();
    let (_router, device) = inserted(&folder, [127, 87, 1, 2]).await;
    let still = [("CONFIG_BACKUP_INTERVAL", "86400")];
    let _service = folder.run("service", &still).await;
    folder.backed_up(device, 1).await;
    let done = folder.cli(&["check", "doctor"], "").await.exits(0);
    assert!(done.step("note", "host key").contains("as pinned"));
    assert_eq!(folder.journal().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_settings_of_the_device_and_of_the_service_are_used() {
    let folder = Folder::new();
    let (router, _) = inserted(&folder, [127, 87, 1, 3]).await;
    let modern = ["devices", "edit", "doctor", "--ssh-algorithms", "modern"];
    folder.cli(&modern, "").await.exits(0);
    router.set_fault(Fault::LegacyAlgorithmsOnly);
    let done = folder.cli(&["check", "doctor"], "").await.exits(1);
    assert!(
        done.step("FAIL", "key exchange")
            .contains("no_common_algorithm")
    );
    let compatible = ["devices", "edit", "doctor", "--ssh-algorithms", "default"];
    folder.cli(&compatible, "").await.exits(0);
    let done = folder.cli(&["check", "doctor"], "").await.exits(0);
    let weak = |name: &str, remedy: &str| {
        let begin = format!("{name} is weak: ");
        let line = done.stdout.lines().find(|line| line.contains(&begin));
        assert!(line.is_some_and(|line| line.contains(remedy)), "{done:?}");
    };
    weak("diffie-hellman-group14-sha1", "strong-crypto=yes");
    weak("ssh-rsa", "RouterOS 7");
    weak("hmac-sha1", "strong-crypto=yes");
    router.clear_fault();

    router.change(|configuration| *configuration = Configuration::fixture(UNKNOWN_COMMENT));
    let done = folder.cli(&["check", "doctor"], "").await.exits(0);
    let line = done.step("note", "export");
    assert!(line.contains("no rule knows, kept: # radar"), "{line}");
    let ignoring = [("CONFIG_BACKUP_IGNORE_COMMENTS", "^# radar")];
    let backup = folder.cli_with(&ignoring, &["backup", "doctor"], "").await;
    backup.exits(0);
    let hash = folder.journal().await[0].sha256_hash.clone();
    let done = folder.cli_with(&ignoring, &["check", "doctor"], "").await;
    let done = done.exits(0);
    let line = done.step("ok", "export");
    assert!(line.ends_with(&hash.expect("a hash")), "{line}");
    assert!(!done.stdout.contains("radar"), "{done:?}");

    let brief = ["devices", "edit", "doctor", "--command-timeout", "1"];
    folder.cli(&brief, "").await.exits(0);
    router.set_fault(Fault::StallBeforeOutput);
    let done = folder.cli(&["check", "doctor"], "").await.exits(1);
    let line = done.step("FAIL", "export");
    assert!(line.contains("timeout: "), "{line}");
    // Not the ten seconds of the service.
    let took = line.split_whitespace().nth(2).map(str::parse::<u32>);
    assert!(matches!(took, Some(Ok(500..5000))), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_signed_with_sha1_is_shown_as_weak() {
    let Some(keygen) = require("ssh-keygen") else {
        return;
    };
    let folder = Folder::new();
    let router = router("doctor", [127, 87, 1, 5]);
    let key = folder.path().join("id");
    let mut keygen = std::process::Command::new(keygen);
    keygen.args(["-q", "-t", "rsa", "-b", "2048", "-N", "", "-f"]);
    assert!(keygen.arg(&key).status().expect("run ssh-keygen").success());
    let public = std::fs::read_to_string(key.with_extension("pub")).expect("the public key");
    let public = russh::keys::PublicKey::from_openssh(&public).expect("a public key");
    router.set_authorized_key(Some(public));
    // RouterOS 6: nothing better than SHA-1, for host keys and for users'.
    router.set_fault(Fault::LegacyAlgorithmsOnly);

    let address = router.address();
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let key = key.to_str().expect("a path");
    let add = ["devices", "add", "doctor", &ip, "--port", &port];
    let add = [&add[..], &["--user", "backup", "--key-file", key]].concat();
    folder.cli(&add, "").await.exits(0);
    folder.cli(&["backup", "doctor"], "").await.exits(0);
    let shown = folder.cli(&["devices", "show", "doctor"], "").await;
    let shown = shown.exits(0).stdout;
    let weak = "diffie-hellman-group14-sha1, ssh-rsa, hmac-sha1, ssh-rsa (user key), in the last \
                session";
    assert!(shown.contains(weak), "{shown}");

    let done = folder.cli(&["check", "doctor"], "").await.exits(0);
    let line = done.step("note", "login");
    assert!(line.contains("ssh-rsa (user key) is weak: "), "{line}");
    assert!(line.contains("Ed25519"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_fit_several_or_none_are_told() {
    let folder = Folder::new();
    let tenants = [
        "00000000-0000-0000-0000-000000000001",
        "00000000-0000-0000-0000-000000000002",
    ];
    for tenant in tenants {
        let add = ["devices", "add", "twin", "127.87.1.9", "--password-stdin"];
        let add = [&add[..], &["--tenant", tenant]].concat();
        folder.cli(&add, "x\n").await.exits(0);
    }
    let done = folder.cli(&["check", "twin"], "").await.exits(1);
    assert!(done.stderr.contains("2 devices match \"twin\""), "{done:?}");
    assert!(done.stderr.contains("name one by its id"), "{done:?}");

    let done = folder.cli(&["check", "nobody.invalid"], "").await.exits(1);
    let line = done.step("note", "inventory");
    assert!(line.contains("no device has this id, name"), "{line}");
    assert!(done.step("FAIL", "resolve").contains("name_not_resolved"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_told_and_nothing_is_dialled() {
    let folder = Folder::new();
    let (router, _) = inserted(&folder, [127, 87, 1, 4]).await;
    let key = [(
        "CREDENTIAL_ENCRYPTION_KEY",
        "b3RoZXIta2V5LW90aGVyLWtleS1vdGhlci1rZXktMDE=",
    )];
    let done = folder.cli_with(&key, &["check", "doctor"], "").await;
    let done = done.exits(3);
    assert!(
        done.stderr
            .contains("CREDENTIAL_ENCRYPTION_KEY is not the key"),
        "{done:?}"
    );
    assert_eq!(router.stats().connections, 0);

    // With a login it needs no key; and where there is no store, any host can be examined.
    let port = router.address().port().to_string();
    let login = ["--user", "backup", "--password-stdin"];
    let named = [&["check", "doctor"], &login[..]].concat();
    let done = folder.cli_with(&key, &named, &router.password()).await;
    done.exits(0).step("ok", "export");
    let empty = Folder::new();
    let host = [&["check", "127.87.1.4", "--port", &port], &login[..]].concat();
    let done = empty.cli(&host, &router.password()).await.exits(0);
    assert!(!done.stdout.contains("inventory"), "{done:?}");
    assert!(!empty.data().exists(), "nothing was made");
}
