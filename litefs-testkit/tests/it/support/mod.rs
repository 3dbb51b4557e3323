//! Helpers that the tests share.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};
use litefs_testkit::{Cluster, Node};

pub const DB: &str = "app.db";
pub const LIMIT: Duration = Duration::from_secs(5);

/// A cluster with the database and a table `item(id, name)` on every node.
pub fn cluster(nodes: &[&str]) -> Cluster {
    let cluster =
        Cluster::builder().nodes(nodes.iter().copied()).database(DB).start().expect("cluster");
    let primary = cluster.node(nodes[0]);
    connect(primary)
        .batch_execute("CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")
        .expect("table");
    cluster.wait_for_sync(LIMIT).expect("table everywhere");
    cluster
}

pub fn connect(node: &Node) -> SqliteConnection {
    connect_to(node, DB)
}

pub fn connect_to(node: &Node, database: &str) -> SqliteConnection {
    let mut conn = SqliteConnection::establish(&node.database_url(database)).expect("connection");
    conn.batch_execute("PRAGMA busy_timeout = 5000").expect("busy timeout");
    conn
}

pub fn insert(conn: &mut SqliteConnection, name: &str) -> QueryResult<usize> {
    sql_query("INSERT INTO item (name) VALUES (?)").bind::<Text, _>(name).execute(conn)
}

/// Inserts that many rows, each in a transaction.
pub fn insert_rows(conn: &mut SqliteConnection, rows: usize) {
    for _ in 0..rows {
        insert(conn, "row").expect("insert");
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

pub fn number(conn: &mut SqliteConnection, expression: &str) -> i64 {
    try_number(conn, expression).expect(expression)
}

pub fn try_number(conn: &mut SqliteConnection, expression: &str) -> QueryResult<i64> {
    sql_query(format!("SELECT ({expression}) AS number"))
        .get_result::<Number>(conn)
        .map(|row| row.number)
}

pub fn count(conn: &mut SqliteConnection) -> i64 {
    number(conn, "SELECT count(*) FROM item")
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    word: String,
}

pub fn word(conn: &mut SqliteConnection, expression: &str) -> String {
    sql_query(format!("SELECT {expression}")).get_result::<Word>(conn).expect(expression).word
}

/// The bytes of a special file.
pub fn special(node: &Node, name: &str) -> Option<String> {
    fs::read_to_string(node.dir().join(name)).ok()
}

/// Waits for a condition; the test fails if it does not come true.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// A raw HTTP exchange, for tests that compare every byte.
pub struct Http {
    pub head: String,
    reader: BufReader<TcpStream>,
}

impl Http {
    pub fn request(node_url: &str, method: &str, path: &str) -> Self {
        let addr = node_url.strip_prefix("http://").expect("http URL");
        let mut socket = TcpStream::connect(addr).expect("connect");
        socket.set_read_timeout(Some(LIMIT)).expect("timeout");
        write!(socket, "{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").expect("request");
        let mut reader = BufReader::new(socket);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(
                reader.read_line(&mut head).expect("header") > 0,
                "connection closed: {head:?}"
            );
        }
        Self { head, reader }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The next chunk of a chunked body; `None` if the connection breaks before one.
    pub fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.reader.read_line(&mut size).ok().filter(|count| *count > 0)?;
        let size = usize::from_str_radix(size.trim_end(), 16).expect("chunk size");
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).ok()?;
        chunk.truncate(size);
        Some(String::from_utf8(chunk).expect("UTF-8"))
    }

    /// The body of a response with a length.
    pub fn body(&mut self) -> String {
        let length = self.header("Content-Length").expect("length").parse().expect("number");
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).expect("body");
        String::from_utf8(body).expect("UTF-8")
    }
}
