//! The messages between nodes over TCP: a JSON head and, for transactions, the raw pages.
//!
//! This is the testkit's own protocol, not LiteFS's HTTP/2 stream. Frame: length of the head and of
//! the pages, 4 bytes each, little-endian; the head; the pages one after the other.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::image::Page;
use crate::position::Position;
use crate::transaction::Transaction;

/// The largest head that is accepted, in bytes.
const MAX_HEAD: u32 = 64 << 20;

/// How to reach a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// LiteFS's hostname of the node.
    pub name: String,
    /// Its `Litefs-Id`.
    pub id: String,
    /// Base URL of its HTTP server.
    pub http_url: String,
    /// Address, `host:port`, of its replication server.
    pub replication_addr: String,
}

/// One message.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// The first message of a replica.
    Hello { peer: Peer, positions: BTreeMap<String, Position> },
    /// The primary will send what the replica lacks.
    Accepted,
    /// It will not; the text is LiteFS's reason.
    Refused(String),
    /// Heartbeat, once a second.
    Heartbeat,
    /// A transaction or a snapshot.
    Transaction(Arc<Transaction>),
    /// The receiving replica is the primary from here on.
    Handoff,
    /// The primary handed its lease to this node.
    NewPrimary(Peer),
}

#[derive(Serialize, Deserialize)]
enum Head {
    Hello { peer: Peer, positions: BTreeMap<String, Position> },
    Accepted,
    Refused(String),
    Heartbeat,
    Transaction(TransactionHead),
    Handoff,
    NewPrimary(Peer),
}

#[derive(Serialize, Deserialize)]
struct TransactionHead {
    database: String,
    before: Option<Position>,
    after: Position,
    page_size: u32,
    commit: u32,
    timestamp_ms: u64,
    pages: Vec<u32>,
}

fn head_of(message: &Message) -> Head {
    match message.clone() {
        Message::Hello { peer, positions } => Head::Hello { peer, positions },
        Message::Accepted => Head::Accepted,
        Message::Refused(reason) => Head::Refused(reason),
        Message::Heartbeat => Head::Heartbeat,
        Message::Handoff => Head::Handoff,
        Message::NewPrimary(peer) => Head::NewPrimary(peer),
        Message::Transaction(tx) => Head::Transaction(TransactionHead {
            database: tx.database.clone(),
            before: tx.before,
            after: tx.after,
            page_size: tx.page_size,
            commit: tx.commit,
            timestamp_ms: tx.timestamp_ms,
            pages: tx.pages.keys().copied().collect(),
        }),
    }
}

fn message_of(head: Head, payload: &[u8]) -> io::Result<Message> {
    Ok(match head {
        Head::Hello { peer, positions } => Message::Hello { peer, positions },
        Head::Accepted => Message::Accepted,
        Head::Refused(reason) => Message::Refused(reason),
        Head::Heartbeat => Message::Heartbeat,
        Head::Handoff => Message::Handoff,
        Head::NewPrimary(peer) => Message::NewPrimary(peer),
        Head::Transaction(head) => Message::Transaction(Arc::new(transaction_of(head, payload)?)),
    })
}

fn transaction_of(head: TransactionHead, payload: &[u8]) -> io::Result<Transaction> {
    let page_size = head.page_size as usize;
    if page_size == 0 || payload.len() != head.pages.len() * page_size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "pages do not fit the head"));
    }
    let pages =
        head.pages.into_iter().zip(payload.chunks_exact(page_size).map(Page::from)).collect();
    Ok(Transaction {
        database: head.database,
        before: head.before,
        after: head.after,
        page_size: head.page_size,
        commit: head.commit,
        timestamp_ms: head.timestamp_ms,
        pages,
    })
}

/// Sends `message`. Blocks while the peer's buffers are full.
pub(crate) fn send(to: &mut impl Write, message: &Message) -> io::Result<()> {
    let head = serde_json::to_vec(&head_of(message))?;
    let pages = match message {
        Message::Transaction(tx) => {
            tx.pages.values().map(|page| &**page).collect::<Vec<_>>().concat()
        }
        _ => Vec::new(),
    };
    let lengths = [(head.len() as u32).to_le_bytes(), (pages.len() as u32).to_le_bytes()].concat();
    to.write_all(&[lengths, head, pages].concat())
}

/// Receives a message. Blocks until there is one.
pub(crate) fn receive(from: &mut impl Read) -> io::Result<Message> {
    let mut lengths = [0; 8];
    from.read_exact(&mut lengths)?;
    let (head, pages) = lengths.split_at(4);
    let length = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    if length(head) > MAX_HEAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "head too long"));
    }
    let (mut head, mut pages) = (vec![0; length(head) as usize], vec![0; length(pages) as usize]);
    from.read_exact(&mut head)?;
    from.read_exact(&mut pages)?;
    message_of(serde_json::from_slice(&head)?, &pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_received_as_sent() {
        let sent = Transaction {
            database: "app.db".into(),
            before: Some(Position { txid: 1, checksum: u64::MAX }),
            after: Position { txid: 2, checksum: 1 << 63 },
            page_size: 512,
            commit: 9,
            timestamp_ms: 5,
            pages: [(1, vec![1; 512].into()), (9, vec![9; 512].into())].into(),
        };
        let mut bytes = Vec::new();
        send(&mut bytes, &Message::Transaction(Arc::new(sent.clone()))).expect("send");
        let Message::Transaction(got) = receive(&mut bytes.as_slice()).expect("receive") else {
            panic!("not a transaction")
        };
        assert_eq!(
            (got.before, got.after, got.commit, &got.pages),
            (sent.before, sent.after, 9, &sent.pages)
        );
    }

    #[test]
    fn pages_that_do_not_fit_the_head_are_refused() {
        let head = r#"{"Transaction":{"database":"d","before":null,"after":{"txid":1,"checksum":1},
            "page_size":512,"commit":1,"timestamp_ms":0,"pages":[1]}}"#;
        let mut bytes = [(head.len() as u32).to_le_bytes(), 3u32.to_le_bytes()].concat();
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(b"abc");
        assert!(receive(&mut bytes.as_slice()).is_err());
    }
}
