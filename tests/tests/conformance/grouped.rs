//! The primary of a cluster whose own writes go through the group writer (`LocalWrites::Grouped`).

use litefs_diesel::{ConnectionManager, LiteFsConnection, LocalWrites};
use litefs_tests::TestCluster;

use crate::{Fixture, Fresh};

const NODE: &str = "a";

pub struct Node(TestCluster);

impl Fixture for Node {
    type Conn = LiteFsConnection;
    type Manager = ConnectionManager;

    fn open() -> Self {
        Self(TestCluster::configured(&["a", "b"], |_, builder| {
            builder.local_writes(LocalWrites::Grouped)
        }))
    }

    fn conn(&self) -> LiteFsConnection {
        self.0.conn(NODE)
    }

    fn manager(&self) -> ConnectionManager {
        self.0.litefs(NODE).connection_manager()
    }
}

pub type Conn = <Node as Fixture>::Conn;

fn fresh() -> Fresh<Node> {
    Fresh::with("")
}

fn fresh_with(script: &str) -> Fresh<Node> {
    Fresh::with(script)
}

#[path = "cases/mod.rs"]
mod cases;
