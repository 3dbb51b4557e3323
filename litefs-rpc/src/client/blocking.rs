//! A blocking socket behind tarpc's transport.
//!
//! tarpc's dispatch expects a transport that never blocks. [`Blocking`] blocks, but only while an
//! answer is due: if call and dispatch are polled in turn, they run to the answer without a
//! runtime.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::{Sink, Stream};
use tarpc::{ClientMessage, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A transport whose stream is polled only while an answer is due, because polling blocks.
#[derive(Debug)]
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

    fn poll_ready(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), T::Error>> {
        Pin::new(&mut self.inner).poll_ready(context)
    }

    fn start_send(mut self: Pin<&mut Self>, message: ClientMessage<R>) -> Result<(), T::Error> {
        let answered = matches!(message, ClientMessage::Request(_));
        Pin::new(&mut self.inner).start_send(message)?;
        self.sent += usize::from(answered);
        Ok(())
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), T::Error>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.due += std::mem::take(&mut self.sent);
        }
        flushed
    }

    fn poll_close(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), T::Error>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// A blocking socket with tokio's traits.
#[derive(Debug)]
pub(super) struct BlockingStream(TcpStream);

impl BlockingStream {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self(socket)
    }
}

impl AsyncRead for BlockingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(
            uninterrupted(|| self.0.read(buf.initialize_unfilled())).map(|read| buf.advance(read)),
        )
    }
}

impl AsyncWrite for BlockingStream {
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

/// Repeats an interrupted call. The end of a timeout is `WouldBlock` on Unix, which an asynchronous
/// reader would take for a stream that is not ready.
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
