//! A replica: reads run locally, all other statements on the primary.

use litefs_diesel::{ConnectionManager, LiteFsConnection};
use litefs_tests::TestCluster;

use crate::{Fixture, Fresh};

const NODE: &str = "b";

pub struct Node(TestCluster);

impl Fixture for Node {
    type Conn = LiteFsConnection;
    type Manager = ConnectionManager;

    fn open() -> Self {
        Self(TestCluster::start(&["a", "b"]))
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
