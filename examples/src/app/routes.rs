//! The routes.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponseParts, ResponseParts};
use axum::routing::{get, post};
use axum::{Json, Router};
use litefs_diesel::{Position, Status as TrackerStatus};
use serde::{Deserialize, Serialize};

use super::failure::Failed;
use super::meter::Counters;
use super::resource::{Changes, NewResource, Resource};
use super::{App, store};

/// The header that says whether the row was stored (`yes`) or was downloaded and inserted for this
/// request (`no`).
pub(crate) const STORED: HeaderName = HeaderName::from_static("x-stored");

/// The header with the position of the database that contains the request's write.
const POSITION: HeaderName = HeaderName::from_static("x-position");

const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 1_000;

type Shared = State<Arc<App>>;
type Answer<T> = Result<Json<T>, Failed>;
type Written<T> = Result<(WrittenAt, Json<T>), Failed>;

/// The position that contains a write. It is part of the response, for clients that read on another
/// node.
pub(super) struct WrittenAt(pub(super) Option<Position>);

impl IntoResponseParts for WrittenAt {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        let text = self.0.and_then(|position| HeaderValue::from_str(&position.to_string()).ok());
        parts.headers_mut().extend(text.map(|text| (POSITION, text)));
        Ok(parts)
    }
}

/// All routes.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/resources", get(list).post(create))
        .route("/resources/{id}", get(show).put(replace).patch(change).delete(delete))
        .route("/import", post(import))
        .route("/handoff", post(handoff))
        .route("/status", get(status))
        .route("/status/forwards", get(forwards))
        .with_state(app)
}

/// A GET that writes: a missing row is downloaded and stored, on any node.
async fn show(
    State(app): Shared,
    Path(id): Path<String>,
) -> Result<(WrittenAt, [(HeaderName, &'static str); 1], Json<Resource>), Failed> {
    let wanted = id.clone();
    if let Some(found) = app.read(move |conn| store::find(conn, &wanted)).await? {
        return Ok((WrittenAt(None), [(STORED, "yes")], Json(found)));
    }
    let downloaded = app.download(&id).await?;
    let kept = downloaded.clone();
    let (position, _) = app.write(move |conn| store::keep(conn, &kept)).await?;
    Ok((position, [(STORED, "no")], Json(downloaded)))
}

/// The query of `GET /resources`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Page {
    /// Part of the name or the city.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) search: Option<String>,
    /// The last id of the previous page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
    /// The number of rows: 20 by default, at most 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<i64>,
}

async fn list(State(app): Shared, Query(page): Query<Page>) -> Answer<Vec<Resource>> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT).clamp(0, MAX_LIMIT);
    let read = app
        .read(move |conn| store::list(conn, page.search.as_deref(), page.after.as_deref(), limit));
    Ok(Json(read.await?))
}

async fn create(
    State(app): Shared,
    Json(new): Json<NewResource>,
) -> Result<(StatusCode, WrittenAt, Json<Resource>), Failed> {
    let (position, created) = app.write(move |conn| store::create(conn, &new)).await?;
    Ok((StatusCode::CREATED, position, Json(created)))
}

/// Many rows at once: all of them, or none.
async fn import(State(app): Shared, Json(rows): Json<Vec<Resource>>) -> Written<usize> {
    let (position, count) = app.write(move |conn| store::import(conn, &rows)).await?;
    Ok((position, Json(count)))
}

async fn replace(
    State(app): Shared,
    Path(id): Path<String>,
    Json(with): Json<NewResource>,
) -> Written<Resource> {
    let (position, replaced) = app.write(move |conn| store::replace(conn, &id, &with)).await?;
    Ok((position, Json(replaced.ok_or(Failed::NotFound)?)))
}

async fn change(
    State(app): Shared,
    Path(id): Path<String>,
    Json(changes): Json<Changes>,
) -> Written<Resource> {
    let (position, changed) = app.write(move |conn| store::change(conn, &id, &changes)).await?;
    Ok((position, Json(changed.ok_or(Failed::NotFound)?)))
}

async fn delete(
    State(app): Shared,
    Path(id): Path<String>,
) -> Result<(StatusCode, WrittenAt, ()), Failed> {
    let (position, deleted) = app.write(move |conn| store::delete(conn, &id)).await?;
    if deleted { Ok((StatusCode::NO_CONTENT, position, ())) } else { Err(Failed::NotFound) }
}

/// `GET /status`.
#[derive(Debug, Serialize)]
pub(crate) struct Status {
    counters: Counters,
    round_trips: u64,
    tracker: TrackerStatus,
}

/// The query of `POST /handoff`.
#[derive(Debug, Default, Deserialize)]
struct Handoff {
    /// The node to promote; by default the most advanced replica.
    to: Option<String>,
}

/// Starts a handoff from any node. Returns the name of the new primary.
async fn handoff(State(app): Shared, Query(handoff): Query<Handoff>) -> Answer<String> {
    let litefs = app.litefs.clone();
    let handed =
        tokio::task::spawn_blocking(move || litefs.handoff(handoff.to.as_deref())).await??;
    Ok(Json(handed))
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
