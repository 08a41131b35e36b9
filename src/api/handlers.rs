//! What answers on each route.

use std::future::Future;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;
use uuid::Uuid;

use super::problem::Problem;
use super::query::{self, Listing};
use super::wire::{Attempt, Backup, Device, Devices, FailedDevices, Taken};
use super::{Api, tickets};
use crate::domain::Timestamp;
use crate::domain::attempt::AttemptId;
use crate::domain::device::DeviceId;
use crate::domain::request::Reply;
use crate::fleet::requests::{Accepted, RequestError};
use crate::metrics::{Answered, Asked};
use crate::ports::{DeviceStatus, StatusPage, StoreError};
use crate::report::Failed;

/// How long the database has to answer.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// How long `?wait=true` waits; then whoever asks is told where to look.
const WAIT_LIMIT: Duration = Duration::from_secs(300);

/// How long a device that has just been added has to get its worker.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// How long after its id was drawn an attempt may be one that another replica is still busy with.
const STILL_BUSY: Duration = Duration::from_secs(3600);

/// Lists the devices that are backed up, by id.
#[utoipa::path(
    get,
    path = "/api/v1/devices",
    params(
        ("limit" = Option<u32>, Query, description = "How many; 100 when it is left out.",
            minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page of devices.", body = Devices)),
)]
pub(super) async fn devices(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<Devices>, Problem> {
    let page = page(query.as_deref(), false)?;
    let statuses = in_time(api.context.store.statuses(page)).await?;
    let devices = statuses.devices.iter().map(|status| api.device(status));
    Ok(Json(Devices {
        devices: devices.collect(),
        next: statuses.next,
    }))
}

/// Tells what is known of one device.
#[utoipa::path(
    get,
    path = "/api/v1/devices/{id}",
    params(("id" = String, Path, description = "The device.", format = "uuid")),
    responses(
        (status = 200, description = "The device.", body = Device),
        (status = 404, description = "No such device is backed up.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn device(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Device>, Problem> {
    query::none(query.as_deref())?;
    let status = api.find(device_id(&id)?).await?;
    Ok(Json(api.device(&status)))
}

/// Lists the devices whose last failure counts now, by id.
#[utoipa::path(
    get,
    path = "/api/v1/failed",
    params(
        ("limit" = Option<u32>, Query, description = "How many; 100 when it is left out.",
            minimum = 1, maximum = 1000),
        ("cursor" = Option<String>, Query, description = "`next` of the page before."),
    ),
    responses((status = 200, description = "A page of failures.", body = FailedDevices)),
)]
pub(super) async fn failed(
    State(api): State<Api>,
    RawQuery(query): RawQuery,
) -> Result<Json<FailedDevices>, Problem> {
    let page = page(query.as_deref(), true)?;
    let statuses = in_time(api.context.store.statuses(page)).await?;
    let failed = statuses.devices.iter();
    Ok(Json(FailedDevices {
        failed: failed
            .filter_map(|status| Failed::of(status, api.advice))
            .collect(),
        next: statuses.next,
    }))
}

/// Tells what has become of an attempt: from the journal, or, until it is there, from the process
/// that was asked for it.
#[utoipa::path(
    get,
    path = "/api/v1/attempts/{id}",
    params(("id" = String, Path, description = "The attempt.", format = "uuid")),
    responses(
        (status = 200, description = "The attempt.", body = Attempt),
        (status = 404, description = "No such attempt is known here, or not any more.",
            body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn attempt(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Attempt>, Problem> {
    query::none(query.as_deref())?;
    let id = uuid(&id, "an attempt").map(AttemptId)?;
    let ticket = api.tickets.get(id);
    if let Some(ticket) = &ticket
        && ticket.state == tickets::State::Pending
    {
        return Ok(Json(api.asked(id, ticket.clone())));
    }
    if let Some(found) = api.recorded(id).await? {
        return Ok(Json(found));
    }
    if let Some(ticket) = ticket {
        return Ok(Json(api.asked(id, ticket)));
    }
    if let Some(running) = in_time(api.context.store.running(id)).await? {
        return Ok(Json(Attempt::running(id, running)));
    }
    // It may have ended between the two looks.
    let found = api.recorded(id).await?.map(Json);
    found.ok_or_else(|| unknown_attempt(id, api.context.clock.now()))
}

/// Backs a device up now, whenever it is due. Several requests for one device share one attempt.
///
/// Presence and interval are not looked at, and a device that is blocked by a refused login gets
/// one try. A device that was connected to so often that its firewall might take one connection
/// more for an attack is left alone: with `wait=true` that is status 429 with `Retry-After`, else
/// the attempt is `not_made` and says so. Whoever disconnects while waiting takes the request back, unless the attempt has begun
/// or somebody else asked for it too.
#[utoipa::path(
    post,
    path = "/api/v1/devices/{id}/backup",
    params(
        ("id" = String, Path, description = "The device.", format = "uuid"),
        ("wait" = Option<bool>, Query,
            description = "Answer with the result; after 300 s with where to look, as without."),
    ),
    responses(
        (status = 200, description = "With `wait=true`: what came of it, good or bad.",
            body = Backup),
        (status = 202, description = "It is taken; `Location` tells where to look.", body = Taken,
            headers(("Location" = String, description = "The attempt."))),
        (status = 404, description = "No such device is backed up.", body = Problem,
            content_type = "application/problem+json"),
        (status = 429, description = "Too many requests, or with `wait=true`: too many connections \
            to the device.", body = Problem, content_type = "application/problem+json",
            headers(("Retry-After" = u64, description = "In so many seconds."))),
        (status = 503, description = "The service is starting or stopping.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn backup(
    State(api): State<Api>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let wait = query::wait(query.as_deref())?;
    let device = device_id(&id)?;
    let accepted = match api.accept(device).await {
        Ok(accepted) => accepted,
        Err(problem) => {
            api.context.metrics.asked(Asked::Http, Answered::Refused);
            return Err(problem);
        }
    };
    let attempt = accepted.attempt;
    let counted = Counted::new(&api);
    let mut reply = Box::pin(async move {
        let reply = accepted.reply().await;
        counted.answered(&reply);
        reply
    });
    if wait && let Ok(reply) = timeout(WAIT_LIMIT, &mut reply).await {
        let reply = reply?;
        if let Some(wait) = reply.retry_after {
            return Err(Problem::too_soon(reply.message.unwrap_or_default(), wait));
        }
        let told = api.told(device, reply).await;
        return Ok(Json(told).into_response());
    }
    api.tickets.open(attempt, device);
    let tickets = api.tickets.clone();
    tokio::spawn(async move {
        let state = match reply.await {
            Ok(reply) => tickets::State::Answered(reply),
            Err(_) => tickets::State::Dropped,
        };
        tickets.close(attempt, state);
    });
    let url = format!("/api/v1/attempts/{attempt}");
    let location = HeaderValue::try_from(&url).map_err(|error| {
        let detail = format!("failed to tell where to look: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })?;
    let taken = Taken {
        status: "accepted",
        attempt,
        url,
    };
    let headers = [(header::LOCATION, location)];
    Ok((StatusCode::ACCEPTED, headers, Json(taken)).into_response())
}

impl Api {
    fn device(&self, status: &DeviceStatus) -> Device {
        let now = self.context.clock.now();
        Device::of(status, self.interval, self.advice, now)
    }

    /// What the journal has of the attempt.
    async fn recorded(&self, id: AttemptId) -> Result<Option<Attempt>, Problem> {
        match timeout(READ_LIMIT, self.context.store.attempt(id)).await {
            Ok(Ok((entry, steps))) => Ok(Some(Attempt::recorded(entry, &steps))),
            Ok(Err(StoreError::NotFound { .. })) => Ok(None),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(late()),
        }
    }

    fn asked(&self, id: AttemptId, ticket: tickets::Ticket) -> Attempt {
        Attempt::asked(id, ticket, &self.context.replica)
    }

    /// One device, as a page of one: the one after the id before it.
    async fn find(&self, device: DeviceId) -> Result<DeviceStatus, Problem> {
        let before = device.0.as_u128().checked_sub(1).map(Uuid::from_u128);
        let page = StatusPage {
            after: before.map(DeviceId),
            failing: false,
            limit: 1,
        };
        let found = in_time(self.context.store.statuses(page)).await?.devices;
        let found = found.into_iter().find(|status| status.device.id == device);
        found.ok_or_else(|| RequestError::Unknown(device).into())
    }

    /// Asks the device's worker; one that has just been added gets its worker a moment later.
    async fn accept(&self, device: DeviceId) -> Result<Accepted, Problem> {
        let requests = &self.context.requests;
        match requests.accept(device, None).await {
            Err(RequestError::Unknown(_)) => {}
            taken => return Ok(taken?),
        }
        self.find(device).await?;
        // Whether it has appeared or not, the next answer says what is the matter.
        let _ = timeout(APPEARS_WITHIN, requests.appears(device)).await;
        Ok(requests.accept(device, None).await?)
    }

    /// `reply` with what the backup changed.
    async fn told(&self, device: DeviceId, reply: Reply) -> Backup {
        let change = match &self.change {
            Some(change) => change(device, reply.clone()).await,
            None => None,
        };
        Backup::of(reply, change)
    }
}

/// Counts a request that was taken, however it ends.
struct Counted {
    api: Api,
    done: bool,
}

impl Counted {
    fn new(api: &Api) -> Self {
        Self {
            api: api.clone(),
            done: false,
        }
    }

    fn answered(mut self, reply: &Result<Reply, RequestError>) {
        self.done = true;
        let result = match reply {
            Ok(reply) => reply.status.into(),
            Err(_) => Answered::Refused,
        };
        self.api.context.metrics.asked(Asked::Http, result);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.done {
            let metrics = &self.api.context.metrics;
            metrics.asked(Asked::Http, Answered::GaveUp);
        }
    }
}

fn page(query: Option<&str>, failing: bool) -> Result<StatusPage, Problem> {
    let Listing { after, limit } = Listing::parse(query)?;
    Ok(StatusPage {
        after,
        failing,
        limit,
    })
}

fn device_id(text: &str) -> Result<DeviceId, Problem> {
    uuid(text, "a device").map(DeviceId)
}

fn uuid(text: &str, what: &str) -> Result<Uuid, Problem> {
    let parsed = Uuid::parse_str(text);
    parsed.map_err(|_| Problem::bad_request(format!("the id of {what} is a UUID")))
}

fn unknown_attempt(id: AttemptId, now: Timestamp) -> Problem {
    // The id tells when it was drawn (RFC 9562, version 7).
    let recent = id.0.get_timestamp().is_some_and(|drawn| {
        let (seconds, _) = drawn.to_unix();
        let now = u64::try_from(now.unix_timestamp()).unwrap_or_default();
        now.saturating_sub(seconds) < STILL_BUSY.as_secs()
    });
    if recent {
        let detail = format!(
            "attempt {id} is not in the journal yet, does not run, and was not asked for at this \
             replica; it may be waiting at another one: ask again"
        );
        return Problem::passing(StatusCode::NOT_FOUND, detail);
    }
    Problem::not_found(format!(
        "attempt {id} is not in the journal, or not any more (CONFIG_BACKUP_JOURNAL_DAYS)"
    ))
}

async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, Problem> {
    match timeout(READ_LIMIT, read).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(late()),
    }
}

fn late() -> Problem {
    let detail = format!(
        "the database did not answer within {} s",
        READ_LIMIT.as_secs()
    );
    Problem::passing(StatusCode::SERVICE_UNAVAILABLE, detail)
}
