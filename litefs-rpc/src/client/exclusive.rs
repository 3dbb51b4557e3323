//! Connections that one caller at a time has to itself and drives on its own thread.
//!
//! Over the shared [`Connection`] a request wakes the I/O thread, which writes it, reads the answer and wakes the caller. A
//! caller that waits for its answer anyway can do all of that itself: it blocks in the socket's `read`, and the answer costs
//! one wake-up instead of three. Lanes are few; who finds none idle uses the link.
//!
//! tarpc's dispatch expects a transport that never blocks. Here it gets one that does, but only while an answer is due
//! ([`Blocking`]): polled in turn, call and dispatch then run to the answer without any executor.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::{Sink, Stream};
use tarpc::{ClientMessage, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;

use super::connection::Connection;
use super::error::CallError;

type Dispatch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection of one caller, for as long as it holds it. Dropped, the connection is closed, and with it a transaction that
/// is still open on it; [`release`](Self::release) keeps it for the next caller.
pub struct ExclusiveConnection {
    link: Arc<Connection>,
    dispatch: Dispatch,
    socket: TcpStream,
    runtime: Handle,
    lanes: Arc<Lanes>,
    number: u64,
    broken: bool,
}

/// The lanes beside one link.
#[derive(Default)]
pub(super) struct Lanes(Mutex<Table>);

#[derive(Default)]
struct Table {
    idle: Vec<ExclusiveConnection>,
    /// The other ends of all lanes, to wake up those who wait at them.
    open: HashMap<u64, TcpStream>,
    last_number: u64,
    opening: bool,
    /// The link is closed, or the server wants no more connections: no lane is opened any more.
    full: bool,
}

impl Lanes {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().expect("no code panics while it holds the lanes")
    }

    /// Where many ask at once nobody waits for his turn to: they are better off with the link.
    pub(super) fn take(&self) -> Option<ExclusiveConnection> {
        self.0.try_lock().ok()?.idle.pop()
    }

    /// Whether another lane would be of use. Who hears `true` opens it.
    pub(super) fn wants_one(&self, limit: usize) -> bool {
        let Ok(mut table) = self.0.try_lock() else { return false };
        let wants = !table.full && !table.opening && table.open.len() < limit;
        table.opening |= wants;
        wants
    }

    /// No lane could be opened: there will be none with this link.
    pub(super) fn give_up(&self) {
        self.table().full = true;
    }

    /// Closes all of them. Whoever waits at one hears that it broke.
    pub(super) fn close(&self) {
        let idle = {
            let mut table = self.table();
            table.full = true;
            for socket in table.open.values() {
                // Fails only where the other side has closed it.
                let _ = socket.shutdown(Shutdown::Both);
            }
            std::mem::take(&mut table.idle)
        };
        // Each takes itself out of the table.
        drop(idle);
    }

    /// Takes a connection on which the handshake is done.
    pub(super) fn add(
        self: &Arc<Self>,
        stream: tokio::net::TcpStream,
        link: impl FnOnce(SyncStream) -> (Arc<Connection>, Dispatch),
    ) -> std::io::Result<()> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        let (socket, other_end) = (stream.try_clone()?, stream.try_clone()?);
        let (link, dispatch) = link(SyncStream(stream));
        let mut table = self.table();
        table.opening = false;
        if table.full {
            return Ok(());
        }
        table.last_number += 1;
        let number = table.last_number;
        table.open.insert(number, other_end);
        let (runtime, lanes) = (Handle::current(), Arc::clone(self));
        table.idle.push(ExclusiveConnection {
            link,
            dispatch,
            socket,
            runtime,
            lanes,
            number,
            broken: false,
        });
        Ok(())
    }
}

impl ExclusiveConnection {
    /// Makes a call. Blocks until it is answered, at most until `deadline`.
    ///
    /// # Errors
    /// Those of the call, see [`CallError`]. After one that leaves the call's fate open the lane is of no more use.
    pub fn wait<T, Call>(
        &mut self,
        deadline: Instant,
        call: impl FnOnce(Arc<Connection>) -> Call,
    ) -> Result<T, CallError>
    where
        Call: Future<Output = Result<T, CallError>>,
    {
        let started = Instant::now();
        let left = deadline.saturating_duration_since(started).max(Duration::from_millis(1));
        // Fails only for a duration of zero.
        let _ = self.socket.set_read_timeout(Some(left)).and(self.socket.set_write_timeout(Some(left)));
        // tarpc's deadlines are kept by a tokio timer.
        let _runtime = self.runtime.enter();
        let mut call = std::pin::pin!(call(Arc::clone(&self.link)));
        let mut context = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(answer) = call.as_mut().poll(&mut context) {
                let lost = matches!(answer, Err(CallError::Lost { .. } | CallError::Deadline { .. }));
                self.broken |= lost;
                return match answer {
                    Err(CallError::Lost { address, .. }) if Instant::now() >= deadline => {
                        Err(CallError::Deadline { address, after: started.elapsed() })
                    }
                    answer => answer,
                };
            }
            if self.broken {
                // The dispatch answers every call before it ends, so this is never reached.
                let reason = "the connection ended without an answer".into();
                return Err(CallError::Lost { address: self.link.address().into(), reason });
            }
            self.broken = self.dispatch.as_mut().poll(&mut context).is_ready();
        }
    }

    /// Lets another caller have it. Nothing of this caller's may be open on it.
    pub fn release(self) {
        let lanes = Arc::clone(&self.lanes);
        let mut table = lanes.table();
        if self.broken || table.full {
            drop(table);
            drop(self);
        } else {
            table.idle.push(self);
        }
    }
}

impl Drop for ExclusiveConnection {
    fn drop(&mut self) {
        self.lanes.table().open.remove(&self.number);
    }
}

impl std::fmt::Debug for ExclusiveConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExclusiveConnection")
            .field("address", &self.link.address())
            .field("number", &self.number)
            .finish()
    }
}

impl std::fmt::Debug for Lanes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lanes").field("open", &self.table().open.len()).finish_non_exhaustive()
    }
}

/// A transport whose stream is asked for an answer only while one is due, because asking blocks.
pub(super) struct Blocking<T> {
    inner: T,
    sent: usize,
    due: usize,
}

impl<T> Blocking<T> {
    pub(super) fn new(inner: T) -> Self {
        Self { inner, sent: 0, due: 0 }
    }
}

impl<T, R, E> Stream for Blocking<T>
where
    T: Stream<Item = Result<Response<R>, E>> + Unpin,
{
    type Item = T::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.due == 0 {
            return Poll::Pending;
        }
        let item = Pin::new(&mut self.inner).poll_next(context);
        if item.is_ready() {
            self.due -= 1;
        }
        item
    }
}

impl<T, R> Sink<ClientMessage<R>> for Blocking<T>
where
    T: Sink<ClientMessage<R>> + Unpin,
{
    type Error = T::Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        Pin::new(&mut self.inner).poll_ready(context)
    }

    fn start_send(mut self: Pin<&mut Self>, message: ClientMessage<R>) -> Result<(), T::Error> {
        let answered = matches!(message, ClientMessage::Request(_));
        Pin::new(&mut self.inner).start_send(message)?;
        self.sent += usize::from(answered);
        Ok(())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.due += std::mem::take(&mut self.sent);
        }
        flushed
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), T::Error>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// A socket that blocks, behind tokio's traits.
pub(super) struct SyncStream(TcpStream);

impl AsyncRead for SyncStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(uninterrupted(|| self.0.read(buf.initialize_unfilled())).map(|read| buf.advance(read)))
    }
}

impl AsyncWrite for SyncStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(uninterrupted(|| self.0.write(bytes)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write))
    }
}

/// The end of a time limit is `WouldBlock` on Unix, which an asynchronous reader would take for "later".
fn uninterrupted<T>(mut io: impl FnMut() -> std::io::Result<T>) -> std::io::Result<T> {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    loop {
        match io() {
            Err(error) if error.kind() == Interrupted => {}
            Err(error) if error.kind() == WouldBlock => return Err(TimedOut.into()),
            result => return result,
        }
    }
}
