//! Work that must not go on once a lease may have run out.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Does `work` until `expires`; `None` when it was not done by then.
///
/// The clock is looked at before every step of the work. A process that was stopped for a while and
/// goes on finds timers and answers to what it asked before at the same time, and which of the two a
/// timeout looks at first is not agreed upon.
pub async fn until<F: Future>(expires: Instant, work: F) -> Option<F::Output> {
    until_moving(|| expires, work).await
}

/// The same, for a lease that somebody else renews meanwhile.
pub async fn until_renewed<F: Future>(
    expires: &watch::Receiver<Instant>,
    work: F,
) -> Option<F::Output> {
    until_moving(|| *expires.borrow(), work).await
}

async fn until_moving<F: Future>(expires: impl Fn() -> Instant, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut end = pin!(sleep_until(expires()));
    poll_fn(|context| {
        let expires = expires();
        if Instant::now() >= expires {
            return Poll::Ready(None);
        }
        // A lease is only ever prolonged: at its old end at the latest this is looked at again.
        if end.deadline() != expires {
            end.as_mut().reset(expires);
        }
        if end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_ends_at_the_fence_and_does_not_begin_behind_it() {
        let second = Duration::from_secs(1);
        let done = until(Instant::now() + 2 * second, tokio::time::sleep(second));
        assert_eq!(done.await, Some(()));
        let late = until(Instant::now() + second, tokio::time::sleep(2 * second));
        assert_eq!(late.await, None);
        assert_eq!(
            until(Instant::now(), async { 1 }).await,
            None,
            "ready at once, but too late"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn work_goes_on_for_as_long_as_the_lease_is_renewed() {
        let second = Duration::from_secs(1);
        let (expires, expiry) = watch::channel(Instant::now() + 2 * second);
        let renewing = async {
            for _ in 0..4 {
                tokio::time::sleep(second).await;
                expires.send_replace(Instant::now() + 2 * second);
            }
            std::future::pending::<()>().await;
        };
        let began = Instant::now();
        let work = until_renewed(&expiry, tokio::time::sleep(5 * second));
        let done = tokio::select! { done = work => done, () = renewing => None };
        assert_eq!((done, began.elapsed()), (Some(()), 5 * second));
        let work = until_renewed(&expiry, tokio::time::sleep(5 * second));
        assert_eq!((work.await, began.elapsed()), (None, 6 * second));
    }
}
