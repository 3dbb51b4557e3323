//! The events of LiteFS's `GET /events` (its `http/server.go` and `store.go`), and their listeners.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use crate::position::Position;
use crate::sync::locked;

/// The length of a listener's queue; LiteFS ends the stream of a listener that is further behind
/// (`store.go`, `subscriberBufferSize`).
pub(crate) const LISTENER_CAPACITY: usize = 1024;

/// One event, serialised in LiteFS's order of fields.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub(crate) enum Event {
    /// First on every stream.
    Init {
        /// The role.
        data: RoleData,
    },
    /// The role or the known primary changed.
    PrimaryChange {
        /// The role.
        data: RoleData,
    },
    /// A transaction was committed or applied.
    Tx {
        /// Name of the database.
        db: String,
        /// The transaction.
        data: TxData,
    },
}

/// `data` of `init` and `primaryChange`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RoleData {
    pub(crate) is_primary: bool,
    /// The primary's name on a replica; absent on the primary itself and when none is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hostname: Option<String>,
}

/// `data` of `tx`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TxData {
    #[serde(rename = "txID")]
    txid: String,
    post_apply_checksum: String,
    page_size: u32,
    commit: u32,
    timestamp: String,
}

impl TxData {
    pub(crate) fn new(position: Position, page_size: u32, commit: u32, timestamp_ms: u64) -> Self {
        Self {
            txid: format!("{:016x}", position.txid),
            post_apply_checksum: format!("{:016x}", position.checksum),
            page_size,
            commit,
            timestamp: rfc3339(timestamp_ms),
        }
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// RFC 3339 in UTC with the trailing zeros of the fraction trimmed, as Go's `time.RFC3339Nano`
/// prints it.
pub(crate) fn rfc3339(ms: u64) -> String {
    let at = time::OffsetDateTime::UNIX_EPOCH + std::time::Duration::from_millis(ms);
    let (date, clock) = (at.date(), at.time());
    let seconds = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second()
    );
    let fraction = format!(".{:03}", ms % 1000);
    format!("{seconds}{}Z", fraction.trim_end_matches('0').trim_end_matches('.'))
}

/// A message to a listener: the line of an event, or the order to break the connection.
#[derive(Debug, Clone)]
pub(crate) enum Delivery {
    /// The event's JSON, without a newline.
    Json(Bytes),
    /// Break the connection in the middle of the body.
    Cut,
}

/// The listeners of one node.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    senders: Mutex<Vec<mpsc::Sender<Delivery>>>,
}

impl Listeners {
    /// A new listener, which gets `init` first.
    pub(crate) fn add(&self, init: &Event) -> mpsc::Receiver<Delivery> {
        let (sender, receiver) = mpsc::channel(LISTENER_CAPACITY);
        // A new channel has room.
        let _ = sender.try_send(Delivery::Json(json(init)));
        locked(&self.senders).push(sender);
        receiver
    }

    /// Sends an event to all listeners. Listeners that are too far behind, or closed, are dropped,
    /// which ends their stream.
    pub(crate) fn send(&self, event: &Event) {
        let line = json(event);
        locked(&self.senders)
            .retain(|sender| sender.try_send(Delivery::Json(line.clone())).is_ok());
    }

    /// Breaks all open streams.
    pub(crate) fn cut(&self) {
        for sender in locked(&self.senders).drain(..) {
            let _ = sender.try_send(Delivery::Cut);
        }
    }
}

fn json(event: &Event) -> Bytes {
    serde_json::to_vec(event).expect("an event has string keys only").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(event: &Event) -> String {
        String::from_utf8(json(event).to_vec()).expect("JSON is UTF-8")
    }

    #[test]
    fn events_read_byte_for_byte_as_litefs_writes_them() {
        let role = |is_primary, hostname: Option<&str>| RoleData {
            is_primary,
            hostname: hostname.map(str::to_owned),
        };
        assert_eq!(
            text(&Event::Init { data: role(true, None) }),
            r#"{"type":"init","data":{"isPrimary":true}}"#
        );
        assert_eq!(
            text(&Event::PrimaryChange { data: role(false, Some("node-a")) }),
            r#"{"type":"primaryChange","data":{"isPrimary":false,"hostname":"node-a"}}"#
        );
        let position = Position { txid: 1, checksum: 0xab12_5b12_1374_c4e2 };
        let tx = Event::Tx {
            db: "my.db".into(),
            data: TxData::new(position, 4096, 2, 1_795_170_685_599),
        };
        assert_eq!(
            text(&tx),
            concat!(
                r#"{"type":"tx","db":"my.db","data":{"txID":"0000000000000001","#,
                r#""postApplyChecksum":"ab125b121374c4e2","pageSize":4096,"commit":2,"#,
                r#""timestamp":"2026-11-20T10:31:25.599Z"}}"#,
            )
        );
    }

    #[test]
    fn the_fraction_of_a_second_loses_its_trailing_zeros() {
        assert_eq!(rfc3339(1_795_170_685_980), "2026-11-20T10:31:25.98Z");
        assert_eq!(rfc3339(1_795_170_685_000), "2026-11-20T10:31:25Z");
    }

    #[test]
    fn a_listener_more_than_1024_events_behind_is_dropped() {
        let listeners = Listeners::default();
        let event = Event::Init { data: RoleData { is_primary: true, hostname: None } };
        let mut receiver = listeners.add(&event);
        (1..LISTENER_CAPACITY).for_each(|_| listeners.send(&event));
        assert_eq!(locked(&listeners.senders).len(), 1);
        listeners.send(&event);
        assert!(locked(&listeners.senders).is_empty());
        let delivered = std::iter::from_fn(|| receiver.try_recv().ok()).count();
        assert_eq!(delivered, LISTENER_CAPACITY);
    }
}
