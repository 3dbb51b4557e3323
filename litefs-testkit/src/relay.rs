//! A TCP relay between a client and a server, with scripted network failures.

mod carry;
mod state;

use std::fmt;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::sync::watch;

use self::carry::Exempt;
use self::state::State;
pub use self::state::{Flow, Traffic};
use crate::error::Error;
use crate::runtime::ServerRuntime;

/// A TCP relay on the loopback address, between the clients of one server and that server.
///
/// A test puts it in place of the server (for `litefs-diesel`: gives its address to
/// `LiteFsBuilder::advertise`) and then delays, holds back, loses or breaks the traffic. A new
/// relay passes all traffic.
///
/// A *request* is what one read from a client's socket returns, a *reply* what one read from the
/// server's socket returns, at most 64 KiB each. A message that fits into one TCP segment and is
/// awaited before the next is sent is one request or reply.
///
/// One thread carries the traffic. Dropping the relay breaks all connections.
///
/// ```
/// use litefs_testkit::{Flow, Relay, Traffic};
/// use std::io::{Read, Write};
/// use std::net::{TcpListener, TcpStream};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let relay = Relay::start()?;
/// relay.set_target(server.local_addr()?);
/// let mut client = TcpStream::connect(relay.address())?;
/// let (mut accepted, _) = server.accept()?;
///
/// relay.set_requests(Flow { delay: Duration::from_millis(5), ..Flow::default() });
/// client.write_all(b"ping")?;
/// let mut request = [0; 4];
/// accepted.read_exact(&mut request)?;
///
/// // The reply is lost, and its connection with it.
/// relay.set_replies(Traffic::Lose(1));
/// client.write_all(b"ping")?;
/// accepted.read_exact(&mut request)?;
/// accepted.write_all(b"pong")?;
/// assert!(!matches!(client.read(&mut request), Ok(1..)));
/// # Ok(())
/// # }
/// ```
pub struct Relay {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    _runtime: ServerRuntime,
}

impl Relay {
    /// Listens on a free port. Connections wait until a target is set.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no free port or no thread can be started.
    pub fn start() -> Result<Self, Error> {
        Self::start_with(|_, _| false)
    }

    /// The same, for a protocol with traffic that failures should not affect, such as a handshake.
    /// `exempt` is called for each request with its number on its connection, counted from 1, and
    /// its bytes. Requests for which it returns true are only delayed.
    ///
    /// # Errors
    /// As [`Relay::start`].
    pub fn start_with(
        exempt: impl Fn(usize, &[u8]) -> bool + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let failed = || Error::io("start a relay");
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed())?;
        let address = listener.local_addr().map_err(failed())?;
        let state = Arc::new(watch::Sender::new(State::default()));
        let (states, exempt): (_, Arc<Exempt>) = (Arc::clone(&state), Arc::new(exempt));
        let serve = |listener| carry::accept(listener, states, exempt);
        Ok(Self { address, state, _runtime: ServerRuntime::serve("a relay", listener, serve)? })
    }

    /// The address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the server from now on. Breaks connections to the previous address.
    pub fn set_target(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            state.target = Some(target);
            state.break_connections();
        });
    }

    /// Sets the flow of requests, including those under way.
    pub fn set_requests(&self, flow: impl Into<Flow>) {
        self.state.send_modify(|state| state.requests = flow.into());
    }

    /// Sets the flow of replies, including those under way.
    pub fn set_replies(&self, flow: impl Into<Flow>) {
        self.state.send_modify(|state| state.set_replies(flow.into()));
    }

    /// [`Relay::set_requests`] and [`Relay::set_replies`] in one call.
    pub fn set(&self, requests: impl Into<Flow>, replies: impl Into<Flow>) {
        self.state.send_modify(|state| {
            state.requests = requests.into();
            state.set_replies(replies.into());
        });
    }

    /// Breaks all connections; requests that were held back or captured on them are lost. New
    /// connections are not affected.
    pub fn cut(&self) {
        self.state.send_modify(State::break_connections);
    }

    /// How many requests are captured; see [`Traffic::Capture`].
    #[must_use]
    pub fn captured(&self) -> usize {
        self.state.borrow().captured.len()
    }

    /// Delivers the oldest captured request, on its own connection.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there is none, or if its connection is closed.
    pub fn release_first(&self) -> Result<(), Error> {
        let mut first = None;
        self.state.send_if_modified(|state| {
            first = state.captured.pop_front();
            false
        });
        let released = first.is_some_and(carry::deliver);
        let missing = || Error::Invalid("no captured request with an open connection".into());
        released.then_some(()).ok_or_else(missing)
    }

    /// How many replies the server has sent, lost ones included.
    #[must_use]
    pub fn replies_received(&self) -> usize {
        self.state.borrow().replies_received
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("address", &self.address).finish_non_exhaustive()
    }
}
