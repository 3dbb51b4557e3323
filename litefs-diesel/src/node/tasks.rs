//! The tasks of a node, on its I/O thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use litefs_core::{NodeName, Role, Tracker};
use litefs_rpc::client::Client;
use litefs_rpc::server::{Server, ServerConfig};

use super::follow::follow;
use super::loss_detector::LossDetector;
use super::own_name::name_or_host;
use super::serve::{ServerStarter, serve_once_mounted};
use super::{Node, address_table};

impl Node {
    pub(super) fn starter(&self) -> ServerStarter {
        ServerStarter {
            tracker: self.tracker.clone(),
            address: self.options.listen,
            config: {
                let mut config = ServerConfig::new(self.options.config.database_name());
                config.secret.clone_from(&self.options.secret);
                config.allow_insecure = self.options.allow_insecure;
                config.limits = self.options.limits.clone();
                config.prove_commits = self.options.prove_commits;
                config
            },
            database_url: self.options.config.database_url().to_owned(),
            hook: self.options.on_connection.clone(),
            retention: self.options.outcome_retention,
            procedures: Arc::clone(&self.options.procedures),
            server: Arc::clone(&self.server),
            checkpointer: Arc::clone(&self.checkpointer),
        }
    }

    /// Spawns the tasks. They own parts of the node, never the node itself, which could not be
    /// dropped otherwise.
    pub(super) fn spawn_tasks(&self) {
        if self.options.serve {
            self.io.spawn(serve_once_mounted(self.starter()));
        }
        let client = Arc::clone(self.forwarder.client());
        self.io.spawn(leave_former_primaries(self.tracker.clone(), client));
        let report = {
            let (tracker, server, advertised) =
                (self.tracker.clone(), Arc::clone(&self.server), self.advertised());
            move || {
                let own = name_or_host(&tracker);
                let serves = server.lock().is_ok_and(|server| server.is_some());
                (own.to_string(), serves.then(|| advertised(&own)))
            }
        };
        let (tracker, forwarder, read_throttle) =
            (self.tracker.clone(), Arc::clone(&self.forwarder), Arc::clone(&self.read_throttle));
        let stop = self.tracker.stopped();
        let loss_detector = LossDetector {
            ack_log: Arc::clone(&self.ack_log),
            tracker: self.tracker.clone(),
            table: Arc::clone(&self.forwarder.locator().table),
            database_url: self.options.config.database_url().to_owned(),
            on_lost_writes: self.options.on_lost_writes.clone(),
        };
        self.io.spawn(follow(tracker, forwarder, read_throttle, loss_detector, report, stop));
        if self.options.config.detectors().row {
            let table = Arc::clone(&self.forwarder.locator().table);
            let advertised = self.options.serve.then(|| self.advertised());
            self.io.spawn(address_table::keep(self.tracker.clone(), table, advertised));
        }
    }

    /// The address under which the other nodes reach this one.
    fn advertised(&self) -> impl Fn(&NodeName) -> String + Send + 'static {
        let (configured, fallback) = (self.options.advertise.clone(), self.options.listen);
        let server = Arc::clone(&self.server);
        move |node| {
            let listening =
                server.lock().ok().and_then(|server| server.as_deref().map(Server::address));
            advertised(configured.as_deref(), listening.unwrap_or(fallback), node)
        }
    }
}

/// How long a former primary may take to answer the calls in progress.
const FORMER_PRIMARY_GRACE: Duration = Duration::from_millis(200);

/// Closes the connection to a node that is not the primary any more, so that calls in progress go
/// to the new primary instead of waiting in vain.
async fn leave_former_primaries(tracker: Tracker, client: Arc<Client>) {
    let mut roles = tracker.subscribe();
    let mut last = None;
    loop {
        let primary = match &roles.borrow_and_update().role {
            Role::Replica { primary } => Some(primary.clone()),
            Role::Primary | Role::Standalone => None,
            // The same node may be named again.
            Role::Unknown => last.clone(),
        };
        if primary != last {
            last = primary;
            if let Some(connection) = client.current() {
                let still = last.as_ref().map(|primary| tracker.rpc_address(primary));
                if still.as_deref() != Some(connection.address()) {
                    tokio::spawn(async move {
                        tokio::time::sleep(FORMER_PRIMARY_GRACE).await;
                        connection.close();
                    });
                }
            }
        }
        tokio::select! {
            changed = roles.changed() => if changed.is_err() { return },
            () = tracker.stopped().cancelled_owned() => return,
        }
    }
}

/// The address for the other nodes: what was configured, a loopback address as it is, else this
/// node's name.
fn advertised(configured: Option<&str>, listening: SocketAddr, node: &NodeName) -> String {
    match configured {
        Some(address) => address.to_owned(),
        None if listening.ip().is_loopback() => listening.to_string(),
        None => format!("{}:{}", node.host(), listening.port()),
    }
}
