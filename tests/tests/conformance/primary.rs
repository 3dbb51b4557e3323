//! The primary of a cluster: everything is local, and everything is replicated.

use litefs_diesel::{ConnectionManager, LiteFsConnection};
use litefs_tests::Bed;

use crate::{Fresh, Place};

const NODE: &str = "a";

pub struct Here(Bed);

impl Place for Here {
    type Conn = LiteFsConnection;
    type Manager = ConnectionManager;

    fn open() -> Self {
        Self(Bed::start(&["a", "b"]))
    }

    fn conn(&self) -> LiteFsConnection {
        self.0.conn(NODE)
    }

    fn manager(&self) -> ConnectionManager {
        self.0.litefs(NODE).connection_manager()
    }
}

pub type Conn = <Here as Place>::Conn;

fn fresh() -> Fresh<Here> {
    Fresh::with("")
}

fn fresh_with(script: &str) -> Fresh<Here> {
    Fresh::with(script)
}

#[path = "cases/mod.rs"]
mod cases;
