//! The JSON of the application's and LiteFS's HTTP APIs, defined here independently of the server.

use serde::{Deserialize, Serialize};

/// A row without its id, as it is posted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) city: String,
    pub(crate) state: String,
    pub(crate) country: String,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
    pub(crate) client_key: Option<String>,
}

impl New {
    /// A row with this key and a number.
    pub(crate) fn row(key: &str, number: u32) -> Self {
        Self {
            name: format!("Airfield of {key}"),
            city: "Hilo".into(),
            state: "HI".into(),
            country: "USA".into(),
            latitude: f64::from(number),
            longitude: -155.5,
            client_key: Some(key.to_owned()),
        }
    }

    pub(crate) fn with_id(self, id: String) -> Row {
        Row { id, new: self }
    }
}

/// A row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) new: New,
}

/// `GET /status` of the application: the fields that the scenarios use.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Status {
    pub(crate) counters: Counters,
    pub(crate) tracker: Tracker,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Counters {
    pub(crate) forwarded: u64,
    pub(crate) local_writes: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tracker {
    pub(crate) role: String,
    pub(crate) primary: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) position: Option<Position>,
    pub(crate) detectors: Vec<Detector>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Detector {
    pub(crate) name: String,
    pub(crate) state: String,
}

/// A node's replication position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Position {
    pub(crate) txid: u64,
    pub(crate) checksum: u64,
}

/// `GET /info` of LiteFS.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Info {
    #[serde(rename = "isPrimary")]
    pub(crate) is_primary: bool,
}

/// The transaction id in a position's text, `0000000000000007/c8d7f2c43a9c38cb`.
pub(crate) fn txid_of(position: &str) -> Option<u64> {
    u64::from_str_radix(position.split_once('/')?.0, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_flat_in_json() {
        let row = New::row("k", 7).with_id("1".into());
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!((json["id"].as_str(), json["latitude"].as_f64()), (Some("1"), Some(7.0)));
        assert_eq!(serde_json::from_value::<Row>(json).unwrap(), row);
    }

    #[test]
    fn the_txid_is_hexadecimal() {
        assert_eq!(txid_of("00000000000000ff/c8d7f2c43a9c38cb"), Some(255));
        assert_eq!(txid_of("7"), None);
    }
}
