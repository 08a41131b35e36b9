//! `snapshots`: list, show, diff, export, search.

use std::os::unix::fs::PermissionsExt as _;

use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::fleet::{Fleet, PASSWORD, finished};

on_both!(
    versions_are_listed_newest_first,
    one_version_is_shown_whole_or_masked,
    a_diff_names_its_menus_and_hides_secrets,
    an_export_is_for_its_owner_only,
    a_search_finds_lines_now_and_ever,
    another_key_is_said_plainly,
    a_menu_that_was_not_exported_is_gone_nowhere,
    what_was_left_out_is_shown,
    what_was_left_out_before_it_was_kept_is_not_known,
    what_the_service_ignored_is_no_change,
);

const START: OffsetDateTime = datetime!(2026-03-02 04:05:06 UTC);

fn config(server: u8, extra: &str) -> String {
    format!(
        "/ip dns\nset servers=192.0.2.{server}\n/user\nset [ find name=admin ] \
         password={PASSWORD}{server}\n/system note\nset note=\"bell \u{7} here\"\n{extra}"
    )
}

/// Four versions, an hour apart.
async fn changed(fleet: &Fleet, name: &str) {
    let id = fleet.add(name).await;
    for (hour, server, extra) in [
        (0, 1, ""),
        (1, 2, ""),
        (2, 2, "/system identity\nset name=b\n"),
        (3, 3, ""),
    ] {
        let at = START + Duration::hours(hour);
        fleet.archived(id, at, &config(server, extra)).await;
    }
}

async fn versions_are_listed_newest_first(fleet: &Fleet) {
    changed(fleet, "edge-1").await;
    let json = fleet
        .run(&["snapshots", "list", "edge-1", "--json"])
        .await
        .json();
    let versions = json.as_array().expect("a list");
    let times: Vec<_> = versions
        .iter()
        .map(|it| it["collected_at"].as_str())
        .collect();
    assert_eq!(
        times,
        ["07", "06", "05", "04"]
            .map(|hour| Some(format!("2026-03-02T{hour}:05:06Z")))
            .each_ref()
            .map(|it| it.as_deref())
    );
    assert_eq!(versions[0]["lines_added"], 2);
    assert_eq!(versions[0]["lines_removed"], 4);
    assert_eq!(versions[3]["lines_added"], serde_json::Value::Null);

    let page = [
        "snapshots",
        "list",
        "edge-1",
        "--limit",
        "1",
        "--before",
        "2026-03-02 06:05:06",
    ];
    let text = fleet.run(&page).await.done();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("VERSION"), "{text}");
    assert!(
        lines[1].contains("2026-03-02T05:05:06Z") && lines[1].ends_with("+2 -2"),
        "{text}"
    );

    fleet.add("edge-2").await;
    assert_eq!(
        fleet.run(&["snapshots", "list", "edge-2"]).await.done(),
        "no version of edge-2 is archived\n"
    );
    let ended = fleet.run(&["snapshots", "list", "nobody"]).await;
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .err
            .contains("no device has the id, name or address \"nobody\""),
        "{}",
        ended.err
    );
}

async fn one_version_is_shown_whole_or_masked(fleet: &Fleet) {
    changed(fleet, "edge-1").await;
    let show = async |more: &[&str]| {
        let arguments = [&["snapshots", "show", "edge-1"], more].concat();
        fleet.run(&arguments).await
    };
    // Standard output is no terminal here: the text is as it was taken.
    assert_eq!(show(&[]).await.done(), config(3, ""));
    assert_eq!(show(&["latest~2"]).await.done(), config(2, ""));
    assert_eq!(
        show(&["--at", "2026-03-02 05:30"]).await.done(),
        config(2, "")
    );
    let masked = show(&["--redact"]).await.done();
    assert!(
        masked.contains("password=*****") && !masked.contains(PASSWORD),
        "{masked}"
    );
    assert_eq!(show(&["--ignored"]).await.done(), "nothing was left out\n");

    let early = show(&["--at", "2026-03-01"]).await;
    assert_eq!(early.code, 1);
    assert!(
        early.err.contains("no version of edge-1 is as old as"),
        "{}",
        early.err
    );
    assert_eq!(show(&["latest~4"]).await.code, 1);
    assert_eq!(show(&["soon"]).await.code, 2);

    let list = fleet
        .run(&["snapshots", "list", "edge-1", "--json"])
        .await
        .json();
    let id = list[1]["version"].as_str().expect("an id");
    let text = show(&[id]).await.done();
    assert_eq!(text, config(2, "/system identity\nset name=b\n"));
    fleet.add("edge-2").await;
    let other = fleet.run(&["snapshots", "show", "edge-2", id]).await;
    assert_eq!(other.code, 1);
    assert!(other.err.contains("is not one of edge-2"), "{}", other.err);
}

async fn a_diff_names_its_menus_and_hides_secrets(fleet: &Fleet) {
    changed(fleet, "edge-1").await;
    let diff = fleet
        .run(&["snapshots", "diff", "edge-1", "latest~3", "latest~2"])
        .await
        .done();
    for part in [
        "--- edge-1 2026-03-02T04:05:06Z",
        "+++ edge-1 2026-03-02T05:05:06Z",
        "-set servers=192.0.2.1\n",
        "+set servers=192.0.2.2\n",
        "/ip dns",
        "password=*****",
    ] {
        assert!(diff.contains(part), "{part:?} in {diff}");
    }
    assert!(
        !diff.contains(PASSWORD) && !diff.contains('\u{7}') && !diff.contains('\u{1b}'),
        "{diff}"
    );
    let last = fleet.run(&["snapshots", "diff", "edge-1"]).await.done();
    assert!(
        last.contains("-set name=b\n") && last.contains("+set servers=192.0.2.3\n"),
        "{last}"
    );
    let since = fleet
        .run(&["snapshots", "diff", "edge-1", "2026-03-02 05:10"])
        .await
        .done();
    assert!(since.contains("-set servers=192.0.2.2\n"), "{since}");
    assert!(!since.contains("name=b"), "{since}");
    let secrets = ["snapshots", "diff", "edge-1", "--secrets"];
    let secrets = fleet.run(&secrets).await.done();
    assert!(secrets.contains(&format!("{PASSWORD}3")), "{secrets}");
    let same = fleet
        .run(&["snapshots", "diff", "edge-1", "latest", "latest"])
        .await
        .done();
    assert!(same.starts_with("no difference between edge-1 "), "{same}");

    let id = fleet.add("edge-2").await;
    let none = fleet.run(&["snapshots", "diff", "edge-2"]).await;
    assert!(
        none.code == 1 && none.err.contains("no version of edge-2 is archived"),
        "{}",
        none.err
    );
    fleet.archived(id, START, &config(1, "")).await;
    let one = fleet.run(&["snapshots", "diff", "edge-2"]).await;
    assert!(
        one.code == 1 && one.err.contains("only one version of edge-2"),
        "{}",
        one.err
    );
}

async fn an_export_is_for_its_owner_only(fleet: &Fleet) {
    changed(fleet, "edge-1").await;
    changed(fleet, "a/../b").await;
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("new");
    let dir = folder.to_str().expect("UTF-8");
    for _ in 0..2 {
        // The second time, files are replaced.
        fleet
            .run(&["snapshots", "export", "--all", "--dir", dir])
            .await
            .done();
    }
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("the folder")
        .map(|entry| {
            let entry = entry.expect("an entry");
            assert_eq!(
                entry.metadata().expect("metadata").permissions().mode() & 0o777,
                0o600
            );
            entry.file_name().into_string().expect("UTF-8")
        })
        .collect();
    names.sort();
    assert_eq!(names, ["a_.._b.rsc", "edge-1.rsc"]);
    assert_eq!(
        std::fs::metadata(&folder)
            .expect("metadata")
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
    let text = std::fs::read_to_string(folder.join("edge-1.rsc")).expect("the file");
    assert_eq!(text, config(3, ""));
    fleet
        .run(&["snapshots", "export", "edge-1", "--redact", "--dir", dir])
        .await
        .done();
    let text = std::fs::read_to_string(folder.join("edge-1.rsc")).expect("the file");
    assert!(!text.contains(PASSWORD), "{text}");

    fleet.add("edge-2").await;
    let partly = fleet
        .run(&["snapshots", "export", "--all", "--dir", dir])
        .await;
    assert_eq!(partly.code, 1);
    assert!(
        partly.err.contains("2 files written, 1 device left out"),
        "{}",
        partly.err
    );
}

async fn a_search_finds_lines_now_and_ever(fleet: &Fleet) {
    changed(fleet, "edge-1").await;
    let id = fleet.add("edge-2").await;
    fleet.archived(id, START, &config(1, "")).await;
    let found = fleet
        .run(&["snapshots", "search", r"192\.0\.2\."])
        .await
        .done();
    let mut lines: Vec<_> = found.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "edge-1:2: /ip dns | set servers=192.0.2.3",
            "edge-2:2: /ip dns | set servers=192.0.2.1",
        ]
    );
    let history = [
        "snapshots",
        "search",
        "--history",
        "--device",
        "edge-1",
        "name=b|servers=",
    ];
    let history = fleet.run(&history).await.done();
    let lines: Vec<_> = history.lines().collect();
    assert_eq!(
        lines,
        [
            "edge-1: there since 2026-03-02T04:05:06Z or longer, gone 2026-03-02T05:05:06Z: /ip dns | set servers=192.0.2.1",
            "edge-1: appeared 2026-03-02T05:05:06Z, gone 2026-03-02T07:05:06Z: /ip dns | set servers=192.0.2.2",
            "edge-1: appeared 2026-03-02T06:05:06Z, gone 2026-03-02T07:05:06Z: /system identity | set name=b",
            "edge-1: appeared 2026-03-02T07:05:06Z: /ip dns | set servers=192.0.2.3",
        ]
    );
    let one = ["snapshots", "search", "--device", "edge-2", "servers="];
    let one = fleet.run(&one).await.done();
    assert_eq!(one, "edge-2:2: /ip dns | set servers=192.0.2.1\n");
    for more in [&[][..], &["--history"]] {
        let secret = [&["snapshots", "search", PASSWORD, "--json"], more].concat();
        assert_eq!(fleet.run(&secret).await.json(), serde_json::json!([]));
    }
    let secret = ["snapshots", "search", PASSWORD, "--json", "--secrets"];
    let json = fleet.run(&secret).await.json();
    assert_eq!(json.as_array().map(Vec::len), Some(2));
    assert_eq!(json[0]["menu"], "/user");
    let bad = fleet.run(&["snapshots", "search", "("]).await;
    assert_eq!(bad.code, 2);
    assert!(bad.err.contains("search pattern"), "{}", bad.err);
}

const WHOLE: &str = "/ip pool\nadd name=a\n/ipv6 route\nadd gateway=2001:db8::1\n\
    add gateway=2001:db8::2\n";
const PART: &str = "/ip pool\nadd name=b\n#error exporting \"/ipv6/route\" (timeout)\n";

async fn a_menu_that_was_not_exported_is_gone_nowhere(fleet: &Fleet) {
    let id = fleet.add("edge-1").await;
    let lacking = &["/ipv6/route"];
    fleet.archived(id, START, WHOLE).await;
    let later = |hours| START + Duration::hours(hours);
    fleet.archived_lacking(id, later(1), PART, lacking).await;
    let list = ["snapshots", "list", "edge-1"];
    let text = fleet.run(&list).await.done();
    let newest = text.lines().nth(1).expect("a version");
    assert!(
        newest.contains("+1 -1") && newest.ends_with("incomplete: no /ipv6/route"),
        "{text}"
    );
    let json = fleet.run(&[&list[..], &["--json"]].concat()).await.json();
    assert_eq!(json[0]["lines_removed"], 1);
    assert_eq!(json[0]["incomplete_menus"], serde_json::json!(lacking));

    for secrets in [&[][..], &["--secrets"]] {
        let diff = [&["snapshots", "diff", "edge-1"], secrets].concat();
        let diff = fleet.run(&diff).await.done();
        let last = diff.lines().last().expect("a summary");
        assert_eq!(
            last,
            "1 line added, 1 removed in /ip pool; not exported by one side: /ipv6 route"
        );
    }
    let search = ["snapshots", "search", "--history", "gateway="];
    let found = fleet.run(&search).await.done();
    assert_eq!(found.lines().count(), 2, "{found}");
    assert!(!found.contains("gone"), "{found}");
    let shown = fleet.run(&["snapshots", "show", "edge-1"]).await;
    assert_eq!((shown.code, shown.out.as_str()), (0, PART));
    let said = "incomplete: the router could not export /ipv6/route";
    assert!(shown.err.contains(said), "{}", shown.err);
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_str().expect("UTF-8");
    let export = ["snapshots", "export", "edge-1", "--dir", dir];
    let exported = fleet.run(&export).await;
    assert_eq!(exported.code, 0);
    assert!(exported.err.contains(said), "{}", exported.err);

    // It is back: nothing came, either.
    fleet.archived(id, later(2), WHOLE).await;
    let json = fleet.run(&[&list[..], &["--json"]].concat()).await.json();
    assert_eq!(
        (&json[0]["lines_added"], &json[0]["lines_removed"]),
        (&1.into(), &1.into())
    );
    let found = fleet.run(&search).await.done();
    assert_eq!(found.lines().count(), 2, "one stretch each: {found}");
    assert!(
        !found.contains("gone") && !found.contains("appeared"),
        "{found}"
    );
}

/// The service has been told to ignore a comment meanwhile; the shell of the operator has not.
async fn what_the_service_ignored_is_no_change(fleet: &Fleet) {
    let id = fleet.add("edge-1").await;
    let text = |comment, name| format!("/ip pool\n{comment}add name={name}\n");
    fleet.archived(id, START, &text("# odd thing\n", "a")).await;
    let later = START + Duration::hours(6);
    let ledger = [("ignored: ^# odd", 1)];
    fleet
        .archived_with(id, later, &text("", "b"), &[], &ledger)
        .await;
    let diff = ["snapshots", "diff", "edge-1"];
    let shown = fleet.run(&diff).await.done();
    assert!(shown.contains("1 line added, 1 removed"), "{shown}");
    assert!(!shown.contains("odd"), "{shown}");
    let search = ["snapshots", "search", "--history", "pool|odd|name=a"];
    let found = fleet.run(&search).await.done();
    assert!(!found.contains("odd"), "{found}");

    // Where it cannot be known what the service ignores, the comparison says so.
    let mut differs = fleet.command(&diff);
    differs.env("CONFIG_BACKUP_IGNORE_COMMENTS", "^# of another shell$");
    let differs = finished(differs).await;
    assert_eq!(differs.code, 0);
    let hint = "Set CONFIG_BACKUP_IGNORE_COMMENTS as the service has it";
    assert!(differs.err.contains(hint), "{}", differs.err);
}

async fn what_was_left_out_is_shown(fleet: &Fleet) {
    let id = fleet.add("edge-1").await;
    let ledger = [("export date", 1), ("radar", 2)];
    fleet
        .archived_with(id, START, PART, &["/ipv6/route"], &ledger)
        .await;
    let show = ["snapshots", "show", "edge-1", "--ignored"];
    assert_eq!(
        fleet.run(&show).await.done(),
        "export date: left out once\nradar: left out 2 times\n\
         the router could not export /ipv6/route\n"
    );
    let json = fleet.run(&[&show[..], &["--json"]].concat()).await.json();
    assert_eq!(json["device"], id.to_string());
    assert_eq!(
        json["ignored"],
        serde_json::json!({ "export date": 1, "radar": 2 })
    );
    assert_eq!(json["incomplete_menus"], serde_json::json!(["/ipv6/route"]));
    assert_eq!(
        json["normalization_rules"],
        mikrotik_backup::routeros::rules_fingerprint()
    );
    assert_eq!(
        json["normalization_version"],
        mikrotik_backup::routeros::NORMALIZATION_VERSION
    );
    // Seen again, without a change, by other rules: these are the ones whose work is shown.
    let ledger = [("export date", 1), ("ignored: ^# radar", 3)];
    let later = START + time::Duration::hours(6);
    fleet
        .archived_with(id, later, PART, &["/ipv6/route"], &ledger)
        .await;
    assert_eq!(
        fleet.run(&show).await.done(),
        "export date: left out once\nignored: ^# radar: left out 3 times\n\
         the router could not export /ipv6/route\n"
    );
    let json = fleet.run(&[&show[..], &["--json"]].concat()).await.json();
    assert_eq!(
        json["ignored"],
        serde_json::json!({ "export date": 1, "ignored: ^# radar": 3 })
    );
    let rules = mikrotik_backup::routeros::Normalizer::ignoring("^# radar").expect("a pattern");
    assert_eq!(json["normalization_rules"], rules.fingerprint());
    let alone = ["snapshots", "show", "edge-1", "--json"];
    let alone = fleet.run(&alone).await;
    assert_eq!((alone.code, alone.out.as_str()), (2, ""), "{}", alone.err);
    assert!(alone.err.contains("--ignored"), "{}", alone.err);
}

/// Of a version that was seen again before the archive kept what that left out: what the first sighting
/// left out, by other rules, is no answer.
async fn what_was_left_out_before_it_was_kept_is_not_known(fleet: &Fleet) {
    let id = fleet.add("edge-1").await;
    let seen = async |hours: i64, ledger: &[(&str, u64)]| {
        let at = START + Duration::hours(hours);
        fleet
            .archived_with(id, at, PART, &["/ipv6/route"], ledger)
            .await;
    };
    seen(0, &[("export date", 1)]).await;
    fleet.forget_last_ledgers().await;
    // The first sighting is the last one: what it left out has always been kept.
    let show = ["snapshots", "show", "edge-1", "--ignored"];
    assert_eq!(
        fleet.run(&show).await.done(),
        "export date: left out once\nthe router could not export /ipv6/route\n"
    );
    seen(6, &[("export date", 1), ("ignored: ^# radar", 3)]).await;
    fleet.forget_last_ledgers().await;
    assert_eq!(
        fleet.run(&show).await.done(),
        "what was left out when it was last seen is not known: an older program saw it\n\
         the router could not export /ipv6/route\n"
    );
    let json = fleet.run(&[&show[..], &["--json"]].concat()).await.json();
    assert_eq!(json["ignored"], serde_json::Value::Null);
    assert_eq!(json["last_seen_at"], "2026-03-02T10:05:06Z");
    // From the next sighting on it is.
    seen(12, &[("export date", 2)]).await;
    let json = fleet.run(&[&show[..], &["--json"]].concat()).await.json();
    assert_eq!(json["ignored"], serde_json::json!({ "export date": 2 }));
}

async fn another_key_is_said_plainly(fleet: &Fleet) {
    changed(fleet, "edge-1").await;
    for arguments in [
        &["snapshots", "list", "edge-1"][..],
        &["snapshots", "search", "dns"],
    ] {
        let mut command = fleet.command(arguments);
        // Base64 of 32 bytes.
        let other = "MDEyMzQ1Njc4OWFiY2RlZkZFRENCQTk4NzY1NDMyMTA=";
        command.env("CREDENTIAL_ENCRYPTION_KEY", other);
        let ended = finished(command).await;
        assert_eq!((ended.code, ended.out.as_str()), (3, ""), "{}", ended.err);
        assert!(
            ended.err.contains("CREDENTIAL_ENCRYPTION_KEY"),
            "{}",
            ended.err
        );
        assert!(!ended.err.contains(other), "{}", ended.err);
    }
}
