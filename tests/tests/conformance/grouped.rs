//! The primary of a cluster whose own writes go through the writer (`LocalWrites::Grouped`).

use litefs_diesel::{ConnectionManager, LiteFsConnection, LocalWrites};
use litefs_tests::Bed;

use crate::{Fresh, Place};

const NODE: &str = "a";

pub struct Here(Bed);

impl Place for Here {
    type Conn = LiteFsConnection;
    type Manager = ConnectionManager;

    fn open() -> Self {
        Self(Bed::configured(&["a", "b"], |_, builder| builder.local_writes(LocalWrites::Grouped)))
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
