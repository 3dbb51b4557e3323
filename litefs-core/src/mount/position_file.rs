//! `<db>-pos`, kept open.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::{Mount, MountError, PositionError, parse_position};
use crate::Position;

/// Read in one piece: LiteFS formats the position anew for each read, two reads could mix two
/// positions.
const BUFFER: usize = 64;

/// A database that is dropped and created again has a new `-pos`, and the old descriptor would go
/// on showing the old one. So a descriptor serves for this long; opening costs about 0.1 ms.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The position of one database. Reading through a kept descriptor costs 15 to 41 us on FUSE, an
/// open 120 to 190.
#[derive(Debug, Default)]
pub(crate) struct PositionFile {
    open: Option<(File, Instant)>,
}

impl PositionFile {
    /// Reads the position now. On a failure the descriptor is dropped and the next read opens anew.
    pub(crate) fn read(&mut self, mount: &Mount) -> Result<Position, PositionError> {
        let kept = self.open.take().filter(|(_, since)| since.elapsed() < MAX_AGE);
        let (file, since) = match kept {
            Some(kept) => kept,
            None => (open(mount)?, Instant::now()),
        };
        let position = read(mount, &file)?;
        self.open = Some((file, since));
        Ok(position)
    }
}

fn open(mount: &Mount) -> Result<File, PositionError> {
    let not_found = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    // Never touch a special name before its database exists.
    match mount.database.metadata() {
        Err(error) if not_found(&error) && mount.dir.is_dir() => {
            return Err(PositionError::NoDatabase(mount.database.clone()));
        }
        Err(error) => return Err(mount.explain(&mount.database, error).into()),
        Ok(_) => {}
    }
    let path = mount.position_path();
    File::open(&path).map_err(|error| {
        if not_found(&error) {
            PositionError::Absent(path)
        } else {
            mount.explain(&path, error).into()
        }
    })
}

fn read(mount: &Mount, file: &File) -> Result<Position, MountError> {
    let path = || mount.position_path();
    let mut buffer = [0; BUFFER];
    let length = file.read_at(&mut buffer, 0).map_err(|error| mount.explain(&path(), error))?;
    if length == BUFFER {
        return Err(MountError::TooLarge(path()));
    }
    parse_position(&buffer[..length])
        .map_err(|reason| MountError::Malformed { file: path(), reason })
}
