//! The option that says which nodes must have a write before it is acknowledged.

use std::str::FromStr;

/// Which nodes must have a write before it is acknowledged. LiteFS replicates after the commit, so
/// a write that only the primary has is lost if the primary fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// The primary. The default, and the fastest.
    #[default]
    Primary,
    /// Also the node that made the write. On the primary the same as [`Primary`](Self::Primary).
    Here,
    /// The primary and this many replicas.
    Replicas(usize),
}

/// `primary`, `here` or a number of replicas.
impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "primary" => Ok(Self::Primary),
            "here" => Ok(Self::Here),
            number => match number.parse() {
                Ok(0) | Err(_) => {
                    Err(format!("{text:?} is neither primary, here nor a number of replicas"))
                }
                Ok(replicas) => Ok(Self::Replicas(replicas)),
            },
        }
    }
}
