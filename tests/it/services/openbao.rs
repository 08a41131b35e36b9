//! The part of OpenBao's API that the service uses, strict: real HTTP on a port of its own, with the
//! paths, headers, answers and words of <https://openbao.org/api-docs/secret/transit/> and
//! <https://openbao.org/api-docs/auth/token/>.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The token that the service is given.
pub const TOKEN: &str = "s.marker-0penBao-token-4711";

/// How it behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// As it should.
    Well,
    /// Sealed: 503 to everything.
    Sealed,
    /// Takes requests and does not answer.
    Mute,
    /// Answers a ciphertext that the key does not open with 500, as Vault before 1.7.
    Old,
}

/// What it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    pub decrypts: usize,
    pub lookups: usize,
    pub renewals: usize,
    /// The most decrypts that were going on at once.
    pub at_once: usize,
}

struct Inner {
    mode: Mode,
    /// Plaintexts by key name and ciphertext.
    sealed: HashMap<(String, String), Vec<u8>>,
    keys: BTreeSet<String>,
    /// Keys that the token's policy does not mention.
    forbidden: BTreeSet<String>,
    valid: bool,
    ttl: u64,
    renewable: bool,
    takes: Duration,
    now: usize,
    asked: Asked,
}

/// A running server.
pub struct OpenBao {
    address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    serving: JoinHandle<()>,
}

type Shared = State<Arc<Mutex<Inner>>>;

impl OpenBao {
    /// Starts one without keys, whose token does not end.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let inner = Arc::new(Mutex::new(Inner {
            mode: Mode::Well,
            sealed: HashMap::new(),
            keys: BTreeSet::new(),
            forbidden: BTreeSet::new(),
            valid: true,
            ttl: 0,
            renewable: false,
            takes: Duration::ZERO,
            now: 0,
            asked: Asked::default(),
        }));
        let router = axum::Router::new()
            .route("/v1/transit/decrypt/{key}", post(decrypt).put(decrypt))
            .route("/v1/auth/token/lookup-self", get(lookup))
            .route("/v1/auth/token/renew-self", post(renew).put(renew))
            .fallback(async || errors(StatusCode::NOT_FOUND, "no handler for route"))
            .with_state(inner.clone());
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serve");
        });
        Self {
            address,
            inner,
            serving,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Encrypts with the key of `tenant`, which is made if it is not there.
    pub fn encrypt(&self, tenant: Uuid, plaintext: &[u8]) -> String {
        let mut inner = self.inner();
        let key = format!("tenant_{tenant}");
        // Nobody reads it but this server.
        let ciphertext = format!("vault:v1:{}", STANDARD.encode(rand::random::<[u8; 40]>()));
        inner.keys.insert(key.clone());
        let place = (key, ciphertext.clone());
        inner.sealed.insert(place, plaintext.to_vec());
        ciphertext
    }

    /// Makes a key without any ciphertext.
    pub fn make_key(&self, tenant: Uuid) {
        self.inner().keys.insert(format!("tenant_{tenant}"));
    }

    pub fn set_mode(&self, mode: Mode) {
        self.inner().mode = mode;
    }

    /// The token's policy says nothing of the key of `tenant`.
    pub fn forbid(&self, tenant: Uuid) {
        self.inner().forbidden.insert(format!("tenant_{tenant}"));
    }

    /// Revokes the token, or takes that back.
    pub fn set_token_valid(&self, valid: bool) {
        self.inner().valid = valid;
    }

    /// The token ends in `ttl` seconds.
    pub fn set_token_ends(&self, ttl: u64, renewable: bool) {
        let mut inner = self.inner();
        (inner.ttl, inner.renewable) = (ttl, renewable);
    }

    /// How long a decrypt takes.
    pub fn set_takes(&self, takes: Duration) {
        self.inner().takes = takes;
    }

    pub fn asked(&self) -> Asked {
        self.inner().asked
    }

    /// Nobody listens any more.
    pub fn stop(&self) {
        self.serving.abort();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no panic under the lock")
    }
}

impl Drop for OpenBao {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn errors(status: StatusCode, words: &str) -> Response {
    (status, Json(json!({ "errors": [words] }))).into_response()
}

/// What every path does first.
async fn admit(shared: &Arc<Mutex<Inner>>, headers: &HeaderMap) -> Result<(), Response> {
    let mode = shared.lock().expect("no panic").mode;
    match mode {
        Mode::Sealed => {
            return Err(errors(StatusCode::SERVICE_UNAVAILABLE, "Vault is sealed"));
        }
        Mode::Mute => std::future::pending().await,
        Mode::Well | Mode::Old => {}
    }
    let sent = headers.get("x-vault-token").map(|value| value.as_bytes());
    let inner = shared.lock().expect("no panic");
    if sent != Some(TOKEN.as_bytes()) || !inner.valid {
        return Err(errors(StatusCode::FORBIDDEN, "permission denied"));
    }
    Ok(())
}

async fn decrypt(
    State(shared): Shared,
    Path(key): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    {
        let mut inner = shared.lock().expect("no panic");
        inner.asked.decrypts += 1;
        inner.now += 1;
        inner.asked.at_once = inner.asked.at_once.max(inner.now);
    }
    let _going_on = GoingOn(shared.clone());
    if let Err(refused) = admit(&shared, &headers).await {
        return refused;
    }
    let takes = shared.lock().expect("no panic").takes;
    tokio::time::sleep(takes).await;
    let inner = shared.lock().expect("no panic");
    if inner.forbidden.contains(&key) {
        return errors(
            StatusCode::FORBIDDEN,
            "1 error occurred:\n\t* permission denied\n\n",
        );
    }
    let body: Option<Value> = serde_json::from_slice(&body).ok();
    let ciphertext = body.as_ref().and_then(|body| body["ciphertext"].as_str());
    let Some(ciphertext) = ciphertext else {
        return errors(StatusCode::BAD_REQUEST, "missing ciphertext to decrypt");
    };
    if !ciphertext.starts_with("vault:v") {
        return errors(StatusCode::BAD_REQUEST, "invalid ciphertext: no prefix");
    }
    if !inner.keys.contains(&key) {
        return errors(StatusCode::BAD_REQUEST, "encryption key not found");
    }
    match inner.sealed.get(&(key, ciphertext.to_owned())) {
        Some(plaintext) => Json(json!({
            "request_id": Uuid::new_v4(),
            "lease_id": "",
            "renewable": false,
            "lease_duration": 0,
            "data": { "plaintext": STANDARD.encode(plaintext) },
            "wrap_info": null,
            "warnings": null,
            "auth": null,
        }))
        .into_response(),
        None => {
            let status = match inner.mode {
                Mode::Old => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            let words = "1 error occurred:\n\t* cipher: message authentication failed\n\n";
            errors(status, words)
        }
    }
}

struct GoingOn(Arc<Mutex<Inner>>);

impl Drop for GoingOn {
    fn drop(&mut self) {
        self.0.lock().expect("no panic").now -= 1;
    }
}

async fn lookup(State(shared): Shared, headers: HeaderMap) -> Response {
    shared.lock().expect("no panic").asked.lookups += 1;
    if let Err(refused) = admit(&shared, &headers).await {
        return refused;
    }
    let inner = shared.lock().expect("no panic");
    Json(json!({
        "request_id": Uuid::new_v4(),
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": {
            "accessor": "8609694a-cdbc-db9b-d345-e782dbb562ed",
            "creation_time": 1_767_323_045,
            "creation_ttl": inner.ttl,
            "display_name": "token-mikrotik-backup",
            "entity_id": "",
            "expire_time": null,
            "explicit_max_ttl": 0,
            "id": TOKEN,
            "issue_time": "2026-01-02T03:04:05Z",
            "meta": null,
            "num_uses": 0,
            "orphan": true,
            "path": "auth/token/create",
            "policies": ["default", "mikrotik-backup"],
            "renewable": inner.renewable,
            "ttl": inner.ttl,
            "type": "service",
        },
        "wrap_info": null,
        "warnings": null,
        "auth": null,
    }))
    .into_response()
}

async fn renew(State(shared): Shared, headers: HeaderMap) -> Response {
    shared.lock().expect("no panic").asked.renewals += 1;
    if let Err(refused) = admit(&shared, &headers).await {
        return refused;
    }
    let inner = shared.lock().expect("no panic");
    if !inner.renewable {
        return errors(StatusCode::BAD_REQUEST, "lease is not renewable");
    }
    Json(json!({
        "request_id": Uuid::new_v4(),
        "lease_id": "",
        "renewable": false,
        "lease_duration": 0,
        "data": null,
        "wrap_info": null,
        "warnings": null,
        "auth": {
            "client_token": TOKEN,
            "accessor": "8609694a-cdbc-db9b-d345-e782dbb562ed",
            "policies": ["default", "mikrotik-backup"],
            "token_policies": ["default", "mikrotik-backup"],
            "metadata": null,
            "lease_duration": inner.ttl,
            "renewable": true,
            "entity_id": "",
            "token_type": "service",
            "orphan": true,
        },
    }))
    .into_response()
}
