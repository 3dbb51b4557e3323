//! The handles of this process, by path of the database, for `Connection::establish`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use super::Node;

static HANDLES: Mutex<Option<HashMap<PathBuf, Weak<Node>>>> = Mutex::new(None);

/// Enters a handle. `false` if there is one for this database already.
pub(crate) fn enter(database: &Path, node: &Arc<Node>) -> bool {
    with(|handles| {
        handles.retain(|_, known| known.strong_count() > 0);
        if handles.contains_key(database) {
            return false;
        }
        handles.insert(database.to_owned(), Arc::downgrade(node));
        true
    })
}

/// The handle for a database, whose path is that of a [`DatabaseUrl`](litefs_core::DatabaseUrl):
/// without links.
pub(crate) fn find(database: &Path) -> Option<Arc<Node>> {
    with(|handles| handles.get(database).and_then(Weak::upgrade))
}

fn with<T>(access: impl FnOnce(&mut HashMap<PathBuf, Weak<Node>>) -> T) -> T {
    access(
        HANDLES.lock().expect("no code panics while it holds the handles").get_or_insert_default(),
    )
}
