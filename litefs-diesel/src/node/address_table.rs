//! The tracking table: the row with the primary's address and the terms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use diesel::connection::{Connection, LoadConnection, SimpleConnection};
use diesel::result::QueryResult;
use diesel::row::Row as _;
use diesel::sqlite::SqliteConnection;
use litefs_core::{NodeName, Position, Role, RoleStamp, Tracker};
use litefs_rpc::diagnosis::Symptom;
use litefs_rpc::sqlite::{BoundQuery, is_misshapen, value};
use litefs_rpc::wire::Value;

use crate::loss::terms::{TERMS_BYTES, Term, parse_terms};
use crate::node::own_name::own_name;
use crate::options::Options;

/// The contents of the row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The primary's LiteFS host name.
    pub(crate) node: String,
    /// Where it takes writes.
    pub(crate) rpc_address: String,
}

/// Why the row is not written.
#[derive(Debug, PartialEq, Eq)]
enum Unclaimed {
    /// Something else is in the table's place. Says what to do.
    Unusable(String),
    /// SQLite or LiteFS refuses for now.
    NotYet(String),
}

/// The row cannot have changed as long as neither the role nor the position has.
type Moment = (RoleStamp, Option<Position>);

/// The table, by default `_litefs_primary`: one row, `id = 1`. Written by a node that becomes the
/// primary, and only if it says something else; replicated with everything else.
#[derive(Debug)]
pub(crate) struct TrackingTable {
    database: std::path::PathBuf,
    database_url: String,
    name: String,
    wal: bool,
    /// What was read last, and when. Locked while reading, so that concurrent callers share one
    /// read.
    last: Mutex<Option<(Moment, Option<Entry>)>>,
    /// How often the file was read.
    queries: AtomicU64,
}

impl TrackingTable {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            database: options.config.database().to_owned(),
            database_url: options.config.database_url().to_owned(),
            name: options.config.tracking_table().as_str().to_owned(),
            wal: options.wal,
            last: Mutex::default(),
            queries: AtomicU64::new(0),
        }
    }

    fn open(&self) -> Result<SqliteConnection, String> {
        let mut connection =
            SqliteConnection::establish(&self.database_url).map_err(|error| error.to_string())?;
        connection.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
        connection
            .batch_execute("PRAGMA busy_timeout = 2000")
            .map_err(|error| error.to_string())?;
        Ok(connection)
    }

    /// Writes `entry` unless it is there already, and adds the term. Blocks.
    fn claim(&self, entry: &Entry, term_start: Option<Position>) -> Result<(), Unclaimed> {
        let mut connection = self.open().map_err(Unclaimed::NotYet)?;
        let written = self.prepare(&mut connection).and_then(|()| {
            if self.select(&mut connection)?.as_ref() == Some(entry) {
                return Ok(true);
            }
            let rows = self.write(&mut connection, entry, term_start)?;
            Ok(rows == 1 && self.select(&mut connection)?.as_ref() == Some(entry))
        });
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(self.unusable(&"the row that was written to it is not there")),
            Err(error) if is_misshapen(&error, &self.name) => Err(self.unusable(&error)),
            Err(error) => Err(Unclaimed::NotYet(error.to_string())),
        }
    }

    fn write(
        &self,
        connection: &mut SqliteConnection,
        entry: &Entry,
        term_start: Option<Position>,
    ) -> QueryResult<usize> {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as i64);
        let sql = format!(
            "INSERT INTO {0} (id, node, rpc_address, since, terms) \
             VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE \
             SET node = excluded.node, rpc_address = excluded.rpc_address, \
             since = excluded.since, \
             terms = substr({0}.terms || ' ' || excluded.terms, -{TERMS_BYTES})",
            self.name
        );
        let node = entry.node.clone();
        let term = term_start.map(|term_start| Term { node: node.clone(), term_start }.to_string());
        let params = [
            Value::Text(node),
            Value::Text(entry.rpc_address.clone()),
            Value::Integer(since),
            Value::Text(term.unwrap_or_default()),
        ];
        connection.execute_returning_count(&BoundQuery::new(&sql, &params, false))
    }

    fn unusable(&self, why: &dyn std::fmt::Display) -> Unclaimed {
        Unclaimed::Unusable(format!(
            "the table {0} cannot keep this node's address, so replicas do not find the primary: \
             {why}. The table is the library's own: drop what is in its place on the primary (a \
             table or view of that name, a trigger on it), or set another name (tracking_table); \
             it is made again within a second",
            self.name
        ))
    }

    fn prepare(&self, connection: &mut SqliteConnection) -> QueryResult<()> {
        if self.wal {
            connection.batch_execute("PRAGMA journal_mode = WAL")?;
        }
        connection.batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS {} (id INTEGER PRIMARY KEY CHECK (id = 1), \
             node TEXT NOT NULL, rpc_address TEXT NOT NULL, since INTEGER NOT NULL, \
             terms TEXT NOT NULL DEFAULT '')",
            self.name
        ))?;
        self.add_terms_column(connection)
    }

    /// The first versions had no such column.
    fn add_terms_column(&self, connection: &mut SqliteConnection) -> QueryResult<()> {
        let columns = format!(
            "SELECT group_concat(name, ' ') = 'id node rpc_address since' \
             FROM pragma_table_info('{}')",
            self.name
        );
        let is_old = {
            let mut rows = connection.load(BoundQuery::new(&columns, &[], false))?;
            let row = rows.next().transpose()?;
            row.and_then(|row| row.get(0).map(|field| value(&field))) == Some(Value::Integer(1))
        };
        if !is_old {
            return Ok(());
        }
        let add = format!("ALTER TABLE {} ADD COLUMN terms TEXT NOT NULL DEFAULT ''", self.name);
        connection.batch_execute(&add)
    }

    /// Reads the row from the local file. `None` if there is no row, table or database yet. Blocks.
    fn read(&self) -> Option<Entry> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        // Only the primary may create the file.
        let mut connection = self.open_existing()?;
        self.select(&mut connection).ok().flatten()
    }

    /// The terms in the row of the local file, oldest first. Blocks.
    pub(crate) fn terms(&self) -> Vec<Term> {
        let sql = format!("SELECT terms FROM {} WHERE id = 1", self.name);
        let read = |mut connection: SqliteConnection| {
            let mut rows = connection.load(BoundQuery::new(&sql, &[], false)).ok()?;
            match value(&rows.next()?.ok()?.get(0)?) {
                Value::Text(text) => Some(parse_terms(&text)),
                _ => None,
            }
        };
        self.open_existing().and_then(read).unwrap_or_default()
    }

    /// Reads the row unless the one in memory is current. Blocks.
    fn read_if_changed(&self, tracker: &Tracker) -> Option<Entry> {
        let mut last = self.last.lock().expect("no code panics while it holds the entry");
        let now = (tracker.stamp(), tracker.read_position().ok());
        match &*last {
            Some((then, entry)) if *then == now => entry.clone(),
            _ => {
                let entry = self.read();
                *last = Some((now, entry.clone()));
                entry
            }
        }
    }

    fn open_existing(&self) -> Option<SqliteConnection> {
        self.database.is_file().then(|| self.open().ok()).flatten()
    }

    fn select(&self, connection: &mut SqliteConnection) -> QueryResult<Option<Entry>> {
        let sql = format!("SELECT node, rpc_address FROM {} WHERE id = 1", self.name);
        let mut rows = connection.load(BoundQuery::new(&sql, &[], false))?;
        let Some(row) = rows.next().transpose()? else { return Ok(None) };
        let text = |index: usize| match row.get(index).map(|field| value(&field)) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        Ok(text(0).zip(text(1)).map(|(node, rpc_address)| Entry { node, rpc_address }))
    }

    /// Reads the row if it may have changed, and passes the address to the tracker. `true` if the
    /// row is `primary`'s.
    pub(crate) async fn refresh(self: &Arc<Self>, tracker: &Tracker, primary: &NodeName) -> bool {
        let (table, asking) = (Arc::clone(self), tracker.clone());
        let entry = tokio::task::spawn_blocking(move || table.read_if_changed(&asking)).await;
        let Ok(Some(entry)) = entry else { return false };
        if entry.node != primary.as_ref() {
            return false;
        }
        tracker.learn_address(primary, &entry.rpc_address);
        true
    }
}

/// Keeps the row up to date while this node is the primary, and reads the primary's address from it
/// otherwise. Without `advertised` this process does not serve and does not write the row. Ends
/// when the tracker stops.
pub(crate) async fn keep(
    tracker: Tracker,
    table: Arc<TrackingTable>,
    advertised: Option<impl Fn(&NodeName) -> String>,
) {
    let mut roles = tracker.subscribe();
    loop {
        let state = roles.borrow_and_update().clone();
        let work = async {
            match &state.role {
                Role::Primary => {
                    if let Some(advertised) = &advertised {
                        claim_until_written(&tracker, &table, state.term_start, advertised).await;
                    }
                }
                Role::Replica { primary } => refresh_until_found(&tracker, &table, primary).await,
                Role::Standalone | Role::Unknown => {}
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { return },
            () = tracker.stopped().cancelled_owned() => return,
            () = work => {}
        }
    }
}

async fn claim_until_written(
    tracker: &Tracker,
    table: &Arc<TrackingTable>,
    term_start: Option<Position>,
    advertised: &impl Fn(&NodeName) -> String,
) {
    let (mut pause, mut logged) = (std::time::Duration::from_millis(20), String::new());
    loop {
        let node = own_name(tracker).await;
        let entry = Entry { node: node.to_string(), rpc_address: advertised(&node) };
        let writer = Arc::clone(table);
        let claimed = tokio::task::spawn_blocking(move || writer.claim(&entry, term_start)).await;
        match claimed {
            // A row with the machine's host name is written again once LiteFS's name is known.
            Ok(Ok(())) if tracker.own_name().is_some() || !tracker.config().detectors().info => {
                return;
            }
            Ok(Ok(())) => {}
            Ok(Err(Unclaimed::Unusable(error))) => {
                if logged != error {
                    tracing::error!("{error}");
                    logged = error;
                }
            }
            Ok(Err(Unclaimed::NotYet(error))) => {
                if Symptom::of(&error).is_suspicious() {
                    // A write that LiteFS rejects on a replica and a full disk fail alike.
                    tracker.confirm().await;
                }
                tracing::debug!(%error, "cannot write the tracking table yet");
            }
            Err(_) => return,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(std::time::Duration::from_secs(1));
    }
}

/// The new primary's row arrives by replication: it is read again after each transaction.
async fn refresh_until_found(tracker: &Tracker, table: &Arc<TrackingTable>, primary: &NodeName) {
    let mut positions = tracker.positions();
    loop {
        positions.borrow_and_update();
        if table.refresh(tracker, primary).await || positions.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
