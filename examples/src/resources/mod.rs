//! The application of [`two_nodes`](crate::two_nodes) by itself, on a real LiteFS mount.
//!
//! `resources` is started by LiteFS's `exec` on each node, or runs beside `litefs mount`. Its
//! database and its port come from arguments or the environment (`RESOURCES_*`); everything about
//! LiteFS comes from the library's own variables (`LITEFS_*`). Without LiteFS it is an application
//! on one SQLite file.
//!
//! `resources migrate` applies the migrations from any node, whether or not the application runs;
//! `resources upstream` is the service that the application downloads from.

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use litefs_diesel::LiteFs;
use tokio::net::TcpListener;

use crate::app::{self, App};
use crate::{Problem, process, telemetry, upstream};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!();

/// A small web application over one SQLite database, on a LiteFS mount.
#[derive(Debug, Parser)]
#[command(name = "resources")]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Args)]
struct Options {
    /// The database: a path on LiteFS's mount, or anywhere else for plain SQLite.
    #[arg(long, env = "RESOURCES_DATABASE", default_value = "/litefs/app.db", global = true)]
    database: String,
    /// The address for HTTP.
    #[arg(long, env = "RESOURCES_LISTEN", default_value = "127.0.0.1:8080", global = true)]
    listen: SocketAddr,
    /// The service to download missing rows from. Without it only stored rows are found.
    #[arg(long, env = "RESOURCES_UPSTREAM", default_value = "")]
    upstream: String,
}

/// The other functions of the program.
#[derive(Debug, Subcommand)]
enum Part {
    /// Applies the migrations, each once even if several nodes do so at the same time, and prints
    /// the applied ones as JSON.
    Migrate,
    /// Serves the data set that the application downloads from.
    Upstream,
}

/// Runs the application, or the part of it that the arguments name. Blocks until the process is
/// asked to end.
///
/// # Errors
/// Any error that prevents the start: no LiteFS where one is required, no database yet, a port in
/// use.
pub fn run(arguments: Arguments) -> Result<(), Problem> {
    telemetry::watch();
    let options = arguments.options;
    match arguments.part {
        None => serve(options),
        Some(Part::Migrate) => process::send(&migrate(&options.database)?),
        Some(Part::Upstream) => runtime()?.block_on(listen(options.listen, upstream::router()?)),
    }
}

fn serve(options: Options) -> Result<(), Problem> {
    // The same as `LiteFs::start`, which has no parameter for the application's connection hook.
    let app = App::start(LiteFs::builder(&options.database).from_env(), options.upstream)?;
    let litefs = app.litefs().clone();
    let served = runtime()?.block_on(listen(options.listen, app::router(app)));
    // LiteFS itself would hand off in the middle of writes, or not at all.
    match litefs.step_down() {
        Ok(Some(next)) => tracing::info!(next, "another node is the primary now"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "no other node became the primary"),
    }
    served
}

/// A second process on a node: it writes through the primary and does not serve other nodes.
/// Returns the versions that it applied.
fn migrate(database: &str) -> Result<Vec<String>, Problem> {
    let litefs = LiteFs::builder(database).from_env().serve(false).start()?;
    let mut conn = litefs.establish()?;
    Ok(conn.run_pending_migrations(MIGRATIONS)?.iter().map(ToString::to_string).collect())
}

async fn listen(address: SocketAddr, router: axum::Router) -> Result<(), Problem> {
    let bound = TcpListener::bind(address).await;
    let listener = bound.map_err(|error| format!("cannot listen on {address}: {error}"))?;
    process::serve_until_asked_to_end(listener, router).await
}

fn runtime() -> Result<tokio::runtime::Runtime, Problem> {
    Ok(tokio::runtime::Runtime::new()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_migration_runs_after_the_schema_was_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.db").to_str().unwrap().to_owned();
        drop(App::start(LiteFs::builder(&path), String::new()).unwrap());
        assert_eq!(migrate(&path).unwrap(), ["20260101000001"]);
        assert!(migrate(&path).unwrap().is_empty());
    }
}
