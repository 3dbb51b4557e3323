//! Every query of the application, as one would write it with Diesel over plain SQLite.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sqlite::Sqlite;
use litefs_diesel::LiteFsConnection;

use super::failure::Failed;
use super::resource::{Changes, NewResource, Resource};
use super::schema::{self, resources};

/// How often a transaction is retried when other writers change the rows that it has read.
const ATTEMPTS: usize = 10;

pub(super) fn create_schema(conn: &mut LiteFsConnection) -> QueryResult<()> {
    conn.batch_execute(schema::DDL)
}

pub(super) fn find(conn: &mut LiteFsConnection, id: &str) -> QueryResult<Option<Resource>> {
    resources::table.find(id).select(Resource::as_select()).get_result(conn).optional()
}

/// Rows with ids above `after`, ordered by id, whose name or city contains `search`.
pub(super) fn list(
    conn: &mut LiteFsConnection,
    search: Option<&str>,
    after: Option<&str>,
    limit: i64,
) -> QueryResult<Vec<Resource>> {
    let mut query = resources::table.select(Resource::as_select()).into_boxed::<Sqlite>();
    if let Some(search) = search {
        let pattern = containing(search);
        let named = resources::name.like(pattern.clone()).escape('\\');
        query = query.filter(named.or(resources::city.like(pattern).escape('\\')));
    }
    if let Some(after) = after {
        query = query.filter(resources::id.gt(after));
    }
    query.order(resources::id).limit(limit).load(conn)
}

/// Stores a downloaded row. Two nodes may download the same row at the same time: the first one is
/// kept.
pub(super) fn keep(conn: &mut LiteFsConnection, resource: &Resource) -> QueryResult<usize> {
    diesel::insert_into(resources::table).values(resource).on_conflict_do_nothing().execute(conn)
}

pub(super) fn create(conn: &mut LiteFsConnection, new: &NewResource) -> QueryResult<Resource> {
    diesel::insert_into(resources::table)
        .values(new)
        .returning(Resource::as_returning())
        .get_result(conn)
}

/// Stores all `rows` in one transaction, or none if one of them exists already.
pub(super) fn import(conn: &mut LiteFsConnection, rows: &[Resource]) -> Result<usize, Failed> {
    conn.transaction_with_retry(ATTEMPTS, |conn| {
        let ids = rows.iter().map(|row| &row.id);
        let known: i64 =
            resources::table.filter(resources::id.eq_any(ids)).count().get_result(conn)?;
        if known > 0 {
            return Err(Failed::Exists(usize::try_from(known).unwrap_or(usize::MAX)));
        }
        rows.iter().try_fold(0, |count, row| {
            Ok(count + diesel::insert_into(resources::table).values(row).execute(conn)?)
        })
    })
}

pub(super) fn replace(
    conn: &mut LiteFsConnection,
    id: &str,
    with: &NewResource,
) -> QueryResult<Option<Resource>> {
    let row = diesel::update(resources::table.find(id)).set(with);
    row.returning(Resource::as_returning()).get_result(conn).optional()
}

pub(super) fn change(
    conn: &mut LiteFsConnection,
    id: &str,
    changes: &Changes,
) -> QueryResult<Option<Resource>> {
    if changes.is_empty() {
        return find(conn, id);
    }
    let row = diesel::update(resources::table.find(id)).set(changes);
    row.returning(Resource::as_returning()).get_result(conn).optional()
}

/// Returns whether a row was deleted.
pub(super) fn delete(conn: &mut LiteFsConnection, id: &str) -> QueryResult<bool> {
    diesel::delete(resources::table.find(id)).execute(conn).map(|count| count > 0)
}

/// A LIKE pattern in which the user's wildcards are escaped.
fn containing(text: &str) -> String {
    let escaped: String = text
        .chars()
        .flat_map(|c| matches!(c, '%' | '_' | '\\').then_some('\\').into_iter().chain([c]))
        .collect();
    format!("%{escaped}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> LiteFsConnection {
        let mut conn = LiteFsConnection::establish(":memory:").unwrap();
        create_schema(&mut conn).unwrap();
        conn
    }

    fn new(name: &str) -> NewResource {
        let (city, state, country) = ("Hilo".into(), "HI".into(), "USA".into());
        NewResource {
            name: name.into(),
            city,
            state,
            country,
            latitude: 19.7,
            longitude: -155.0,
            client_key: None,
        }
    }

    #[test]
    fn a_search_escapes_the_users_wildcards() {
        let mut conn = opened();
        for name in ["100% sure", "100 sure", "a_b", "a\\b"] {
            create(&mut conn, &new(name)).unwrap();
        }
        for (search, found) in [("0%", "100% sure"), ("a_", "a_b"), ("a\\", "a\\b")] {
            let rows = list(&mut conn, Some(search), None, 10).unwrap();
            assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), [found]);
        }
    }

    #[test]
    fn rows_are_created_changed_and_deleted() {
        let mut conn = opened();
        let row = create(&mut conn, &new("one")).unwrap();
        assert_eq!(find(&mut conn, &row.id).unwrap().as_ref(), Some(&row));
        let changes = Changes { name: Some("two".into()), ..Changes::default() };
        assert_eq!(change(&mut conn, &row.id, &changes).unwrap().unwrap().name, "two");
        assert_eq!(change(&mut conn, &row.id, &Changes::default()).unwrap().unwrap().name, "two");
        assert_eq!(replace(&mut conn, &row.id, &new("three")).unwrap().unwrap().name, "three");
        assert!(delete(&mut conn, &row.id).unwrap() && !delete(&mut conn, &row.id).unwrap());
        assert_eq!(replace(&mut conn, &row.id, &new("four")).unwrap(), None);
    }

    #[test]
    fn an_import_is_all_or_nothing() {
        let mut conn = opened();
        let rows = ["a", "b", "c"].map(|id| new(id).with_id(id.into()));
        assert_eq!(import(&mut conn, &rows[..2]).unwrap(), 2);
        assert!(matches!(import(&mut conn, &rows[1..]), Err(Failed::Exists(1))));
        assert_eq!(list(&mut conn, None, None, 10).unwrap(), rows[..2]);
    }

    #[test]
    fn a_second_download_changes_nothing() {
        let mut conn = opened();
        let row = new("one").with_id("ITO".into());
        assert_eq!(keep(&mut conn, &row).unwrap(), 1);
        assert_eq!(keep(&mut conn, &Resource { name: "two".into(), ..row.clone() }).unwrap(), 0);
        assert_eq!(list(&mut conn, None, None, 10).unwrap(), [row]);
    }
}
