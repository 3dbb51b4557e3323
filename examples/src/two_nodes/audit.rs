//! The verdict: compares the acknowledged writes with the rows of a node.

use std::collections::HashMap;

use super::ack_log::{AckLog, Known};
use crate::app::Resource;

/// The number of violations that are described; all are counted.
const MAX_DETAILS: usize = 10;

/// The violations on the nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Audit {
    /// Acknowledged writes that are missing: rows, changes, deletions.
    pub(super) lost: u64,
    /// Rows that exist more than once.
    pub(super) duplicated: u64,
    /// Descriptions of the first few violations.
    pub(super) details: Vec<String>,
}

impl Audit {
    /// Compares `ack_log` with all `rows` of the node called `node`.
    pub(super) fn check(
        &mut self,
        node: &str,
        ack_log: &AckLog,
        airports: &HashMap<String, Resource>,
        rows: &[Resource],
    ) {
        let by_id = group(rows, |row| Some(&row.id));
        let by_key = group(rows, |row| row.client_key.as_ref());
        for id in &ack_log.kept {
            let expected =
                airports.get(id).map_or(Known::Unknown, |airport| Known::Present(airport.clone()));
            self.row(node, id, &expected, found(&by_id, id));
        }
        for (key, known) in &ack_log.rows {
            self.row(node, key, known, found(&by_key, key));
        }
    }

    fn row(&mut self, node: &str, name: &str, known: &Known, found: &[&Resource]) {
        let surplus = found.len().saturating_sub(1) as u64;
        if surplus > 0 {
            self.duplicated += surplus;
            self.add_detail(format!("{node} has {name} {} times", found.len()));
        }
        let lost = match (known, found.first()) {
            (Known::Present(_), None) => "lacks",
            (Known::Present(expected), Some(actual)) if expected != *actual => {
                "lacks the last change of"
            }
            (Known::Deleted, Some(_)) => "still has the deleted row",
            _ => return,
        };
        self.lost += 1;
        self.add_detail(format!("{node} {lost} {name}"));
    }

    fn add_detail(&mut self, detail: String) {
        if self.details.len() < MAX_DETAILS {
            self.details.push(detail);
        }
    }
}

type Groups<'a> = HashMap<&'a str, Vec<&'a Resource>>;

fn group(rows: &[Resource], by: impl Fn(&Resource) -> Option<&String>) -> Groups<'_> {
    let mut groups = Groups::new();
    for row in rows {
        if let Some(name) = by(row) {
            groups.entry(name).or_default().push(row);
        }
    }
    groups
}

fn found<'a>(groups: &'a Groups<'a>, name: &str) -> &'a [&'a Resource] {
    groups.get(name).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, key: Option<&str>, city: &str) -> Resource {
        let text = String::new;
        Resource {
            id: id.into(),
            name: text(),
            city: city.into(),
            state: text(),
            country: text(),
            latitude: 0.0,
            longitude: 0.0,
            client_key: key.map(Into::into),
        }
    }

    fn verdict(known: Known, rows: &[Resource]) -> (u64, u64) {
        let ack_log = AckLog { rows: [("k".to_owned(), known)].into(), ..AckLog::default() };
        let mut audit = Audit::default();
        audit.check("n", &ack_log, &HashMap::new(), rows);
        (audit.lost, audit.duplicated)
    }

    #[test]
    fn acknowledged_rows_must_be_stored_once_and_unchanged() {
        let one = row("1", Some("k"), "Hilo");
        let again = row("2", Some("k"), "Hilo");
        let old = row("1", Some("k"), "Kona");
        let present = || Known::Present(one.clone());
        assert_eq!(verdict(present(), std::slice::from_ref(&one)), (0, 0));
        assert_eq!(verdict(present(), &[]), (1, 0));
        assert_eq!(verdict(present(), &[old]), (1, 0));
        assert_eq!(verdict(present(), &[one.clone(), again.clone()]), (0, 1));
        assert_eq!(verdict(Known::Deleted, &[]), (0, 0));
        assert_eq!(verdict(Known::Deleted, std::slice::from_ref(&one)), (1, 0));
        assert_eq!(verdict(Known::Unknown, &[]), (0, 0));
        assert_eq!(verdict(Known::Unknown, &[one.clone(), again]), (0, 1));
    }

    #[test]
    fn a_downloaded_row_must_be_stored_unchanged() {
        let hilo = row("ITO", None, "Hilo");
        let airports = HashMap::from([("ITO".to_owned(), hilo.clone())]);
        let ack_log = AckLog { kept: ["ITO".to_owned()].into(), ..AckLog::default() };
        for (rows, lost) in [(vec![hilo], 0), (vec![], 1), (vec![row("ITO", None, "Kona")], 1)] {
            let mut audit = Audit::default();
            audit.check("n", &ack_log, &airports, &rows);
            assert_eq!((audit.lost, audit.duplicated), (lost, 0));
        }
    }
}
