//! Who may ask, and how often: the token, loopback, and the bounds of size, rate and number.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::problem::Problem;
use crate::domain::digest::Digest;

/// How large the body of a request may be, in bytes: no route reads one.
pub const BODY_LIMIT: u64 = 64 * 1024;

/// Requests that are answered at once: fewer than the server has connections, so that probes and
/// scrapes find one.
const AT_ONCE: usize = 100;

/// So many requests may come in a row, and so many per second after that.
const BURST: f64 = 100.0;
const PER_SECOND: f64 = 50.0;

/// Of those without the right token: enough for a mistake, too few to guess.
const REFUSED_BURST: f64 = 20.0;
const REFUSED_PER_SECOND: f64 = 5.0;

/// Who may ask.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whoever can connect: the socket is its owner's.
    Owner,
    /// Whoever is on this machine, and no web page that somebody there looks at.
    Loopback,
    /// Whoever knows the token of which this is the digest.
    Token(Digest),
    /// Nobody: the reason is in the answer.
    Nobody,
}

impl Access {
    /// What `HTTP_ADDR` and `API_TOKEN` allow.
    pub fn of(address: SocketAddr, token: Option<&SecretString>) -> Self {
        match token {
            // Digests are compared, so that the time it takes says nothing about the token.
            Some(token) => Self::Token(Digest::of(token.expose_secret())),
            None if address.ip().is_loopback() => Self::Loopback,
            None => Self::Nobody,
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match self {
            Self::Owner => Ok(()),
            Self::Loopback => from_this_machine(headers),
            Self::Token(expected) => match bearer(headers) {
                Some(token) if Digest::of(token) == *expected => Ok(()),
                Some(_) => Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "the bearer token is not the one of API_TOKEN",
                )),
                None => Err(Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "send the token of API_TOKEN as `Authorization: Bearer <token>`",
                )),
            },
            Self::Nobody => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "API_TOKEN is not set and HTTP_ADDR is not a loopback address: set API_TOKEN to \
                 open the API",
            )),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A browser on this machine connects to loopback for any page that asks it to: what it sends then
/// names the page (`Origin`), or a name of the page's owner that resolves to loopback (`Host`).
fn from_this_machine(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).is_none_or(is_loopback);
    let origin = text(header::ORIGIN).is_none_or(|origin| {
        let host = origin.split_once("://").map(|(_, host)| host);
        host.is_some_and(is_loopback)
    });
    if host && origin {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "without API_TOKEN the API answers only to programs on this machine that ask for \
         localhost or a loopback address",
    ))
}

/// Whether `host`, with or without a port, means this machine.
fn is_loopback(host: &str) -> bool {
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(ip) = name.unwrap_or(host).parse::<std::net::IpAddr>() {
        return ip.is_loopback();
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
}

/// The guard before every route: who may ask, then how much.
#[derive(Clone)]
pub struct Guard {
    access: Access,
    at_once: Arc<Semaphore>,
    asked: Arc<Rate>,
    refused: Arc<Rate>,
}

impl Guard {
    /// A guard that lets in whom `access` says.
    pub fn new(access: Access) -> Self {
        Self {
            access,
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
            asked: Arc::new(Rate::new(BURST, PER_SECOND)),
            refused: Arc::new(Rate::new(REFUSED_BURST, REFUSED_PER_SECOND)),
        }
    }

    /// The middleware.
    pub async fn stand(State(guard): State<Self>, request: Request, next: Next) -> Response {
        let _place = match guard.admit(&request) {
            Ok(place) => place,
            Err(problem) => return problem.into_response(),
        };
        next.run(request).await
    }

    fn admit(
        &self,
        request: &Request,
    ) -> Result<Option<tokio::sync::OwnedSemaphorePermit>, Problem> {
        if let Err(problem) = self.access.check(request.headers()) {
            return Err(match self.refused.take() {
                Ok(()) => problem,
                Err(TooOften) => too_many("requests without the right token"),
            });
        }
        if body_length(request.headers()).is_none_or(|length| length > BODY_LIMIT) {
            return Err(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("send at most {BODY_LIMIT} bytes, with their Content-Length"),
            ));
        }
        // Its owner can do more harm than this, and asks for a whole inventory at once.
        if matches!(self.access, Access::Owner) {
            return Ok(None);
        }
        self.asked
            .take()
            .map_err(|TooOften| too_many("requests in a short time"))?;
        let place = Arc::clone(&self.at_once).try_acquire_owned();
        place.map(Some).map_err(|_| too_many("requests at once"))
    }
}

fn too_many(what: &str) -> Problem {
    Problem::passing(StatusCode::TOO_MANY_REQUESTS, format!("too many {what}"))
}

/// The length of a body in bytes; `None` when only its end will tell.
fn body_length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    match headers.get(header::CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok(),
        None => Some(0),
    }
}

/// A token bucket.
struct Rate {
    burst: f64,
    per_second: f64,
    level: Mutex<(f64, Instant)>,
}

struct TooOften;

impl Rate {
    fn new(burst: f64, per_second: f64) -> Self {
        Self {
            burst,
            per_second,
            level: Mutex::new((burst, Instant::now())),
        }
    }

    fn take(&self) -> Result<(), TooOften> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let since = now.duration_since(level.1);
        let filled = (level.0 + refill(since, self.per_second)).min(self.burst);
        *level = (filled, now);
        if filled < 1.0 {
            return Err(TooOften);
        }
        level.0 -= 1.0;
        Ok(())
    }
}

fn refill(since: Duration, per_second: f64) -> f64 {
    since.as_secs_f64() * per_second
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        let pairs = pairs.iter().map(|(name, text)| (name.clone(), value(text)));
        pairs.collect()
    }

    fn status(access: &Access, pairs: &[(header::HeaderName, &str)]) -> u16 {
        match access.check(&headers(pairs)) {
            Ok(()) => 200,
            Err(problem) => problem.status,
        }
    }

    #[test]
    fn a_token_opens_and_nothing_else_does() {
        let token = SecretString::from("the-t0ken");
        for address in ["0.0.0.0:9091", "127.0.0.1:9091"] {
            let access = Access::of(address.parse().unwrap(), Some(&token));
            assert!(!format!("{access:?}").contains("the-t0ken"));
            for (value, expected) in [
                ("Bearer the-t0ken", 200),
                ("bearer the-t0ken", 200),
                ("Bearer the-t0ke", 401),
                ("Bearer the-t0kenn", 401),
                ("Bearer ", 401),
                ("Basic the-t0ken", 401),
                ("the-t0ken", 401),
            ] {
                let sent = [(header::AUTHORIZATION, value)];
                assert_eq!(status(&access, &sent), expected, "{value}");
            }
            assert_eq!(status(&access, &[]), 401);
        }
    }

    #[test]
    fn without_a_token_only_loopback_is_open() {
        for (address, expected) in [
            ("127.0.0.1:9091", 200),
            ("127.9.9.9:1", 200),
            ("[::1]:9091", 200),
            ("0.0.0.0:9091", 403),
            ("[::]:9091", 403),
            ("192.0.2.1:9091", 403),
        ] {
            let access = Access::of(address.parse().unwrap(), None);
            assert_eq!(status(&access, &[]), expected, "{address}");
        }
    }

    #[test]
    fn a_web_page_is_not_a_program_on_this_machine() {
        for (pairs, expected) in [
            (vec![(header::HOST, "127.0.0.1:9091")], 200),
            (vec![(header::HOST, "[::1]:9091")], 200),
            (vec![(header::HOST, "[::1]")], 200),
            (vec![(header::HOST, "localhost")], 200),
            (vec![(header::HOST, "LocalHost:9091")], 200),
            (vec![(header::HOST, "rebound.example:9091")], 403),
            (vec![(header::HOST, "192.0.2.1")], 403),
            (vec![(header::ORIGIN, "http://localhost:9091")], 200),
            (vec![(header::ORIGIN, "https://page.example")], 403),
            (vec![(header::ORIGIN, "null")], 403),
        ] {
            assert_eq!(status(&Access::Loopback, &pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_body_is_announced_and_small() {
        for (pairs, expected) in [
            (vec![], Some(0)),
            (vec![(header::CONTENT_LENGTH, "5")], Some(5)),
            (vec![(header::CONTENT_LENGTH, "-5")], None),
            (vec![(header::TRANSFER_ENCODING, "chunked")], None),
        ] {
            assert_eq!(body_length(&headers(&pairs)), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_taken_and_then_so_many_per_second() {
        let rate = Rate::new(10.0, 5.0);
        let taken = |asked: usize| (0..asked).filter(|_| rate.take().is_ok()).count();
        assert_eq!(taken(100), 10);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(taken(100), 5);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(100), 10);
    }
}
