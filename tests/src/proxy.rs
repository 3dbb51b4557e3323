//! A link that loses what it is told to lose.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Traffic {
    /// They arrive.
    #[default]
    Pass,
    /// They are kept back.
    Hold,
    /// So many requests are lost, or the answers to them, and with each its connection. Later connections pass.
    Lose(usize),
}

#[derive(Default)]
struct State {
    target: Option<SocketAddr>,
    requests: Traffic,
    replies: Traffic,
    /// On which connection a request has passed whose answer is to be lost.
    asked: Option<usize>,
    connections: usize,
    /// Connections that were there when `Hold` was lifted for new ones stay as they are.
    held_requests: Vec<(TcpStream, Vec<u8>)>,
    /// Chunks of replies that the server has sent, lost ones too.
    answered: usize,
    open: Vec<TcpStream>,
}

/// A TCP proxy on loopback, between a replica and the primary. Give its address to
/// [`advertise`](litefs_diesel::LiteFsBuilder::advertise).
pub struct Proxy {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Proxy {
    /// Listens; connections wait until there is a target.
    ///
    /// # Panics
    /// If it cannot listen.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state: Arc<(Mutex<State>, Condvar)> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                serve(client, &shared);
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where it leads.
    ///
    /// # Panics
    /// If a thread of the proxy has panicked, as the other methods.
    pub fn lead_to(&self, target: SocketAddr) {
        self.change(|state| state.target = Some(target));
    }

    /// What becomes of requests from now on.
    pub fn requests(&self, traffic: Traffic) {
        self.change(|state| state.requests = traffic);
    }

    /// What becomes of replies from now on.
    pub fn replies(&self, traffic: Traffic) {
        self.change(|state| {
            state.replies = traffic;
            state.asked = None;
        });
    }

    /// Lets the first of the requests that were held back through, on its own connection, and nothing after it.
    pub fn release_first(&self) {
        self.change(|state| {
            let (mut server, bytes) = state.held_requests.remove(0);
            server.write_all(&bytes).expect("the server is there");
        });
    }

    /// How many requests are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.0.lock().expect("no thread panics").held_requests.len()
    }

    /// How many pieces of replies have come from the server.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.state.0.lock().expect("no thread panics").answered
    }

    /// Cuts all connections. New ones are as good as before.
    pub fn cut(&self) {
        self.change(|state| {
            for stream in state.open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.0.lock().expect("no thread panics"));
        self.state.1.notify_all();
    }
}

fn serve(client: TcpStream, shared: &Arc<(Mutex<State>, Condvar)>) {
    let (lock, changed) = &**shared;
    let target = {
        let state = lock.lock().expect("no thread panics");
        changed.wait_while(state, |state| state.target.is_none()).expect("no thread panics").target
    };
    let Some(Ok(server)) = target.map(TcpStream::connect) else { return };
    let (to_server, to_client) =
        (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
    lock.lock()
        .expect("no thread panics")
        .open
        .extend([to_server.try_clone().expect("a socket"), to_client.try_clone().expect("a socket")]);
    let connection = {
        let mut state = lock.lock().expect("no thread panics");
        state.connections += 1;
        state.connections
    };
    for (from, to, is_request) in [(client, to_server, true), (server, to_client, false)] {
        let shared = Arc::clone(shared);
        std::thread::spawn(move || carry(from, to, is_request, connection, &shared.0));
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, is_request: bool, connection: usize, state: &Mutex<State>) {
    let mut buffer = vec![0; 64 << 10];
    let mut pieces = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        pieces += 1;
        let mut state = state.lock().expect("no thread panics");
        let now = match (is_request, state.requests, state.replies) {
            // What a replica and the primary tell each other all the time is not what the tests are about.
            (true, ..) if is_handshake(pieces, length) || is_following(&buffer[..length]) => Traffic::Pass,
            (true, traffic, _) => {
                state.asked = Some(connection);
                traffic
            }
            (false, _, Traffic::Lose(_)) if state.asked != Some(connection) => Traffic::Pass,
            (false, _, traffic) => traffic,
        };
        if let Traffic::Lose(left) = now {
            let lost = if is_request { &mut state.requests } else { &mut state.replies };
            *lost = if left > 1 { Traffic::Lose(left - 1) } else { Traffic::Pass };
            state.asked = None;
        }
        if !is_request {
            state.answered += 1;
        }
        match now {
            Traffic::Pass => {
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Traffic::Hold if is_request => {
                let server = to.try_clone().expect("a socket");
                state.held_requests.push((server, buffer[..length].to_vec()));
            }
            Traffic::Hold => {}
            Traffic::Lose(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// What a client says before its first request: hello, and its proof, which is shorter than any statement.
fn is_handshake(piece: usize, length: usize) -> bool {
    piece == 1 || (piece == 2 && length < 60)
}

/// Whether a piece is a replica's report of itself, which holds its address, and nothing else besides.
fn is_following(piece: &[u8]) -> bool {
    let address = b"127.0.0.1:";
    let one_frame =
        piece.first_chunk().is_some_and(|&length| u32::from_be_bytes(length) as usize + 4 == piece.len());
    one_frame && piece.windows(address.len()).any(|window| window == address)
}
