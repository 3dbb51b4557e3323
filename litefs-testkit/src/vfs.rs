//! The SQLite VFS through which connections access a node's databases. It takes the place that FUSE
//! has in LiteFS.

mod handle;

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock};

use sqlite_plugin::flags::{
    AccessFlags, CreateMode, LockLevel, OpenKind, OpenMode, OpenOpts, ShmLockMode,
};
use sqlite_plugin::vars;
use sqlite_plugin::vfs::{RegisterOpts, Vfs, VfsResult, register_static};

use crate::database::{Database, is_database_name};
use crate::engine::Engine;
use crate::error::Error;
use crate::locks::Owner;
use crate::sync::locked;
use handle::{Handle, MainFile};

/// Name of the VFS, for `?vfs=` in a database URI.
pub const VFS_NAME: &str = "litefs-testkit";

/// Nodes of this process by their canonical mount directory.
static MOUNTS: LazyLock<Mutex<HashMap<PathBuf, Arc<Engine>>>> = LazyLock::new(Mutex::default);

/// Makes `engine` serve its directory, in place of an earlier incarnation.
pub(crate) fn mount(engine: &Arc<Engine>) -> Result<(), Error> {
    static REGISTERED: OnceLock<Result<(), i32>> = OnceLock::new();
    let register = || {
        let name = CString::new(VFS_NAME).map_err(|_| vars::SQLITE_MISUSE)?;
        register_static(name, NodeVfs::default(), RegisterOpts { make_default: false }).map(drop)
    };
    REGISTERED.get_or_init(register).map_err(Error::Register)?;
    locked(&MOUNTS).insert(engine.context.dir().to_owned(), Arc::clone(engine));
    Ok(())
}

/// Forgets a node that will not be restarted.
pub(crate) fn unmount(dir: &Path) {
    locked(&MOUNTS).remove(dir);
}

#[derive(Default)]
struct NodeVfs {
    last_owner: AtomicU64,
}

impl NodeVfs {
    fn next_owner(&self) -> Owner {
        self.last_owner.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// A file of a node: the engine, the database, and the suffix after the database's name.
struct Target {
    engine: Arc<Engine>,
    database: String,
    suffix: &'static str,
}

impl Target {
    fn find(path: &str, failure: i32) -> VfsResult<Self> {
        let path = Path::new(path);
        let (dir, file) =
            path.parent().zip(path.file_name().and_then(|name| name.to_str())).ok_or(failure)?;
        let engine = locked(&MOUNTS).get(dir).cloned().ok_or(failure)?;
        let suffix = ["-wal", "-journal"]
            .into_iter()
            .find(|suffix| file.ends_with(suffix))
            .unwrap_or_default();
        let database = file.strip_suffix(suffix).unwrap_or(file).to_owned();
        let alive = engine.context.is_served() && is_database_name(&database);
        if alive { Ok(Self { engine, database, suffix }) } else { Err(failure) }
    }

    fn open(&self, create: bool) -> VfsResult<Arc<Database>> {
        let found = self.engine.database(&self.database, create);
        found.ok().flatten().ok_or(vars::SQLITE_CANTOPEN)
    }
}

impl Vfs for NodeVfs {
    type Handle = Handle;

    fn canonical_path<'a>(&self, path: Cow<'a, str>) -> VfsResult<Cow<'a, str>> {
        let absolute = std::path::absolute(&*path).map_err(|_| vars::SQLITE_CANTOPEN)?;
        let (parent, name) =
            absolute.parent().zip(absolute.file_name()).ok_or(vars::SQLITE_CANTOPEN)?;
        let full = fs::canonicalize(parent).map_err(|_| vars::SQLITE_CANTOPEN)?.join(name);
        full.into_os_string().into_string().map(Cow::Owned).map_err(|_| vars::SQLITE_CANTOPEN)
    }

    fn open(&self, path: Option<&str>, opts: OpenOpts) -> VfsResult<Handle> {
        let kind = opts.kind();
        let Some(path) = path.filter(|_| !kind.is_temp() && kind != OpenKind::SubJournal) else {
            return Ok(Handle::Temporary(Vec::new()));
        };
        let target = Target::find(path, vars::SQLITE_CANTOPEN)?;
        let create =
            matches!(opts.mode(), OpenMode::ReadWrite { create } if create != CreateMode::None);
        match kind {
            OpenKind::MainDb => {
                let main = MainFile::new(
                    target.open(create)?,
                    self.next_owner(),
                    opts.mode().is_readonly(),
                );
                Ok(Handle::Main(main))
            }
            OpenKind::Wal => handle::open_wal(target.open(false)?, create),
            OpenKind::MainJournal => handle::open_journal(target.open(false)?, create),
            // LiteFS has no plain files, and so no super-journals.
            _ => Err(vars::SQLITE_CANTOPEN),
        }
    }

    fn delete(&self, path: &str) -> VfsResult<()> {
        let target = Target::find(path, vars::SQLITE_IOERR_DELETE)?;
        let database = target.open(false).map_err(|_| vars::SQLITE_IOERR_DELETE)?;
        match target.suffix {
            "-journal" => handle::end_journal(&database, vars::SQLITE_IOERR_DELETE)?,
            "-wal" => database.forget_wal(true),
            _ => return Err(vars::SQLITE_IOERR_DELETE),
        }
        match fs::remove_file(path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(vars::SQLITE_IOERR_DELETE_NOENT)
            }
            Err(_) => Err(vars::SQLITE_IOERR_DELETE),
        }
    }

    fn access(&self, path: &str, _flags: AccessFlags) -> VfsResult<bool> {
        Target::find(path, vars::SQLITE_IOERR_ACCESS)?;
        Ok(Path::new(path).exists())
    }

    fn file_size(&self, handle: &mut Handle) -> VfsResult<usize> {
        handle.size()
    }

    fn truncate(&self, handle: &mut Handle, size: usize) -> VfsResult<()> {
        handle.truncate(size)
    }

    fn write(&self, handle: &mut Handle, offset: usize, data: &[u8]) -> VfsResult<usize> {
        handle.write(offset, data).map(|()| data.len())
    }

    fn read(&self, handle: &mut Handle, offset: usize, data: &mut [u8]) -> VfsResult<usize> {
        handle.read(offset, data)
    }

    fn sync(&self, handle: &mut Handle) -> VfsResult<()> {
        handle.sync()
    }

    fn lock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        handle.main().map_or(Ok(()), |main| main.lock(level))
    }

    fn unlock(&self, handle: &mut Handle, level: LockLevel) -> VfsResult<()> {
        handle.main().map_or(Ok(()), |main| main.unlock(level))
    }

    fn check_reserved_lock(&self, handle: &mut Handle) -> VfsResult<bool> {
        Ok(handle.main().is_some_and(|main| main.reserved()))
    }

    fn close(&self, mut handle: Handle) -> VfsResult<()> {
        if let Some(main) = handle.main() {
            main.close();
        }
        Ok(())
    }

    fn device_characteristics(&self, _handle: &mut Handle) -> VfsResult<i32> {
        // The value of SQLite's unix VFS; the plugin's default would claim atomic writes.
        Ok(vars::SQLITE_IOCAP_POWERSAFE_OVERWRITE)
    }

    fn shm_map(
        &self,
        handle: &mut Handle,
        region: usize,
        size: usize,
        extend: bool,
    ) -> VfsResult<Option<NonNull<u8>>> {
        handle.main().ok_or(vars::SQLITE_IOERR_SHMMAP)?.map_region(region, size, extend)
    }

    fn shm_lock(
        &self,
        handle: &mut Handle,
        offset: u32,
        count: u32,
        mode: ShmLockMode,
    ) -> VfsResult<()> {
        handle.main().ok_or(vars::SQLITE_IOERR_SHMLOCK)?.lock_index(
            offset as usize,
            count as usize,
            mode,
        )
    }

    fn shm_barrier(&self, _handle: &mut Handle) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }

    fn shm_unmap(&self, handle: &mut Handle, _delete: bool) -> VfsResult<()> {
        if let Some(main) = handle.main() {
            main.unmap();
        }
        Ok(())
    }
}
