//! The table of SQLite's locks on a database and of the connections that hold them
//! (<https://www.sqlite.org/lockingv3.html> and <https://www.sqlite.org/walformat.html>, section
//! 2.3). No function here waits: SQLite's busy handler does.

use sqlite_plugin::flags::{LockLevel, ShmLockMode};

/// A connection, or [`NODE`].
pub(crate) type Owner = u64;
/// The node itself, when it applies a transaction.
pub(crate) const NODE: Owner = 0;

/// Locks of the wal-index.
const SLOTS: usize = 8;
/// The lock that a WAL writer holds.
pub(crate) const WRITE_SLOT: usize = 0;

/// All locks of one database.
#[derive(Debug, Default)]
pub(crate) struct Locks {
    levels: Vec<(Owner, LockLevel)>,
    shared: [Vec<Owner>; SLOTS],
    exclusive: [Option<Owner>; SLOTS],
}

impl Locks {
    /// Raises `owner`'s lock on the database file to `wanted`; returns whether it succeeded.
    ///
    /// As in SQLite's unix VFS, an owner that wants the exclusive lock while others read keeps the
    /// pending lock, which excludes new readers.
    pub(crate) fn raise(&mut self, owner: Owner, wanted: LockLevel) -> bool {
        let highest = self.others(owner).max().unwrap_or(LockLevel::Unlocked);
        match wanted {
            LockLevel::Unlocked => true,
            LockLevel::Shared => highest < LockLevel::Pending && self.set(owner, wanted),
            LockLevel::Reserved => highest < LockLevel::Reserved && self.set(owner, wanted),
            LockLevel::Pending | LockLevel::Exclusive if highest >= LockLevel::Reserved => false,
            LockLevel::Exclusive if highest == LockLevel::Unlocked => self.set(owner, wanted),
            LockLevel::Pending | LockLevel::Exclusive => {
                self.set(owner, LockLevel::Pending);
                wanted == LockLevel::Pending
            }
        }
    }

    /// Lowers `owner`'s lock on the database file to `level`.
    pub(crate) fn lower(&mut self, owner: Owner, level: LockLevel) {
        self.levels.retain(|(holder, _)| *holder != owner);
        if level != LockLevel::Unlocked {
            self.levels.push((owner, level));
        }
    }

    /// `owner`'s lock on the database file.
    pub(crate) fn level(&self, owner: Owner) -> LockLevel {
        self.levels
            .iter()
            .find(|(holder, _)| *holder == owner)
            .map_or(LockLevel::Unlocked, |(_, level)| *level)
    }

    /// Whether a connection holds a lock to write the database file.
    pub(crate) fn reserved(&self) -> bool {
        self.levels.iter().any(|(_, level)| *level >= LockLevel::Reserved)
    }

    fn others(&self, owner: Owner) -> impl Iterator<Item = LockLevel> {
        self.levels.iter().filter(move |(holder, _)| *holder != owner).map(|(_, level)| *level)
    }

    fn set(&mut self, owner: Owner, level: LockLevel) -> bool {
        if self.level(owner) < level {
            self.lower(owner, level);
        }
        true
    }

    /// Takes or releases `count` locks of the wal-index from `offset` on, all or none; returns
    /// whether it succeeded.
    pub(crate) fn shm(
        &mut self,
        owner: Owner,
        offset: usize,
        count: usize,
        mode: ShmLockMode,
    ) -> bool {
        let slots = offset..(offset + count).min(SLOTS);
        match mode {
            ShmLockMode::LockShared if slots.clone().all(|slot| self.may_share(owner, slot)) => {
                slots.for_each(|slot| self.share(owner, slot));
                true
            }
            ShmLockMode::LockExclusive if slots.clone().all(|slot| self.may_own(owner, slot)) => {
                slots.for_each(|slot| self.exclusive[slot] = Some(owner));
                true
            }
            ShmLockMode::LockShared | ShmLockMode::LockExclusive => false,
            ShmLockMode::UnlockShared => {
                slots.for_each(|slot| self.shared[slot].retain(|holder| *holder != owner));
                true
            }
            ShmLockMode::UnlockExclusive => {
                slots.for_each(|slot| {
                    self.exclusive[slot] = self.exclusive[slot].filter(|holder| *holder != owner)
                });
                true
            }
        }
    }

    /// The connection that holds the WAL write lock.
    pub(crate) fn wal_writer(&self) -> Option<Owner> {
        self.exclusive[WRITE_SLOT].filter(|owner| *owner != NODE)
    }

    /// Releases every lock that `owner` holds.
    pub(crate) fn release(&mut self, owner: Owner) {
        self.lower(owner, LockLevel::Unlocked);
        self.shm(owner, 0, SLOTS, ShmLockMode::UnlockShared);
        self.shm(owner, 0, SLOTS, ShmLockMode::UnlockExclusive);
    }

    /// Takes further locks for the node, towards all locks of a database in WAL mode, in LiteFS's
    /// order (`db.go`, `TryAcquireWriteLock`): writer, checkpointer and recovery first, then the
    /// readers one by one. Locks that it has are kept.
    pub(crate) fn take_all_wal(&mut self) -> bool {
        (0..SLOTS).all(|slot| self.shm(NODE, slot, 1, ShmLockMode::LockExclusive))
    }

    /// The same for a database with a rollback journal.
    pub(crate) fn take_all_rollback(&mut self) -> bool {
        self.raise(NODE, LockLevel::Exclusive)
    }

    fn may_share(&self, owner: Owner, slot: usize) -> bool {
        self.exclusive[slot].is_none_or(|holder| holder == owner)
    }

    fn may_own(&self, owner: Owner, slot: usize) -> bool {
        self.may_share(owner, slot) && self.shared[slot].iter().all(|holder| *holder == owner)
    }

    fn share(&mut self, owner: Owner, slot: usize) {
        if !self.shared[slot].contains(&owner) {
            self.shared[slot].push(owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockLevel::{Exclusive, Pending, Reserved, Shared, Unlocked};

    #[test]
    fn readers_share_and_one_writer_waits_for_them() {
        let mut locks = Locks::default();
        assert!(locks.raise(1, Shared) && locks.raise(2, Shared));
        assert!(locks.raise(1, Reserved) && !locks.raise(2, Reserved));
        assert!(!locks.raise(1, Exclusive));
        assert_eq!(locks.level(1), Pending);
        assert!(!locks.raise(3, Shared), "a pending writer keeps new readers out");
        locks.lower(2, Unlocked);
        assert!(locks.raise(1, Exclusive));
    }

    #[test]
    fn a_writer_keeps_its_read_lock_when_it_downgrades() {
        let mut locks = Locks::default();
        locks.raise(1, Shared);
        locks.raise(1, Exclusive);
        locks.lower(1, Shared);
        assert!(!locks.reserved() && locks.raise(2, Shared));
    }

    #[test]
    fn wal_locks_are_all_or_none() {
        let mut locks = Locks::default();
        assert!(locks.shm(1, 3, 1, ShmLockMode::LockShared));
        assert!(locks.shm(2, 3, 1, ShmLockMode::LockShared));
        assert!(!locks.shm(3, 2, 3, ShmLockMode::LockExclusive));
        assert!(locks.shm(4, 2, 1, ShmLockMode::LockExclusive), "a refused request holds nothing");
    }

    #[test]
    fn the_node_gets_all_locks_only_without_readers() {
        let mut locks = Locks::default();
        locks.shm(1, 3, 1, ShmLockMode::LockShared);
        assert!(!locks.take_all_wal());
        assert!(!locks.shm(2, WRITE_SLOT, 1, ShmLockMode::LockExclusive), "it keeps what it has");
        locks.release(1);
        assert!(locks.take_all_wal());
        locks.release(NODE);
        assert!(locks.shm(2, WRITE_SLOT, 1, ShmLockMode::LockExclusive));
    }
}
