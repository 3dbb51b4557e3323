//! The list of cases. Each place compiles this module with its own `Conn`, `fresh` and
//! `fresh_with`.

use super::{Conn, fresh, fresh_with};

mod aggregates;
mod attached;
mod backups;
mod bulk;
mod connections;
mod conversions;
mod deletes;
mod errors;
mod inserts;
mod instrumentation;
mod migrations;
mod nested_transactions;
mod queries;
mod raw_sql;
mod returning;
mod schema_objects;
mod scripts;
mod session;
mod sqlite_features;
mod temporary;
mod transactions;
mod types;
mod updates;
mod upserts;
