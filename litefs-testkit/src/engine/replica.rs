//! The replica's side of replication: one thread that connects to the primary and applies its
//! transactions.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::Engine;
use crate::context::{Context, Role};
use crate::database::apply::ApplyError;
use crate::special::CORRUPT_MARKER;
use crate::sync::locked;
use crate::transaction::Transaction;
use crate::wire::{self, Message, Peer};

/// LiteFS's delay before it reconnects.
const RECONNECT_DELAY: Duration = Duration::from_secs(1);
/// The delay after "lease expired": the next primary is about to take the lease.
const LEASE_DELAY: Duration = Duration::from_millis(20);
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// How a connection to the primary ended.
enum Ending {
    /// The connection broke or could not be made.
    Lost,
    /// The node at the other end is not primary yet.
    NotYet,
    /// This node is the primary now.
    Promoted,
    /// Another node is the primary now.
    Moved(Peer),
}

/// Executes assignments until the node dies.
pub(crate) fn run(engine: &Arc<Engine>) {
    loop {
        engine
            .context
            .signal
            .wait(|| engine.context.is_dead() || !locked(&engine.assignment).is_idle());
        if engine.context.is_dead() {
            return;
        }
        let (generation, primary, recover) = {
            let assignment = locked(&engine.assignment);
            (assignment.generation, assignment.primary.clone(), assignment.recover)
        };
        let replica = Replica { engine, generation };
        if recover {
            replica.recover();
        }
        if let Some(primary) = primary {
            replica.follow(&primary);
        }
        locked(&engine.assignment).done = generation;
        engine.context.signal.bump();
    }
}

struct Replica<'a> {
    engine: &'a Arc<Engine>,
    generation: u64,
}

impl Replica<'_> {
    /// Whether another assignment is waiting.
    fn cancelled(&self) -> bool {
        self.engine.context.is_dead()
            || locked(&self.engine.assignment).generation != self.generation
    }

    /// Waits, as LiteFS does, until no transaction of an application is open. Meanwhile the node is
    /// neither primary nor replica.
    fn recover(&self) {
        for database in self.engine.databases() {
            match database.recover(|| self.cancelled()) {
                Ok(()) | Err(ApplyError::Cancelled) => {}
                Err(error) => tracing::error!(%error, database = database.name, "cannot recover"),
            }
        }
    }

    fn follow(&self, primary: &Peer) {
        while !self.cancelled() {
            self.engine.context.set_role(Role::Replica(primary.name.clone()));
            let ending = self.session(primary).unwrap_or(Ending::Lost);
            self.engine.connected.store(false, Ordering::Release);
            if self.cancelled() {
                return;
            }
            let delay = match ending {
                Ending::Promoted => return self.promoted(),
                Ending::Moved(peer) => return self.engine.follow(Some(peer)),
                Ending::Lost => RECONNECT_DELAY,
                Ending::NotYet => LEASE_DELAY,
            };
            self.engine.context.set_role(Role::None);
            self.engine.context.signal.wait_until(Instant::now() + delay, || self.cancelled());
        }
    }

    fn promoted(&self) {
        locked(&self.engine.assignment).primary = None;
        if let Err(error) = self.engine.take_lease() {
            tracing::error!(%error, node = self.engine.peer.name, "cannot become primary");
        }
    }

    fn session(&self, primary: &Peer) -> io::Result<Ending> {
        let context = &self.engine.context;
        // A cut link drops the connection attempt.
        let limit = Instant::now() + CONNECT_LIMIT;
        context
            .signal
            .wait_until(limit, || self.cancelled() || !context.faults.silent(&primary.name));
        if self.cancelled() || context.faults.silent(&primary.name) {
            return Ok(Ending::Lost);
        }
        let address: SocketAddr = primary.replication_addr.parse().map_err(io::Error::other)?;
        let mut socket = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        self.engine.keep_socket(&socket)?;
        socket.set_nodelay(true)?;
        let databases = self.engine.databases();
        let positions = databases
            .into_iter()
            .map(|database| (database.name.clone(), database.position()))
            .collect();
        wire::send(&mut socket, &Message::Hello { peer: self.engine.peer.clone(), positions })?;
        let inbox = Arc::new(Inbox::default());
        let (reader, filled, filler) =
            (socket.try_clone()?, Arc::clone(&inbox), Arc::clone(context));
        thread::spawn(move || {
            filled.fill(reader, &filler);
        });
        let ending = self.receive(&inbox, &primary.name);
        // Ends the thread that reads the connection.
        let _ = socket.shutdown(Shutdown::Both);
        inbox.close(&context.signal);
        ending
    }

    fn receive(&self, inbox: &Inbox, primary: &str) -> io::Result<Ending> {
        while let Some(message) = self.next(inbox, primary) {
            match message {
                Message::Accepted => self.engine.connected.store(true, Ordering::Release),
                Message::Refused(reason) if reason == "lease expired" => return Ok(Ending::NotYet),
                Message::Refused(_) | Message::Hello { .. } => return Ok(Ending::Lost),
                Message::Handoff => return Ok(Ending::Promoted),
                Message::NewPrimary(peer) if peer.id == self.engine.peer.id => {
                    return Ok(Ending::Lost);
                }
                Message::NewPrimary(peer) => return Ok(Ending::Moved(peer)),
                Message::Heartbeat => {}
                Message::Transaction(transaction) => self.apply(&transaction)?,
            }
            self.engine.context.note_contact();
        }
        Ok(Ending::Lost)
    }

    /// The next message that has passed the link, which may be slow, stalled or cut; `None` at the
    /// end.
    fn next(&self, inbox: &Inbox, primary: &str) -> Option<Message> {
        loop {
            let (arrived, message) = self.first(inbox)?;
            let due =
                arrived + self.engine.context.faults.with(|settings| settings.replication_delay);
            if Instant::now() < due {
                // A changed delay takes effect at once.
                self.engine
                    .context
                    .signal
                    .wait_until(due, || self.cancelled() || self.delay_changed(arrived, due));
            } else if self.held(&message, primary) {
                self.engine
                    .context
                    .signal
                    .wait(|| self.cancelled() || inbox.closed() || !self.held(&message, primary));
                if inbox.closed() && self.held(&message, primary) {
                    return None;
                }
            } else {
                return inbox.take(&self.engine.context.signal);
            }
        }
    }

    fn first(&self, inbox: &Inbox) -> Option<(Instant, Message)> {
        self.engine
            .context
            .signal
            .wait(|| self.cancelled() || inbox.first().is_some() || inbox.closed());
        if self.cancelled() { None } else { inbox.first() }
    }

    fn delay_changed(&self, arrived: Instant, due: Instant) -> bool {
        arrived + self.engine.context.faults.with(|settings| settings.replication_delay) != due
    }

    fn held(&self, message: &Message, primary: &str) -> bool {
        let settings = self.engine.context.faults.now();
        let passes = matches!(message, Message::Transaction(tx)
            if settings.pass_until.get(&tx.database).is_some_and(|until| tx.after.txid <= *until));
        self.engine.context.faults.silent(primary)
            || (settings.stalled && !passes && !is_greeting(message))
    }

    fn apply(&self, transaction: &Arc<Transaction>) -> io::Result<()> {
        let engine = self.engine;
        let Some(database) = engine.database(&transaction.database, true)? else { return Ok(()) };
        match database.apply(transaction, || self.cancelled()) {
            Err(ApplyError::Fatal) => {
                let _ = std::fs::write(
                    engine.context.data_path(CORRUPT_MARKER),
                    transaction.after.to_string(),
                );
                engine.context.die();
                Ok(())
            }
            Err(ApplyError::Io(error)) => Err(error),
            Err(error) => Err(io::Error::other(error)),
            Ok(()) => Ok(()),
        }
    }
}

/// A stalled link still accepts the connection.
fn is_greeting(message: &Message) -> bool {
    matches!(message, Message::Accepted | Message::Refused(_))
}

/// Received messages with their time of arrival.
#[derive(Default)]
struct Inbox(Mutex<(VecDeque<(Instant, Message)>, bool)>);

impl Inbox {
    /// While replication is stalled at most one message is queued here; the others stay in the
    /// socket.
    fn fill(&self, mut socket: TcpStream, context: &Context) {
        let stalled = || context.faults.with(|settings| settings.stalled);
        while let Ok(message) = wire::receive(&mut socket) {
            locked(&self.0).0.push_back((Instant::now(), message));
            context.signal.bump();
            context.signal.wait(|| self.closed() || self.is_empty() || !stalled());
        }
        self.close(&context.signal);
    }

    fn close(&self, signal: &crate::sync::Signal) {
        locked(&self.0).1 = true;
        signal.bump();
    }

    fn is_empty(&self) -> bool {
        locked(&self.0).0.is_empty()
    }

    fn first(&self) -> Option<(Instant, Message)> {
        locked(&self.0).0.front().cloned()
    }

    fn take(&self, signal: &crate::sync::Signal) -> Option<Message> {
        let taken = locked(&self.0).0.pop_front().map(|(_, message)| message);
        signal.bump();
        taken
    }

    fn closed(&self) -> bool {
        locked(&self.0).1
    }
}
