//! The OpenAPI document against what is really answered: every documented route is called, and
//! every answer has the documented form.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::client::{Answer, unix};
use crate::cluster::poll::until;
use crate::embedded::harness::{Folder, router};

const STILL: &[(&str, &str)] = &[("CONFIG_BACKUP_INTERVAL", "86400")];

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_answer_has_its_documented_form() {
    let folder = Folder::new();
    let good = router("good", [127, 95, 0, 1]);
    let bad = router("bad", [127, 95, 0, 2]);
    let (good_id, bad_id) = (folder.insert(&good).await, folder.insert(&bad).await);
    bad.set_password("another one");
    let _service = folder.run("service", STILL).await;
    folder.backed_up(good_id, 1).await;
    let socket = folder.data().join("control.sock");
    let document = unix(&socket, "GET", "/api/v1/openapi.json").await.json();
    assert_eq!(&document, mikrotik_backup::api::document());
    let blocked = until("a failure", || async {
        let failed = unix(&socket, "GET", "/api/v1/failed").await.json();
        failed["failed"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!(blocked["device"]["id"], bad_id.to_string(), "{blocked}");
    assert_eq!(blocked["kind"], "auth_failed", "{blocked}");

    let journal = folder.journal().await;
    let attempt = |status: &str| {
        let row = journal.iter().find(|row| row.status.as_str() == status);
        row.expect("an attempt").id
    };
    let nobody = Uuid::from_u128(7);
    // Method, documented path, what is asked for, the documented answer.
    let calls = [
        ("get", "/api/v1/openapi.json", String::new(), "200"),
        ("get", "/api/v1/openapi.json", "?x=1".into(), "400"),
        ("get", "/api/v1/devices", String::new(), "200"),
        ("get", "/api/v1/devices", "?limit=1".into(), "200"),
        ("get", "/api/v1/devices", "?limit=0".into(), "400"),
        ("get", "/api/v1/devices/{id}", good_id.to_string(), "200"),
        ("get", "/api/v1/devices/{id}", bad_id.to_string(), "200"),
        ("get", "/api/v1/devices/{id}", nobody.to_string(), "404"),
        ("get", "/api/v1/devices/{id}", "edge".into(), "400"),
        ("get", "/api/v1/failed", String::new(), "200"),
        ("get", "/api/v1/failed", "?cursor=x".into(), "400"),
        (
            "get",
            "/api/v1/attempts/{id}",
            attempt("success").to_string(),
            "200",
        ),
        (
            "get",
            "/api/v1/attempts/{id}",
            attempt("failed").to_string(),
            "200",
        ),
        ("get", "/api/v1/attempts/{id}", nobody.to_string(), "404"),
        (
            "post",
            "/api/v1/devices/{id}/backup",
            format!("{good_id}?wait=true"),
            "200",
        ),
        (
            "post",
            "/api/v1/devices/{id}/backup",
            format!("{bad_id}?wait=true"),
            "200",
        ),
        (
            "post",
            "/api/v1/devices/{id}/backup",
            good_id.to_string(),
            "202",
        ),
        (
            "post",
            "/api/v1/devices/{id}/backup",
            nobody.to_string(),
            "404",
        ),
        (
            "post",
            "/api/v1/devices/{id}/backup",
            format!("{good_id}?wait=x"),
            "400",
        ),
    ];
    let mut called = BTreeSet::new();
    for (method, path, wanted, status) in &calls {
        let (id, query) = wanted.split_once('?').unwrap_or((wanted, ""));
        let mut asked = path.replace("{id}", id);
        if !query.is_empty() {
            asked = format!("{asked}?{query}");
        }
        let answer = unix(&socket, &method.to_ascii_uppercase(), &asked).await;
        assert_eq!(answer.status.to_string(), *status, "{asked}: {answer:?}");
        let operation = &document["paths"][path][method];
        conforms(&document, operation, &answer, &asked);
        called.insert(((*path).to_owned(), (*method).to_owned()));
    }
    let paths = document["paths"].as_object().expect("paths");
    for (path, item) in paths {
        for method in item.as_object().expect("operations").keys() {
            let documented = (path.clone(), method.clone());
            assert!(
                called.contains(&documented),
                "{documented:?} is not called here"
            );
        }
    }
}

/// Checks that the answer is one of those that `operation` documents, in its media type and form.
pub(super) fn conforms(document: &Value, operation: &Value, answer: &Answer, asked: &str) {
    let documented = &operation["responses"][answer.status.to_string()];
    let content = documented["content"].as_object();
    let content = content.unwrap_or_else(|| panic!("{asked}: {} is not there", answer.status));
    let (media_type, content) = content.iter().next().expect("a media type");
    let body = answer.json_as(media_type);
    if let Err(why) = fits(document, &content["schema"], &body) {
        panic!("{asked}: {why}\n{body:#}");
    }
}

/// Checks `value` against the part of JSON Schema that the document uses. Stricter than the
/// standard: a field that the schema does not name is an error.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = document.pointer(&reference[1..]);
        let target = target.ok_or_else(|| format!("{reference} leads nowhere"))?;
        return fits(document, target, value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices
            .iter()
            .filter(|choice| fits(document, choice, value).is_ok());
        return match fitting.count() {
            1 => Ok(()),
            count => Err(format!("{value} fits {count} of {choices:?}")),
        };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => return Err(format!("no type in {schema}")),
    };
    if !allowed.contains(&kind) {
        return Err(format!("{value} is no {allowed:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        return Err(format!("{value} is none of {words:?}"));
    }
    match value {
        Value::String(text) => text_fits(schema["format"].as_str(), text),
        Value::Number(number) => {
            let least = schema["minimum"].as_f64().unwrap_or(f64::MIN);
            let most = schema["maximum"].as_f64().unwrap_or(f64::MAX);
            let number = number.as_f64().expect("a number");
            let within = (least..=most).contains(&number);
            within
                .then_some(())
                .ok_or_else(|| format!("{number} is out of range"))
        }
        Value::Array(items) => {
            let of = &schema["items"];
            items.iter().try_for_each(|item| fits(document, of, item))
        }
        Value::Object(fields) => object_fits(document, schema, fields),
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn text_fits(format: Option<&str>, text: &str) -> Result<(), String> {
    let fits = match format {
        Some("uuid") => Uuid::parse_str(text).is_ok(),
        Some("date-time") => {
            let rfc3339 = &time::format_description::well_known::Rfc3339;
            time::OffsetDateTime::parse(text, rfc3339).is_ok()
        }
        Some(other) => return Err(format!("unknown format {other}")),
        None => true,
    };
    fits.then_some(())
        .ok_or_else(|| format!("{text:?} is no {format:?}"))
}

fn object_fits(
    document: &Value,
    schema: &Value,
    fields: &serde_json::Map<String, Value>,
) -> Result<(), String> {
    let Some(known) = schema["properties"].as_object() else {
        // "Any object": only the document itself is that.
        return Ok(());
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().expect("a name");
        if !fields.contains_key(name) {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, value) in fields {
        let of = known
            .get(name)
            .ok_or_else(|| format!("{name} is not documented"))?;
        fits(document, of, value).map_err(|why| format!("{name}: {why}"))?;
    }
    Ok(())
}

#[test]
fn the_check_of_forms_can_fail() {
    let document =
        json!({ "components": { "schemas": { "Id": { "type": "string", "format": "uuid" } } } });
    let schema = json!({ "type": "object", "required": ["id"], "properties": {
        "id": { "$ref": "#/components/schemas/Id" },
        "size": { "type": ["integer", "null"], "minimum": 0 },
    } });
    let id = Uuid::from_u128(1).to_string();
    let check = |value: Value| fits(&document, &schema, &value).is_ok();
    assert!(check(json!({ "id": id, "size": null })));
    assert!(!check(json!({ "size": 1 })));
    assert!(!check(json!({ "id": "edge-7" })));
    assert!(!check(json!({ "id": id, "size": -1 })));
    assert!(!check(json!({ "id": id, "more": true })));
}
