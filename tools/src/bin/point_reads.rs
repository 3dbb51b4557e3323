//! Reads one row repeatedly through the connection that the argument names, for tools that count
//! instructions: `.ci/instructions` runs it under callgrind, which counts the instructions of
//! [`read_points`] on its thread.
//!
//! ```text
//! point_reads litefs-replica|plain-replica|litefs-standalone|plain-standalone READS
//! ```

// The paths that `table!` generates violate this lint.
#![allow(unreachable_pub)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use diesel::connection::{LoadConnection, SimpleConnection};
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use litefs_diesel::{LiteFs, LiteFsConnection};
use litefs_testkit::{Cluster, Node};

type Problem = Box<dyn std::error::Error + Send + Sync>;

diesel::table! {
    /// The table that is read.
    items (id) {
        /// The key.
        id -> Integer,
        /// A short text.
        name -> Text,
    }
}

const DATABASE: &str = "reads.db";
const ROWS: i32 = 100;
/// Enough for a machine on which every instruction is counted.
const SYNC_LIMIT: Duration = Duration::from_secs(60);
const DDL: &str = "CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100)
    INSERT INTO items (id, name) SELECT i, 'item ' || i FROM n";

/// Reads one row repeatedly.
#[derive(Debug, Parser)]
struct Arguments {
    /// The connection and its file.
    through: Through,
    /// The number of reads.
    reads: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Through {
    /// `LiteFsConnection` on a replica.
    LitefsReplica,
    /// `SqliteConnection` on a replica's file.
    PlainReplica,
    /// `LiteFsConnection` on a file that is not on LiteFS.
    LitefsStandalone,
    /// `SqliteConnection` on such a file.
    PlainStandalone,
}

/// The counted function. Never inlined, so that callgrind can find it.
#[inline(never)]
fn read_points<C>(conn: &mut C, reads: i32) -> QueryResult<()>
where
    C: LoadConnection<Backend = Sqlite>,
{
    for read in 0..reads {
        let id = black_box(1 + read % ROWS);
        let name: String = items::table.find(id).select(items::name).get_result(conn)?;
        black_box(name);
    }
    Ok(())
}

fn on_replica(through: Through, reads: i32) -> Result<(), Problem> {
    let cluster = Cluster::builder().nodes(["primary", "replica"]).database(DATABASE).start()?;
    let (primary, replica) = (cluster.node("primary"), cluster.node("replica"));
    SqliteConnection::establish(&primary.database_url(DATABASE))?.batch_execute(DDL)?;
    cluster.wait_for_sync(SYNC_LIMIT)?;
    // Started for the plain connection too, so that only the connection differs.
    let (_primary, litefs) = (start(primary)?, start(replica)?);
    // After a write of the process, each read checks the position.
    diesel::insert_into(items::table)
        .values(items::name.eq("written"))
        .execute(&mut litefs.establish()?)?;
    let url = replica.database_url(DATABASE);
    match through {
        Through::LitefsReplica => read_points(&mut litefs.establish()?, reads)?,
        _ => read_points(&mut SqliteConnection::establish(&url)?, reads)?,
    }
    Ok(())
}

fn start(node: &Node) -> Result<LiteFs, Problem> {
    Ok(LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()).require_litefs(true))
        .listen(([127, 0, 0, 1], 0).into())
        .start()?)
}

fn standalone(through: Through, reads: i32) -> Result<(), Problem> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join(DATABASE);
    let path = path.to_str().ok_or("the path of the temporary directory is not UTF-8")?;
    SqliteConnection::establish(path)?.batch_execute(DDL)?;
    match through {
        Through::LitefsStandalone => read_points(&mut LiteFsConnection::establish(path)?, reads)?,
        _ => read_points(&mut SqliteConnection::establish(path)?, reads)?,
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<(), Problem> {
    match arguments.through {
        Through::LitefsReplica | Through::PlainReplica => {
            on_replica(arguments.through, arguments.reads)
        }
        Through::LitefsStandalone | Through::PlainStandalone => {
            standalone(arguments.through, arguments.reads)
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("point_reads: {problem}");
            ExitCode::FAILURE
        }
    }
}
