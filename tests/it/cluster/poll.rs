//! Waiting for a state instead of for a time.

use std::time::{Duration, Instant};

/// The longest that any awaited state may take on a slow machine.
const GIVE_UP: Duration = Duration::from_secs(90);

/// Polls `look` until it returns a value.
pub async fn until<T, F, Fut>(what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(began.elapsed() < GIVE_UP, "gave up waiting for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
