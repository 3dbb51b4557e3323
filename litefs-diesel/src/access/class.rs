//! The class of a statement, and of several together.

/// What a statement does to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Access {
    /// It reads the database.
    Read,
    /// It changes the database.
    Write,
    /// It concerns this connection alone: temporary tables, attached files, session PRAGMAs.
    Local,
}

/// What the library knows of a statement. Small, because it is cached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class {
    pub(crate) access: Access,
    /// It writes to a temporary or attached database: `query_only` must be lifted, and cached
    /// classes may be wrong afterwards.
    pub(crate) writes_locally: bool,
    /// It sets a PRAGMA that forwarded writes must follow.
    pub(crate) sets_session: bool,
    /// `changes()` counts what it does.
    pub(crate) counts: bool,
    /// It inserts rows: `last_insert_rowid()` is its own.
    pub(crate) inserts: bool,
    /// It calls `last_insert_rowid()`, `changes()` or `total_changes()`.
    pub(crate) asks_session: bool,
    /// It opens, closes or marks a transaction.
    pub(crate) control: bool,
    /// It is `PRAGMA query_only`. The library sets that PRAGMA itself and stores the user's value
    /// separately.
    pub(crate) query_only: bool,
    /// It must not run on LiteFS.
    pub(crate) refused: bool,
    /// It changes the database and also needs a temporary or attached one. It runs on a node that
    /// has both, or is refused.
    pub(crate) split: bool,
    /// It is a VACUUM that runs on this node: of an attached database, or INTO a file. No
    /// transaction may be open.
    pub(crate) vacuums: bool,
    /// It copies the database into a file of this node: VACUUM INTO.
    pub(crate) copies: bool,
    /// The text is exactly one statement.
    pub(crate) single: bool,
    /// SQLite could not prepare it here. The class is a guess and must not be cached.
    pub(crate) guessed: bool,
    /// It calls a function that the application has registered, which may write.
    pub(crate) calls_application: bool,
}

impl Class {
    pub(super) const fn new(access: Access) -> Self {
        Self {
            access,
            writes_locally: false,
            sets_session: false,
            counts: false,
            inserts: false,
            asks_session: false,
            control: false,
            query_only: false,
            refused: false,
            split: false,
            vacuums: false,
            copies: false,
            single: true,
            guessed: false,
            calls_application: false,
        }
    }

    /// It writes to a temporary or attached database, and to nothing else.
    pub(super) const LOCAL_WRITE: Self = Self { writes_locally: true, ..Self::new(Access::Local) };

    /// SQL text without a statement, or with several: SQLite prepares the first and ignores the
    /// rest.
    pub(crate) const NOTHING: Self = Self { single: false, ..Self::new(Access::Local) };

    /// The class of both statements together, which run on one node.
    pub(crate) fn with(self, other: Self) -> Self {
        let access = match (self.access, other.access) {
            (Access::Write, _) | (_, Access::Write) => Access::Write,
            (Access::Read, _) | (_, Access::Read) => Access::Read,
            _ => Access::Local,
        };
        let writes_locally = self.writes_locally || other.writes_locally;
        Self {
            access,
            writes_locally,
            sets_session: self.sets_session || other.sets_session,
            counts: self.counts || other.counts,
            inserts: self.inserts || other.inserts,
            asks_session: self.asks_session || other.asks_session,
            control: self.control || other.control,
            query_only: self.query_only || other.query_only,
            refused: self.refused || other.refused,
            split: self.split || other.split || (access == Access::Write && writes_locally),
            vacuums: self.vacuums || other.vacuums,
            copies: self.copies || other.copies,
            single: self.single && other.single,
            guessed: self.guessed || other.guessed,
            calls_application: self.calls_application || other.calls_application,
        }
    }

    /// SQLite's program only reads, but a function that it calls may write.
    pub(crate) fn may_write(&self) -> bool {
        self.access == Access::Read && self.calls_application
    }

    /// It only reads the database.
    #[inline]
    pub(crate) fn is_plain_read(&self) -> bool {
        self.access == Access::Read
            && !self.asks_session
            && !self.refused
            && self.single
            && !self.calls_application
    }
}
