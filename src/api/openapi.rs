//! The OpenAPI document, derived from the handlers and what they answer.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::RawQuery;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::problem::{MEDIA_TYPE, Problem};
use super::{handlers, query, wire};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mikrotik-backup",
        description = "Configuration backups of MikroTik routers: what is known of the devices, \
            and backups on demand. Send the token of API_TOKEN as a bearer token; on the control \
            socket of embedded mode, and without API_TOKEN on a loopback HTTP_ADDR, none is needed."
    ),
    paths(
        handlers::devices,
        handlers::device,
        handlers::backup,
        handlers::attempt,
        handlers::failed,
        serve,
    ),
    components(schemas(
        wire::Attempt,
        wire::Backup,
        wire::Device,
        wire::Devices,
        wire::FailedDevices,
        wire::Taken,
        Problem,
    ))
)]
struct Document;

/// What the guard and the reading of a request answer on every route.
const EVERYWHERE: [(&str, &str); 6] = [
    ("400", "The request makes no sense."),
    ("401", "The bearer token is missing or wrong."),
    (
        "403",
        "API_TOKEN is not set, and whoever asks is not on this machine.",
    ),
    ("413", "The body is too large."),
    (
        "429",
        "Too many requests; `Retry-After` tells when to ask again.",
    ),
    (
        "503",
        "The database is away, or the service is starting or stopping.",
    ),
];

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    // Texts and maps with texts for keys: there is nothing that could fail.
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["components"]["securitySchemes"] =
        json!({ "token": { "type": "http", "scheme": "bearer" } });
    document["security"] = json!([{ "token": [] }]);
    let operations = document["paths"].as_object_mut().into_iter().flatten();
    for (_, path) in operations {
        for (_, operation) in path.as_object_mut().into_iter().flatten() {
            for (status, description) in EVERYWHERE {
                let responses = &mut operation["responses"];
                if responses.get(status).is_none() {
                    responses[status] = json!({
                        "description": description,
                        "content": { MEDIA_TYPE: {
                            "schema": { "$ref": "#/components/schemas/Problem" }
                        } },
                    });
                }
            }
        }
    }
    document
});

/// The document.
pub fn document() -> &'static Value {
    &DOCUMENT
}

/// Tells all this.
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    responses((status = 200, description = "This document.", body = Object)),
)]
pub(super) async fn serve(RawQuery(query): RawQuery) -> Response {
    match query::none(query.as_deref()) {
        Ok(()) => Json(document()).into_response(),
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::routes;

    #[test]
    fn what_is_served_is_documented_and_what_is_documented_is_served() {
        let served: BTreeSet<_> = routes()
            .iter()
            .map(|(method, path, _)| ((*path).to_owned(), (*method).to_owned()))
            .collect();
        let paths = document()["paths"].as_object().expect("paths");
        let documented: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = item.as_object().expect("operations").keys();
                methods.map(|method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(served, documented);
    }
}
