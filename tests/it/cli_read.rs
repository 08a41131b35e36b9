//! Commands that only read, as somebody at a shell sees them: beside a store that another process
//! has open for writing, embedded and shared.

/// Makes a test of each case for each database, which is the case's own.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod shared {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(fleet) = crate::cli_read::fleet::Fleet::shared().await {
                    super::$case(&fleet).await;
                }
            })*
        }
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(&crate::cli_read::fleet::Fleet::embedded().await).await;
            })*
        }
    };
}

mod devices;
mod fleet;
mod snapshots;
mod status;
