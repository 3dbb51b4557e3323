use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::directory::{Directory, Standing};
use super::error::CallError;
use super::{Client, Link};
use crate::wire::{PrimaryHint, Refusal, Reply, Request};

/// How many hints are followed in a row before the tracker is asked again: two nodes may name each other.
const MAX_HOPS: u32 = 3;
/// The pause after an answer that says "not now".
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A write's destination turned out to be this node.
#[derive(Debug, Clone, PartialEq)]
pub enum Forwarded<T> {
    /// The primary ran it.
    There(T),
    /// This node has become the primary: run it here. Nothing was applied.
    Here,
}

/// Why a write could not be forwarded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// No primary was known for as long as the caller was willing to wait. Nothing was sent.
    #[error("no primary is known, and none appeared within {waited:?}")]
    NoPrimary {
        /// How long was waited.
        waited: Duration,
    },
    /// The last attempt's error; its [`fate`](CallError::fate) says what became of the work.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Brings work to the primary, wherever it is, within a deadline.
///
/// Tries again only where the work was certainly not applied: a node that is not the primary, one that cannot be
/// reached, a full queue. A lost answer is reported, not repeated.
#[derive(Debug)]
pub struct Forwarder<D> {
    client: Arc<Client>,
    directory: D,
    primary_timeout: Duration,
}

impl<D: Directory> Forwarder<D> {
    /// Waits at most `primary_timeout` in all while no primary is known.
    pub fn new(client: Arc<Client>, directory: D, primary_timeout: Duration) -> Self {
        Self { client, directory, primary_timeout }
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// What it asks for the primary.
    pub fn directory(&self) -> &D {
        &self.directory
    }

    /// Runs one autocommit write on the primary. Must be called on the runtime that carries the client.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn write(&self, request: Request, deadline: Instant) -> Result<Forwarded<Reply>, ForwardError> {
        let write = |link: Arc<Link>| {
            let request = request.clone();
            async move { link.write(request, deadline.into_std()).await }
        };
        self.with_primary(deadline, write).await
    }

    /// Runs `call` on a connection to the primary, again where the last try was certainly not applied.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn with_primary<T, Call>(
        &self,
        deadline: Instant,
        call: impl Fn(Arc<Link>) -> Call,
    ) -> Result<Forwarded<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let no_primary_at = (Instant::now() + self.primary_timeout).min(deadline);
        let mut hint: Option<PrimaryHint> = None;
        let mut hops = 0;
        loop {
            let target = match hint.take().map_or_else(|| self.directory.standing(), Standing::Elsewhere) {
                Standing::Here => return Ok(Forwarded::Here),
                Standing::Elsewhere(target) => target,
                Standing::Nowhere => {
                    self.await_primary(no_primary_at).await?;
                    continue;
                }
            };
            let error = match self.attempt(&target.address, &call).await {
                Ok(value) => return Ok(Forwarded::There(value)),
                Err(error) => error,
            };
            match error {
                CallError::Refused(Refusal::NotPrimary { hint: Some(other) })
                    if hops < MAX_HOPS && other.address != target.address =>
                {
                    hops += 1;
                    hint = Some(other);
                }
                error => {
                    hops = 0;
                    self.pause_before_retry(&target, error, deadline).await?;
                }
            }
        }
    }

    async fn attempt<T, Call>(&self, address: &str, call: &impl Fn(Arc<Link>) -> Call) -> Result<T, CallError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        call(self.client.connect(address).await?).await
    }

    async fn await_primary(&self, until: Instant) -> Result<(), ForwardError> {
        if Instant::now() >= until {
            return Err(ForwardError::NoPrimary { waited: self.primary_timeout });
        }
        self.directory.changed(&Standing::Nowhere, until).await;
        Ok(())
    }

    /// Waits for what may make another try worth it: news of the role, or the moment to knock again. Returns the
    /// error where there is nothing to wait for or no time.
    async fn pause_before_retry(
        &self,
        target: &PrimaryHint,
        error: CallError,
        deadline: Instant,
    ) -> Result<(), ForwardError> {
        let again = match &error {
            CallError::Unreachable { .. } => {
                self.directory.suspect().await;
                self.client.retry_at(&target.address).unwrap_or_else(Instant::now)
            }
            CallError::Refused(Refusal::NotPrimary { .. }) => {
                self.directory.suspect().await;
                Instant::now() + BUSY_PAUSE
            }
            CallError::Refused(Refusal::Overloaded { .. } | Refusal::ShuttingDown) => {
                Instant::now() + BUSY_PAUSE
            }
            _ => return Err(error.into()),
        };
        if again >= deadline {
            return Err(error.into());
        }
        self.directory.changed(&Standing::Elsewhere(target.clone()), again).await;
        Ok(())
    }
}
