//! What the wire format costs: one write there, its answer back, as bincode puts them into frames.
//!
//! ```text
//! cargo bench -p litefs-rpc --bench wire
//! ```

use bincode::Options;
use divan::Bencher;
use divan::counter::BytesCount;
use litefs_core::{Checksum, Position, Txid};
use litefs_rpc::wire::{
    Command, Delivery, Output, Reply, Request, RequestId, RowSet, SessionCounters, Settings,
    Statement, Value,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fn main() {
    divan::main();
}

/// As the transport sets it up, but for the limit.
fn format() -> impl Options {
    bincode::DefaultOptions::new()
}

/// An INSERT of one row, as most requests are.
fn request() -> Request {
    let text = |text: &str| Value::Text(text.to_owned());
    Request {
        id: RequestId::new(),
        delivery: Delivery::ExactlyOnce,
        again: false,
        settings: Settings::default(),
        work: Command::Execute(Statement {
            sql: "INSERT INTO `items` (`name`, `payload`, `stars`) VALUES (?, ?, ?)".to_owned(),
            params: vec![text("item 1"), text(&"x".repeat(100)), Value::Integer(5)],
            cacheable: true,
        }),
    }
}

fn reply(answer: Output) -> Reply {
    let position =
        Position { txid: Txid::new(123_456), checksum: Checksum::new(0x8000_1234_5678_9abc) };
    let effects =
        SessionCounters { last_insert_rowid: 42, changes: 1, total_changes: 1, inserted: true };
    Reply { answer, position: Some(position), effects }
}

/// The answer to an INSERT.
fn count() -> Reply {
    reply(Output::Count(1))
}

/// A hundred rows of three columns.
fn rows() -> Reply {
    let row = |id: i64| {
        [Value::Integer(id), Value::Text(format!("item {id}")), Value::Text("x".repeat(100))]
    };
    reply(Output::Rows(RowSet {
        columns: ["id", "name", "payload"].map(str::to_owned).into(),
        values: (0..100).flat_map(row).collect(),
    }))
}

fn encoding(bencher: Bencher<'_, '_>, message: &impl Serialize) {
    let size = format().serialized_size(message).expect("every message can be encoded");
    bencher
        .counter(BytesCount::new(usize::try_from(size).expect("a message fits into memory")))
        .bench_local(|| format().serialize(divan::black_box(message)));
}

fn decoding<T: Serialize + DeserializeOwned>(bencher: Bencher<'_, '_>, message: &T) {
    let bytes = format().serialize(message).expect("every message can be encoded");
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .bench_local(|| format().deserialize::<T>(divan::black_box(&bytes)));
}

#[divan::bench]
fn encode_request(bencher: Bencher<'_, '_>) {
    encoding(bencher, &request());
}

#[divan::bench]
fn decode_request(bencher: Bencher<'_, '_>) {
    decoding(bencher, &request());
}

#[divan::bench]
fn encode_reply(bencher: Bencher<'_, '_>) {
    encoding(bencher, &count());
}

#[divan::bench]
fn decode_reply(bencher: Bencher<'_, '_>) {
    decoding(bencher, &count());
}

#[divan::bench]
fn encode_rows(bencher: Bencher<'_, '_>) {
    encoding(bencher, &rows());
}

#[divan::bench]
fn decode_rows(bencher: Bencher<'_, '_>) {
    decoding(bencher, &rows());
}
