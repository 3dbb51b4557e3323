//! The table by itself, with clocks that do as they are told.

use std::sync::{Arc, Mutex};

use super::pruning::Moment;
use super::*;

fn applied() -> StoredOutcome {
    StoredOutcome::Applied(
        Output::Count(3),
        SessionCounters { last_insert_rowid: 7, changes: 3, total_changes: 4, inserted: true },
    )
}

#[test]
fn an_outcome_is_kept_once_and_found_again() {
    let mut conn = SqliteConnection::establish(":memory:").unwrap();
    let mut outcomes = Outcomes::new(DEFAULT_RETENTION);
    let (one, other) = (RequestId::new(), RequestId::new());
    assert_eq!(Outcomes::find(&mut conn, one).unwrap(), None);
    assert_eq!(outcomes.keep(&mut conn, one, &applied()).unwrap(), Some(1));
    assert_eq!(outcomes.keep(&mut conn, one, &StoredOutcome::Fenced).unwrap(), None);
    assert_eq!(Outcomes::find(&mut conn, one).unwrap(), Some(applied()));
    assert_eq!(Outcomes::find(&mut conn, other).unwrap(), None);
    outcomes.keep(&mut conn, other, &StoredOutcome::Begun).unwrap();
    Outcomes::update(&mut conn, other, &applied()).unwrap();
    assert_eq!(Outcomes::find(&mut conn, other).unwrap(), Some(applied()));
}

#[test]
fn rows_that_are_too_large_are_left_out() {
    let rows = crate::wire::RowSet {
        columns: vec!["x".into()],
        values: vec![Value::Blob(vec![0; MAX_KEPT])],
    };
    let kept = StoredOutcome::Applied(Output::Rows(rows), SessionCounters::default());
    let back = StoredOutcome::decode(&kept.encode().unwrap()).unwrap();
    assert_eq!(back, StoredOutcome::Applied(Output::NotKept, SessionCounters::default()));
}

#[test]
fn a_newer_encoding_is_an_error_and_not_a_guess() {
    assert!(StoredOutcome::decode(&[FORMAT + 1, 0]).is_err());
    assert!(StoredOutcome::decode(&[]).is_err());
    assert!(StoredOutcome::decode(&[FORMAT, 250]).is_err());
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Clocks that the test sets: the machine's and this process's.
#[derive(Clone)]
struct Clocks(Arc<Mutex<Moment>>);

impl Clocks {
    fn start() -> Self {
        let wall = Duration::from_secs(1_700_000_000);
        Self(Arc::new(Mutex::new(Moment { wall, steady: Duration::ZERO })))
    }

    fn clock(&self) -> Clock {
        let moment = Arc::clone(&self.0);
        Box::new(move || *moment.lock().unwrap())
    }

    fn pass(&self, time: Duration) {
        let mut moment = self.0.lock().unwrap();
        moment.wall += time;
        moment.steady += time;
    }

    fn set(&self, wall: impl FnOnce(Duration) -> Duration) {
        let mut moment = self.0.lock().unwrap();
        moment.wall = wall(moment.wall);
    }

    fn wall(&self) -> Duration {
        self.0.lock().unwrap().wall
    }
}

/// An id that a node makes whose clock says `wall`.
fn made_at(wall: Duration) -> RequestId {
    let millis = u64::try_from(wall.as_millis()).unwrap();
    let random = RequestId::new();
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random.as_bytes()[6..]);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes)
        .into_uuid()
        .to_string()
        .parse()
        .unwrap()
}

fn count(conn: &mut SqliteConnection) -> i64 {
    let query = BoundQuery::new("SELECT count(*) FROM _litefs_outcomes", &[], false);
    super::super::session::integers_of::<1>(conn, query).unwrap()[0]
}

/// A primary's table with clocks of its own.
struct Primary {
    conn: SqliteConnection,
    outcomes: Outcomes,
    clocks: Clocks,
}

impl Primary {
    fn new() -> Self {
        let clocks = Clocks::start();
        let conn = SqliteConnection::establish(":memory:").unwrap();
        Self { conn, outcomes: Outcomes::by_clock(DEFAULT_RETENTION, clocks.clock()), clocks }
    }

    fn keep(&mut self, id: RequestId) -> RequestId {
        assert!(self.outcomes.keep(&mut self.conn, id, &applied()).unwrap().is_some());
        id
    }

    /// As many writes, during `time`.
    fn work(&mut self, writes: u32, time: Duration) {
        for _ in 0..writes {
            self.clocks.pass(time / writes);
            self.keep(made_at(self.clocks.wall()));
        }
    }

    fn has(&mut self, id: RequestId) -> bool {
        Outcomes::find(&mut self.conn, id).unwrap() == Some(applied())
    }
}

#[test]
fn a_clock_that_jumps_leaves_fresh_outcomes_where_they_are() {
    let jumps: [fn(Duration) -> Duration; 2] = [|wall| wall + HOUR, |wall| wall - HOUR];
    for (first, second) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
        let mut primary = Primary::new();
        primary.work(300, DEFAULT_RETENTION * 2);
        let fresh = primary.keep(made_at(primary.clocks.wall()));
        primary.clocks.set(jumps[first]);
        let next = primary.keep(made_at(primary.clocks.wall()));
        primary.work(300, DEFAULT_RETENTION / 4);
        primary.clocks.set(jumps[second]);
        primary.work(300, DEFAULT_RETENTION / 2);
        assert!(primary.has(fresh) && primary.has(next), "{first} {second}");
        // A retry is told from a new write.
        assert_eq!(primary.outcomes.keep(&mut primary.conn, fresh, &applied()).unwrap(), None);
        primary.work(3_000, DEFAULT_RETENTION * 2);
        assert!(!primary.has(fresh) && !primary.has(next), "{first} {second}");
    }
}

#[test]
fn the_clock_that_made_an_id_neither_saves_nor_dooms_it() {
    let mut primary = Primary::new();
    let now = primary.clocks.wall();
    let odd = [Duration::ZERO, now - HOUR, now, now + HOUR, now * 2].map(made_at);
    for id in odd {
        primary.keep(id);
    }
    primary.work(500, DEFAULT_RETENTION - Duration::from_secs(1));
    assert!(odd.iter().all(|id| primary.has(*id)));
    primary.work(1_000, DEFAULT_RETENTION);
    assert!(odd.iter().all(|id| !primary.has(*id)));
}

#[test]
fn a_new_primary_counts_from_when_it_has_seen_an_outcome() {
    // The former one's clock was slow or fast, or it wrote no date at all.
    for skew in [|at: i64| at - 86_400_000, |at| at + 86_400_000, |_| UNDATED] {
        let mut primary = Primary::new();
        primary.work(1_000, DEFAULT_RETENTION);
        let id = primary.keep(made_at(primary.clocks.wall()));
        let at = skew(i64::try_from(primary.clocks.wall().as_millis()).unwrap());
        let redate = format!("UPDATE _litefs_outcomes SET at = {at}");
        primary.conn.batch_execute(&redate).unwrap();
        primary.outcomes.term_started();
        primary.work(1_000, DEFAULT_RETENTION - Duration::from_secs(1));
        assert!(primary.has(id) && count(&mut primary.conn) == 2_001);
        primary.work(6_000, DEFAULT_RETENTION * 3);
        assert!(
            !primary.has(id) && count(&mut primary.conn) < 4_000,
            "{}",
            count(&mut primary.conn)
        );
    }
}

#[test]
fn the_table_stays_as_large_as_the_retention_makes_it() {
    let mut primary = Primary::new();
    let fast = made_at(primary.clocks.wall() + HOUR * 24);
    primary.keep(fast);
    for _ in 0..8 {
        primary.work(4_000, DEFAULT_RETENTION);
        // What a transaction undoes is done again by a later one.
        primary.conn.batch_execute("BEGIN").unwrap();
        primary.work(500, Duration::from_secs(1));
        primary.conn.batch_execute("ROLLBACK").unwrap();
        assert!(count(&mut primary.conn) <= 4_000 * 3 / 2, "{}", count(&mut primary.conn));
    }
    assert!(!primary.has(fast));
}
