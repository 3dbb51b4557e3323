//! The `.primary` file.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Detector, Sink};
use crate::mount::{MountError, Probe, is_fuse};
use crate::{Mount, NodeName, Observation};

/// Reads `.primary` at intervals, and sooner where the file system reports changes.
#[derive(Debug)]
pub(crate) struct PrimaryFileDetector {
    changed: Arc<Notify>,
}

/// What one read found.
type Found = Result<Option<NodeName>, MountError>;

impl PrimaryFileDetector {
    pub(crate) fn new() -> Self {
        Self { changed: Arc::default() }
    }

    /// Reads the file and reports what it says.
    pub(crate) async fn read_once(&self, sink: &Sink) -> Found {
        let seq = sink.next_seq();
        let mount = sink.mount().clone();
        let found = tokio::task::spawn_blocking(move || mount.read_primary()).await;
        let found = found.unwrap_or_else(|panic| Err(unread(sink.mount(), panic.into())));
        match &found {
            Ok(Some(_)) => sink.state().record_probe(Probe::Marker),
            Ok(None) => {}
            Err(MountError::Gone(_)) => sink.state().record_probe(Probe::Gone),
            Err(MountError::NotConnected(_)) => sink.state().record_probe(Probe::Dead),
            Err(_) => {}
        }
        match &found {
            Ok(_) => sink.working(),
            Err(error) => sink.failing(error),
        }
        let name = found.as_ref().ok().cloned().flatten();
        sink.report_at(seq, Observation::PrimaryFile(name));
        found
    }

    async fn follow(&self, sink: &Sink) {
        let mut watcher = None;
        let mut before = None;
        loop {
            if watcher.is_none() {
                watcher = self.watch(sink.mount()).await;
            }
            let found = self.read_once(sink).await;
            if matches!(found, Err(MountError::Gone(_) | MountError::NotConnected(_))) {
                // A watch dies with its directory, without a word.
                watcher = None;
            }
            let name = found.ok().flatten();
            let pause = pause(sink, before != name);
            before = name;
            // Either way it is time to read.
            let _ = tokio::time::timeout(pause, self.changed.notified()).await;
        }
    }

    /// Watches the directory, where that is worth something. Without it, polling has to do.
    async fn watch(&self, mount: &Mount) -> Option<RecommendedWatcher> {
        let (dir, changed) = (mount.dir().to_owned(), Arc::clone(&self.changed));
        let watch = move || {
            let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            if is_fuse(&table, &dir) {
                return None;
            }
            let watched = dir.clone();
            let mut watcher =
                notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                    if event.is_ok_and(|event| concerns(&event, &watched)) {
                        changed.notify_one();
                    }
                })
                .ok()?;
            watcher.watch(&dir, RecursiveMode::NonRecursive).ok()?;
            Some(watcher)
        };
        tokio::task::spawn_blocking(watch).await.ok().flatten()
    }
}

/// Our own reads are events, too: only changes count, of the file or of the directory as a whole.
fn concerns(event: &notify::Event, dir: &Path) -> bool {
    let change =
        matches!(event.kind, EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_));
    change && event.paths.iter().any(|path| path == dir || path.ends_with(".primary"))
}

/// The poll interval, or after a change much less: LiteFS names a dead primary for up to 10 ms, and
/// what is gone again within the debounce is never published.
fn pause(sink: &Sink, changed: bool) -> Duration {
    let config = sink.config();
    if changed {
        config.poll_interval().min(config.debounce() * 3 / 4)
    } else {
        config.poll_interval()
    }
}

fn unread(mount: &Mount, source: std::io::Error) -> MountError {
    MountError::Io { file: mount.dir().join(".primary"), source }
}

impl Detector for PrimaryFileDetector {
    fn name(&self) -> &'static str {
        "primary_file"
    }

    fn run(self: Box<Self>, sink: Sink, stop: CancellationToken) -> BoxFuture<'static, ()> {
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.follow(&sink) => {}
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use notify::event::{AccessKind, CreateKind};

    use super::*;

    #[test]
    fn only_a_change_of_the_primary_file_or_its_directory_wakes_the_detector() {
        let dir = Path::new("/litefs");
        let event = |kind, path: &str| notify::Event::new(kind).add_path(path.into());
        let created = EventKind::Create(CreateKind::File);
        assert!(concerns(&event(created, "/litefs/.primary"), dir));
        assert!(concerns(
            &event(EventKind::Remove(notify::event::RemoveKind::Folder), "/litefs"),
            dir
        ));
        assert!(!concerns(&event(created, "/litefs/app.db-wal"), dir));
        assert!(!concerns(&event(EventKind::Access(AccessKind::Any), "/litefs/.primary"), dir));
    }
}
