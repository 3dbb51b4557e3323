//! The service that the application downloads from: it serves the data set at `GET
//! /resources/{id}`.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;

use crate::app::Resource;
use crate::process::{self, Listening};
use crate::{Problem, airports};

type ById = Arc<HashMap<String, Resource>>;

/// Serves until the parent process ends.
///
/// # Errors
/// If no port is available.
pub(crate) fn run() -> Result<(), Problem> {
    let router = router()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = process::free_port().await?;
        process::send(&Listening { http: process::url_of(&listener)? })?;
        process::serve(listener, router).await
    })
}

/// The only route.
///
/// # Errors
/// If the data set is malformed.
pub(crate) fn router() -> Result<Router, Problem> {
    let by_id: ById = Arc::new(
        airports::all()?.into_iter().map(|airport| (airport.id.clone(), airport)).collect(),
    );
    Ok(Router::new().route("/resources/{id}", get(show)).with_state(by_id))
}

async fn show(
    State(by_id): State<ById>,
    Path(id): Path<String>,
) -> Result<Json<Resource>, StatusCode> {
    by_id.get(&id).cloned().map(Json).ok_or(StatusCode::NOT_FOUND)
}
