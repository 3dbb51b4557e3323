//! Which databases this process has handles for, so that `Connection::establish` finds them by path.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::litefs::Shared;

static HANDLES: Mutex<Option<HashMap<PathBuf, Weak<Shared>>>> = Mutex::new(None);

/// Enters a handle. `false` if there is one for this database already.
pub(crate) fn enter(database: &Path, shared: &Arc<Shared>) -> bool {
    with(|handles| {
        handles.retain(|_, known| known.strong_count() > 0);
        let key = canonical(database);
        if handles.contains_key(&key) {
            return false;
        }
        handles.insert(key, Arc::downgrade(shared));
        true
    })
}

/// The handle for a database.
pub(crate) fn find(database: &Path) -> Option<Arc<Shared>> {
    with(|handles| handles.get(&canonical(database)).and_then(Weak::upgrade))
}

fn with<T>(look: impl FnOnce(&mut HashMap<PathBuf, Weak<Shared>>) -> T) -> T {
    look(HANDLES.lock().expect("no code panics while it holds the handles").get_or_insert_default())
}

/// The database itself may not exist yet; its directory does.
fn canonical(database: &Path) -> PathBuf {
    let parent = database.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, database.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => database.to_owned(),
    }
}
