//! Child processes that run this program's own binary, and the messages between parent and child.
//!
//! A child prints its messages as lines of JSON on its standard output. Its standard input stays
//! open and empty; it ends when the parent ends, and then the child ends too.

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::SocketAddr;
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use axum::Router;
use axum::serve::{Listener, ListenerExt};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::Problem;

/// How long a child may take to end by itself before it is killed.
const EXIT_LIMIT: Duration = Duration::from_secs(2);
/// How long requests may continue after the process was asked to end.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

/// The message of a child once it serves HTTP.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listening {
    /// Base URL.
    pub http: String,
}

/// A running child. Dropping it ends it.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    /// Lines that have not been read yet; `None` once [`Child::receive_all`] reads them.
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Child {
    /// Starts this program again with other arguments and additional environment variables.
    pub fn start(name: &str, args: &[&str], environment: &[(&str, &str)]) -> Result<Self, Problem> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(args)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start the {name} process: {error}"))?;
        let stdout = process.stdout.take().ok_or("a child without standard output")?;
        Ok(Self { name: name.to_owned(), process, lines: Some(BufReader::new(stdout).lines()) })
    }

    /// The next message of the child. Blocks.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, Problem> {
        match self.lines.as_mut().and_then(Iterator::next) {
            Some(line) => Ok(serde_json::from_str(&line?)?),
            None => {
                Err(format!("the {} process ended early; its error is above", self.name).into())
            }
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Passes every further message of the child to `listener`, on a thread, until the child has
    /// ended, including messages that it sent before it was killed. Also stops at a line that is
    /// not a `T`.
    pub fn receive_all<T: DeserializeOwned>(
        &mut self,
        mut listener: impl FnMut(T) + Send + 'static,
    ) {
        let Some(lines) = self.lines.take() else { return };
        std::thread::spawn(move || {
            let heard =
                lines.map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
            heard.for_each(&mut listener);
        });
    }

    /// Kills the child as `kill -9` does, without a chance to clean up.
    pub fn kill(mut self) -> Result<(), Problem> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// The child's exit status, if it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.try_wait().ok().flatten()
    }

    /// Sends a signal, such as SIGSTOP and SIGCONT.
    pub fn signal(&self, signal: Signal) -> Result<(), Problem> {
        let id = Pid::from_child(&self.process);
        Ok(kill_process(id, signal)?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + EXIT_LIMIT;
        // The standard library cannot wait with a timeout.
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Sends a message to the parent.
pub fn send(something: &impl Serialize) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(something)?)?;
    Ok(out.flush()?)
}

/// Resolves when the parent has ended, or wants this process to end.
pub fn parent_ended() -> oneshot::Receiver<()> {
    let (ended, when_ended) = oneshot::channel();
    // Ctrl-C reaches every process of the terminal. A child ignores it and lets its parent decide,
    // so that it ends in an orderly way and its directory is removed.
    tokio::spawn(async { while tokio::signal::ctrl_c().await.is_ok() {} });
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = ended.send(());
    });
    when_ended
}

/// A listener on a free port of the loopback address.
pub async fn free_port() -> Result<TcpListener, Problem> {
    let bound = TcpListener::bind("127.0.0.1:0").await;
    bound.map_err(|error| format!("cannot get a free port on 127.0.0.1: {error}").into())
}

/// The listener's base URL.
pub fn url_of(listener: &TcpListener) -> Result<String, Problem> {
    Ok(format!("http://{}", listener.local_addr()?))
}

/// Serves `router` until the parent has ended.
pub async fn serve(listener: TcpListener, router: Router) -> Result<(), Problem> {
    let ended = parent_ended();
    tokio::select! {
        served = async { axum::serve(prompt(listener), router).await } => Ok(served?),
        _ = ended => Ok(()),
    }
}

/// Serves `router` until this process is asked to end (SIGTERM, SIGINT), then lets requests under
/// way finish for at most 5 s.
pub async fn serve_until_asked_to_end(
    listener: TcpListener,
    router: Router,
) -> Result<(), Problem> {
    let mut asked = signal(SignalKind::terminate())?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(prompt(listener), router).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let serving = tokio::spawn(async { serving.await });
    tokio::select! {
        _ = asked.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    let _ = stop.send(());
    // Idle connections end with the process.
    let _ = tokio::time::timeout(LAST_REQUESTS, serving).await;
    Ok(())
}

/// Responses are small and awaited: they are sent at once.
fn prompt(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|stream| {
        // A failure to set the option only makes responses slower.
        let _ = stream.set_nodelay(true);
    })
}
