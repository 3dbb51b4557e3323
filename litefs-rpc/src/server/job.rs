//! What the handlers ask of the writer.

use std::sync::mpsc::Receiver;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::wire::{
    Begin, Command, Reply, Request, RequestId, ResolvedOutcome, ServerError, SessionId,
};

/// The result of the statement that was sent with BEGIN.
pub(super) type First = Result<Reply, ServerError>;
pub(super) type Respond<T> = oneshot::Sender<Result<T, ServerError>>;

/// A job for the writer.
#[derive(Debug)]
pub(super) enum Job {
    Write(Write),
    ResolveOutcome {
        id: RequestId,
        deadline: Instant,
        respond: Respond<ResolvedOutcome>,
    },
    Handoff {
        to: Option<String>,
        deadline: Instant,
        respond: Respond<String>,
    },
    Begin {
        begin: Begin,
        deadline: Instant,
        opened: Opened,
        respond: Respond<(SessionId, Option<First>)>,
    },
}

/// A queued write.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) request: Request,
    pub(super) deadline: Instant,
    pub(super) respond: Respond<Reply>,
}

/// An entry of the session table, with the receiving end of its statements.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) id: SessionId,
    pub(super) steps: Receiver<Step>,
}

/// What a session's connection asks of the open transaction.
#[derive(Debug)]
pub(super) enum Step {
    Run { work: Command, respond: Respond<Reply> },
    Finish { commit: bool, respond: Respond<Reply> },
}

impl Job {
    /// Whether the job is one statement outside a transaction.
    pub(super) fn is_single_statement(&self) -> bool {
        match self {
            Job::Write(write) => {
                matches!(write.request.work, Command::Execute(_) | Command::Query(_))
            }
            _ => false,
        }
    }
}
