//! Looks, after each change of primary, whether the new one has what the former ones have acknowledged.

use std::sync::Arc;

use diesel::connection::Connection;
use diesel::sqlite::SqliteConnection;
use litefs_core::{NodeName, Position};

use crate::losses::{Acknowledged, Ledger, LostWrites, OnLostWrites, lost};

/// What it takes to look and to tell.
#[derive(Clone)]
pub(crate) struct Auditor {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) database_url: String,
    pub(crate) hear: Option<OnLostWrites>,
}

impl Auditor {
    /// `began`: where the reign of `primary` began. The local file is in its history, at least so far.
    pub(crate) async fn look(&self, primary: &NodeName, began: Position) {
        let former = self.ledger.of_former(primary);
        if former.is_empty() {
            return;
        }
        let (auditor, primary) = (self.clone(), primary.to_string());
        let looked = tokio::task::spawn_blocking(move || auditor.tell(former, began, primary)).await;
        if let Err(error) = looked {
            tracing::error!(%error, "whether acknowledged writes were lost could not be told");
        }
    }

    fn tell(&self, former: Vec<Acknowledged>, began: Position, primary: String) {
        let mut file = SqliteConnection::establish(&self.database_url).ok();
        if let Some(file) = &mut file {
            file.set_instrumentation(|_: diesel::connection::InstrumentationEvent<'_>| {});
        }
        let writes = lost(former, began, |id| {
            file.as_mut().and_then(|file| litefs_rpc::sqlite::is_applied(file, id).ok())
        });
        if writes.is_empty() {
            return;
        }
        metrics::counter!("litefs_lost_writes_total").increment(writes.len() as u64);
        tracing::error!(
            count = writes.len(),
            primary,
            first = %writes[0].position,
            "acknowledged writes are not in the new primary's history: the former one died before it had shipped them"
        );
        if let Some(hear) = &self.hear {
            hear(&LostWrites { primary, writes });
        }
    }
}
