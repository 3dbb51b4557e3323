//! The bare tarpc call that forwarding is compared with: the code that an application would need
//! without this library.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use diesel::result::QueryResult;
use diesel::sqlite::SqliteConnection;
use futures::StreamExt;
use litefs_examples::Problem;
use tarpc::client::RpcError;
use tarpc::context::Context;
use tarpc::serde_transport::Transport;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use super::{items, rows as item_rows};

#[tarpc::service]
trait Insert {
    /// Inserts a row. Returns the number of inserted rows.
    async fn insert(name: String, payload: String) -> Result<u64, String>;
    /// Answers as if it had inserted a row.
    async fn echo(name: String, payload: String) -> Result<u64, String>;
    /// Inserts this many rows in one call of Diesel. Returns the nanoseconds that it took.
    async fn bulk(rows: usize) -> Result<u64, String>;
}

/// Serves every connection until the runtime ends.
pub(super) async fn serve(
    listener: TcpListener,
    connection: Arc<Mutex<SqliteConnection>>,
) -> Result<(), Problem> {
    let inserter = Inserter(connection);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let frames = LengthDelimitedCodec::builder().new_framed(stream);
        let channel =
            BaseChannel::with_defaults(tarpc::serde_transport::new(frames, Bincode::default()));
        let requests = channel.execute(inserter.clone().serve());
        tokio::spawn(requests.for_each(|request| async {
            tokio::spawn(request);
        }));
    }
}

#[derive(Clone)]
struct Inserter(Arc<Mutex<SqliteConnection>>);

impl Inserter {
    async fn with<T: Send + 'static>(
        self,
        work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    ) -> Result<T, String> {
        let worked = tokio::task::spawn_blocking(move || {
            let mut conn = self.0.lock().map_err(|error| error.to_string())?;
            work(&mut conn).map_err(|error| error.to_string())
        });
        worked.await.map_err(|error| error.to_string())?
    }
}

impl Insert for Inserter {
    async fn insert(self, _: Context, name: String, payload: String) -> Result<u64, String> {
        self.with(move |conn| Ok(items::insert(conn, &name, &payload)? as u64)).await
    }

    async fn bulk(self, _: Context, rows: usize) -> Result<u64, String> {
        self.with(move |conn| {
            let started = Instant::now();
            item_rows::row_by_row(conn, rows)?;
            Ok(u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
        })
        .await
    }

    async fn echo(self, _: Context, _: String, _: String) -> Result<u64, String> {
        Ok(1)
    }
}

/// A caller that blocks its thread for each call. Clones share the connection.
#[derive(Clone)]
pub(super) struct Caller {
    client: InsertClient,
    runtime: Handle,
}

impl Caller {
    /// Connects on `runtime`, which drives the connection.
    pub(super) fn connect(runtime: Handle, server: SocketAddr) -> Result<Self, Problem> {
        let client = runtime.block_on(async {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            let frames = LengthDelimitedCodec::builder().new_framed(stream);
            let transport: Transport<_, _, _, _> =
                tarpc::serde_transport::new(frames, Bincode::default());
            Ok::<_, std::io::Error>(
                InsertClient::new(tarpc::client::Config::default(), transport).spawn(),
            )
        })?;
        Ok(Self { client, runtime })
    }

    /// Inserts a row on the server.
    pub(super) fn insert(&self, name: &str, payload: &str) -> Result<u64, Problem> {
        self.answer(self.client.insert(
            tarpc::context::current(),
            name.to_owned(),
            payload.to_owned(),
        ))
    }

    /// Sends a row to the server and back.
    pub(super) fn echo(&self, name: &str, payload: &str) -> Result<u64, Problem> {
        self.answer(self.client.echo(
            tarpc::context::current(),
            name.to_owned(),
            payload.to_owned(),
        ))
    }

    /// Makes the server insert many rows. Returns the nanoseconds that it took there.
    pub(super) fn bulk(&self, rows: usize) -> Result<u64, Problem> {
        self.answer(self.client.bulk(tarpc::context::current(), rows))
    }

    fn answer(
        &self,
        call: impl Future<Output = Result<Result<u64, String>, RpcError>>,
    ) -> Result<u64, Problem> {
        Ok(self.runtime.block_on(call)??)
    }
}
