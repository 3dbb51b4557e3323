//! The decisions of a relay about each request and reply, without any I/O.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::mpsc::WeakSender;
use tokio::time::Instant;

/// What a [`Relay`](crate::Relay) does with the requests or the replies that go through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Traffic {
    /// They arrive.
    #[default]
    Pass,
    /// They are held back and arrive, in order, once the traffic is `Pass` again.
    Hold,
    /// They do not arrive, and connections stay open, as when the machine of the peer is gone.
    /// Requests are kept for [`Relay::release_first`](crate::Relay::release_first), replies are
    /// dropped.
    Capture,
    /// The next n are lost, each together with its connection; then the traffic is `Pass` again.
    /// Only replies to requests that were sent after this was set are lost.
    Lose(usize),
}

/// The treatment of the requests or the replies of a [`Relay`](crate::Relay).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Whether they arrive.
    pub traffic: Traffic,
    /// The delay of each. Delays overlap: a request does not wait for the one before it.
    pub delay: Duration,
}

impl From<Traffic> for Flow {
    fn from(traffic: Traffic) -> Self {
        Self { traffic, delay: Duration::ZERO }
    }
}

/// Which way bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From client to server.
    Request,
    /// From server to client.
    Reply,
}

/// A request or reply under way.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) due: Instant,
    pub(super) bytes: Vec<u8>,
    /// Whether it arrives regardless of the traffic setting.
    pub(super) exempt: bool,
}

/// A request that is held until it is released, and where it goes then.
#[derive(Debug)]
pub(super) struct Captured {
    pub(super) piece: Piece,
    pub(super) to: WeakSender<Piece>,
}

/// The decision about one request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Deliver,
    /// Undecided: ask again once the state has changed.
    Wait,
    Capture,
    Drop,
    BreakConnection,
}

/// The state of a relay that tests set or inspect.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Where the server listens.
    pub(super) target: Option<SocketAddr>,
    pub(super) requests: Flow,
    pub(super) replies: Flow,
    /// Connections of an earlier generation are broken.
    pub(super) generation: u64,
    pub(super) captured: VecDeque<Captured>,
    pub(super) replies_received: usize,
    /// The connection of the last request, unless a reply has been lost since.
    requested_on: Option<usize>,
}

impl State {
    pub(super) fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::Request => self.requests,
            Direction::Reply => self.replies,
        }
    }

    pub(super) fn set_replies(&mut self, flow: Flow) {
        self.replies = flow;
        self.requested_on = None;
    }

    pub(super) fn break_connections(&mut self) {
        self.generation += 1;
        self.captured.clear();
    }

    /// Decides about a request or reply of a connection. Each `Lose` counts down here.
    pub(super) fn decide(
        &mut self,
        connection: usize,
        direction: Direction,
        exempt: bool,
    ) -> Verdict {
        if exempt {
            return Verdict::Deliver;
        }
        if direction == Direction::Request {
            self.requested_on = Some(connection);
        }
        match (direction, self.flow(direction).traffic) {
            (_, Traffic::Pass) => Verdict::Deliver,
            (_, Traffic::Hold) => Verdict::Wait,
            (Direction::Request, Traffic::Capture) => Verdict::Capture,
            (Direction::Reply, Traffic::Capture) => Verdict::Drop,
            (Direction::Reply, Traffic::Lose(_)) if self.requested_on != Some(connection) => {
                Verdict::Deliver
            }
            (_, Traffic::Lose(left)) => {
                self.lose(direction, left);
                Verdict::BreakConnection
            }
        }
    }

    fn lose(&mut self, direction: Direction, left: usize) {
        let flow = match direction {
            Direction::Request => &mut self.requests,
            Direction::Reply => &mut self.replies,
        };
        flow.traffic = if left > 1 { Traffic::Lose(left - 1) } else { Traffic::Pass };
        self.requested_on = None;
    }
}

#[cfg(test)]
mod tests {
    use super::Direction::{Reply, Request};
    use super::*;

    #[test]
    fn each_kind_of_traffic_has_its_decision() {
        for (traffic, on_request, on_reply) in [
            (Traffic::Pass, Verdict::Deliver, Verdict::Deliver),
            (Traffic::Hold, Verdict::Wait, Verdict::Wait),
            (Traffic::Capture, Verdict::Capture, Verdict::Drop),
            (Traffic::Lose(1), Verdict::BreakConnection, Verdict::Deliver),
        ] {
            let both =
                || State { requests: traffic.into(), replies: traffic.into(), ..State::default() };
            assert_eq!(both().decide(1, Request, false), on_request, "{traffic:?}");
            assert_eq!(both().decide(1, Reply, false), on_reply, "{traffic:?}");
            assert_eq!(both().decide(1, Request, true), Verdict::Deliver, "{traffic:?}");
        }
    }

    #[test]
    fn replies_are_lost_only_on_the_connection_of_a_request() {
        let mut state = State::default();
        state.decide(1, Request, false);
        state.set_replies(Traffic::Lose(2).into());
        assert_eq!(state.decide(1, Reply, false), Verdict::Deliver, "asked before");
        state.decide(2, Request, true);
        assert_eq!(state.decide(2, Reply, false), Verdict::Deliver, "exempt");
        for connection in [1, 2] {
            state.decide(connection, Request, false);
            assert_eq!(state.decide(3, Reply, false), Verdict::Deliver, "another one's");
            assert_eq!(state.decide(connection, Reply, false), Verdict::BreakConnection);
        }
        state.decide(1, Request, false);
        assert_eq!(state.decide(1, Reply, false), Verdict::Deliver, "two were lost");
    }
}
