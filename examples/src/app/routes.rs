//! The routes.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use litefs_diesel::core::Status as TrackerStatus;
use serde::{Deserialize, Serialize};

use super::failure::Failed;
use super::meter::Counters;
use super::resource::{Changes, NewResource, Resource};
use super::{App, store};

/// The header that says whether the row was here (`yes`) or was downloaded and inserted for this request (`no`).
pub(crate) const STORED: HeaderName = HeaderName::from_static("x-stored");

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 1_000;

type Shared = State<Arc<App>>;
type Answer<T> = Result<Json<T>, Failed>;

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/resources", get(list).post(create))
        .route("/resources/{id}", get(show).put(replace).patch(change).delete(delete))
        .route("/status", get(status))
        .route("/status/forwards", get(forwards))
        .with_state(app)
}

/// A GET that writes: what is not here yet is downloaded and kept, on whichever node this is.
async fn show(
    State(app): Shared,
    Path(id): Path<String>,
) -> Result<([(HeaderName, &'static str); 1], Json<Resource>), Failed> {
    let wanted = id.clone();
    if let Some(found) = app.read(move |conn| store::find(conn, &wanted)).await? {
        return Ok(([(STORED, "yes")], Json(found)));
    }
    let downloaded = app.download(&id).await?;
    let kept = downloaded.clone();
    app.write(move |conn| store::keep(conn, &kept)).await?;
    Ok(([(STORED, "no")], Json(downloaded)))
}

/// The query of `GET /resources`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Page {
    /// Part of the name or the city.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) search: Option<String>,
    /// The last id of the page before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
    /// How many rows at most: 20 unless said, never more than 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
}

async fn list(State(app): Shared, Query(page): Query<Page>) -> Answer<Vec<Resource>> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT).clamp(0, MAX_LIMIT);
    let read = app.read(move |conn| store::list(conn, page.search.as_deref(), page.after.as_deref(), limit));
    Ok(Json(read.await?))
}

async fn create(
    State(app): Shared,
    Json(new): Json<NewResource>,
) -> Result<(StatusCode, Json<Resource>), Failed> {
    let created = app.write(move |conn| store::create(conn, &new)).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

async fn replace(
    State(app): Shared,
    Path(id): Path<String>,
    Json(with): Json<NewResource>,
) -> Answer<Resource> {
    let replaced = app.write(move |conn| store::replace(conn, &id, &with)).await?;
    replaced.map(Json).ok_or(Failed::NotFound)
}

async fn change(
    State(app): Shared,
    Path(id): Path<String>,
    Json(changes): Json<Changes>,
) -> Answer<Resource> {
    let changed = app.write(move |conn| store::change(conn, &id, &changes)).await?;
    changed.map(Json).ok_or(Failed::NotFound)
}

async fn delete(State(app): Shared, Path(id): Path<String>) -> Result<StatusCode, Failed> {
    let deleted = app.write(move |conn| store::delete(conn, &id)).await?;
    if deleted { Ok(StatusCode::NO_CONTENT) } else { Err(Failed::NotFound) }
}

/// `GET /status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    counters: Counters,
    round_trips: u64,
    tracker: TrackerStatus,
}

async fn status(State(app): Shared) -> Json<Status> {
    Json(Status {
        counters: app.meter.counters(),
        round_trips: app.litefs.round_trips(),
        tracker: app.litefs.tracker().status(),
    })
}

async fn forwards(State(app): Shared) -> Json<Vec<u32>> {
    Json(app.meter.forwards())
}
