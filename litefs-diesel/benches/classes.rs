//! What it costs to know what a statement does: once, when SQLite is asked, and from then on, when
//! the class is looked up. Each figure is of the whole statement; `plain` is the same through
//! `SqliteConnection`.
//!
//! ```text
//! cargo bench -p litefs-diesel --bench classes
//! ```

use std::cell::Cell;
use std::time::Duration;

use diesel::connection::{LoadConnection, SimpleConnection};
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use divan::Bencher;
use libsqlite3_sys as _;
use litefs_diesel::{LiteFs, LiteFsConnection};
use litefs_rpc::sqlite::sql::statements;
use litefs_testkit::{Cluster, Node};

diesel::table! {
    /// What is read.
    notes (id) {
        /// The key.
        id -> Integer,
        /// A few bytes.
        text -> Text,
    }
}

const DATABASE: &str = "classes.db";
const DDL: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
    INSERT INTO notes (id, text) VALUES (1, 'one'), (2, 'two')";

fn main() {
    divan::main();
}

/// A replica, and what must stay while it is read.
struct Replica {
    litefs: LiteFs,
    url: String,
    _cluster: Cluster,
}

impl Replica {
    fn start() -> Self {
        let cluster = Cluster::builder().nodes(["primary", "replica"]).database(DATABASE).start();
        let cluster = cluster.expect("a cluster of this process");
        let url = cluster.node("primary").database_url(DATABASE);
        let mut primary = SqliteConnection::establish(&url).expect("the primary's database");
        primary.batch_execute(DDL).expect("a table");
        cluster.wait_for_sync(Duration::from_secs(10)).expect("the table on the replica");
        let replica = cluster.node("replica");
        let (litefs, url) = (handle(replica), replica.database_url(DATABASE));
        Self { litefs, url, _cluster: cluster }
    }

    fn through(&self) -> LiteFsConnection {
        self.litefs.establish().expect("the replica's database")
    }

    fn plain(&self) -> SqliteConnection {
        SqliteConnection::establish(&self.url).expect("the replica's database")
    }
}

fn handle(node: &Node) -> LiteFs {
    LiteFs::builder(&node.database_url(DATABASE))
        .tracker(|tracker| tracker.http_url(&node.http_url()).require_litefs(true))
        .serve(false)
        .start()
        .expect("a handle on the replica")
}

fn standalone() -> LiteFsConnection {
    let mut connection = LiteFsConnection::establish(":memory:").expect("a database in memory");
    connection.batch_execute(DDL).expect("a table");
    connection
}

fn plain() -> SqliteConnection {
    let mut connection = SqliteConnection::establish(":memory:").expect("a database in memory");
    connection.batch_execute(DDL).expect("a table");
    connection
}

/// A query with a static id: its class is one lookup, without its text.
fn by_id<C: LoadConnection<Backend = Sqlite>>(bencher: Bencher<'_, '_>, mut connection: C) {
    bencher.bench_local(|| {
        notes::table
            .find(divan::black_box(1))
            .select(notes::text)
            .get_result::<String>(&mut connection)
    });
}

/// A query without one: its class is looked up by its text.
fn by_text<C: LoadConnection<Backend = Sqlite>>(bencher: Bencher<'_, '_>, mut connection: C) {
    bencher.bench_local(|| {
        diesel::sql_query("SELECT text FROM notes WHERE id = 1").execute(&mut connection)
    });
}

/// Texts that were never seen: SQLite is asked what each does.
fn unseen<C: LoadConnection<Backend = Sqlite>>(bencher: Bencher<'_, '_>, mut connection: C) {
    let number = Cell::new(0_u64);
    bencher
        .with_inputs(|| {
            number.set(number.get() + 1);
            format!("SELECT text FROM notes WHERE id = {}", number.get())
        })
        .bench_local_values(|sql| diesel::sql_query(sql).execute(&mut connection));
}

#[divan::bench]
fn lexer(bencher: Bencher<'_, '_>) {
    let sql = "INSERT INTO `notes` (`id`, `text`) VALUES (?, ?) ON CONFLICT (`id`) DO UPDATE \
               SET `text` = ? RETURNING `id`";
    bencher.bench_local(|| statements(divan::black_box(sql)).len());
}

#[divan::bench]
fn by_id_replica(bencher: Bencher<'_, '_>) {
    let replica = Replica::start();
    by_id(bencher, replica.through());
}

#[divan::bench]
fn by_id_replica_plain(bencher: Bencher<'_, '_>) {
    let replica = Replica::start();
    by_id(bencher, replica.plain());
}

#[divan::bench]
fn by_id_standalone(bencher: Bencher<'_, '_>) {
    by_id(bencher, standalone());
}

#[divan::bench]
fn by_id_standalone_plain(bencher: Bencher<'_, '_>) {
    by_id(bencher, plain());
}

#[divan::bench]
fn by_text_replica(bencher: Bencher<'_, '_>) {
    let replica = Replica::start();
    by_text(bencher, replica.through());
}

#[divan::bench]
fn by_text_replica_plain(bencher: Bencher<'_, '_>) {
    let replica = Replica::start();
    by_text(bencher, replica.plain());
}

#[divan::bench]
fn unseen_replica(bencher: Bencher<'_, '_>) {
    let replica = Replica::start();
    unseen(bencher, replica.through());
}

#[divan::bench]
fn unseen_replica_plain(bencher: Bencher<'_, '_>) {
    let replica = Replica::start();
    unseen(bencher, replica.plain());
}
