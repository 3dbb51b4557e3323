//! Diesel's traits for connections.

use std::any::Any;
use std::sync::Arc;

use diesel::associations::HasTable;
use diesel::connection::{
    AnsiTransactionManager, CacheSize, Connection, ConnectionSealed, DefaultLoadingMode,
    Instrumentation, LoadConnection, MultiConnectionHelper, SimpleConnection, TransactionManager,
    WithMetadataLookup,
};
use diesel::expression::{QueryMetadata, ValidGrouping};
use diesel::migration::MigrationConnection;
use diesel::query_builder::{Query, QueryFragment, QueryId};
use diesel::query_dsl::UpdateAndFetchResults;
use diesel::r2d2::R2D2Connection;
use diesel::result::{ConnectionResult, QueryResult};
use diesel::sql_types::TypeMetadata;
use diesel::sqlite::{Sqlite, SqliteConnection};

use super::LiteFsConnection;
use super::cursor::Cursor;
use super::decide::phase::Phase;
use super::jobs::read;
use crate::failure::Failure;

impl SimpleConnection for LiteFsConnection {
    fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        match self.remote.clustered() {
            Some((node, _)) => {
                let node = Arc::clone(node);
                self.script_or_migration(&node, query)
            }
            None => {
                let result = self.local.batch_execute(query);
                self.transaction.note_conflict(&result);
                result
            }
        }
    }
}

impl ConnectionSealed for LiteFsConnection {}

impl Connection for LiteFsConnection {
    type Backend = Sqlite;
    type TransactionManager = AnsiTransactionManager;

    fn establish(database_url: &str) -> ConnectionResult<Self> {
        Self::for_url(database_url)
    }

    fn execute_returning_count<T>(&mut self, source: &T) -> QueryResult<usize>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        self.execute(source)
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        self.transaction.manager_mut()
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        self.local.instrumentation()
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.local.set_instrumentation(instrumentation);
    }

    fn set_prepared_statement_cache_size(&mut self, size: CacheSize) {
        self.local.set_cache_size(size);
    }
}

impl LoadConnection<DefaultLoadingMode> for LiteFsConnection {
    type Cursor<'conn, 'query> = Cursor<'conn, 'query>;
    type Row<'conn, 'query> = <SqliteConnection as LoadConnection>::Row<'conn, 'query>;

    fn load<'conn, 'query, T>(
        &'conn mut self,
        source: T,
    ) -> QueryResult<Self::Cursor<'conn, 'query>>
    where
        T: Query + QueryFragment<Sqlite> + QueryId + 'query,
        Sqlite: QueryMetadata<T::SqlType>,
    {
        match self.remote.clustered() {
            Some((node, stamp)) if self.is_fast_path::<T>(node, stamp) => {
                read(self.local.sqlite(), self.remote.node(), source)
            }
            Some((node, _)) => {
                let node = Arc::clone(node);
                self.slow_path(node, source)
            }
            None => {
                let result = self.local.sqlite().load(source);
                self.transaction.note_conflict(&result);
                Ok(Cursor::new(result?, None))
            }
        }
    }
}

impl LiteFsConnection {
    /// Whether a transaction is open that Diesel does not know of, and so does not end.
    fn is_left_open(&mut self) -> bool {
        let depth =
            AnsiTransactionManager::transaction_manager_status_mut(self).transaction_depth();
        depth.is_ok_and(|depth| depth.is_none())
            && (self.phase() != Phase::Autocommit || !self.local.is_autocommit())
    }
}

impl WithMetadataLookup for LiteFsConnection {
    fn metadata_lookup(&mut self) -> &mut <Sqlite as TypeMetadata>::MetadataLookup {
        self.local.sqlite().metadata_lookup()
    }
}

impl R2D2Connection for LiteFsConnection {
    fn ping(&mut self) -> QueryResult<()> {
        self.end_migrating();
        if let Some(node) = self.remote.node() {
            self.local.check_mount(node)?;
        }
        if self.is_left_open() {
            return Err(Failure::TransactionLost.error(
                "a transaction was left open on this connection: open another one (a pool does so \
                 by itself)",
            ));
        }
        self.local.sqlite().ping()
    }

    fn is_broken(&mut self) -> bool {
        self.local.is_left_behind()
            || self.phase() == Phase::Lost
            || self.is_left_open()
            || AnsiTransactionManager::is_broken_transaction_manager(self)
    }
}

impl MultiConnectionHelper for LiteFsConnection {
    fn to_any<'a>(lookup: &mut <Sqlite as TypeMetadata>::MetadataLookup) -> &mut (dyn Any + 'a) {
        lookup
    }

    fn from_any(lookup: &mut dyn Any) -> Option<&mut <Sqlite as TypeMetadata>::MetadataLookup> {
        lookup.downcast_mut()
    }
}

impl MigrationConnection for LiteFsConnection {
    fn setup(&mut self) -> QueryResult<usize> {
        self.begin_migrating()
    }
}

impl<'b, Changes, Output> UpdateAndFetchResults<Changes, Output> for LiteFsConnection
where
    Changes: Copy + diesel::Identifiable,
    Changes: diesel::AsChangeset<Target = <Changes as HasTable>::Table>
        + diesel::query_builder::IntoUpdateTarget,
    Changes::Table: diesel::query_dsl::methods::FindDsl<Changes::Id>,
    diesel::dsl::Update<Changes, Changes>: diesel::query_dsl::methods::ExecuteDsl<LiteFsConnection>,
    diesel::dsl::Find<Changes::Table, Changes::Id>:
        diesel::query_dsl::LoadQuery<'b, LiteFsConnection, Output>,
    <Changes::Table as diesel::Table>::AllColumns: ValidGrouping<()>,
    <<Changes::Table as diesel::Table>::AllColumns as ValidGrouping<()>>::IsAggregate:
        diesel::expression::MixedAggregates<
                diesel::expression::is_aggregate::No,
                Output = diesel::expression::is_aggregate::No,
            >,
{
    fn update_and_fetch(&mut self, changeset: Changes) -> QueryResult<Output> {
        use diesel::RunQueryDsl;
        diesel::update(changeset).set(changeset).execute(self)?;
        <Changes::Table as diesel::query_dsl::methods::FindDsl<Changes::Id>>::find(
            Changes::table(),
            changeset.id(),
        )
        .get_result(self)
    }
}
