//! What is asked and said over NATS: answers `config.backup.trigger`, one replica each, and forgets
//! credentials that `device.credential_changed.>` says are others now, every replica.
//!
//! The user needs the right to subscribe to both, and to publish the replies (`_INBOX.>`).

pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures_util::StreamExt as _;
use tracing::{debug, warn};

use crate::fleet::Context;
use crate::metrics::{Answered, Asked};
use wire::{Answer, Named};

/// Where backups are asked for.
pub const TRIGGER: &str = "config.backup.trigger";

/// The queue group of the replicas: each request goes to one of them.
pub const QUEUE: &str = "mikrotik-backup";

/// Where changed credentials are told of, each under the device's id.
pub const CHANGED: &str = "device.credential_changed.>";

/// Before a subscription that ended is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long what had been sent to this replica already may take to arrive, once it stops.
const LAST_ONES: Duration = Duration::from_secs(1);

/// Answers and listens until the process is told to stop. The client subscribes again by itself
/// when its connection comes back.
pub async fn run(client: Client, context: Arc<Context>) {
    tokio::join!(
        run_requests(&client, &context),
        run_changes(&client, &context)
    );
}

async fn run_requests(client: &Client, context: &Arc<Context>) {
    let soft = context.shutdown.soft().clone();
    // A replica that does not know the inventory yet leaves the requests to others.
    tokio::select! {
        biased;
        () = soft.cancelled() => return,
        () = context.requests.loaded() => {}
    }
    loop {
        let subscribed = client.queue_subscribe(TRIGGER, QUEUE.to_owned()).await;
        let ended = match subscribed {
            Ok(requests) => answer_all(requests, client, context).await,
            Err(error) => error.to_string(),
        };
        if soft.is_cancelled() {
            return;
        }
        warn!(ended, "the subscription to {TRIGGER} ended; made again");
        tokio::select! {
            () = soft.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// What is cached of credentials is forgotten before the next attempt.
async fn run_changes(client: &Client, context: &Context) {
    let soft = context.shutdown.soft();
    loop {
        let ended = match client.subscribe(CHANGED).await {
            Ok(mut notices) => loop {
                let notice = tokio::select! {
                    biased;
                    () = soft.cancelled() => return,
                    notice = notices.next() => notice,
                };
                match notice {
                    Some(notice) => forget(&notice, context),
                    None => break "the client closed it".to_owned(),
                }
            },
            Err(error) => error.to_string(),
        };
        warn!(ended, "the subscription to {CHANGED} ended; made again");
        tokio::select! {
            () = soft.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

fn forget(notice: &Message, context: &Context) {
    let named = Named::parse(&notice.payload);
    context.metrics.credentials_changed(named.is_ok());
    match named {
        Ok(named) => {
            context.credentials.forget(named.device());
            debug!(device.id = %named.device(), "forgot the credentials of a device");
        }
        Err(error) => warn!(
            %error,
            "ignored a notice that credentials changed; what is cached is forgotten after 5 min"
        ),
    }
}

/// Takes requests until there are no more; each is answered by a task of its own, for a backup
/// takes long.
async fn answer_all(mut requests: Subscriber, client: &Client, context: &Arc<Context>) -> String {
    let soft = context.shutdown.soft();
    loop {
        let request = tokio::select! {
            biased;
            () = soft.cancelled() => break,
            request = requests.next() => request,
        };
        match request {
            Some(request) => answer(request, client, context),
            None => return "the client closed it".to_owned(),
        }
    }
    // What is on its way to us already no other replica will answer.
    if requests.drain().await.is_ok() {
        let late = async {
            while let Some(request) = requests.next().await {
                answer(request, client, context);
            }
        };
        let _ = tokio::time::timeout(LAST_ONES, late).await;
    }
    "the process stops".to_owned()
}

fn answer(request: Message, client: &Client, context: &Arc<Context>) {
    let (client, asked) = (client.clone(), Arc::clone(context));
    // Waited for at the end, so that whoever asked is told also by a process that stops.
    context.shutdown.spawn(async move {
        let answer = backup(&request.payload, &asked).await;
        let Some(asker) = request.reply else {
            return;
        };
        if let Err(error) = client.publish(asker, answer.to_json().into()).await {
            debug!(%error, "whoever asked for a backup could not be told what came of it");
        }
    });
}

async fn backup(payload: &[u8], context: &Context) -> Answer {
    let refused = |reason: &dyn std::fmt::Display| {
        debug!(%reason, "refused a request for a backup");
        context.metrics.asked(Asked::Nats, Answered::Refused);
    };
    let named = match Named::parse(payload) {
        Ok(named) => named,
        Err(error) => {
            refused(&error);
            return Answer::refused(&error);
        }
    };
    let tenant = Some(named.tenant());
    let reply = match context.requests.accept(named.device(), tenant).await {
        Ok(accepted) => accepted.reply().await,
        Err(error) => Err(error),
    };
    match reply {
        Ok(reply) => {
            context.metrics.asked(Asked::Nats, reply.status.into());
            reply.into()
        }
        Err(error) => {
            refused(&error);
            Answer::refused(&error)
        }
    }
}
