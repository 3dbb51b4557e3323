//! Starts an incarnation of a node: its files, servers and threads.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::context::{Context, Identity};
use crate::engine::{Engine, primary, replica};
use crate::error::Error;
use crate::faults::Faults;
use crate::special::CORRUPT_MARKER;
use crate::sync::Signal;
use crate::{http, vfs};

/// How long a restarted node waits for its ports: the servers of the last incarnation close in the
/// background.
const BIND_LIMIT: Duration = Duration::from_secs(5);

/// 16 random upper-case hexadecimal digits.
pub(crate) fn random_id() -> String {
    // The standard library's hash seeds are random numbers.
    format!("{:016X}", RandomState::new().build_hasher().finish())
}

/// Starts an incarnation of the node on these addresses.
pub(crate) fn launch(
    identity: &Identity,
    http_addr: &str,
    replication_addr: &str,
    faults: &Arc<Faults>,
    signal: &Arc<Signal>,
) -> Result<Arc<Engine>, Error> {
    fs::create_dir_all(&identity.data_dir).map_err(Error::io("create the data directory"))?;
    if identity.data_dir.join(CORRUPT_MARKER).exists() {
        return Err(Error::Corrupt(identity.name.clone()));
    }
    let identity = Identity { id: random_id(), ..identity.clone() };
    let (http, replication) = (bind(http_addr)?, bind(replication_addr)?);
    start(Context::new(identity, Arc::clone(faults), Arc::clone(signal)), http, replication)
}

/// Starts a node on bound listeners. It has no role yet.
fn start(
    context: Context,
    http: TcpListener,
    replication: TcpListener,
) -> Result<Arc<Engine>, Error> {
    let engine = Engine::open(context, address(&http)?, address(&replication)?)?;
    engine.keep_server(http::serve(http, &engine)?);
    vfs::mount(&engine)?;
    spawn(&engine, "accept", move |engine| primary::accept(&engine, &replication))?;
    spawn(&engine, "follow", |engine| replica::run(&engine))?;
    spawn(&engine, "lag", |engine| engine.keep_lag())?;
    Ok(engine)
}

fn address(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(Error::io("local address"))
}

fn spawn(
    engine: &Arc<Engine>,
    task: &str,
    run: impl FnOnce(Arc<Engine>) + Send + 'static,
) -> Result<(), Error> {
    let engine = Arc::clone(engine);
    let builder = thread::Builder::new().name(format!("{}-{task}", engine.peer.name));
    builder.spawn(move || run(engine)).map(drop).map_err(Error::io("start a thread"))
}

fn bind(addr: &str) -> Result<TcpListener, Error> {
    let began = Instant::now();
    loop {
        match TcpListener::bind(addr) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < BIND_LIMIT =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            bound => return bound.map_err(Error::io(format!("listen on {addr}"))),
        }
    }
}
