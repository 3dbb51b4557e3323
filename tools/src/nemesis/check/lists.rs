//! The content of a node at the end, by list.

use std::collections::HashMap;

use crate::nemesis::history::{Key, Row, Value};

/// The places of one element: its list, its first index there, and its number of occurrences in all
/// lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: Key,
    /// The index among distinct elements.
    pub(super) index: usize,
    pub(super) count: u64,
}

/// The lists.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// As stored.
    stored: HashMap<Key, Vec<Row>>,
    /// Without repetitions.
    by_key: HashMap<Key, Vec<Row>>,
    places: HashMap<Value, Place>,
}

impl Lists {
    pub(super) fn of(rows: &[Row]) -> Self {
        let mut lists = Self::default();
        for row in rows {
            lists.stored.entry(row.key).or_default().push(row.clone());
            let list = lists.by_key.entry(row.key).or_default();
            let new = Place { key: row.key, index: list.len(), count: 0 };
            let place = lists.places.entry(row.value).or_insert(new);
            place.count += 1;
            if place.count == 1 {
                list.push(row.clone());
            }
        }
        lists
    }

    pub(super) fn place(&self, value: Value) -> Option<Place> {
        self.places.get(&value).copied()
    }

    /// A list without repetitions.
    pub(super) fn list(&self, key: Key) -> &[Row] {
        self.by_key.get(&key).map_or(&[], Vec::as_slice)
    }

    /// All elements and their places.
    pub(super) fn places(&self) -> impl Iterator<Item = (Value, Place)> {
        self.places.iter().map(|(value, place)| (*value, *place))
    }

    /// All lists as they are stored.
    pub(super) fn stored(&self) -> impl Iterator<Item = (Key, &[Row])> {
        self.stored.iter().map(|(key, list)| (*key, list.as_slice()))
    }
}
