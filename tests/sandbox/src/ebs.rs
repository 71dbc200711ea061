//! What volumes and snapshots really hold (H46).
//!
//! A snapshot is a copy of its volume's files at the moment of the call, under `DIR/ebs`; every process of the instance stands
//! still meanwhile, so that a set of several volumes is one moment. A copy of a snapshot in another region is the same content
//! under another name, there only when the copy is complete. Files that have not changed since the volume's last snapshot are
//! hard links to that one, as blocks are in EBS; content is never written to afterwards.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tde2hsm_model::InstanceId;

/// A volume whose files are here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub instance: InstanceId,
    /// Where the instance mounts it.
    pub target: String,
    /// What lies on it: the volume's own layer, and those of the snapshot it was made from.
    pub upper: PathBuf,
    pub lower: Vec<PathBuf>,
}

/// What a snapshot's content says of itself, beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub volume: String,
    pub instance: InstanceId,
    pub target: String,
    /// When, in the words of the service: one moment for all volumes of a set.
    pub taken: String,
    #[serde(skip)]
    pub tree: PathBuf,
}

/// By path: inode, change time and size of the file that was copied.
type Seen = BTreeMap<PathBuf, (u64, i128, u64)>;

#[derive(Debug)]
pub struct Ebs {
    dir: PathBuf,
    /// Programs that hosts have as hard links; nothing ever writes to these.
    shared: BTreeSet<(u64, u64)>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    volumes: BTreeMap<String, Volume>,
    /// The last content taken of each volume.
    last: BTreeMap<String, (PathBuf, Seen)>,
}

impl Ebs {
    pub fn new(dir: &Path, programs: &Path) -> Result<Self> {
        fs::create_dir_all(dir.join("contents"))?;
        let mut shared = BTreeSet::new();
        for entry in fs::read_dir(programs)? {
            let meta = entry?.metadata()?;
            shared.insert((meta.dev(), meta.ino()));
        }
        Ok(Self { dir: dir.to_owned(), shared, inner: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, id: &str, volume: Volume) {
        self.lock().volumes.insert(id.to_owned(), volume);
    }

    pub fn volume(&self, id: &str) -> Option<Volume> {
        self.lock().volumes.get(id).cloned()
    }

    /// Takes a snapshot of a volume. `live`: where the volume's files are seen while the instance is up.
    pub fn take(&self, snapshot: &str, id: &str, taken: &str, live: Option<&Path>) -> Result<()> {
        let mut inner = self.lock();
        let Some(volume) = inner.volumes.get(id).cloned() else { return Ok(()) };
        let content = self.dir.join("contents").join(snapshot);
        let tree = content.join("tree");
        // A volume with layers is whole only where it is mounted.
        let from = match live.filter(|_| !volume.lower.is_empty()) {
            Some(live) => live.to_owned(),
            None => volume.upper.clone(),
        };
        let former = inner.last.remove(id);
        let mut copy =
            Copy { shared: &self.shared, former: former.as_ref(), seen: Seen::new(), device: fs::metadata(&from)?.dev() };
        copy.directory(&from, &tree, Path::new("")).with_context(|| format!("copying {id} into {snapshot}"))?;
        let seen = copy.seen;
        inner.last.insert(id.to_owned(), (tree.clone(), seen));
        let about =
            Content { volume: id.to_owned(), instance: volume.instance, target: volume.target, taken: taken.to_owned(), tree };
        fs::write(content.join("about.json"), serde_json::to_vec_pretty(&about)?)?;
        self.link(snapshot, snapshot)
    }

    /// A file system with what a snapshot holds.
    pub fn lay_out(&self, tree: &Path, to: &Path) -> Result<()> {
        let mut copy = Copy { shared: &self.shared, former: None, seen: Seen::new(), device: fs::metadata(tree)?.dev() };
        copy.directory(tree, to, Path::new("")).with_context(|| format!("laying {} out", tree.display()))
    }

    /// The copy holds what the source holds. Nothing happens where the source's content is not here.
    pub fn copied(&self, source: &str, snapshot: &str) -> Result<()> {
        match fs::read_link(self.dir.join(source)) {
            Ok(to) => self.link(snapshot, &to.file_name().unwrap_or_default().to_string_lossy()),
            Err(_) => Ok(()),
        }
    }

    fn link(&self, snapshot: &str, content: &str) -> Result<()> {
        symlink(Path::new("contents").join(content), self.dir.join(snapshot)).with_context(|| format!("naming {snapshot}"))
    }

    /// Forgets a snapshot, and its content with the last name of it.
    pub fn deleted(&self, snapshot: &str) {
        let mut inner = self.lock();
        let Ok(to) = fs::read_link(self.dir.join(snapshot)) else { return };
        let _ = fs::remove_file(self.dir.join(snapshot));
        let others = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        if !others.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|other| other == to) {
            let content = self.dir.join(to);
            inner.last.retain(|_, (tree, _)| !tree.starts_with(&content));
            let _ = fs::remove_dir_all(content);
        }
    }

    pub fn content(&self, snapshot: &str) -> Option<Content> {
        let dir = fs::canonicalize(self.dir.join(snapshot)).ok()?;
        let mut content: Content = serde_json::from_slice(&fs::read(dir.join("about.json")).ok()?).ok()?;
        content.tree = dir.join("tree");
        Some(content)
    }
}

struct Copy<'a> {
    shared: &'a BTreeSet<(u64, u64)>,
    former: Option<&'a (PathBuf, Seen)>,
    seen: Seen,
    /// Other file systems that are mounted below are no part of this one.
    device: u64,
}

impl Copy<'_> {
    fn directory(&mut self, from: &Path, to: &Path, name: &Path) -> std::io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (path, target, name) = (entry.path(), to.join(entry.file_name()), name.join(entry.file_name()));
            match self.entry(&path, &target, &name) {
                // A file that was there a moment ago: only of an instance that could not be held.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        same_owner(&fs::symlink_metadata(from)?, to)
    }

    fn entry(&mut self, from: &Path, to: &Path, name: &Path) -> std::io::Result<()> {
        let meta = fs::symlink_metadata(from)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            if meta.dev() == self.device {
                return self.directory(from, to, name);
            }
            // A mount point.
            fs::create_dir_all(to)?;
            return same_owner(&meta, to);
        }
        if kind.is_symlink() {
            symlink(fs::read_link(from)?, to)?;
            return lchown(to, Some(meta.uid()), Some(meta.gid()));
        }
        if kind.is_socket() || kind.is_fifo() {
            let of = if kind.is_socket() { nix::sys::stat::SFlag::S_IFSOCK } else { nix::sys::stat::SFlag::S_IFIFO };
            nix::sys::stat::mknod(to, of, nix::sys::stat::Mode::from_bits_truncate(meta.mode()), 0)?;
            return same_owner(&meta, to);
        }
        if !kind.is_file() {
            return Ok(());
        }
        if self.shared.contains(&(meta.dev(), meta.ino())) {
            return fs::hard_link(from, to);
        }
        let changed = i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec());
        let now = (meta.ino(), changed, meta.size());
        let unchanged = self.former.filter(|(_, seen)| seen.get(name) == Some(&now)).map(|(tree, _)| tree.join(name));
        if unchanged.is_none_or(|old| fs::hard_link(old, to).is_err()) {
            fs::copy(from, to)?;
            same_owner(&meta, to)?;
            let times = fs::FileTimes::new().set_modified(meta.modified()?).set_accessed(meta.accessed()?);
            // Through a descriptor that may only read: the owner of the times is who asks.
            fs::File::open(to)?.set_times(times)?;
        }
        self.seen.insert(name.to_owned(), now);
        Ok(())
    }
}

pub(crate) fn same_owner(meta: &fs::Metadata, to: &Path) -> std::io::Result<()> {
    lchown(to, Some(meta.uid()), Some(meta.gid()))?;
    // After the owner, because chown takes setuid away.
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> (tempfile::TempDir, Ebs) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "volume/sub"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("volume/a"), "one").unwrap();
        fs::write(dir.path().join("volume/sub/b"), "two").unwrap();
        let ebs = Ebs::new(&dir.path().join("ebs"), &dir.path().join("bin")).unwrap();
        let volume = Volume {
            instance: InstanceId::new("i-1"),
            target: "/u01/oradata".into(),
            upper: dir.path().join("volume"),
            lower: Vec::new(),
        };
        ebs.add("vol-1", volume);
        (dir, ebs)
    }

    #[test]
    fn a_snapshot_holds_what_was_there_and_an_unchanged_file_is_not_copied_again() {
        let (dir, ebs) = world();
        ebs.take("snap-1", "vol-1", "2026-11-24T00:00:00.000Z", None).unwrap();
        fs::write(dir.path().join("volume/a"), "later").unwrap();
        ebs.take("snap-2", "vol-1", "2026-11-24T00:00:00.000Z", None).unwrap();
        let read = |snapshot: &str, name: &str| fs::read_to_string(ebs.content(snapshot).unwrap().tree.join(name)).unwrap();
        assert_eq!((read("snap-1", "a"), read("snap-2", "a")), ("one".into(), "later".into()));
        let inode = |snapshot: &str| fs::metadata(ebs.content(snapshot).unwrap().tree.join("sub/b")).unwrap().ino();
        assert_eq!(inode("snap-1"), inode("snap-2"));
        assert_ne!(inode("snap-1"), fs::metadata(dir.path().join("volume/sub/b")).unwrap().ino());
        assert_eq!(ebs.content("snap-2").unwrap().target, "/u01/oradata");
    }

    #[test]
    fn a_copy_outlives_its_source_and_content_goes_with_its_last_name() {
        let (_dir, ebs) = world();
        ebs.take("snap-1", "vol-1", "2026-11-24T00:00:00.000Z", None).unwrap();
        ebs.copied("snap-1", "snap-far").unwrap();
        ebs.copied("snap-absent", "snap-nothing").unwrap();
        assert_eq!(ebs.content("snap-nothing"), None);
        ebs.deleted("snap-1");
        assert_eq!(ebs.content("snap-1"), None);
        let tree = ebs.content("snap-far").unwrap().tree;
        assert_eq!(fs::read_to_string(tree.join("a")).unwrap(), "one");
        ebs.deleted("snap-far");
        assert!(!tree.exists());
    }
}
