//! A relay's connections: bytes are read, delayed and written as the relay's state requires.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::time::Instant;

use super::state::{Captured, Direction, Piece, State, Verdict};

/// Selects the requests that failures do not affect, by their number on their connection and their
/// bytes.
pub(super) type Exempt = dyn Fn(usize, &[u8]) -> bool + Send + Sync;
/// The largest request or reply, in bytes.
const MAX_PIECE: usize = 64 * 1024;
/// How many requests or replies may be under way on a connection before the sender waits.
const MAX_UNDER_WAY: usize = 256;

/// Relays each connection that it accepts.
pub(super) async fn accept(
    listener: TcpListener,
    states: Arc<watch::Sender<State>>,
    exempt: Arc<Exempt>,
) {
    let mut connection = 0;
    while let Ok((client, _)) = listener.accept().await {
        connection += 1;
        let way = Way {
            states: Arc::clone(&states),
            connection,
            direction: Direction::Request,
            exempt: Arc::clone(&exempt),
        };
        tokio::spawn(relay(client, way));
    }
}

/// Delivers a captured request. Returns false if its connection is closed.
pub(super) fn deliver(captured: Captured) -> bool {
    let piece = Piece { due: Instant::now(), exempt: true, ..captured.piece };
    captured.to.upgrade().is_some_and(|to| to.try_send(piece).is_ok())
}

/// Carries one connection until either end, or the relay, breaks it.
async fn relay(client: TcpStream, requests: Way) {
    let mut states = requests.states.subscribe();
    let (target, generation) = match states.wait_for(|state| state.target.is_some()).await {
        Ok(state) => (state.target, state.generation),
        Err(_) => return,
    };
    let Some(target) = target else { return };
    let Ok(server) = TcpStream::connect(target).await else { return };
    // A failure to set the option makes the relay slower, nothing else.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let replies = Way { direction: Direction::Reply, ..requests.clone() };
    tokio::select! {
        // Data that is held back when the connection breaks is lost.
        biased;
        _ = states.wait_for(|state| state.generation != generation) => {}
        _ = requests.carry(from_client, to_server) => {}
        _ = replies.carry(from_server, to_client) => {}
    }
}

/// One direction of one connection.
#[derive(Clone)]
struct Way {
    states: Arc<watch::Sender<State>>,
    connection: usize,
    direction: Direction,
    exempt: Arc<Exempt>,
}

impl Way {
    async fn carry(&self, from: OwnedReadHalf, to: OwnedWriteHalf) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel(MAX_UNDER_WAY);
        let weak = sender.downgrade();
        tokio::try_join!(self.read(from, sender), self.write(receiver, weak, to)).map(drop)
    }

    async fn read(&self, mut from: OwnedReadHalf, to: Sender<Piece>) -> io::Result<()> {
        let mut buffer = vec![0; MAX_PIECE];
        for number in 1.. {
            let length = from.read(&mut buffer).await?;
            let piece = self.piece(number, &buffer[..length]);
            if length == 0 || to.send(piece).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    fn piece(&self, number: usize, bytes: &[u8]) -> Piece {
        let is_request = self.direction == Direction::Request;
        if !is_request && !bytes.is_empty() {
            self.change(|state| state.replies_received += 1);
        }
        let delay = self.states.borrow().flow(self.direction).delay;
        let exempt = is_request && (self.exempt)(number, bytes);
        Piece { due: Instant::now() + delay, bytes: bytes.to_vec(), exempt }
    }

    /// Each piece arrives its delay after it was read, regardless of the pieces before it.
    async fn write(
        &self,
        mut pieces: Receiver<Piece>,
        back: mpsc::WeakSender<Piece>,
        mut to: OwnedWriteHalf,
    ) -> io::Result<()> {
        while let Some(piece) = pieces.recv().await {
            if piece.due > Instant::now() {
                tokio::time::sleep_until(piece.due).await;
            }
            match self.verdict(&piece).await {
                Verdict::Deliver => to.write_all(&piece.bytes).await?,
                Verdict::Capture => self.capture(Captured { piece, to: back.clone() }),
                Verdict::BreakConnection => return Err(io::ErrorKind::ConnectionReset.into()),
                Verdict::Wait | Verdict::Drop => {}
            }
        }
        Ok(())
    }

    /// Handles a piece that needs more than a delay.
    async fn verdict(&self, piece: &Piece) -> Verdict {
        let mut changes = self.states.subscribe();
        loop {
            let decide =
                |state: &mut State| state.decide(self.connection, self.direction, piece.exempt);
            match self.change(decide) {
                Verdict::Wait if changes.changed().await.is_ok() => {}
                verdict => return verdict,
            }
        }
    }

    fn capture(&self, captured: Captured) {
        self.change(|state| state.captured.push_back(captured));
    }

    /// Changes the state without waking the tasks that wait for a test's change.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.states.send_if_modified(|state| {
            result = Some(change(state));
            false
        });
        result.expect("the change has run")
    }
}
