//! The only place where a file changes, and none is ever lost.
//!
//! A file is replaced as a whole (temporary file in the same directory, fsync, rename, fsync of the directory) and
//! keeps owner, mode and SELinux label, so a crash leaves the old or the new text and never a part. Copies and files
//! moved aside go to a name that does not exist yet (`RENAME_NOREPLACE`, `O_EXCL`): nothing is overwritten or deleted
//! (invariant 3). Directories of the database owner are walked without following links, in a process that has become
//! the owner ([`crate::owner`]), so a link planted there leads nowhere its planter could not go himself (H33).

use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{Mode, SFlag};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use tde2hsm_protocol::{Code, Digest, Timestamp};

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("`{path}` cannot be {what}")]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` is not what it was when it was read")]
    Changed { path: PathBuf },
    #[error("`{path}` is a link or not a plain file")]
    NotPlain { path: PathBuf },
    #[error("`{path}` exists already and is never overwritten")]
    Exists { path: PathBuf },
    #[error("`{path}` is larger than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("the database owner's process answered: {message}")]
    Remote { code: Code, message: String },
}

impl FileError {
    pub fn code(&self) -> Code {
        match self {
            FileError::Changed { .. } => Code::FILE_CHANGED,
            FileError::Remote { code, .. } => *code,
            _ => Code::FILE_WORK,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    File,
    Directory,
    Link,
    Other,
}

/// What `stat` says, and the hash of a plain file where it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    pub path: PathBuf,
    pub kind: FileKind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// A copy, or a file moved aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub from: PathBuf,
    pub to: PathBuf,
    pub sha256: Digest,
}

/// What one file may hold when it is read whole. Keystores and configuration are far below; a provider's library is not above.
pub const READ_LIMIT: u64 = 256 * 1024 * 1024;

fn io(path: &Path, what: &'static str) -> impl Fn(std::io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError::Io { path: path.clone(), what, source }
}

fn errno(path: &Path, what: &'static str) -> impl Fn(nix::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |error| FileError::Io { path: path.clone(), what, source: error.into() }
}

/// A directory, opened component by component. A link is followed only where its directory is root's and nobody
/// else may write there; anywhere else it is refused, because between looking and using its owner could turn it (H33).
fn open_dir(path: &Path) -> Result<OwnedFd, FileError> {
    let mut pending: Vec<OsString> = components(path)?;
    pending.reverse();
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut at = nix::fcntl::open("/", flags, Mode::empty()).map_err(errno(path, "opened"))?;
    let mut links = 0;
    while let Some(name) = pending.pop() {
        match nix::fcntl::openat(&at, name.as_os_str(), flags | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(next) => at = next,
            // With O_DIRECTORY a link answers ENOTDIR or ELOOP.
            Err(nix::Error::ENOTDIR | nix::Error::ELOOP) => {
                let target =
                    nix::fcntl::readlinkat(&at, name.as_os_str()).map_err(|_| FileError::NotPlain { path: path.to_owned() })?;
                let dir = nix::sys::stat::fstat(&at).map_err(errno(path, "opened"))?;
                links += 1;
                if dir.st_uid != 0 || dir.st_mode & 0o022 != 0 || links > 16 {
                    return Err(FileError::NotPlain { path: path.to_owned() });
                }
                let target = PathBuf::from(target);
                if target.is_absolute() {
                    at = nix::fcntl::open("/", flags, Mode::empty()).map_err(errno(path, "opened"))?;
                }
                for component in target.components().rev() {
                    match component {
                        Component::Normal(name) => pending.push(name.to_owned()),
                        Component::ParentDir => return Err(FileError::NotPlain { path: path.to_owned() }),
                        Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                    }
                }
            }
            Err(error) => return Err(errno(path, "opened")(error)),
        }
    }
    Ok(at)
}

fn components(path: &Path) -> Result<Vec<OsString>, FileError> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(FileError::NotPlain { path: path.to_owned() }),
        }
    }
    if path.is_absolute() { Ok(names) } else { Err(FileError::NotPlain { path: path.to_owned() }) }
}

/// The directory of a path, open, and the name in it.
fn parent(path: &Path) -> Result<(OwnedFd, OsString), FileError> {
    let name = path.file_name().ok_or_else(|| FileError::NotPlain { path: path.to_owned() })?;
    let dir = path.parent().ok_or_else(|| FileError::NotPlain { path: path.to_owned() })?;
    Ok((open_dir(dir)?, name.to_owned()))
}

/// `None` where there is no such file or directory.
fn absent<T>(result: Result<T, FileError>) -> Result<Option<T>, FileError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(FileError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens a plain file for reading, links not followed. `O_NONBLOCK`: a pipe planted there does not hang us.
fn open_plain(path: &Path) -> Result<(File, OwnedFd, OsString), FileError> {
    let (dir, name) = parent(path)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match nix::fcntl::openat(&dir, name.as_os_str(), flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(nix::Error::ELOOP) => return Err(FileError::NotPlain { path: path.to_owned() }),
        Err(error) => return Err(errno(path, "opened")(error)),
    };
    if !file.metadata().map_err(io(path, "opened"))?.is_file() {
        return Err(FileError::NotPlain { path: path.to_owned() });
    }
    Ok((file, dir, name))
}

fn read_whole(path: &Path, file: &File) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    file.take(READ_LIMIT + 1).read_to_end(&mut bytes).map_err(io(path, "read"))?;
    if bytes.len() as u64 > READ_LIMIT {
        return Err(FileError::TooLarge { path: path.to_owned(), limit: READ_LIMIT });
    }
    Ok(bytes)
}

fn sync_dir(path: &Path, dir: &OwnedFd) -> Result<(), FileError> {
    // An O_PATH descriptor cannot be synced; the same directory is opened again through it.
    let dir = nix::fcntl::openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(errno(path, "synced"))?;
    nix::unistd::fsync(&dir).map_err(errno(path, "synced"))
}

fn info_of(path: &Path, stat: &nix::sys::stat::FileStat, sha256: Option<Digest>) -> FileInfo {
    let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => FileKind::File,
        SFlag::S_IFDIR => FileKind::Directory,
        SFlag::S_IFLNK => FileKind::Link,
        _ => FileKind::Other,
    };
    FileInfo {
        path: path.to_owned(),
        kind,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        modified: Timestamp(stat.st_mtime),
        sha256,
    }
}

/// `lstat`. `None` when there is nothing of that name.
pub fn stat(path: &Path) -> Result<Option<FileInfo>, FileError> {
    absent(parent(path).and_then(|(dir, name)| {
        let stat =
            nix::sys::stat::fstatat(&dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(errno(path, "looked at"))?;
        Ok(info_of(path, &stat, None))
    }))
}

/// `None` when there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    absent(open_plain(path).and_then(|(file, ..)| read_whole(path, &file)))
}

/// Streams, so that a file of any size can be hashed. `None` when there is no such file.
pub fn hash(path: &Path) -> Result<Option<Digest>, FileError> {
    absent(open_plain(path).and_then(|(file, ..)| hash_of(path, &file)))
}

fn hash_of(path: &Path, mut file: &File) -> Result<Digest, FileError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer).map_err(io(path, "read"))? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(Digest::from_bytes(hasher.finalize().into()))
}

/// A directory's entries by name, plain files with their hash. `None` when there is no such directory.
pub fn list(dir: &Path) -> Result<Option<Vec<FileInfo>>, FileError> {
    let Some(fd) = absent(open_dir(dir))? else { return Ok(None) };
    let mut infos = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", fd.as_raw_fd())).map_err(io(dir, "listed"))? {
        let name = entry.map_err(io(dir, "listed"))?.file_name();
        let path = dir.join(&name);
        let Ok(stat) = nix::sys::stat::fstatat(&fd, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            continue; // gone since
        };
        let mut info = info_of(&path, &stat, None);
        if info.kind == FileKind::File {
            info.sha256 = hash(&path)?;
        }
        infos.push(info);
    }
    infos.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Some(infos))
}

/// Makes a directory and its parents. Existing is fine; nothing is loosened or tightened then.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), FileError> {
    match absent(open_dir(path))? {
        Some(_) => Ok(()),
        None => {
            if let Some(up) = path.parent() {
                make_dir(up, mode)?;
            }
            let (dir, name) = parent(path)?;
            match nix::sys::stat::mkdirat(&dir, name.as_os_str(), Mode::from_bits_truncate(mode)) {
                Ok(()) => {
                    // mkdir's mode passed through the umask.
                    let made = nix::fcntl::openat(
                        &dir,
                        name.as_os_str(),
                        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
                        Mode::empty(),
                    )
                    .map_err(errno(path, "made"))?;
                    nix::sys::stat::fchmod(&made, Mode::from_bits_truncate(mode)).map_err(errno(path, "made"))?;
                    sync_dir(path, &dir)
                }
                Err(nix::Error::EEXIST) => Ok(()),
                Err(error) => Err(errno(path, "made")(error)),
            }
        }
    }
}

pub fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    let (file, ..) = open_plain(path)?;
    nix::sys::stat::fchmod(&file, Mode::from_bits_truncate(mode)).map_err(errno(path, "changed"))
}

/// A directory below the runner's own that a database owner may write into, and nobody else may look into.
pub fn scratch(paths: &crate::paths::Paths, uid: u32, gid: u32) -> Result<PathBuf, FileError> {
    let all = paths.state().join("scratch");
    let own = all.join(uid.to_string());
    make_dir(&own, 0o700)?;
    // He has to get there; what else lies on the way is root's alone, each with its own mode.
    for dir in [paths.state(), all] {
        let open = open_dir(&dir)?;
        let open = nix::fcntl::openat(&open, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        nix::sys::stat::fchmod(open.map_err(errno(&dir, "opened"))?, Mode::from_bits_truncate(0o711))
            .map_err(errno(&dir, "changed"))?;
    }
    give(&own, uid, gid)?;
    Ok(own)
}

/// A file of ours that is not finished: removed again unless it got its name.
struct Temporary<'a> {
    dir: &'a OwnedFd,
    name: OsString,
    file: File,
    kept: bool,
}

impl<'a> Temporary<'a> {
    fn create(path: &Path, dir: &'a OwnedFd, name: &OsStr) -> Result<Self, FileError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".tde2hsm-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(dir, temporary.as_os_str(), flags, Mode::from_bits_truncate(0o600))
            .map_err(errno(path, "created"))?;
        Ok(Temporary { dir, name: temporary, file: File::from(fd), kept: false })
    }

    /// Owner, mode and label of another file, or just a mode.
    fn look_like(&self, path: &Path, like: &File, mask: u32) -> Result<(), FileError> {
        let want = nix::sys::stat::fstat(like).map_err(errno(path, "looked at"))?;
        let have = nix::sys::stat::fstat(&self.file).map_err(errno(path, "looked at"))?;
        if (want.st_uid, want.st_gid) != (have.st_uid, have.st_gid) {
            nix::unistd::fchown(&self.file, Some(want.st_uid.into()), Some(want.st_gid.into()))
                .map_err(errno(path, "given to its owner"))?;
        }
        // After chown, which clears setuid bits.
        nix::sys::stat::fchmod(&self.file, Mode::from_bits_truncate(want.st_mode & mask)).map_err(errno(path, "changed"))?;
        xattr::copy(&self.file, like, c"security.selinux").map_err(io(path, "labelled"))?;
        if mask == 0o7777 {
            xattr::copy(&self.file, like, c"system.posix_acl_access").map_err(io(path, "labelled"))?;
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, bytes: &[u8]) -> Result<(), FileError> {
        self.file.write_all(bytes).map_err(io(path, "written"))
    }

    /// Gives it its name, durable when it returns.
    fn publish(mut self, path: &Path, name: &OsStr, replace: Replace) -> Result<(), FileError> {
        self.file.sync_all().map_err(io(path, "synced"))?;
        match replace {
            Replace::Yes => {
                nix::fcntl::renameat(self.dir, self.name.as_os_str(), self.dir, name).map_err(errno(path, "renamed"))?
            }
            Replace::Never => rename_new(path, self.dir, &self.name, self.dir, name)?,
        }
        self.kept = true;
        sync_dir(path, self.dir)
    }
}

#[derive(Clone, Copy)]
enum Replace {
    Yes,
    Never,
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let _ = nix::unistd::unlinkat(self.dir, self.name.as_os_str(), nix::unistd::UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Rename that never overwrites. Asked of the kernel itself: glibc has a name for it from 2.28 on, and hosts have 2.17.
fn rename_new(path: &Path, from: &OwnedFd, name: &OsStr, to: &OwnedFd, new: &OsStr) -> Result<(), FileError> {
    match rustix::fs::renameat_with(from, name, to, new, rustix::fs::RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => Err(FileError::Exists { path: path.to_owned() }),
        Err(error) => Err(errno(path, "renamed")(nix::Error::from_raw(error.raw_os_error()))),
    }
}

/// Replaces a file whose content hashes to `was`, else [`FileError::Changed`]. `None`: creates it with mode 0640;
/// [`FileError::Exists`] when there is one.
pub fn replace(path: &Path, bytes: &[u8], was: Option<Digest>) -> Result<Digest, FileError> {
    let Some(was) = was else {
        return create(path, bytes, 0o640);
    };
    let (old, dir, name) = open_plain(path)?;
    if hash_of(path, &old)? != was {
        return Err(FileError::Changed { path: path.to_owned() });
    }
    let mut temporary = Temporary::create(path, &dir, &name)?;
    temporary.write(path, bytes)?;
    temporary.look_like(path, &old, 0o7777)?;
    temporary.file.sync_all().map_err(io(path, "synced"))?;
    // The name still leads to the file whose content was compared, and nobody wrote to that one meanwhile.
    let (seen, read) = (
        nix::sys::stat::fstatat(&dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(errno(path, "looked at"))?,
        nix::sys::stat::fstat(&old).map_err(errno(path, "looked at"))?,
    );
    let again = open_plain(path)?.0;
    if (seen.st_dev, seen.st_ino) != (read.st_dev, read.st_ino) || hash_of(path, &again)? != was {
        return Err(FileError::Changed { path: path.to_owned() });
    }
    temporary.publish(path, &name, Replace::Yes)?;
    Ok(Digest::of(bytes))
}

/// Creates a file whole; never over another.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<Digest, FileError> {
    let (dir, name) = parent(path)?;
    let mut temporary = Temporary::create(path, &dir, &name)?;
    temporary.write(path, bytes)?;
    nix::sys::stat::fchmod(&temporary.file, Mode::from_bits_truncate(mode)).map_err(errno(path, "changed"))?;
    temporary.publish(path, &name, Replace::Never)?;
    Ok(Digest::of(bytes))
}

/// `name`, `name.1`, `name.2`, … in `dir`: the first that is free, or that already holds this content.
fn place(dir: &Path, name: &OsStr, sha256: Digest) -> Result<(PathBuf, Present), FileError> {
    for n in 0..1000 {
        let mut candidate = name.to_owned();
        if n > 0 {
            candidate.push(format!(".{n}"));
        }
        let path = dir.join(candidate);
        match stat(&path)? {
            None => return Ok((path, Present::No)),
            Some(info) if info.kind == FileKind::File && hash(&path)? == Some(sha256) => return Ok((path, Present::Yes)),
            Some(_) => {}
        }
    }
    Err(FileError::Exists { path: dir.join(name) })
}

#[derive(PartialEq, Eq)]
enum Present {
    Yes,
    No,
}

/// Copies a plain file into a directory that is made when missing (0700). A copy's mode is the file's own without group
/// and others.
pub fn copy_into(path: &Path, into: &Path) -> Result<Kept, FileError> {
    let (mut file, _, name) = open_plain(path)?;
    let sha256 = hash_of(path, &file)?;
    make_dir(into, 0o700)?;
    let (to, present) = place(into, &name, sha256)?;
    let kept = Kept { from: path.to_owned(), to: to.clone(), sha256 };
    if present == Present::Yes {
        return Ok(kept);
    }
    let (dir, new) = parent(&to)?;
    let mut temporary = Temporary::create(&to, &dir, &new)?;
    file.rewind().map_err(io(path, "read"))?;
    std::io::copy(&mut file, &mut temporary.file).map_err(io(&to, "written"))?;
    temporary.look_like(&to, &file, 0o700)?;
    temporary.file.rewind().map_err(io(&to, "read back"))?;
    if hash_of(&to, &temporary.file)? != sha256 {
        return Err(FileError::Changed { path: path.to_owned() });
    }
    temporary.publish(&to, &new, Replace::Never)?;
    Ok(kept)
}

/// Keeps bytes that another process read, in a directory of root's own.
pub fn keep_bytes(from: &Path, bytes: &[u8], into: &Path) -> Result<Kept, FileError> {
    let name = from.file_name().ok_or_else(|| FileError::NotPlain { path: from.to_owned() })?;
    let sha256 = Digest::of(bytes);
    make_dir(into, 0o700)?;
    let (to, present) = place(into, name, sha256)?;
    if present == Present::No {
        create(&to, bytes, 0o600)?;
    }
    Ok(Kept { from: from.to_owned(), to, sha256 })
}

/// Moves a plain file aside, by rename: it stays the same file, on the same disk.
pub fn move_into(path: &Path, into: &Path) -> Result<Kept, FileError> {
    let (file, from, name) = open_plain(path)?;
    let sha256 = hash_of(path, &file)?;
    make_dir(into, 0o700)?;
    for n in 0..1000 {
        let mut new = name.clone();
        if n > 0 {
            new.push(format!(".{n}"));
        }
        let to = into.join(&new);
        let dir = open_dir(into)?;
        match rename_new(&to, &from, &name, &dir, &new) {
            Ok(()) => {
                sync_dir(into, &dir)?;
                sync_dir(path, &from)?;
                return Ok(Kept { from: path.to_owned(), to, sha256 });
            }
            Err(FileError::Exists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(FileError::Exists { path: into.join(name) })
}

/// Moves a file back to where it was; that name must be free.
pub fn move_back(kept: &Kept) -> Result<(), FileError> {
    if hash(&kept.to)? != Some(kept.sha256) {
        return Err(FileError::Changed { path: kept.to.clone() });
    }
    rename(&kept.to, &kept.from)
}

/// Renames a file or a directory to a name that is free, on the same filesystem.
pub fn rename(from: &Path, to: &Path) -> Result<(), FileError> {
    let (from_dir, name) = parent(from)?;
    let (to_dir, new) = parent(to)?;
    rename_new(to, &from_dir, &name, &to_dir, &new)?;
    sync_dir(to, &to_dir)?;
    sync_dir(from, &from_dir)
}

/// Gives a path to an owner, the path itself and not what it may link to.
pub fn give(path: &Path, uid: u32, gid: u32) -> Result<(), FileError> {
    let (dir, name) = parent(path)?;
    let stat = nix::sys::stat::fstatat(&dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(errno(path, "looked at"))?;
    if (stat.st_uid, stat.st_gid) == (uid, gid) {
        return Ok(());
    }
    nix::unistd::fchownat(&dir, name.as_os_str(), Some(uid.into()), Some(gid.into()), AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(errno(path, "given to its owner"))
}

/// Replaces or creates a file of the runner's own, whatever was there: reports, orders, details; never key material.
pub fn write_own(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let (dir, name) = parent(path)?;
    let mut temporary = Temporary::create(path, &dir, &name)?;
    temporary.write(path, bytes)?;
    nix::sys::stat::fchmod(&temporary.file, Mode::from_bits_truncate(mode)).map_err(errno(path, "changed"))?;
    temporary.publish(path, &name, Replace::Yes)
}

/// Copies a plain file over or to a name in one rename, with that mode: for the library and the CA, which are not keys.
pub fn install(from: &Path, to: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<Digest, FileError> {
    let (mut file, ..) = open_plain(from)?;
    let sha256 = hash_of(from, &file)?;
    let (dir, name) = parent(to)?;
    let mut temporary = Temporary::create(to, &dir, &name)?;
    file.rewind().map_err(io(from, "read"))?;
    std::io::copy(&mut file, &mut temporary.file).map_err(io(to, "written"))?;
    if let Some((uid, gid)) = owner {
        nix::unistd::fchown(&temporary.file, Some(uid.into()), Some(gid.into())).map_err(errno(to, "given to its owner"))?;
    }
    nix::sys::stat::fchmod(&temporary.file, Mode::from_bits_truncate(mode)).map_err(errno(to, "changed"))?;
    temporary.file.rewind().map_err(io(to, "read back"))?;
    if hash_of(to, &temporary.file)? != sha256 {
        return Err(FileError::Changed { path: from.to_owned() });
    }
    temporary.publish(to, &name, Replace::Yes)?;
    Ok(sha256)
}

/// The two system calls that neither std nor nix has.
mod xattr {
    use std::ffi::CStr;
    use std::fs::File;
    use std::io::{Error, Result};
    use std::os::fd::AsRawFd as _;

    fn get(file: &File, name: &CStr) -> Result<Option<Vec<u8>>> {
        let mut value = vec![0_u8; 64 * 1024];
        // SAFETY: the descriptor is open, the name ends with NUL, the buffer is as long as we say.
        let length = unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
        match usize::try_from(length) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(_) => match Error::last_os_error() {
                error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTSUP)) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Gives `to` the attribute that `from` has; nothing when it has none or both agree.
    pub fn copy(to: &File, from: &File, name: &CStr) -> Result<()> {
        let Some(want) = get(from, name)? else { return Ok(()) };
        if get(to, name)?.as_ref() == Some(&want) {
            return Ok(());
        }
        // SAFETY: as above; the kernel copies the value.
        let done = unsafe { libc::fsetxattr(to.as_raw_fd(), name.as_ptr(), want.as_ptr().cast(), want.len(), 0) };
        if done == 0 { Ok(()) } else { Err(Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    /// A directory that nobody else can write to, as ours are.
    fn dir() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_replaced_file_keeps_mode_and_owner_and_leaves_nothing_beside_it() {
        let dir = dir();
        let path = dir.path().join("sqlnet.ora");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
        let root = nix::unistd::geteuid().is_root();
        if root {
            std::os::unix::fs::chown(&path, Some(54321), Some(54322)).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
        }
        let was = hash(&path).unwrap();
        replace(&path, b"new", was).unwrap();
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(after.mode() & 0o7777, 0o4751);
        if root {
            assert_eq!((after.uid(), after.gid()), (54321, 54322));
        }
        assert_eq!(list(dir.path()).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_changed_since_it_was_read_is_not_replaced() {
        let dir = dir();
        let path = dir.path().join("sqlnet.ora");
        std::fs::write(&path, "old").unwrap();
        let was = hash(&path).unwrap();
        std::fs::write(&path, "someone else's").unwrap();
        assert!(matches!(replace(&path, b"new", was), Err(FileError::Changed { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"someone else's");
        assert!(matches!(replace(&path, b"new", None), Err(FileError::Exists { .. })));
    }

    #[test]
    fn copies_and_moves_never_overwrite() {
        let dir = dir();
        let (path, kept) = (dir.path().join("ewallet.p12"), dir.path().join("kept"));
        let mut names = Vec::new();
        for content in ["one", "two", "two", "three"] {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            let copy = copy_into(&path, &kept).unwrap();
            assert_eq!(std::fs::read_to_string(&copy.to).unwrap(), content);
            assert_eq!(std::fs::metadata(&copy.to).unwrap().mode() & 0o777, 0o600);
            names.push(copy.to.file_name().unwrap().to_owned());
        }
        assert_eq!(names, ["ewallet.p12", "ewallet.p12.1", "ewallet.p12.1", "ewallet.p12.2"]);
        let moved = move_into(&path, &kept).unwrap();
        assert!(!path.exists() && moved.to.ends_with("ewallet.p12.3"));
        move_back(&moved).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three");
        let again = move_into(&path, &kept).unwrap();
        std::fs::write(&path, "in the way").unwrap();
        assert!(matches!(move_back(&again), Err(FileError::Exists { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "in the way");
        assert_eq!(std::fs::read_to_string(&again.to).unwrap(), "three");
    }

    #[test]
    fn h33_links_are_not_followed_where_the_database_owner_can_write() {
        let dir = dir();
        let (theirs, secret) = (dir.path().join("theirs"), dir.path().join("secret"));
        std::fs::create_dir(&theirs).unwrap();
        std::fs::create_dir(&secret).unwrap();
        std::fs::write(secret.join("shadow"), "root's").unwrap();
        symlink(secret.join("shadow"), theirs.join("sqlnet.ora")).unwrap();
        symlink(&secret, theirs.join("admin")).unwrap();
        std::fs::set_permissions(&theirs, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(read(&theirs.join("sqlnet.ora")), Err(FileError::NotPlain { .. })));
        assert!(matches!(read(&theirs.join("admin/shadow")), Err(FileError::NotPlain { .. })));
        assert!(matches!(read(&theirs.join("../secret/shadow")), Err(FileError::NotPlain { .. })));
        assert!(matches!(move_into(&theirs.join("admin/shadow"), dir.path()), Err(FileError::NotPlain { .. })));
        // A link that root made in a directory of root's own is part of how the host is laid out.
        if nix::unistd::geteuid().is_root() {
            symlink(&secret, dir.path().join("opt")).unwrap();
            assert_eq!(read(&dir.path().join("opt/shadow")).unwrap().unwrap(), b"root's");
        }
        assert_eq!(read(&secret.join("absent")).unwrap(), None);
        assert_eq!(list(&dir.path().join("nowhere")).unwrap(), None);
    }

    #[test]
    fn an_unfinished_file_is_taken_away_again() {
        let dir = dir();
        let path = dir.path().join("sqlnet.ora");
        std::fs::write(&path, "old").unwrap();
        let (open, name) = parent(&path).unwrap();
        let mut temporary = Temporary::create(&path, &open, &name).unwrap();
        temporary.write(&path, b"half").unwrap();
        assert_eq!(list(dir.path()).unwrap().unwrap().len(), 2);
        drop(temporary);
        assert_eq!(list(dir.path()).unwrap().unwrap().len(), 1);
        assert_eq!(read(&path).unwrap().unwrap(), b"old");
    }
}
