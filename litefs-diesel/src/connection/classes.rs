//! The classes of the connection's statements.

use std::collections::HashSet;
use std::sync::Arc;

use diesel::query_builder::{QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sqlite::Sqlite;
use litefs_rpc::sqlite::sql::{SqlStatement, statements};

use super::local::Local;
use super::session_state::SessionState;
use crate::access::{Class, ClassCache, Footprint, classify_with};
use crate::bind::sql_of;
use crate::node::Node;

/// The classes of the statements that the connection has seen.
#[derive(Debug, Default)]
pub(super) struct Classes(ClassCache);

/// What SQLite is asked through for the class of a new statement.
pub(super) struct Classifier<'a> {
    pub(super) local: &'a mut Local,
    pub(super) session: &'a mut SessionState,
    /// `None` where there is no LiteFS.
    pub(super) node: Option<&'a Node>,
}

impl Classes {
    /// The class of a query. For one with a static id this is one lookup, and its text is not
    /// built.
    pub(super) fn of_query<T>(
        &mut self,
        classifier: &mut Classifier<'_>,
        query: &T,
    ) -> QueryResult<Class>
    where
        T: QueryFragment<Sqlite> + QueryId,
    {
        let Some(id) = T::query_id() else {
            return Ok(self.of_text(classifier, &sql_of(query)?));
        };
        if let Some(class) = self.0.by_id(id) {
            return Ok(class);
        }
        let class = classifier.classify_text(&sql_of(query)?);
        self.0.put_id(id, class);
        Ok(class)
    }

    pub(super) fn of_text(&mut self, classifier: &mut Classifier<'_>, sql: &str) -> Class {
        if let Some(class) = self.0.by_text(sql) {
            return class;
        }
        let class = classifier.classify_text(sql);
        self.0.put_text(sql.to_owned(), class);
        class
    }

    /// A transaction begins on this schema.
    pub(super) fn set_schema_version(&mut self, version: i64) {
        self.0.set_schema_version(version);
    }

    /// Whether the class is known, and [a plain read](Class::is_plain_read).
    #[inline]
    pub(super) fn is_plain_read<T: QueryId>(&self) -> bool {
        T::query_id().is_some_and(|id| self.0.is_plain_read(id))
    }

    /// What a statement reads and writes, if it was determined before.
    pub(super) fn footprint(&self, sql: &str) -> Option<Arc<Footprint>> {
        self.0.footprint(sql)
    }

    pub(super) fn put_footprint(&mut self, sql: String, footprint: Arc<Footprint>) {
        self.0.put_footprint(sql, footprint);
    }

    /// A temporary table may now stand where a real one did, or the other way round.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Classifier<'_> {
    pub(super) fn classify_text(&mut self, sql: &str) -> Class {
        match statements(sql).as_slice() {
            [] => Class::NOTHING,
            [statement] => self.classify_statement(statement),
            [first, ..] => Class { single: false, ..self.classify_statement(first) },
        }
    }

    pub(super) fn classify_statement(&mut self, statement: &SqlStatement<'_>) -> Class {
        let _muted = self.local.mute();
        self.session.before_explain(self.local, statement);
        let none = HashSet::new();
        let functions = match self.node {
            Some(node) => node.functions(self.local.sqlite()),
            None => Some(&none),
        };
        classify_with(self.local.sqlite(), functions, statement)
    }
}
