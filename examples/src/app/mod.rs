//! The application: a few routes over one table.
//!
//! It does not know about primaries and replicas. It takes connections from a pool and writes on
//! them, in a GET too, on whichever node receives the request. Only this file uses LiteFS; the
//! other files would be the same over plain SQLite.

mod failure;
mod meter;
mod resource;
mod routes;
mod schema;
mod store;
mod trips;

use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::result::QueryResult;
use litefs_diesel::{ConnectionManager, LiteFs, LiteFsBuilder, LiteFsConnection};

use self::failure::Failed;
pub(crate) use self::meter::Counters;
use self::meter::Meter;
pub(crate) use self::resource::{Changes, NewResource, Resource};
use self::routes::WrittenAt;
pub(crate) use self::routes::{Page, STORED, router};
pub(crate) use self::trips::CountTrips;

/// Connections per node.
const POOL_SIZE: u32 = 8;
/// The busy timeout: how long a statement waits for another connection of this node.
const BUSY_TIMEOUT: &str = "PRAGMA busy_timeout = 5000";

/// State that the handlers share.
pub(crate) struct App {
    litefs: LiteFs,
    pool: r2d2::Pool<ConnectionManager>,
    meter: Meter,
    http: reqwest::Client,
    upstream: String,
}

impl App {
    /// Starts on the database of `litefs` and creates its schema, on the primary or on a replica.
    /// Blocks.
    pub(crate) fn start(
        litefs: LiteFsBuilder,
        upstream: String,
    ) -> Result<Arc<Self>, crate::Problem> {
        let litefs = litefs.on_connection(|conn| conn.batch_execute(BUSY_TIMEOUT)).start()?;
        let pool = r2d2::Pool::builder().max_size(POOL_SIZE).build(litefs.connection_manager())?;
        store::create_schema(&mut *pool.get()?)?;
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        Ok(Arc::new(Self { litefs, pool, meter: Meter::default(), http, upstream }))
    }

    pub(crate) fn litefs(&self) -> &LiteFs {
        &self.litefs
    }

    /// Runs a read on a connection of the pool, on a blocking thread.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut LiteFsConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, Failed> {
        self.run(Meter::read, read).await
    }

    /// Runs a write on a connection of the pool, on a blocking thread. Also returns the position of
    /// the write.
    async fn write<T: Send + 'static, E: Into<Failed> + Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&mut LiteFsConnection) -> Result<T, E> + Send + 'static,
    ) -> Result<(WrittenAt, T), Failed> {
        let litefs = self.litefs.clone();
        let and_where = move |conn: &mut LiteFsConnection| {
            write(conn).map_err(E::into).map(|done| (WrittenAt(litefs.position()), done))
        };
        self.run(Meter::write, and_where).await
    }

    async fn run<T: Send + 'static, E: Into<Failed> + Send + 'static>(
        self: &Arc<Self>,
        count: fn(&Meter, meter::Call),
        work: impl FnOnce(&mut LiteFsConnection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failed> {
        let app = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            let mut conn = app.pool.get()?;
            let call = meter::Call::start(&app.litefs);
            let result = work(&mut conn);
            count(&app.meter, call);
            result.map_err(E::into)
        });
        done.await?
    }

    /// Downloads resources that are not stored yet.
    async fn download(&self, id: &str) -> Result<Resource, Failed> {
        let mut url = reqwest::Url::parse(&self.upstream).map_err(|_| Failed::NotFound)?;
        url.path_segments_mut().map_err(|()| Failed::NotFound)?.extend(["resources", id]);
        let answer = self.http.get(url).send().await?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Err(Failed::NotFound);
        }
        Ok(answer.error_for_status()?.json().await?)
    }
}
