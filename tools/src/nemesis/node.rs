//! A node: an embedded LiteFS and an application that executes the clients' requests, in one
//! process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use litefs_core::Role;
use litefs_diesel::{
    ConnectionManager, Consistency, Delivery, LiteFs, LiteFsConnection, LostWrite, LostWrites,
};
use litefs_examples::Problem;
use litefs_examples::process::{self, Listening};
use litefs_testkit::Node;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::history::{Op, Outcome, Receipt, Row};
use super::store;

/// The database on all nodes.
pub(super) const DATABASE: &str = "app.db";
/// How long a node may wait for a primary and a copy of the database.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Connections per node.
const POOL_SIZE: u32 = 6;
/// Limits shorter than the defaults, so that clients have recovered from a fault before the next
/// one.
const PRIMARY_LIMIT: Duration = Duration::from_millis(1_500);
const FORWARD_LIMIT: Duration = Duration::from_millis(2_500);
const READ_LIMIT: Duration = Duration::from_millis(400);
const POOL_LIMIT: Duration = Duration::from_secs(3);

/// The arguments of a node.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The node's name.
    #[arg(long)]
    name: String,
    /// The mount directory of the LiteFS that runs in the process; it survives the process.
    #[arg(long, required_unless_present = "database", conflicts_with = "database")]
    dir: Option<PathBuf>,
    /// The database on the mount of another LiteFS.
    #[arg(long, requires = "litefs")]
    database: Option<String>,
    /// That LiteFS's base URL.
    #[arg(long)]
    litefs: Option<String>,
    /// The address under which the other nodes reach its server.
    #[arg(long)]
    advertise: String,
    /// Read the local file as it is.
    #[arg(long)]
    eventual: bool,
    /// Store no outcomes: a lost reply leaves the outcome of a write unknown.
    #[arg(long)]
    at_most_once: bool,
    /// Acknowledge a commit when SQLite has committed.
    #[arg(long)]
    unproven: bool,
}

/// The first message of a node: its LiteFS runs, and can be given a role.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mounted {
    /// Base URL of LiteFS's HTTP server.
    pub(super) litefs: String,
}

/// The second message of a node: it accepts writes of other nodes. [`Listening`] follows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serving {
    /// The address.
    pub(super) rpc: SocketAddr,
}

/// The message for each report of lost acknowledged writes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lost {
    /// Their acknowledgements.
    pub(super) lost: Vec<Receipt>,
}

impl From<&LostWrites> for Lost {
    fn from(lost: &LostWrites) -> Self {
        let receipt = |write: &LostWrite| Receipt {
            txid: write.position.txid.get(),
            position: write.position.to_string(),
            request: write.request.map(|request| request.to_string()),
        };
        Self { lost: lost.writes.iter().map(receipt).collect() }
    }
}

/// The content of a node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Holding {
    /// Operations that it has not finished.
    pub(super) under_way: u64,
    pub(super) rows: Vec<Row>,
}

struct App {
    litefs: LiteFs,
    pool: r2d2::Pool<ConnectionManager>,
    under_way: AtomicU64,
}

/// Serves until the parent process ends. The shared secret of the cluster is in the environment.
pub(super) fn run(arguments: &Arguments) -> Result<(), Problem> {
    let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(wanted).init();
    let (_node, place) = place(arguments)?;
    let app = App::start(&place, arguments)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = process::free_port().await?;
        process::send(&Listening { http: process::url_of(&listener)? })?;
        let routes = Router::new()
            .route("/op", post(operate))
            .route("/rows", get(rows))
            .route("/handoff", post(hand_off))
            .with_state(app);
        process::serve(listener, routes).await
    })
}

/// The database and its LiteFS.
struct Place {
    database: String,
    litefs: String,
}

/// The place, and a guard that must live as long as the place is used.
fn place(arguments: &Arguments) -> Result<(Option<Node>, Place), Problem> {
    if let (Some(database), Some(litefs)) = (&arguments.database, &arguments.litefs) {
        return Ok((None, Place { database: database.clone(), litefs: litefs.clone() }));
    }
    let dir = arguments.dir.as_deref().ok_or("a node needs a mount directory")?;
    let node = Node::builder(&arguments.name).dir(dir).database(DATABASE).start()?;
    process::send(&Mounted { litefs: node.http_url() })?;
    // `litefs mount` also starts the application only when the node is ready.
    node.wait_until(START_LIMIT, |now| {
        (now.is_primary || now.connected) && now.positions.contains_key(DATABASE)
    })?;
    let place = Place { database: node.database_url(DATABASE), litefs: node.http_url() };
    Ok((Some(node), place))
}

impl App {
    fn start(place: &Place, arguments: &Arguments) -> Result<Arc<Self>, Problem> {
        let reads =
            if arguments.eventual { Consistency::Eventual } else { Consistency::ReadYourWrites };
        let litefs = LiteFs::builder(&place.database)
            .from_env()
            .tracker(|tracker| tracker.http_url(&place.litefs).require_litefs(true))
            .listen(([127, 0, 0, 1], 0).into())
            .advertise(&arguments.advertise)
            .consistency(reads)
            .delivery(if arguments.at_most_once {
                Delivery::AtMostOnce
            } else {
                Delivery::ExactlyOnce
            })
            .primary_timeout(PRIMARY_LIMIT)
            .forward_timeout(FORWARD_LIMIT)
            .read_timeout(READ_LIMIT)
            .prove_commits(!arguments.unproven)
            // If the parent does not read it, the parent has ended, and this process will end as
            // well.
            .on_lost_writes(|lost| drop(process::send(&Lost::from(lost))))
            .start()?;
        let rpc = litefs.rpc_address().ok_or("a node that does not serve")?;
        process::send(&Serving { rpc })?;
        let pool = r2d2::Pool::builder()
            .max_size(POOL_SIZE)
            .connection_timeout(POOL_LIMIT)
            .build(litefs.connection_manager())?;
        if litefs.role() == Role::Primary {
            store::create_schema(&mut *pool.get()?)?;
        }
        Ok(Arc::new(Self { litefs, pool, under_way: AtomicU64::new(0) }))
    }

    fn operate(&self, op: &Op) -> Outcome {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        let outcome = match self.pool.get() {
            Err(error) => Outcome::Refused { why: error.to_string() },
            Ok(mut conn) => store::run(&mut conn, op),
        };
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        outcome
    }
}

/// An operation that panics leaves the counter up and is answered with 500: the run fails.
async fn operate(
    State(app): State<Arc<App>>,
    Json(op): Json<Op>,
) -> Result<Json<Outcome>, StatusCode> {
    let outcome = tokio::task::spawn_blocking(move || app.operate(&op)).await;
    outcome.map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn rows(State(app): State<Arc<App>>) -> Result<Json<Holding>, (StatusCode, String)> {
    let read = move || -> Result<Holding, Problem> {
        let under_way = app.under_way.load(Ordering::Acquire);
        let mut conn = app.pool.get()?;
        let rows = conn.on_local(|conn: &mut LiteFsConnection| store::all(conn))?;
        Ok(Holding { under_way, rows })
    };
    let unavailable = |error: String| (StatusCode::SERVICE_UNAVAILABLE, error);
    let held =
        tokio::task::spawn_blocking(read).await.map_err(|error| unavailable(error.to_string()))?;
    held.map(Json).map_err(|error| unavailable(error.to_string()))
}

/// Hands off to the most advanced replica.
async fn hand_off(State(app): State<Arc<App>>) -> Result<String, (StatusCode, String)> {
    let handed = tokio::task::spawn_blocking(move || app.litefs.handoff(None)).await;
    let refused = |error: String| (StatusCode::CONFLICT, error);
    handed.map_err(|error| refused(error.to_string()))?.map_err(|error| refused(error.to_string()))
}
