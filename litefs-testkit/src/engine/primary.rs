//! The primary's side of replication: one thread per connected replica.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::Engine;
use crate::context::Role;
use crate::position::Position;
use crate::sync::locked;
use crate::wire::{self, Message, Peer};

/// The interval of LiteFS's heartbeat.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a new connection may take to send its first message.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

/// Accepts replicas until the node dies.
pub(crate) fn accept(engine: &Arc<Engine>, listener: &TcpListener) {
    for socket in listener.incoming() {
        if engine.context.is_dead() {
            return;
        }
        let Ok(socket) = socket else { continue };
        let serving = Arc::clone(engine);
        thread::spawn(move || {
            if let Err(error) = serve(&serving, socket) {
                tracing::debug!(%error, node = serving.peer.name, "stream to a replica ended");
            }
        });
    }
}

fn serve(engine: &Arc<Engine>, mut socket: TcpStream) -> io::Result<()> {
    engine.keep_socket(&socket)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(HELLO_LIMIT))?;
    let Message::Hello { peer, positions } = wire::receive(&mut socket)? else { return Ok(()) };
    // While the link is cut, the replica's first message does not arrive.
    engine
        .context
        .signal
        .wait(|| engine.context.is_dead() || !engine.context.faults.silent(&peer.name));
    if let Some(reason) = refusal(engine, &peer) {
        return wire::send(&mut socket, &Message::Refused(reason.to_owned()));
    }
    let epoch = engine.epoch.load(Ordering::Acquire);
    wire::send(&mut socket, &Message::Accepted)?;
    locked(&engine.replicas).insert(peer.id.clone());
    let id = peer.id.clone();
    let ended = Stream { engine, socket, peer, sent: positions, epoch }.run();
    locked(&engine.replicas).remove(&id);
    ended
}

/// The reasons for which LiteFS refuses a replica.
fn refusal(engine: &Engine, peer: &Peer) -> Option<&'static str> {
    if peer.id == engine.peer.id {
        Some("cannot connect to self")
    } else if engine.context.role() != Role::Primary {
        Some("lease expired")
    } else {
        None
    }
}

struct Stream<'a> {
    engine: &'a Arc<Engine>,
    socket: TcpStream,
    peer: Peer,
    /// The replica's position after the messages that were sent.
    sent: BTreeMap<String, Position>,
    epoch: u64,
}

impl Stream<'_> {
    fn run(mut self) -> io::Result<()> {
        let mut beat = Instant::now();
        loop {
            if let Some(successor) = self.over() {
                return successor.map_or(Ok(()), |peer| self.send(&Message::NewPrimary(peer)));
            }
            if self.silent() {
                self.pause(Instant::now() + HEARTBEAT, |stream| !stream.silent());
                continue;
            }
            self.send_transactions()?;
            if self.hand_off()? {
                return Ok(());
            }
            if Instant::now() >= beat {
                self.send(&Message::Heartbeat)?;
                beat = Instant::now() + HEARTBEAT;
            }
            self.pause(beat, |stream| {
                stream.silent() || stream.is_handoff_target() || stream.behind()
            });
        }
    }

    /// Whether the stream is over, and if so, which node the replica should follow next.
    fn over(&self) -> Option<Option<Peer>> {
        let dead = self.engine.context.is_dead();
        let over = dead || self.engine.epoch.load(Ordering::Acquire) != self.epoch;
        over.then(|| if dead { None } else { locked(&self.engine.successor).clone() })
    }

    fn silent(&self) -> bool {
        self.engine.context.faults.silent(&self.peer.name)
    }

    fn behind(&self) -> bool {
        self.engine
            .databases()
            .iter()
            .any(|database| database.position() != self.position(&database.name))
    }

    fn position(&self, database: &str) -> Position {
        self.sent.get(database).copied().unwrap_or_default()
    }

    fn pause(&self, until: Instant, awake: impl Fn(&Self) -> bool) {
        self.engine.context.signal.wait_until(until, || self.over().is_some() || awake(self));
    }

    fn send(&mut self, message: &Message) -> io::Result<()> {
        wire::send(&mut self.socket, message)
    }

    fn send_transactions(&mut self) -> io::Result<()> {
        for database in self.engine.databases() {
            while !self.silent()
                && self.over().is_none()
                && let Some(transaction) = database.catch_up(self.position(&database.name))
            {
                let after = transaction.after;
                self.send(&Message::Transaction(transaction))?;
                self.sent.insert(database.name.clone(), after);
            }
        }
        Ok(())
    }

    fn is_handoff_target(&self) -> bool {
        locked(&self.engine.handoff_target).as_ref() == Some(&self.peer.id)
    }

    /// Hands the lease to this replica if it is the chosen one. As in LiteFS, the lease is handed
    /// over after the last transaction was sent; a commit in between is lost.
    fn hand_off(&mut self) -> io::Result<bool> {
        if !self.is_handoff_target() {
            return Ok(false);
        }
        self.send(&Message::Handoff)?;
        *locked(&self.engine.successor) = Some(self.peer.clone());
        self.engine.follow(Some(self.peer.clone()));
        Ok(true)
    }
}
