//! How LiteFS says no.

/// Whether a Diesel error is one of those with which LiteFS rejects a write on a node that is not the primary. See
/// [`is_litefs_rejection`](litefs_rpc::wire::is_litefs_rejection).
pub(crate) fn is_rejection(error: &diesel::result::Error) -> bool {
    match error {
        diesel::result::Error::DatabaseError(_, information) => {
            litefs_rpc::wire::is_litefs_rejection(information.message())
        }
        _ => false,
    }
}
