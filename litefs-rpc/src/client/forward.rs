use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{CallError, Fate};
use super::locator::{PrimaryLocation, PrimaryLocator};
use super::{Client, Connection};
use crate::wire::{Delivery, PrimaryHint, Reply, Request, ServerError};

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
    /// This node has become the primary, and an earlier try may have been applied: its outcome is in the database here.
    Unsettled,
}

/// Why a write could not be forwarded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// No primary was known for as long as the caller was willing to wait. Nothing was sent.
    #[error("no primary is known: waited {waited:.1?} in all for one")]
    NoPrimary {
        /// How long was waited, tries included.
        waited: Duration,
    },
    /// The last attempt's error; its [`fate`](CallError::fate) says what became of the work.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl ForwardError {
    /// The same, of a caller that has waited for so long in all.
    #[must_use]
    pub fn in_all(mut self, whole: Duration) -> Self {
        if let Self::NoPrimary { waited } | Self::Call(CallError::Deadline { after: waited, .. }) = &mut self
        {
            *waited = whole;
        }
        self
    }
}

/// Brings work to the primary, wherever it is, within a deadline.
///
/// Tries again where the work was certainly not applied: a node that is not the primary, one that cannot be reached, a
/// full queue. Where an answer is lost it tries again if the primary can tell that it has the work already
/// ([`Delivery::ExactlyOnce`]), and reports the loss otherwise.
#[derive(Debug)]
pub struct Forwarder<D> {
    client: Arc<Client>,
    locator: D,
    primary_timeout: Duration,
}

impl<D: PrimaryLocator> Forwarder<D> {
    /// Waits at most `primary_timeout` in all while no primary is known.
    pub fn new(client: Arc<Client>, locator: D, primary_timeout: Duration) -> Self {
        Self { client, locator, primary_timeout }
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &Arc<Client> {
        &self.client
    }

    /// What it asks for the primary.
    pub fn locator(&self) -> &D {
        &self.locator
    }

    /// Runs one autocommit write on the primary. Must be called on the runtime that carries the client.
    ///
    /// `doubt`: the error of an earlier try that left its outcome open.
    ///
    /// # Errors
    /// See [`ForwardError`].
    pub async fn write(
        &self,
        request: Request,
        doubt: Option<CallError>,
        deadline: Instant,
    ) -> Result<Forwarded<Reply>, ForwardError> {
        let repeat = request.delivery == Delivery::ExactlyOnce;
        let write = |link: Arc<Connection>, again: bool| {
            let request = Request { again, ..request.clone() };
            async move { link.write(request, deadline.into_std()).await }
        };
        self.run(deadline, repeat, doubt, write).await
    }

    /// Runs `call` on a connection to the primary, again where the last try was certainly not applied.
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
        self.run(deadline, false, None, |link, _| call(link)).await
    }

    /// Runs a `call` that changes nothing, or may as well be made twice, on a connection to the primary; again also where an
    /// answer was lost.
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
        let asked = self.run(deadline, true, None, |link, _| call(link)).await;
        asked.map(|forwarded| match forwarded {
            Forwarded::Unsettled => Forwarded::Here,
            forwarded => forwarded,
        })
    }

    /// `repeat`: a try whose answer is lost may be made again; the second argument of `call` says that it is. `doubt`: the
    /// last error that left the outcome open, which stands until somebody settles it.
    async fn run<T, Call>(
        &self,
        deadline: Instant,
        repeat: bool,
        doubt: Option<CallError>,
        call: impl Fn(Arc<Connection>, bool) -> Call,
    ) -> Result<Forwarded<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let started = Instant::now();
        let result = self.try_until(deadline, repeat, doubt, call).await;
        result.map_err(|error| error.in_all(started.elapsed()))
    }

    async fn try_until<T, Call>(
        &self,
        deadline: Instant,
        repeat: bool,
        mut doubt: Option<CallError>,
        call: impl Fn(Arc<Connection>, bool) -> Call,
    ) -> Result<Forwarded<T>, ForwardError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let no_primary_at = (Instant::now() + self.primary_timeout).min(deadline);
        let mut hint: Option<PrimaryHint> = None;
        let mut hops = 0;
        loop {
            let target = match hint.take().map_or_else(|| self.locator.location(), PrimaryLocation::Elsewhere)
            {
                PrimaryLocation::Here if doubt.is_some() => return Ok(Forwarded::Unsettled),
                PrimaryLocation::Here => return Ok(Forwarded::Here),
                PrimaryLocation::Elsewhere(target) => target,
                PrimaryLocation::Nowhere => {
                    let waited = self.await_primary(no_primary_at).await;
                    waited.map_err(|error| doubt.clone().map_or(error, ForwardError::Call))?;
                    continue;
                }
            };
            let again = doubt.is_some();
            let attempt = self.attempt(&target.address, |link| call(link, again));
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
            if repeat && is_open(&error) {
                doubt = Some(error.clone());
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
                    let in_doubt = doubt.is_some();
                    let paused = self.pause_before_retry(&target, error, in_doubt, deadline).await;
                    paused.map_err(|error| match (&doubt, &error) {
                        (Some(doubt), error) if !settles(error) => doubt.clone(),
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

    /// Waits for what may make another try worth it: news of the role, or the moment to knock again. Returns the
    /// error where there is nothing to wait for or no time.
    async fn pause_before_retry(
        &self,
        target: &PrimaryHint,
        error: CallError,
        in_doubt: bool,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let again = match &error {
            CallError::Unreachable { .. } => {
                self.locator.recheck().await;
                self.client.retry_at(&target.address).unwrap_or_else(Instant::now)
            }
            CallError::Refused(ServerError::NotPrimary { .. }) => {
                self.locator.recheck().await;
                Instant::now() + BUSY_PAUSE
            }
            CallError::Refused(ServerError::Overloaded { .. } | ServerError::ShuttingDown) => {
                Instant::now() + BUSY_PAUSE
            }
            // The primary knows whether it has it.
            error if in_doubt && is_open(error) => {
                self.locator.recheck().await;
                Instant::now() + BUSY_PAUSE
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

/// Whether an error is the word of a primary that has looked for the outcome of earlier tries.
fn settles(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Refused(
            ServerError::Database(_)
                | ServerError::Denied { .. }
                | ServerError::TooLarge { .. }
                | ServerError::Fenced
                | ServerError::Interrupted
        )
    )
}

/// Whether an error leaves the outcome open for as long as nobody asks the primary.
fn is_open(error: &CallError) -> bool {
    error.fate() == Fate::Unknown && *error != CallError::Refused(ServerError::Interrupted)
}
