//! What an event says.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Checksum, Claim, NodeNameError, ParsePositionError, Position, Txid};

/// An event of LiteFS that matters here (LiteFS: `store.go`, `Event`).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// `init`, the first of each stream, or `primaryChange`.
    Role(Claim),
    /// `tx`: a transaction was committed, or applied on a replica.
    Transaction {
        /// The database's file name.
        database: String,
        /// Its position afterwards.
        position: Position,
    },
}

/// Why a message is not an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// It is not JSON, or lacks something.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// It has no `data`.
    #[error("the event has no data")]
    NoData,
    /// Its host name cannot be one.
    #[error(transparent)]
    Name(#[from] NodeNameError),
    /// Its TXID or checksum cannot be one.
    #[error(transparent)]
    Position(#[from] ParsePositionError),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    db: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RoleData {
    #[serde(rename = "isPrimary")]
    is_primary: bool,
    #[serde(default)]
    hostname: String,
}

#[derive(Deserialize)]
struct TransactionData<'a> {
    #[serde(rename = "txID")]
    txid: &'a str,
    #[serde(rename = "postApplyChecksum")]
    checksum: &'a str,
}

/// Parses one event: a line of the stream, or the data of a server-sent event. `None` for a type
/// that is not known.
///
/// # Errors
///
/// [`EventError`] if it is not JSON, or a known type lacks what it must have.
pub fn parse_event(message: &[u8]) -> Result<Option<Event>, EventError> {
    let envelope: Envelope<'_> = serde_json::from_slice(message)?;
    let data = || envelope.data.map(RawValue::get).ok_or(EventError::NoData);
    Ok(match envelope.kind.as_str() {
        "init" | "primaryChange" => {
            let data: RoleData = serde_json::from_str(data()?)?;
            Some(Event::Role(Claim::from_litefs(data.is_primary, &data.hostname)?))
        }
        "tx" => {
            let data: TransactionData<'_> = serde_json::from_str(data()?)?;
            let (txid, checksum): (Txid, Checksum) = (data.txid.parse()?, data.checksum.parse()?);
            Some(Event::Transaction {
                database: envelope.db,
                position: Position { txid, checksum },
            })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(message: &str) -> Claim {
        match parse_event(message.as_bytes()) {
            Ok(Some(Event::Role(claim))) => claim,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn d7_init_and_primary_change_say_who_is_primary() {
        for kind in ["init", "primaryChange"] {
            let event = |data: &str| role(&format!(r#"{{"type":"{kind}","data":{data}}}"#));
            let replica = |name: &str| Claim::Replica(name.parse().unwrap());
            assert_eq!(event(r#"{"isPrimary":true}"#), Claim::Primary);
            assert_eq!(event(r#"{"isPrimary":false,"hostname":"node-a"}"#), replica("node-a"));
            // D14: absent, or with a port.
            assert_eq!(event(r#"{"isPrimary":false}"#), Claim::NoPrimary);
            assert_eq!(
                event(r#"{"isPrimary":false,"hostname":"node-a:4000"}"#),
                replica("node-a:4000")
            );
        }
    }

    #[test]
    fn d8_a_transaction_tells_its_database_and_position() {
        let message = r#"{"type":"tx","db":"my.db","data":{"txID":"0000000000000001",
            "postApplyChecksum":"ab125b121374c4e2","pageSize":4096,"commit":2,
            "timestamp":"2026-11-20T10:31:25.599Z"}}"#;
        let Ok(Some(Event::Transaction { database, position })) = parse_event(message.as_bytes())
        else {
            panic!("not a transaction");
        };
        assert_eq!((database.as_str(), position.txid.get()), ("my.db", 1));
        assert_eq!(position.checksum.to_string(), "ab125b121374c4e2");
    }

    #[test]
    fn d9_unknown_types_are_nothing_whatever_they_carry() {
        for message in [r#"{"type":"x"}"#, r#"{"type":"heartbeat","data":[1,"é",{}]}"#] {
            assert!(matches!(parse_event(message.as_bytes()), Ok(None)), "{message}");
        }
    }

    #[test]
    fn d10_what_makes_no_sense_is_an_error() {
        let malformed = [
            "",
            "{",
            "null",
            "[]",
            r#"{"data":{}}"#,
            r#"{"type":"init"}"#,
            r#"{"type":"init","data":null}"#,
            r#"{"type":"init","data":{"hostname":"a"}}"#,
            r#"{"type":"init","data":{"isPrimary":"yes"}}"#,
            r#"{"type":"init","data":{"isPrimary":false,"hostname":"a b"}}"#,
            r#"{"type":"tx","db":"a","data":{"txID":"1","postApplyChecksum":"ab125b121374c4e2"}}"#,
            "{\"type\":\"\u{0}",
        ];
        for message in malformed {
            assert!(parse_event(message.as_bytes()).is_err(), "{message} was accepted");
        }
        assert!(parse_event(b"\xff\xfe").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = parse_event(&bytes);
        }
    }
}
