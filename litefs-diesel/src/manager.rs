//! The r2d2 manager of a handle.

use diesel::r2d2::{ManageConnection, R2D2Connection};

use crate::connection::LiteFsConnection;
use crate::handle::LiteFs;

/// An r2d2 manager for connections of one [`LiteFs`] handle. Made by
/// [`LiteFs::connection_manager`].
///
/// It keeps the handle alive. `diesel::r2d2::ConnectionManager::<LiteFsConnection>::new(path)`
/// works as well: it finds the handle by path.
#[derive(Debug, Clone)]
pub struct ConnectionManager {
    litefs: LiteFs,
}

impl LiteFs {
    /// An r2d2 manager whose connections belong to this handle.
    #[must_use]
    pub fn connection_manager(&self) -> ConnectionManager {
        ConnectionManager { litefs: self.clone() }
    }
}

impl ConnectionManager {
    /// The handle.
    pub fn litefs(&self) -> &LiteFs {
        &self.litefs
    }
}

impl ManageConnection for ConnectionManager {
    type Connection = LiteFsConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> Result<LiteFsConnection, Self::Error> {
        self.litefs.establish().map_err(diesel::r2d2::Error::ConnectionError)
    }

    fn is_valid(&self, connection: &mut LiteFsConnection) -> Result<(), Self::Error> {
        connection.ping().map_err(diesel::r2d2::Error::QueryError)
    }

    fn has_broken(&self, connection: &mut LiteFsConnection) -> bool {
        std::thread::panicking() || connection.is_broken()
    }
}
