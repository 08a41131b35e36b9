//! What we ship beside the program says what the program says: manifests and
//! scripts here, image and monitoring below.

mod image;
mod monitoring;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mikrotik_backup::config::settings::settings;
use saphyr::{LoadableYamlNode as _, Scalar, Yaml};
use serde_json::{Map, Value};

const SECRETS: [&str; 6] = [
    "DATABASE_URL",
    "REDIS_URL",
    "NATS_URL",
    "CREDENTIAL_ENCRYPTION_KEY",
    "OPENBAO_TOKEN",
    "API_TOKEN",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"))
}

/// Every file under `deploy/` with this extension.
fn deploy_files(extension: &str) -> Vec<PathBuf> {
    let mut directories = vec![root().join("deploy")];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("list a directory of deploy") {
            let path = entry.expect("read an entry of deploy").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "deploy has .{extension} files");
    files
}

fn to_json(node: &Yaml) -> Value {
    match node {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(value)) => Value::from(*value),
        Yaml::Value(Scalar::Integer(value)) => Value::from(*value),
        Yaml::Value(Scalar::FloatingPoint(value)) => Value::from(**value),
        Yaml::Value(Scalar::String(value)) => Value::from(value.as_ref()),
        Yaml::Sequence(items) => items.iter().map(to_json).collect(),
        Yaml::Mapping(pairs) => Value::Object(
            pairs
                .iter()
                .map(|(key, value)| (key.as_str().expect("keys are text").into(), to_json(value)))
                .collect::<Map<_, _>>(),
        ),
        other => panic!("not plain YAML: {other:?}"),
    }
}

fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("read a YAML file");
    let parsed = Yaml::load_from_str(&text)
        .unwrap_or_else(|error| panic!("{} is not YAML: {error}", path.display()));
    assert!(!parsed.is_empty(), "{} is empty", path.display());
    parsed.iter().map(to_json).collect()
}

fn document(path: &str) -> Value {
    let mut all = documents(&root().join(path));
    assert_eq!(all.len(), 1, "documents in {path}");
    all.remove(0)
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} of {value}"))
}

/// The settings of the base, which are in the form `NAME=value`.
fn base_settings() -> Vec<(String, String)> {
    read("deploy/base/config.env")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.split_once('=').expect("NAME=value");
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// Every object under any key `env`, patches (`op: add, value: {name, value}`) included.
fn collect_env(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            let name = map.get("name").and_then(Value::as_str);
            if let (Some(name), Some(Value::String(_))) = (name, map.get("value")) {
                found.insert(name.to_owned());
            }
            map.values().for_each(|inner| collect_env(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| collect_env(inner, found)),
        _ => {}
    }
}

/// Every environment variable that anything under `deploy/` sets.
fn variables_in_use() -> BTreeSet<String> {
    let mut found: BTreeSet<String> = base_settings().into_iter().map(|(name, _)| name).collect();
    for path in deploy_files("yaml") {
        for document in documents(&path) {
            collect_env(&document, &mut found);
            for generator in list(&document, "/configMapGenerator") {
                for literal in list(generator, "/literals") {
                    let (name, _) = literal
                        .as_str()
                        .and_then(|literal| literal.split_once('='))
                        .expect("NAME=value");
                    found.insert(name.to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn kustomizations_name_files_that_exist() {
    let mut named = 0;
    for path in deploy_files("yaml") {
        let all = documents(&path);
        if path
            .file_name()
            .is_none_or(|name| name != "kustomization.yaml")
        {
            continue;
        }
        let here = path.parent().expect("a file is in a directory");
        let mut wanted: Vec<&str> = Vec::new();
        for pointer in ["/resources", "/components"] {
            wanted.extend(list(&all[0], pointer).iter().filter_map(Value::as_str));
        }
        wanted.extend(list(&all[0], "/patches").iter().map(|p| text(p, "/path")));
        for generator in list(&all[0], "/configMapGenerator") {
            wanted.extend(list(generator, "/envs").iter().filter_map(Value::as_str));
        }
        for file in wanted {
            let target = here.join(file);
            assert!(target.exists(), "{} names {file}", path.display());
            assert!(
                !file.contains("secret"),
                "{} applies secrets",
                path.display()
            );
            named += 1;
        }
    }
    assert!(named >= 10, "only {named} files are named");
}

#[test]
fn variables_are_those_of_the_program() {
    let used = variables_in_use();
    assert!(used.len() >= 20, "found only {used:?}");
    let known = settings();
    for name in used {
        let plain = name
            .strip_suffix("_FILE")
            .filter(|plain| SECRETS.contains(plain))
            .unwrap_or(&name);
        assert!(
            known.iter().any(|setting| setting.name == plain),
            "{name} is no setting of the program"
        );
    }
}

#[test]
fn secrets_reach_the_program_as_files_only() {
    for name in variables_in_use() {
        assert!(!SECRETS.contains(&name.as_str()), "{name} is set in clear");
    }
    for secret in documents(&root().join("deploy/base/secret.example.yaml")) {
        for (key, value) in secret["stringData"].as_object().expect("keys and values") {
            assert!(SECRETS.contains(&key.as_str()), "{key} is no secret");
            let value = value.as_str().expect("values are text");
            assert!(value.contains("CHANGE_ME"), "{key} looks like a real value");
        }
    }
}

/// What the `restricted` pod security profile asks for, and our own rules.
fn assert_hardened(pod: &Value) {
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let [container] = list(pod, "/containers") else {
        panic!("one container");
    };
    let security = &container["securityContext"];
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(
        security["capabilities"],
        serde_json::json!({"drop": ["ALL"]})
    );
    assert!(container["resources"]["limits"]["memory"].is_string());

    let volumes = list(pod, "/volumes");
    let mounts = list(container, "/volumeMounts");
    let names = |of: &[Value]| of.iter().map(|it| it["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(volumes), names(mounts), "each is mounted");
    let secrets = volumes.iter().filter(|volume| volume["secret"].is_object());
    let [volume] = secrets.collect::<Vec<_>>()[..] else {
        panic!("one volume of secrets");
    };
    let mount = mounts.iter().find(|mount| mount["name"] == volume["name"]);
    let mount = text(mount.expect("it is mounted"), "/mountPath");
    // Readable for its group, which fsGroup makes ours, and for nobody else.
    assert_eq!(volume["secret"]["defaultMode"], 0o440);
    for variable in list(container, "/env") {
        let Some(secret) = text(variable, "/name").strip_suffix("_FILE") else {
            continue;
        };
        assert_eq!(text(variable, "/value"), format!("{mount}/{secret}"));
        let items = list(volume, "/secret/items");
        let shown = items.is_empty() || items.iter().any(|item| item["path"] == secret);
        assert!(shown, "{secret} is not in the volume");
    }
}

#[test]
fn the_deployment_keeps_what_the_program_needs() {
    let deployment = document("deploy/base/deployment.yaml");
    let spec = &deployment["spec"];
    assert_eq!(spec["replicas"], 2);
    assert_eq!(spec["strategy"]["rollingUpdate"]["maxUnavailable"], 0);
    let pod = &spec["template"]["spec"];
    assert_hardened(pod);

    let settings = base_settings();
    let setting = |name: &str| {
        let found = settings.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).expect("it is set")
    };
    assert_ne!(setting("ENVIRONMENT"), "dev");
    let timeout: u64 = setting("CONFIG_BACKUP_COMMAND_TIMEOUT")
        .parse()
        .expect("seconds");
    let grace = pod["terminationGracePeriodSeconds"].as_u64();
    assert!(
        grace.expect("seconds") > timeout + 30,
        "exports are cut off"
    );

    let container = &pod["containers"][0];
    let port = &container["ports"][0];
    assert_eq!(
        setting("HTTP_ADDR"),
        format!("0.0.0.0:{}", port["containerPort"])
    );
    for (probe, path) in [
        ("startupProbe", "/livez"),
        ("livenessProbe", "/livez"),
        ("readinessProbe", "/readyz"),
    ] {
        let get = &container[probe]["httpGet"];
        assert_eq!(get["path"], path, "{probe}");
        assert_eq!(get["port"], port["name"], "{probe}");
    }

    let service = document("deploy/base/service.yaml");
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port["name"]);
    for (name, selector) in [
        ("service", "/spec/selector"),
        ("poddisruptionbudget", "/spec/selector/matchLabels"),
    ] {
        let object = document(&format!("deploy/base/{name}.yaml"));
        let labels = &spec["template"]["metadata"]["labels"];
        assert_eq!(object.pointer(selector), Some(labels), "{name}");
    }
}

#[test]
fn the_poller_has_a_folder_for_what_it_holds() {
    let deployment = document("deploy/base/deployment.yaml");
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let variables = list(container, "/env");
    let data_dir = variables.iter().find(|it| it["name"] == "DATA_DIR");
    let data_dir = text(data_dir.expect("it is set"), "/value");
    let mounts = list(container, "/volumeMounts");
    let mount = mounts.iter().find(|mount| mount["mountPath"] == data_dir);
    let mount = mount.expect("a volume is mounted there");
    assert_eq!(mount["readOnly"], Value::Null);
    // A volume that is made for the pod belongs to root; its group is this one.
    let security = &pod["securityContext"];
    assert_eq!(security["fsGroup"], security["runAsGroup"]);
    let volumes = list(pod, "/volumes");
    let volume = volumes
        .iter()
        .find(|volume| volume["name"] == mount["name"]);
    let size = text(volume.expect("it is there"), "/emptyDir/sizeLimit");
    let gibibytes: u64 = size
        .strip_suffix("Gi")
        .and_then(|size| size.parse().ok())
        .expect("gibibytes");
    let settings = base_settings();
    let bound = settings.iter().find(|(name, _)| name == "OUTBOX_MAX_BYTES");
    let bound: u64 = bound.expect("it is set").1.parse().expect("bytes");
    assert!(gibibytes << 30 > bound, "the pod would be evicted first");
}

#[test]
fn the_migration_job_runs_migrate_as_the_owner() {
    let job = document("deploy/migrate/migrate-job.yaml");
    let pod = &job["spec"]["template"]["spec"];
    assert_hardened(pod);
    assert_eq!(pod["containers"][0]["args"], serde_json::json!(["migrate"]));
    let service = document("deploy/base/deployment.yaml");
    let secret = "/spec/template/spec/volumes/0/secret/secretName";
    assert_ne!(text(&job, secret), text(&service, secret));
}

#[test]
fn the_archive_role_runs_beside_the_poller() {
    let deployment = document("deploy/components/archive/deployment.yaml");
    let spec = &deployment["spec"];
    let pod = &spec["template"]["spec"];
    assert_hardened(pod);
    assert_eq!(pod["containers"][0]["args"], serde_json::json!(["archive"]));
    let poller = document("deploy/base/deployment.yaml");
    let secret = "/spec/template/spec/volumes/0/secret/secretName";
    assert_ne!(text(&deployment, secret), text(&poller, secret));
    // The poller's Service, budget and policy must not mean these pods.
    let labels = spec["template"]["metadata"]["labels"]
        .as_object()
        .expect("labels");
    assert_ne!(labels["app.kubernetes.io/name"], "mikrotik-backup");
    for (name, selector) in [
        ("deployment", "/spec/selector/matchLabels"),
        ("service", "/spec/selector"),
        ("poddisruptionbudget", "/spec/selector/matchLabels"),
        ("networkpolicy", "/spec/podSelector/matchLabels"),
    ] {
        let object = document(&format!("deploy/components/archive/{name}.yaml"));
        let selector = object.pointer(selector).and_then(Value::as_object);
        for (label, value) in selector.expect("a selector") {
            assert_eq!(labels.get(label), Some(value), "{name}");
        }
    }
    // It names the settings of the base, whose name is generated.
    let settings = "/envFrom/0/configMapRef/name";
    assert_eq!(text(&pod["containers"][0], settings), "mikrotik-backup");
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt as _;
    for script in ["scripts/test", ".ci/run"] {
        let mode = fs::metadata(root().join(script))
            .expect("it exists")
            .permissions();
        assert_eq!(mode.mode() & 0o111, 0o111, "{script} is not executable");
        let checked = Command::new("bash")
            .arg("-n")
            .arg(root().join(script))
            .status();
        assert!(checked.expect("run bash").success(), "{script}");
    }
}
