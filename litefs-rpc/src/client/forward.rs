//! Brings a request to the primary, wherever it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{CallError, Fate};
use super::locator::{PrimaryLocation, PrimaryLocator};
use super::{Client, Connection};
use crate::wire::{Delivery, PrimaryHint, ProcedureFault, Reply, Request, ServerError};

/// How many hints are followed in a row before the locator is asked again: two nodes may name each
/// other.
const MAX_HOPS: u32 = 3;
/// The pause before a retry.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Where a request was run.
#[derive(Debug, Clone, PartialEq)]
pub enum Forwarded<T> {
    /// The primary ran it.
    There(T),
    /// Not run: this node has become the primary and has to run it. Nothing was applied.
    Here,
    /// This node has become the primary, and an earlier attempt may have been applied: its outcome
    /// is in this node's database.
    Unresolved,
}

/// Why a write could not be forwarded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// No primary was known within the timeout. Nothing was sent.
    #[error("no primary is known: waited {waited:.1?} in all for one")]
    NoPrimary {
        /// How long the caller has waited, attempts included.
        waited: Duration,
    },
    /// The last attempt's error; its [`fate`](CallError::fate) says what became of the request.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl ForwardError {
    /// The same error with the whole time that the caller has waited.
    #[must_use]
    pub fn in_all(mut self, whole: Duration) -> Self {
        if let Self::NoPrimary { waited } | Self::Call(CallError::Deadline { after: waited, .. }) =
            &mut self
        {
            *waited = whole;
        }
        self
    }
}

/// Brings requests to the primary, wherever it is, within a deadline.
///
/// It retries a request that was certainly not applied: the node is not the primary or cannot be
/// reached, or its queue is full. After a lost answer it retries if the primary recognizes the
/// request ([`Delivery::ExactlyOnce`]), and returns the error otherwise.
#[derive(Debug)]
pub struct Forwarder<D> {
    client: Arc<Client>,
    locator: D,
    primary_timeout: Duration,
}

impl<D: PrimaryLocator> Forwarder<D> {
    /// Waits at most `primary_timeout` in total while no primary is known.
    pub fn new(client: Arc<Client>, locator: D, primary_timeout: Duration) -> Self {
        Self { client, locator, primary_timeout }
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// The locator of the primary.
    pub fn locator(&self) -> &D {
        &self.locator
    }

    /// Runs one autocommit write on the primary. Must be called on the runtime that drives the
    /// client.
    ///
    /// `ambiguous` is the error of an earlier attempt whose outcome is unknown.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn write(
        &self,
        request: Request,
        ambiguous: Option<CallError>,
        deadline: Instant,
    ) -> Result<Forwarded<Reply>, ForwardError> {
        let repeat = request.delivery == Delivery::ExactlyOnce;
        let write = |connection: Arc<Connection>, again: bool| {
            let request = Request { again, ..request.clone() };
            async move { connection.write(request, deadline.into_std()).await }
        };
        self.run(deadline, repeat, ambiguous, write).await
    }

    /// Runs `call` on a connection to the primary. Retries it if the last attempt was certainly not
    /// applied.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn with_primary<T, Call>(
        &self,
        deadline: Instant,
        call: impl Fn(Arc<Connection>) -> Call,
    ) -> Result<Forwarded<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        self.run(deadline, false, None, |connection, _| call(connection)).await
    }

    /// Runs an idempotent `call` on a connection to the primary. Retries it also after a lost
    /// answer.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn ask_primary<T, Call>(
        &self,
        deadline: Instant,
        call: impl Fn(Arc<Connection>) -> Call,
    ) -> Result<Forwarded<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let asked = self.run(deadline, true, None, |connection, _| call(connection)).await;
        asked.map(|forwarded| match forwarded {
            Forwarded::Unresolved => Forwarded::Here,
            forwarded => forwarded,
        })
    }

    /// `repeat`: retry after a lost answer; the second argument of `call` says that it is a retry.
    /// `ambiguous`: the last error with an unknown outcome, until the outcome is known.
    async fn run<T, Call>(
        &self,
        deadline: Instant,
        repeat: bool,
        ambiguous: Option<CallError>,
        call: impl Fn(Arc<Connection>, bool) -> Call,
    ) -> Result<Forwarded<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let started = Instant::now();
        let result = self.try_until(deadline, repeat, ambiguous, call).await;
        result.map_err(|error| error.in_all(started.elapsed()))
    }

    async fn try_until<T, Call>(
        &self,
        deadline: Instant,
        repeat: bool,
        mut ambiguous: Option<CallError>,
        call: impl Fn(Arc<Connection>, bool) -> Call,
    ) -> Result<Forwarded<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let no_primary_at = (Instant::now() + self.primary_timeout).min(deadline);
        let mut hint: Option<PrimaryHint> = None;
        let mut hops = 0;
        loop {
            let target = match hint
                .take()
                .map_or_else(|| self.locator.location(), PrimaryLocation::Elsewhere)
            {
                PrimaryLocation::Here if ambiguous.is_some() => return Ok(Forwarded::Unresolved),
                PrimaryLocation::Here => return Ok(Forwarded::Here),
                PrimaryLocation::Elsewhere(target) => target,
                PrimaryLocation::Nowhere => {
                    let waited = self.await_primary(no_primary_at).await;
                    waited.map_err(|error| ambiguous.clone().map_or(error, ForwardError::Call))?;
                    continue;
                }
            };
            let again = ambiguous.is_some();
            let attempt = self.attempt(&target.address, |connection| call(connection, again));
            let tried = tokio::select! {
                tried = attempt => tried,
                () = self.superseded(&target, deadline), if repeat => Err(CallError::Lost {
                    address: target.address.clone(),
                    reason: "another node became the primary before it answered".into(),
                }),
            };
            let error = match tried {
                Ok(value) => return Ok(Forwarded::There(value)),
                Err(error) => error,
            };
            if repeat && is_unresolved(&error) {
                ambiguous = Some(error.clone());
            }
            match error {
                CallError::Refused(ServerError::NotPrimary { hint: Some(other) })
                    if hops < MAX_HOPS && other.address != target.address =>
                {
                    hops += 1;
                    hint = Some(other);
                }
                error => {
                    hops = 0;
                    let is_ambiguous = ambiguous.is_some();
                    let paused =
                        self.pause_before_retry(&target, error, is_ambiguous, deadline).await;
                    paused.map_err(|error| match (&ambiguous, &error) {
                        (Some(ambiguous), error) if !is_conclusive(error) => ambiguous.clone(),
                        _ => error,
                    })?;
                }
            }
        }
    }

    /// Returns once another node than `target` is known to be the primary, or never.
    async fn superseded(&self, target: &PrimaryHint, deadline: Instant) {
        loop {
            let seen = self.locator.location();
            match &seen {
                PrimaryLocation::Here => return,
                PrimaryLocation::Elsewhere(other) if other.node != target.node => return,
                _ if Instant::now() >= deadline => std::future::pending().await,
                _ => self.locator.changed(&seen, deadline).await,
            }
        }
    }

    async fn attempt<T, Call>(
        &self,
        address: &str,
        call: impl FnOnce(Arc<Connection>) -> Call,
    ) -> Result<T, CallError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        call(self.client.connect(address).await?).await
    }

    async fn await_primary(&self, until: Instant) -> Result<(), ForwardError> {
        if Instant::now() >= until {
            return Err(ForwardError::NoPrimary { waited: self.primary_timeout });
        }
        self.locator.changed(&PrimaryLocation::Nowhere, until).await;
        Ok(())
    }

    /// Waits until a retry may succeed: for a change of the primary or the end of the pause.
    /// Returns the error if a retry is pointless or the deadline is too near.
    async fn pause_before_retry(
        &self,
        target: &PrimaryHint,
        error: CallError,
        is_ambiguous: bool,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let again = match &error {
            CallError::Unreachable { .. } => {
                self.locator.recheck().await;
                self.client.retry_at(&target.address).unwrap_or_else(Instant::now)
            }
            CallError::Refused(ServerError::NotPrimary { .. }) => {
                self.locator.recheck().await;
                Instant::now() + RETRY_PAUSE
            }
            CallError::Refused(ServerError::Overloaded { .. } | ServerError::ShuttingDown) => {
                Instant::now() + RETRY_PAUSE
            }
            // The primary knows whether the write is applied.
            error if is_ambiguous && is_unresolved(error) => {
                self.locator.recheck().await;
                Instant::now() + RETRY_PAUSE
            }
            _ => return Err(error),
        };
        if again >= deadline {
            return Err(error);
        }
        self.locator.changed(&PrimaryLocation::Elsewhere(target.clone()), again).await;
        Ok(())
    }
}

/// Whether an error comes from a primary that has looked for the outcome of earlier attempts.
fn is_conclusive(error: &CallError) -> bool {
    let CallError::Refused(refusal) = error else { return false };
    match refusal {
        // The request was not sent.
        ServerError::Procedure { fault: ProcedureFault::OldProtocol, .. } => false,
        ServerError::Database(_)
        | ServerError::Denied { .. }
        | ServerError::TooLarge { .. }
        | ServerError::Fenced
        | ServerError::Interrupted
        | ServerError::Procedure { .. } => true,
        _ => false,
    }
}

/// Whether an error leaves an outcome unknown that the primary can tell.
fn is_unresolved(error: &CallError) -> bool {
    error.fate() == Fate::Unknown && *error != CallError::Refused(ServerError::Interrupted)
}
