//! The HTTP responses for a handler's failures.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use litefs_diesel::Failure;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("there is no such resource")]
    NotFound,
    #[error("{0} of these resources exist already")]
    Exists(usize),
    #[error("{0}")]
    Database(#[from] DieselError),
    #[error("no connection is free: {0}")]
    Pool(#[from] r2d2::Error),
    #[error("upstream: {0}")]
    Upstream(#[from] reqwest::Error),
    #[error("{0}")]
    Ended(#[from] tokio::task::JoinError),
}

impl Failed {
    /// 503 and 502 promise that nothing was applied; after any other 5xx the outcome is unknown.
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Exists(_) => StatusCode::CONFLICT,
            Self::Database(error) => status_of(error),
            Self::Pool(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Upstream(_) => StatusCode::BAD_GATEWAY,
            Self::Ended(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

fn status_of(error: &DieselError) -> StatusCode {
    use DatabaseErrorKind::{
        CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation,
    };
    match (Failure::of(error), error) {
        (Some(failure), _) if failure.may_retry() => StatusCode::SERVICE_UNAVAILABLE,
        (Some(Failure::OutcomeUnknown), _) => StatusCode::GATEWAY_TIMEOUT,
        (
            None,
            DieselError::DatabaseError(
                UniqueViolation | NotNullViolation | CheckViolation | ForeignKeyViolation,
                _,
            ),
        ) => StatusCode::CONFLICT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::warn!(%status, error = %self, "a request failed");
        }
        (status, format!("{self}\n")).into_response()
    }
}
