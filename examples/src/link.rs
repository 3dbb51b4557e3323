//! The network between an application and the primary's server: a relay on loopback that can be cut, slowed and broken.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::{Problem, process};

/// How one direction of a link treats what is on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    /// Nothing arrives, nothing is closed. What was held back arrives later.
    pub(crate) held: bool,
    /// Everything arrives this much later.
    pub(crate) delay: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    /// Where the server listens. It changes when its process is started again.
    target: Option<SocketAddr>,
    requests: Flow,
    replies: Flow,
    /// Connections of an earlier generation are broken.
    generation: u64,
}

/// The link to one node's server. It stays when the node's process goes.
pub(crate) struct Link {
    address: SocketAddr,
    state: watch::Sender<State>,
}

impl Link {
    /// Listens on a free port. Must be called within a runtime, which then carries the traffic.
    pub(crate) async fn open() -> Result<Self, Problem> {
        let listener = process::free_port().await?;
        let (state, states) = watch::channel(State::default());
        let address = listener.local_addr()?;
        tokio::spawn(accept(listener, states));
        Ok(Self { address, state })
    }

    /// Under which address the other nodes reach this one.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the server is now. Connections to where it was break.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            state.target = Some(target);
            state.generation += 1;
        });
    }

    /// How requests and answers travel from now on.
    pub(crate) fn set(&self, requests: Flow, replies: Flow) {
        self.state.send_modify(|state| (state.requests, state.replies) = (requests, replies));
    }

    /// Breaks all connections. New ones work.
    pub(crate) fn sever(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }
}

async fn accept(listener: TcpListener, states: watch::Receiver<State>) {
    while let Ok((from, _)) = listener.accept().await {
        tokio::spawn(relay(from, states.clone()));
    }
}

/// Carries one connection until either end, or the link, breaks it.
async fn relay(from: TcpStream, states: watch::Receiver<State>) {
    let State { target: Some(target), generation, .. } = *states.borrow() else { return };
    let Ok(to) = TcpStream::connect(target).await else { return };
    // A relay should cost as little as it can; without this it is only slower.
    let _ = (from.set_nodelay(true), to.set_nodelay(true));
    let (from_read, from_write) = from.into_split();
    let (to_read, to_write) = to.into_split();
    let mut broken = states.clone();
    tokio::select! {
        // A link that breaks while it is let go of loses what it held.
        biased;
        _ = broken.wait_for(|state| state.generation != generation) => {}
        _ = carry(from_read, to_write, states.clone(), |state| state.requests) => {}
        _ = carry(to_read, from_write, states, |state| state.replies) => {}
    }
}

/// How many pieces may be on their way in one direction.
const ON_THE_WAY: usize = 256;

/// Each piece arrives its delay after it was sent, whatever is on its way before it: one that is not waited for does not
/// slow down the next.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut states: watch::Receiver<State>,
    flow: impl Fn(&State) -> Flow,
) -> std::io::Result<()> {
    let (send, mut arrive) = mpsc::channel(ON_THE_WAY);
    let (sending, flow) = (states.clone(), &flow);
    let sending = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = from.read(&mut buffer).await?;
            let due = Instant::now() + flow(&sending.borrow()).delay;
            if count == 0 || send.send((due, buffer[..count].to_vec())).await.is_err() {
                return Ok(());
            }
        }
    };
    let arriving = async move {
        while let Some((due, bytes)) = arrive.recv().await {
            if due > Instant::now() {
                tokio::time::sleep_until(due).await;
            }
            if states.wait_for(|state| !flow(state).held).await.is_err() {
                return Ok(());
            }
            to.write_all(&bytes).await?;
        }
        Ok(())
    };
    tokio::try_join!(sending, arriving).map(drop)
}
