//! Telemetry: scenario M9 of the acceptance list.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use diesel::prelude::*;
use litefs_tests::TestCluster;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

diesel::table! { notes { id -> Integer, text -> Text, } }

/// A recorded span: its fields, and whether it has ended.
#[derive(Debug, Default, Clone)]
struct Seen {
    fields: HashMap<String, String>,
    ended: bool,
}

#[derive(Clone, Default)]
struct Watcher(Arc<Mutex<HashMap<u64, Seen>>>);

impl Watcher {
    fn spans(&self) -> Vec<Seen> {
        self.0.lock().unwrap().values().cloned().collect()
    }
}

struct Fields<'a>(&'a mut Seen);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: tracing::Subscriber> Layer<S> for Watcher {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "litefs.forward" {
            let mut spans = self.0.lock().unwrap();
            attributes.record(&mut Fields(spans.entry(id.into_u64()).or_default()));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        if let Some(seen) = self.0.lock().unwrap().get_mut(&id.into_u64()) {
            values.record(&mut Fields(seen));
        }
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut spans = self.0.lock().unwrap();
        if let Some(mut seen) = spans.remove(&id.into_u64()) {
            seen.ended = true;
            // The registry reuses ids.
            let key = u64::MAX - spans.len() as u64;
            spans.insert(key, seen);
        }
    }
}

#[test]
fn m9_every_forward_is_one_span_and_ends() {
    let test = TestCluster::start(&["a", "b"]);
    test.schema("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)");
    let watcher = Watcher::default();
    let subscriber = tracing_subscriber::registry().with(watcher.clone());
    tracing::subscriber::with_default(subscriber, || {
        // Other tests of this process may have reached the spans while nothing listened.
        tracing::callsite::rebuild_interest_cache();
        let mut conn = test.conn("b");
        let _: Vec<i32> = notes::table.select(notes::id).load(&mut conn).unwrap();
        diesel::insert_into(notes::table)
            .values(notes::text.eq("x"))
            .execute(&mut test.conn("a"))
            .unwrap();
        assert!(watcher.spans().is_empty(), "local statements: {:?}", watcher.spans());

        diesel::insert_into(notes::table).values(notes::text.eq("y")).execute(&mut conn).unwrap();
        diesel::insert_into(notes::table)
            .values(notes::text.eq("y"))
            .execute(&mut conn)
            .unwrap_err();
    });
    let spans = watcher.spans();
    assert_eq!(spans.len(), 2, "{spans:?}");
    let mut outcomes: Vec<_> = spans.iter().map(|span| span.fields["outcome"].clone()).collect();
    outcomes.sort();
    assert_eq!(outcomes, ["\"error\"", "\"ok\""]);
    for span in &spans {
        assert!(span.ended, "{span:?}");
        assert_eq!(
            (span.fields["db"].as_str(), span.fields["access"].as_str()),
            ("\"app.db\"", "\"write\"")
        );
        assert_eq!(span.fields["primary"], "a");
        assert!(span.fields["duration_us"].parse::<u64>().unwrap() > 0);
        let failed = span.fields["outcome"] == "\"error\"";
        assert_eq!(span.fields.contains_key("reason"), failed, "{span:?}");
        assert!(!failed || span.fields["reason"].contains("UNIQUE"), "{span:?}");
    }
}
