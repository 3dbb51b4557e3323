//! The option that says how the primary runs its own autocommit writes.

use std::str::FromStr;

/// How the primary runs its own statements that write, outside of transactions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LocalWrites {
    /// Each on its own connection, as with plain SQLite: they wait for each other by sleeping and
    /// trying again (`busy_timeout`), and each has a commit of its own. The default.
    #[default]
    Direct,
    /// Through the writer that also runs the writes of other nodes: in the order of their arrival,
    /// sharing commits when there are many, without waiting for each other's locks. The rules of
    /// forwarded writes hold for them: delivery, limits, `forward_timeout`, and only those
    /// functions that [`on_connection`](crate::LiteFsBuilder::on_connection) registers.
    ///
    /// Transactions and scripts (`batch_execute`) stay on their own connections, and so does
    /// everything in a process that does not [`serve`](crate::LiteFsBuilder::serve).
    Grouped,
}

/// `direct` or `grouped`.
impl FromStr for LocalWrites {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "direct" => Ok(Self::Direct),
            "grouped" => Ok(Self::Grouped),
            other => Err(format!("{other:?} is neither direct nor grouped")),
        }
    }
}
