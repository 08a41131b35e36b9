//! Integration tests: the archive by one contract on both databases.

/// Makes a test of each case for each database, which is the case's own.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                if let Some(bench) = crate::archive::bench::Bench::postgres().await {
                    super::$case(&bench).await;
                }
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(&crate::archive::bench::Bench::sqlite().await).await;
            })*
        }
    };
}

pub mod bench;
mod reading;
mod retention;
mod storing;
mod trouble;
