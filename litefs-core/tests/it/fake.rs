//! A fake LiteFS: real files in a directory, `/info` and `/events` on a real socket.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use litefs_core::{Config, ConfigBuilder, Role, Tracker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// The server's reply to a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// 200 with this body; on `/events` the body stays open afterwards.
    Body(String),
    /// This status without a body.
    Status(u16),
    /// Never answers.
    Silence,
    /// Closes the connection after the head of the response.
    CloseAtOnce,
}

#[derive(Debug, Clone)]
enum Push {
    Chunk(Vec<u8>),
    Cut,
}

struct Script {
    info: Reply,
    events: Reply,
    content_type: &'static str,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) info: usize,
    pub(crate) events: usize,
    /// Open event streams.
    pub(crate) open: usize,
}

struct Server {
    script: Mutex<Script>,
    push: broadcast::Sender<Push>,
    counts: watch::Sender<Counts>,
}

pub(crate) struct FakeLiteFs {
    pub(crate) dir: tempfile::TempDir,
    server: Arc<Server>,
    address: SocketAddr,
    listening: Option<JoinHandle<()>>,
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

pub(crate) fn replica(name: &str) -> Role {
    Role::Replica { primary: name.parse().unwrap() }
}

pub(crate) async fn becomes(tracker: &Tracker, role: Role) {
    let found = tracker.wait_for_role(|found| *found == role, soon()).await;
    assert!(found.is_ok(), "expected {role}, still {}", tracker.role());
}

impl FakeLiteFs {
    /// A mount with a `.lag`, as LiteFS always has it; `/info` and `/events` answer 404 until they
    /// are set.
    pub(crate) async fn start() -> Self {
        let litefs = Self::without_mount().await;
        litefs.write(".lag", "+000000000\n");
        litefs
    }

    /// The HTTP server only, with an empty directory.
    pub(crate) async fn without_mount() -> Self {
        let missing = Reply::Status(404);
        let script =
            Script { info: missing.clone(), events: missing, content_type: "application/json" };
        let server = Arc::new(Server {
            script: Mutex::new(script),
            push: broadcast::channel(1000).0,
            counts: watch::Sender::new(Counts::default()),
        });
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (address, listening) = listen(any, Arc::clone(&server)).await;
        Self { dir: tempfile::tempdir().unwrap(), server, address, listening: Some(listening) }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }

    /// A configuration with short intervals, and defaults otherwise.
    pub(crate) fn config(&self) -> ConfigBuilder {
        self.config_for("app.db")
    }

    pub(crate) fn config_for(&self, database: &str) -> ConfigBuilder {
        let ms = Duration::from_millis;
        Config::builder(self.path().join(database))
            .http_url(&format!("http://{}", self.address))
            .poll_interval(ms(10))
            .reconnect_min(ms(5))
            .reconnect_max(ms(20))
            .debounce(ms(5))
    }

    pub(crate) async fn track(&self, config: ConfigBuilder) -> Tracker {
        Tracker::start(config.build().unwrap()).await.unwrap()
    }

    pub(crate) fn info(&self, reply: Reply) {
        self.server.script.lock().unwrap().info = reply;
    }

    /// Makes `/info` answer as LiteFS does.
    pub(crate) fn info_says(&self, is_primary: bool, hostname: &str) {
        self.info_from("/var/lib/litefs-of-a-test", is_primary, hostname);
    }

    pub(crate) fn info_from(&self, path: &str, is_primary: bool, hostname: &str) {
        self.info(Reply::Body(format!(
            r#"{{"clusterID":"","isPrimary":{is_primary},"candidate":true,"path":"{path}",
                "primary":{{"hostname":"{hostname}"}}}}"#
        )));
    }

    pub(crate) fn events(&self, reply: Reply) {
        self.server.script.lock().unwrap().events = reply;
    }

    /// Makes `/events` begin with this `init`.
    pub(crate) fn events_begin(&self, data: &str) {
        self.events(Reply::Body(format!("{{\"type\":\"init\",\"data\":{data}}}\n")));
    }

    pub(crate) fn content_type(&self, content_type: &'static str) {
        self.server.script.lock().unwrap().content_type = content_type;
    }

    /// Sends one HTTP chunk on every stream.
    pub(crate) fn send(&self, chunk: impl AsRef<[u8]>) {
        assert!(
            self.server.push.send(Push::Chunk(chunk.as_ref().to_vec())).is_ok(),
            "no stream is open"
        );
    }

    pub(crate) fn primary_change(&self, data: &str) {
        self.send(format!("{{\"type\":\"primaryChange\",\"data\":{data}}}\n"));
    }

    pub(crate) fn tx(&self, database: &str, position: &str) {
        let (txid, checksum) = position.split_once('/').unwrap();
        self.send(format!(
            "{{\"type\":\"tx\",\"db\":\"{database}\",\"data\":\
             {{\"txID\":\"{txid}\",\"postApplyChecksum\":\"{checksum}\"}}}}\n"
        ));
    }

    /// Cuts every open event stream in the middle of its body.
    pub(crate) fn cut(&self) {
        let _ = self.server.push.send(Push::Cut);
    }

    pub(crate) fn counts(&self) -> Counts {
        *self.server.counts.borrow()
    }

    pub(crate) async fn wait_counts(&self, wanted: impl FnMut(&Counts) -> bool) -> Counts {
        let mut counts = self.server.counts.subscribe();
        let found = tokio::time::timeout_at(soon(), counts.wait_for(wanted)).await;
        *found.expect("the requests did not arrive").unwrap()
    }

    /// Refuses new connections and cuts the open ones.
    pub(crate) async fn refuse(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
        self.cut();
    }

    pub(crate) async fn accept(&mut self) {
        self.listening = Some(listen(self.address, Arc::clone(&self.server)).await.1);
    }
}

impl Drop for FakeLiteFs {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

/// Another process may take the port between a refusal and the next acceptance.
async fn bind(address: SocketAddr) -> TcpListener {
    let deadline = soon();
    loop {
        match TcpListener::bind(address).await {
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(10)).await
            }
            bound => return bound.unwrap(),
        }
    }
}

async fn listen(address: SocketAddr, server: Arc<Server>) -> (SocketAddr, JoinHandle<()>) {
    let listener = bind(address).await;
    let address = listener.local_addr().unwrap();
    let listening = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let server = Arc::clone(&server);
            tokio::spawn(async move { drop(serve(socket, &server).await) });
        }
    });
    (address, listening)
}

async fn serve(mut socket: TcpStream, server: &Server) -> std::io::Result<()> {
    let path = request_path(&mut socket).await?;
    let (reply, content_type) = {
        let script = server.script.lock().unwrap();
        let reply = if path == "/info" { script.info.clone() } else { script.events.clone() };
        (reply, script.content_type)
    };
    let count =
        |counts: &mut Counts| if path == "/info" { counts.info += 1 } else { counts.events += 1 };
    server.counts.send_modify(count);
    let head =
        |status: u16, rest: &str| format!("HTTP/1.1 {status} X\r\nConnection: close\r\n{rest}\r\n");
    match reply {
        Reply::Silence => drop(socket.read_u8().await),
        Reply::Status(status) => {
            socket.write_all(head(status, "Content-Length: 0\r\n").as_bytes()).await?;
        }
        Reply::CloseAtOnce => {
            socket.write_all(head(200, "Transfer-Encoding: chunked\r\n").as_bytes()).await?;
        }
        Reply::Body(body) if path == "/info" => {
            let length = format!("Content-Type: text/plain\r\nContent-Length: {}\r\n", body.len());
            socket.write_all(format!("{}{body}", head(200, &length)).as_bytes()).await?;
        }
        Reply::Body(body) => {
            let rest = format!("Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n");
            socket.write_all(head(200, &rest).as_bytes()).await?;
            let pushes = server.push.subscribe();
            server.counts.send_modify(|counts| counts.open += 1);
            let end = stream(&mut socket, body, pushes).await;
            server.counts.send_modify(|counts| counts.open -= 1);
            end?;
        }
    }
    Ok(())
}

async fn request_path(socket: &mut TcpStream) -> std::io::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(socket.read_u8().await?);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    Ok(request.split(' ').nth(1).unwrap_or_default().to_owned())
}

async fn stream(
    socket: &mut TcpStream,
    body: String,
    mut pushes: broadcast::Receiver<Push>,
) -> std::io::Result<()> {
    if !body.is_empty() {
        write_chunk(socket, body.as_bytes()).await?;
    }
    loop {
        tokio::select! {
            push = pushes.recv() => match push {
                Ok(Push::Chunk(chunk)) => write_chunk(socket, &chunk).await?,
                _ => return Ok(()),
            },
            // The client has disconnected.
            _ = socket.read_u8() => return Ok(()),
        }
    }
}

async fn write_chunk(socket: &mut TcpStream, chunk: &[u8]) -> std::io::Result<()> {
    socket.write_all(format!("{:x}\r\n", chunk.len()).as_bytes()).await?;
    socket.write_all(chunk).await?;
    socket.write_all(b"\r\n").await?;
    socket.flush().await
}
