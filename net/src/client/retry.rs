//! Patience with a quota: the same again when the node says that it may pass.

use std::time::{Duration, Instant};

use crate::client::error::{
    BatchError, CountError, GetError, IncrementError, ScanError, TransactionError, WriteError,
};

/// Shortest wait: a clock ticks no finer.
const LEAST_WAIT: Duration = Duration::from_micros(100);

/// An error that may say when the same had better be asked again.
pub trait RetryAfter {
    /// How long to wait, where the partition is above its quota and nothing was done.
    fn retry_after(&self) -> Option<Duration>;
}

macro_rules! throttled {
    ($($error:ident),*) => {
        $(impl RetryAfter for $error {
            fn retry_after(&self) -> Option<Duration> {
                match self {
                    $error::Throttled { retry_after, .. } => Some(*retry_after),
                    _ => None,
                }
            }
        })*
    };
}

throttled!(GetError, ScanError, CountError, WriteError);

impl RetryAfter for BatchError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            BatchError::Write(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl RetryAfter for IncrementError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            IncrementError::Write(error) => error.retry_after(),
            _ => None,
        }
    }
}

impl RetryAfter for TransactionError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            TransactionError::Read(error) => error.retry_after(),
            TransactionError::Write(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// Asks again whenever the quota says when, until the answer is another one, or the next wait would end beyond
/// `timeout` from now: then the last refusal is the answer.
///
/// ```no_run
/// # async fn example(client: lode_net::client::Client) -> Result<(), lode_net::client::WriteError> {
/// # use std::time::Duration;
/// lode_net::client::patiently(Duration::from_secs(5), || client.put("users", b"alice", b"hello")).await?;
/// # Ok(())
/// # }
/// ```
pub async fn patiently<T, E, F>(timeout: Duration, mut ask: impl FnMut() -> F) -> Result<T, E>
where
    E: RetryAfter,
    F: Future<Output = Result<T, E>>,
{
    let until = Instant::now() + timeout;
    loop {
        let answer = ask().await;
        match wait_of(&answer, until) {
            Some(wait) => tokio::time::sleep(wait).await,
            None => return answer,
        }
    }
}

/// How long to wait before the same is asked again; `None`: it is not.
pub(crate) fn wait_of<T, E: RetryAfter>(answer: &Result<T, E>, until: Instant) -> Option<Duration> {
    let wait = answer.as_ref().err()?.retry_after()?.max(LEAST_WAIT);
    (Instant::now() + wait <= until).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled(ms: u64) -> WriteError {
        WriteError::Throttled { retry_after: Duration::from_millis(ms), message: String::new() }
    }

    #[test]
    fn what_was_throttled_is_asked_again_and_nothing_else() {
        let until = Instant::now() + Duration::from_secs(3600);
        assert_eq!(wait_of::<(), _>(&Err(throttled(7)), until), Some(Duration::from_millis(7)));
        assert_eq!(wait_of::<(), _>(&Err(throttled(0)), until), Some(LEAST_WAIT));
        assert_eq!(wait_of::<(), _>(&Err(throttled(7_200_000)), until), None, "beyond the time");
        assert_eq!(wait_of::<(), _>(&Err(WriteError::Poisoned), until), None);
        assert_eq!(wait_of::<_, WriteError>(&Ok(()), until), None);
        let nested = TransactionError::Write(throttled(7));
        assert_eq!(nested.retry_after(), Some(Duration::from_millis(7)));
        assert_eq!(
            BatchError::Write(throttled(7)).retry_after(),
            IncrementError::Write(throttled(7)).retry_after()
        );
    }
}
