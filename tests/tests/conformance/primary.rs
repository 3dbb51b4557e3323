//! The primary of a cluster: everything is local, and everything is replicated.

use litefs_diesel::{ConnectionManager, LiteFsConnection};
use litefs_tests::Bed;

use crate::{Fresh, Place};

const NODE: &str = "a";

pub struct Here(Bed);

impl Place for Here {
    type Conn = LiteFsConnection;
    type Manager = ConnectionManager;

    fn open() -> Self {
        Self(Bed::start(&["a", "b"]))
    }

    fn conn(&self) -> LiteFsConnection {
        self.0.conn(NODE)
    }

    fn manager(&self) -> ConnectionManager {
        self.0.litefs(NODE).connection_manager()
    }
}

pub type Conn = <Here as Place>::Conn;

fn fresh() -> Fresh<Here> {
    Fresh::with("")
}

fn fresh_with(script: &str) -> Fresh<Here> {
    Fresh::with(script)
}

#[path = "cases/aggregates.rs"]
mod aggregates;
#[path = "cases/attached.rs"]
mod attached;
#[path = "cases/backups.rs"]
mod backups;
#[path = "cases/bulk.rs"]
mod bulk;
#[path = "cases/connections.rs"]
mod connections;
#[path = "cases/deletes.rs"]
mod deletes;
#[path = "cases/errors.rs"]
mod errors;
#[path = "cases/inserts.rs"]
mod inserts;
#[path = "cases/instrumentation.rs"]
mod instrumentation;
#[path = "cases/migrations.rs"]
mod migrations;
#[path = "cases/nested_transactions.rs"]
mod nested_transactions;
#[path = "cases/queries.rs"]
mod queries;
#[path = "cases/raw_sql.rs"]
mod raw_sql;
#[path = "cases/returning.rs"]
mod returning;
#[path = "cases/schema_objects.rs"]
mod schema_objects;
#[path = "cases/scripts.rs"]
mod scripts;
#[path = "cases/session.rs"]
mod session;
#[path = "cases/sqlite_features.rs"]
mod sqlite_features;
#[path = "cases/temporary.rs"]
mod temporary;
#[path = "cases/transactions.rs"]
mod transactions;
#[path = "cases/types.rs"]
mod types;
#[path = "cases/updates.rs"]
mod updates;
#[path = "cases/upserts.rs"]
mod upserts;
