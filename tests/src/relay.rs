//! A relay of the testkit whose faults affect statements, but not the background traffic of nodes.

use litefs_testkit::Relay;

/// A relay between replicas and a primary's server. Its faults affect forwarded requests only, not
/// handshakes and not replicas' position reports.
///
/// # Panics
/// If it does not start.
#[must_use]
pub fn relay() -> Relay {
    let exempt =
        |number, request: &[u8]| is_handshake(number, request.len()) || is_position_report(request);
    Relay::start_with(exempt).expect("the relay starts")
}

/// Whether a client sends this before its first request: its hello, or its proof of the secret,
/// which is shorter than any statement.
fn is_handshake(number: usize, length: usize) -> bool {
    number == 1 || (number == 2 && length < 60)
}

/// Whether this is one frame that contains a replica's position report, recognised by its address.
fn is_position_report(bytes: &[u8]) -> bool {
    let address = b"127.0.0.1:";
    let length = bytes.first_chunk().map(|&length| u32::from_be_bytes(length) as usize);
    length == Some(bytes.len().wrapping_sub(4))
        && bytes.windows(address.len()).any(|window| window == address)
}
