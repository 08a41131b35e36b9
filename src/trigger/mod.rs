//! Backups that are asked for over NATS: answers `config.backup.trigger`, one replica each.
//!
//! The user needs the right to subscribe to `config.backup.trigger` and to publish the replies
//! (`_INBOX.>`).

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

/// Before a subscription that ended is made again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long what had been sent to this replica already may take to arrive, once it stops.
const LAST_ONES: Duration = Duration::from_secs(1);

/// Answers until the process is told to stop. The client subscribes again by itself when its
/// connection comes back.
pub async fn run(client: Client, context: Arc<Context>) {
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
            Ok(requests) => answer_all(requests, &client, &context).await,
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
