//! Connections and pools for `diesel_async` (feature `async`).

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::r2d2::R2D2Connection;
use diesel::result::{ConnectionError, ConnectionResult, Error, QueryResult};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod,
};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use futures::FutureExt;

use crate::connection::LiteFsConnection;
use crate::handle::LiteFs;

/// A [`LiteFsConnection`] for `diesel_async`: its statements run on tokio's threads for blocking
/// work.
pub type AsyncLiteFsConnection = SyncConnectionWrapper<LiteFsConnection>;

impl LiteFs {
    /// A manager for the pools of `diesel_async` (deadpool, bb8, mobc) whose connections belong to
    /// this handle. It keeps the handle alive. The pools open and check connections on tokio's
    /// threads for blocking work, and replace those that [`ping`](R2D2Connection::ping) refuses.
    ///
    /// ```no_run
    /// # async fn make(litefs: litefs_diesel::LiteFs) -> Result<(), Box<dyn std::error::Error>> {
    /// use diesel_async::pooled_connection::deadpool::Pool;
    ///
    /// let pool = Pool::builder(litefs.async_connection_manager()).max_size(4).build()?;
    /// let conn = pool.get().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn async_connection_manager(&self) -> AsyncDieselConnectionManager<AsyncLiteFsConnection> {
        let litefs = self.clone();
        let mut config = ManagerConfig::default();
        config.custom_setup = Box::new(move |_url| {
            let litefs = litefs.clone();
            async move { litefs.establish_async().await }.boxed()
        });
        config.recycling_method = RecyclingMethod::CustomFunction(Box::new(|connection| {
            connection.spawn_blocking(check)
        }));
        let database = self.tracker().config().url().to_string();
        AsyncDieselConnectionManager::new_with_config(database, config)
    }

    /// Opens a connection for `diesel_async`, without blocking the caller's thread. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// Those of [`establish`](Self::establish).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn establish_async(&self) -> ConnectionResult<AsyncLiteFsConnection> {
        let litefs = self.clone();
        let opened = tokio::task::spawn_blocking(move || litefs.establish()).await;
        let opened = opened.map_err(|error| ConnectionError::BadConnection(error.to_string()))?;
        opened.map(SyncConnectionWrapper::new)
    }
}

/// Runs a transaction on an asynchronous connection up to `tries` times, while it fails because of
/// a conflict: the asynchronous form of
/// [`transaction_with_retry`](LiteFsConnection::transaction_with_retry), with the same rules.
///
/// If the future is dropped while a transaction is open, the connection is broken, as after
/// `diesel_async`'s own `transaction`.
///
/// ```no_run
/// # diesel::table! { counters { id -> Integer, n -> Integer, } }
/// # async fn example(conn: &mut litefs_diesel::AsyncLiteFsConnection) -> diesel::QueryResult<()> {
/// use diesel::prelude::*;
/// use diesel_async::RunQueryDsl;
///
/// litefs_diesel::transaction_with_retry_async(conn, 10, async |conn| {
///     let n: i32 = counters::table.find(1).select(counters::n).first(conn).await?;
///     diesel::update(counters::table.find(1)).set(counters::n.eq(n + 1)).execute(conn).await
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// Those of `work`, of BEGIN and of COMMIT; after the last try the failure itself.
pub async fn transaction_with_retry_async<T, E, F>(
    conn: &mut AsyncLiteFsConnection,
    tries: usize,
    mut work: F,
) -> Result<T, E>
where
    F: AsyncFnMut(&mut AsyncLiteFsConnection) -> Result<T, E>,
    E: From<Error>,
{
    let mut done = 0;
    loop {
        let begun = conn.spawn_blocking(move |conn| conn.begin_try(done)).await;
        let result = match begun {
            Ok(()) => match work(conn).await {
                Ok(value) => {
                    let committed = conn.spawn_blocking(AnsiTransactionManager::commit_transaction);
                    committed.await.map(|()| value).map_err(E::from)
                }
                Err(error) => {
                    conn.spawn_blocking(AnsiTransactionManager::rollback_transaction).await?;
                    Err(error)
                }
            },
            Err(error) => Err(error.into()),
        };
        done += 1;
        if result.is_ok()
            || done >= tries
            || !conn.spawn_blocking(|conn| Ok(conn.may_try_again())).await?
        {
            return result;
        }
    }
}

/// Whether a pool may hand a connection out again.
fn check(connection: &mut LiteFsConnection) -> QueryResult<()> {
    connection.ping()?;
    if connection.is_broken() { Err(Error::BrokenTransactionManager) } else { Ok(()) }
}
