//! The lower bound on the cost of forwarding an INSERT: a blocking socket on both sides, one frame
//! each way, and SQLite between. There is no runtime, no request id, no deadline, and an error
//! carries no details.
//!
//! A request is two lengths of four bytes, little endian, and the bytes of name and payload. The
//! answer is the number of rows, eight bytes, little endian.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use diesel::sqlite::SqliteConnection;
use litefs_examples::Problem;

use super::items;

/// The reply to a request that failed.
const FAILED: u64 = u64::MAX;

/// Serves each connection on its own thread until the process ends.
pub(super) fn serve(listener: TcpListener, connection: Arc<Mutex<SqliteConnection>>) {
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = Arc::clone(&connection);
            // The thread ends with the connection.
            std::thread::spawn(move || answer(stream, &connection));
        }
    });
}

fn answer(stream: TcpStream, connection: &Mutex<SqliteConnection>) -> Result<(), Problem> {
    stream.set_nodelay(true)?;
    // A request arrives and is read in one piece.
    let mut requests = BufReader::new(&stream);
    let (mut header, mut buffer) = ([0; 8], Vec::new());
    loop {
        requests.read_exact(&mut header)?;
        let [name, payload] = lengths(header);
        buffer.resize(name + payload, 0);
        requests.read_exact(&mut buffer)?;
        let inserted = {
            let (name, payload) = buffer.split_at(name);
            let mut conn = connection.lock().map_err(|error| error.to_string())?;
            items::insert(&mut *conn, std::str::from_utf8(name)?, std::str::from_utf8(payload)?)
        };
        (&stream).write_all(&inserted.map_or(FAILED, |count| count as u64).to_le_bytes())?;
    }
}

fn lengths(header: [u8; 8]) -> [usize; 2] {
    let [a, b, c, d, e, f, g, h] = header;
    [[a, b, c, d], [e, f, g, h]].map(|bytes| u32::from_le_bytes(bytes) as usize)
}

/// A caller that blocks its thread for each call.
pub(super) struct Caller {
    stream: TcpStream,
    frame: Vec<u8>,
}

impl Caller {
    pub(super) fn connect(server: SocketAddr) -> Result<Self, Problem> {
        let stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, frame: Vec::new() })
    }

    /// Inserts a row on the server.
    pub(super) fn insert(&mut self, name: &str, payload: &str) -> Result<u64, Problem> {
        self.frame.clear();
        for text in [name, payload] {
            self.frame.extend_from_slice(&u32::try_from(text.len())?.to_le_bytes());
        }
        self.frame.extend_from_slice(name.as_bytes());
        self.frame.extend_from_slice(payload.as_bytes());
        self.stream.write_all(&self.frame)?;
        let mut answer = [0; 8];
        self.stream.read_exact(&mut answer)?;
        match u64::from_le_bytes(answer) {
            FAILED => Err("the raw server could not insert the row".into()),
            count => Ok(count),
        }
    }
}
