//! The one PKCS#11 library of the host, and who maps it.
//!
//! Oracle searches a tree for its library (`O§4.1`), so what is in the tree is what a starting instance loads. It is
//! therefore changed by renames of whole directories alone: the old one out, a new one in that was finished elsewhere.
//! A crash leaves the old tree, no tree, or the new one, and each is recognised again; no moment has two libraries, none
//! a half one. And it is changed only while no process maps a file of it, which is looked up in `/proc` right before
//! (H17): an instance that went on with the old library would write under keys that the new one cannot reach.

use crate::files::{self, FileError, FileInfo, FileKind};
use crate::owner::{Ended, Owner, OwnerError, Program};
use crate::paths::Paths;
use crate::procs::{Pmon, Procs, sid_of};
use crate::secrets::Secret;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tde2hsm_protocol::survey::{Library, Mapping, Vendor};
use tde2hsm_protocol::{Code, Digest, LoginResult};

#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    #[error("`{path}` cannot be {what}")]
    Io {
        path: PathBuf,
        what: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`{path}` is not there")]
    Missing { path: PathBuf },
    #[error("{found} libraries below `/opt/oracle/extapi`; exactly one must be there")]
    NotOne { found: usize },
    #[error("process {pid} maps `{path}`")]
    Mapped { pid: u32, path: String },
    #[error("the library does not load as `{user}`: {why}")]
    DoesNotLoad { user: String, why: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Owner(#[from] OwnerError),
}

impl ProviderError {
    pub fn code(&self) -> Code {
        match self {
            ProviderError::NotOne { .. } => Code::PROVIDER_LIBRARIES,
            ProviderError::Mapped { .. } => Code::PROVIDER_MAPPED,
            ProviderError::DoesNotLoad { .. } => Code::PROVIDER_LOAD,
            ProviderError::Io { .. } | ProviderError::Missing { .. } => Code::PROVIDER_WORK,
            ProviderError::File(error) => error.code(),
            ProviderError::Owner(error) => error.code(),
        }
    }
}

pub struct Provider {
    paths: Paths,
}

/// What a swap did, for its undo; goes into the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// Where the old tree (the `hsm` directory below extapi/64) lies now; `None` when there was none.
    pub former: Option<PathBuf>,
    /// The new library's path.
    pub library: PathBuf,
    pub sha256: Digest,
}

/// What one C_Login as the owner found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub login: LoginResult,
    /// `CKR_PIN_INCORRECT`, `loads`, `dlopen: …`: for a person.
    pub said: String,
    /// Manufacturer, description and version of the library, where it answered.
    pub library: Option<String>,
}

/// The library's name, as the package and AWS's guide have it.
const LIBRARY: &str = "libcloudhsm_pkcs11.so";
/// How long `ldd` and the probe may take: an HSM that cannot be reached is waited for by the SDK, too.
const LDD_LIMIT: Duration = Duration::from_secs(30);
const PROBE_LIMIT: Duration = Duration::from_secs(90);

impl Provider {
    pub fn new(paths: &Paths) -> Provider {
        Provider { paths: paths.clone() }
    }

    /// The directory that is swapped.
    pub fn tree(&self) -> PathBuf {
        self.paths.extapi().join("64/hsm")
    }

    /// Where the trees of one campaign are kept: next to extapi, on the same filesystem, outside what Oracle searches.
    pub fn dated(&self, stamp: &str) -> PathBuf {
        self.paths.at("/opt/oracle/tde2hsm").join(stamp)
    }

    /// Every file and link below extapi that is or could be taken for a library, copies and renamed ones included.
    pub fn libraries(&self) -> Result<Vec<Library>, ProviderError> {
        Ok(self.libraries_below(&self.paths.extapi())?.iter().map(|(info, sha256)| self.library(info, *sha256)).collect())
    }

    fn library(&self, info: &FileInfo, sha256: Digest) -> Library {
        Library {
            path: self.on_host(&info.path),
            size: info.size,
            sha256,
            uid: info.uid,
            gid: info.gid,
            mode: info.mode,
            symlink: info.kind == FileKind::Link,
        }
    }

    /// A path as the host knows it.
    fn on_host(&self, path: &Path) -> String {
        let relative = path.strip_prefix(self.paths.root()).unwrap_or(path);
        Path::new("/").join(relative).to_string_lossy().into_owned()
    }

    fn libraries_below(&self, dir: &Path) -> Result<Vec<(FileInfo, Digest)>, ProviderError> {
        let mut found = Vec::new();
        for info in files::list(dir)?.unwrap_or_default() {
            match info.kind {
                FileKind::Directory => found.extend(self.libraries_below(&info.path)?),
                // A text beside the library is none; everything that is or names a program is.
                FileKind::File if !names_library(&info.path) && !is_elf(&info.path)? => {}
                FileKind::File | FileKind::Link | FileKind::Other => {
                    let sha256 = info.sha256.unwrap_or(Digest::ZERO);
                    found.push((info, sha256));
                }
            }
        }
        Ok(found)
    }

    /// Every mapping of a file below extapi by any process of the host (H17).
    pub fn mapped(&self) -> Result<Vec<Mapping>, ProviderError> {
        self.mapped_below(&self.paths.extapi())
    }

    /// Some process maps a file below `/opt/cloudhsm` (H18).
    pub fn cloudhsm_mapped(&self) -> Result<bool, ProviderError> {
        Ok(!self.mapped_below(&self.paths.cloudhsm())?.is_empty())
    }

    fn mapped_below(&self, dir: &Path) -> Result<Vec<Mapping>, ProviderError> {
        let procs = Procs::new(&self.paths);
        let io = |source| ProviderError::Io { path: procs.path().to_owned(), what: "read", source };
        let mut found = Vec::new();
        for pid in procs.pids().map_err(io)? {
            for file in procs.mapped(pid).map_err(io)? {
                if !Path::new(&file).starts_with(dir) {
                    continue;
                }
                let (path, deleted) = match file.strip_suffix(" (deleted)") {
                    Some(path) => (path, true),
                    None => (file.as_str(), false),
                };
                found.push(Mapping {
                    pid,
                    path: self.on_host(Path::new(path)),
                    deleted,
                    sid: procs.command(pid).as_deref().and_then(sid_of),
                });
            }
        }
        Ok(found)
    }

    fn refuse_mapped(&self) -> Result<(), ProviderError> {
        match self.mapped()?.into_iter().next() {
            Some(mapping) => Err(ProviderError::Mapped { pid: mapping.pid, path: mapping.path }),
            None => Ok(()),
        }
    }

    /// Whose library it is that a starting instance loads; `None`: there is not exactly one.
    pub fn vendor(&self) -> Result<Option<Vendor>, ProviderError> {
        if self.libraries()?.len() != 1 {
            return Ok(None);
        }
        Ok(Some(if self.is_swapped()? { Vendor::CloudHsm } else { Vendor::Other }))
    }

    /// The library that the new client brings: `/opt/cloudhsm/lib/libcloudhsm_pkcs11.so`.
    pub fn new_library(&self) -> PathBuf {
        self.paths.cloudhsm().join("lib").join(LIBRARY)
    }

    fn new_digest(&self) -> Result<Digest, ProviderError> {
        let path = self.new_library();
        files::hash(&path)?.ok_or(ProviderError::Missing { path })
    }

    /// A starting instance loads the CloudHSM client's library: by hash, or by its name, for the client that is installed may
    /// have been patched since the swap, or the library in the tree replaced by the patched one. Whoever took that for the
    /// former library would call an undo done with the keys in CloudHSM, and log in with the former PIN. Refused where
    /// another lies beside it, for then nobody knows which one is loaded.
    pub fn is_swapped(&self) -> Result<bool, ProviderError> {
        let new = files::hash(&self.new_library())?;
        let there = self.libraries()?;
        let by_name = |library: &Library| {
            Path::new(&library.path)
                .file_name()
                .is_some_and(|name| name.to_string_lossy().to_ascii_lowercase().contains("cloudhsm"))
        };
        let ours = |library: &&Library| by_name(library) || (new.is_some() && Some(library.sha256) == new);
        match (there.iter().filter(ours).count(), there.len()) {
            (0, _) => Ok(false),
            (1, 1) => Ok(true),
            (_, found) => Err(ProviderError::NotOne { found }),
        }
    }

    /// The one library in the tree is, byte by byte, the one of `/opt/cloudhsm`.
    pub fn is_installed_one(&self) -> Result<bool, ProviderError> {
        let new = files::hash(&self.new_library())?;
        let there = self.libraries()?;
        Ok(there.len() == 1 && new.is_some() && Some(there[0].sha256) == new && !there[0].symlink)
    }

    /// Refused while any process maps a file below extapi. Old tree out, exactly one new library in, both by rename.
    ///
    /// `stamp` names the dated directory below `/opt/oracle/tde2hsm`; it must be the same in every attempt of one
    /// campaign, then a second attempt goes on where a crash left the first, and answers the same [`Swap`].
    pub fn swap(&self, owner: &Owner, stamp: &str) -> Result<Swap, ProviderError> {
        let sha256 = self.new_digest()?;
        let (tree, dated) = (self.tree(), self.dated(stamp));
        let former = dated.join("hsm");
        let library = tree.join(LIBRARY);
        let done = |former: Option<FileInfo>| Swap { former: former.map(|info| info.path), library: library.clone(), sha256 };
        if self.is_installed_one()? {
            return Ok(done(files::stat(&former)?));
        }
        self.refuse_mapped()?;
        let strangers =
            self.libraries_below(&self.paths.extapi())?.iter().filter(|(info, _)| !info.path.starts_with(&tree)).count();
        if strangers > 0 {
            return Err(ProviderError::NotOne { found: strangers + 1 });
        }

        // The new tree, whole before it is seen.
        let incoming = self.free_name(&dated, "incoming")?;
        files::make_dir(&dated, 0o755)?;
        files::make_dir(&incoming, 0o755)?;
        files::install(&self.new_library(), &incoming.join(LIBRARY), 0o755, Some((owner.uid, owner.gid)))?;
        files::give(&incoming, owner.uid, owner.gid)?;

        // Only extapi is ours to give away, never all of /opt/oracle (O§4.1), and only what was not there.
        let up = self.paths.extapi().join("64");
        for dir in [self.paths.extapi(), up] {
            if files::stat(&dir)?.is_none() {
                files::make_dir(&dir, 0o755)?;
                files::give(&dir, owner.uid, owner.gid)?;
            }
        }
        self.refuse_mapped()?;
        if files::stat(&tree)?.is_some() {
            match files::stat(&former)? {
                None => files::rename(&tree, &former)?,
                // An earlier attempt of this campaign moved the old tree out and was undone, or someone put another in.
                Some(_) => files::rename(&tree, &self.free_name(&dated, "hsm-again")?)?,
            }
        }
        files::rename(&incoming, &tree)?;
        match self.libraries()?.len() {
            1 => Ok(done(files::stat(&former)?)),
            found => Err(ProviderError::NotOne { found }),
        }
    }

    /// What a swap of this campaign has done so far, as the disk tells it: for an undo whose journal a crash cut off.
    pub fn swapped(&self, stamp: &str) -> Result<Option<Swap>, ProviderError> {
        let former = files::stat(&self.dated(stamp).join("hsm"))?.map(|info| info.path);
        let library = self.tree().join(LIBRARY);
        let there = files::hash(&library)?;
        // A CloudHSM library that lay there before the campaign is no swap of ours.
        if former.is_none() && !self.is_installed_one()? {
            return Ok(None);
        }
        let sha256 = if there.is_some() { there } else { files::hash(&self.new_library())? };
        Ok(Some(Swap { former, library, sha256: sha256.unwrap_or(Digest::ZERO) }))
    }

    /// A crash between the two renames: the old tree is out, and none is in.
    pub fn is_between(&self, swap: &Swap) -> Result<bool, ProviderError> {
        let former = swap.former.as_deref().map(files::stat).transpose()?.flatten();
        Ok(former.is_some() && files::stat(&self.tree())?.is_none())
    }

    /// The new tree aside, the old one back. Refused while mapped. A second call finds nothing to do.
    pub fn swap_back(&self, swap: &Swap, stamp: &str) -> Result<(), ProviderError> {
        let (tree, dated) = (self.tree(), self.dated(stamp));
        let former = match &swap.former {
            Some(former) => files::stat(former)?.map(|info| info.path),
            None => None,
        };
        // Whatever bears its name while the former tree still lies aside, too: it was patched where it is.
        let there = files::hash(&tree.join(LIBRARY))?;
        let new_in_place = there == Some(swap.sha256) || (there.is_some() && former.is_some());
        if former.is_none() && !new_in_place {
            return Ok(());
        }
        self.refuse_mapped()?;
        if new_in_place {
            files::make_dir(&dated, 0o755)?;
            files::rename(&tree, &self.free_name(&dated, "hsm-cloudhsm")?)?;
        }
        if let Some(former) = former {
            files::rename(&former, &tree)?;
        }
        Ok(())
    }

    /// `name`, `name.1`, …: the first that is not there.
    fn free_name(&self, dir: &Path, name: &str) -> Result<PathBuf, ProviderError> {
        let mut n = 0;
        loop {
            let path = if n == 0 { dir.join(name) } else { dir.join(format!("{name}.{n}")) };
            if files::stat(&path)?.is_none() {
                return Ok(path);
            }
            n += 1;
        }
    }

    /// `ldd` as the owner, in pmon's environment: every dependency resolves.
    pub fn loads(&self, owner: &Owner, pmon: Option<&Pmon>, library: &Path) -> Result<(), ProviderError> {
        let program = in_env_of(Program::new("/usr/bin/ldd", LDD_LIMIT).arg(library), pmon);
        let output = owner.run(&program, &[])?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let fail = |why: String| ProviderError::DoesNotLoad { user: owner.user.clone(), why };
        if let Some(line) = said.lines().find(|line| line.contains("not found")) {
            return Err(fail(line.trim().to_owned()));
        }
        match output.ended {
            Ended::Exit(0) => Ok(()),
            ended => Err(fail(format!("ldd {}: {}", death(ended), said.lines().next().unwrap_or_default().trim()))),
        }
    }

    /// One C_Login, exactly one, as the owner (H10, H33). Where it is not known whether the token saw the login, the
    /// answer is `refused`: a login may have been spent, and nobody may try again before a person has looked. By `name`
    /// [`Provider::last_probe`] finds what it said when its caller is gone.
    pub fn probe(
        &self,
        name: &str,
        owner: &Owner,
        pmon: Option<&Pmon>,
        library: &Path,
        pin: &Secret,
    ) -> Result<Probe, ProviderError> {
        self.run_probe(name, owner, pmon, library, "login", pin.reveal().as_bytes())
    }

    /// The same without a login: does it load and find a token? `unreachable` when not.
    pub fn probe_load(&self, owner: &Owner, pmon: Option<&Pmon>, library: &Path) -> Result<Probe, ProviderError> {
        self.run_probe("", owner, pmon, library, "load", &[])
    }

    /// What the last probe said if it had this name, after its process has ended. `None`: a probe of this name was never
    /// begun, or another came after it. So a worker that died in the middle of one does not cost a second login, nor a
    /// doubt: the probe's process went on and wrote down how it ended.
    pub fn last_probe(&self, name: &str) -> Result<Option<Probe>, ProviderError> {
        let mut file = self.probe_file("login")?;
        let mut text = String::new();
        self.probe_io(file.read_to_string(&mut text), "read")?;
        let Some((first, said)) = text.split_once('\n') else { return Ok(None) };
        Ok((!name.is_empty() && first == name).then(|| probe::judge(said, "ended without a word".to_owned())))
    }

    /// What a probe says, locked: its process holds the lock as long as it lives, whatever becomes of us.
    /// A look without a login has a file of its own: it must not write over a login's end.
    fn probe_file(&self, what: &str) -> Result<Flock<File>, ProviderError> {
        let dir = self.paths.state();
        files::make_dir(&dir, 0o700)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = self.probe_io(options.open(dir.join(format!("probe-{what}"))), "opened")?;
        let deadline = Instant::now() + PROBE_LIMIT * 2;
        loop {
            file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(held) => return Ok(held),
                Err((file, nix::Error::EWOULDBLOCK)) if Instant::now() < deadline => file,
                Err((_, error)) => return self.probe_io(Err(error.into()), "locked"),
            };
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn probe_io<T>(&self, result: std::io::Result<T>, what: &'static str) -> Result<T, ProviderError> {
        result.map_err(|source| ProviderError::Io { path: self.paths.state(), what, source })
    }

    fn run_probe(
        &self,
        name: &str,
        owner: &Owner,
        pmon: Option<&Pmon>,
        library: &Path,
        what: &str,
        stdin: &[u8],
    ) -> Result<Probe, ProviderError> {
        let mut file = self.probe_file(what)?;
        let begin = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(format!("{}\n", name.replace('\n', " ")).as_bytes())?;
            file.sync_all()
        };
        self.probe_io(begin(&mut file), "written")?;
        let program = Program::new(owner.runner(), PROBE_LIMIT).arg("probe").arg(what).arg(library);
        let ended = owner.run_into(&in_env_of(program, pmon), stdin, &file)?;
        let mut text = String::new();
        self.probe_io(file.rewind().and_then(|()| file.read_to_string(&mut text)), "read")?;
        let lost = ended.map_or_else(|| format!("gave no answer within {} s", PROBE_LIMIT.as_secs()), death);
        Ok(probe::judge(text.split_once('\n').map_or("", |(_, said)| said), lost))
    }
}

fn in_env_of(program: Program, pmon: Option<&Pmon>) -> Program {
    match pmon {
        Some(pmon) => program.env_of(pmon),
        None => program,
    }
}

fn names_library(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".so"))
}

fn is_elf(path: &Path) -> Result<bool, ProviderError> {
    let mut magic = [0; 4];
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    match std::fs::File::options().read(true).custom_flags(flags).open(path).and_then(|mut file| file.read_exact(&mut magic)) {
        Ok(()) => Ok(&magic == b"\x7fELF"),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(source) => Err(ProviderError::Io { path: path.to_owned(), what: "read", source }),
    }
}

/// How a process ended, when not by itself: a finding.
pub fn death(ended: Ended) -> String {
    match ended {
        Ended::Exit(code) => format!("ended with status {code}"),
        Ended::Signal(signal) => format!("was ended by signal {signal}"),
    }
}

/// The probe's two sides: the child that loads the library, and the parent that reads what it says.
///
/// The library is a stranger's code and runs in the child's process: it may print, hang or crash. The child therefore
/// announces each step on a line of its own before it takes it, and the parent judges by the last line it saw.
pub(crate) mod probe {
    use super::Probe;
    use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
    use cryptoki::error::{Error, RvError};
    use cryptoki::session::UserType;
    use std::io::{Read as _, Write as _};
    use tde2hsm_protocol::LoginResult;

    const MARK: &str = "tde2hsm-probe ";

    /// From what a probe said; `lost` is how it ended where it did not say so itself.
    pub fn judge(said: &str, lost: String) -> Probe {
        let mut library = None;
        let mut login_begun = false;
        let mut end = None;
        // A library may print without a line end before us.
        for line in said.lines().filter_map(|line| line.find(MARK).map(|at| &line[at + MARK.len()..])) {
            match line.split_once(' ') {
                Some(("library", name)) => library = Some(name.to_owned()),
                Some(("login", _)) => login_begun = true,
                Some(("proven", words)) => end = Some((LoginResult::Proven, words.to_owned())),
                Some(("refused", words)) => end = Some((LoginResult::Refused, words.to_owned())),
                Some(("unreachable", words)) => end = Some((LoginResult::Unreachable, words.to_owned())),
                _ => {}
            }
        }
        let (login, said) = match (end, login_begun) {
            (Some(end), _) => end,
            (None, true) => (LoginResult::Refused, format!("no answer to C_Login: the probe {lost}")),
            (None, false) => (LoginResult::Unreachable, format!("the probe {lost}")),
        };
        Probe { login, said, library }
    }

    /// The child. `what`: `login` or `load`.
    pub fn main(what: &str, library: &str) -> i32 {
        let say = |kind: &str, words: &str| {
            let words = words.replace(['\n', '\r'], " ");
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{MARK}{kind} {words}");
            let _ = out.flush();
        };
        match run(what, library, &say) {
            Ok(()) => say("proven", if what == "login" { "C_Login was accepted" } else { "loads" }),
            Err(Failure::Before(error)) => say("unreachable", &words(&error)),
            Err(Failure::Login(error)) => {
                let result = if is_no_login(&error) { "unreachable" } else { "refused" };
                say(result, &words(&error));
            }
            Err(Failure::Input) => say("unreachable", "no PIN on standard input"),
        }
        0
    }

    enum Failure {
        Before(Error),
        Login(Error),
        Input,
    }

    fn run(what: &str, library: &str, say: &dyn Fn(&str, &str)) -> Result<(), Failure> {
        let mut pin = zeroize::Zeroizing::new(String::new());
        if what == "login" && (std::io::stdin().lock().take(4096).read_to_string(&mut pin).is_err() || pin.is_empty()) {
            return Err(Failure::Input);
        }
        let pkcs11 = Pkcs11::new(library).map_err(Failure::Before)?;
        pkcs11.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).map_err(Failure::Before)?;
        let info = pkcs11.get_library_info().map_err(Failure::Before)?;
        say("library", &format!("{} {} {}", info.manufacturer_id(), info.library_description(), info.library_version()));
        // The first slot with a token, as Oracle takes it.
        let slots = pkcs11.get_slots_with_token().map_err(Failure::Before)?;
        let slot = slots
            .first()
            .copied()
            .ok_or(Failure::Before(Error::Pkcs11(RvError::TokenNotPresent, cryptoki::context::Function::GetSlotList)))?;
        if what == "load" {
            return Ok(());
        }
        // Read-only sessions are not supported by SDK 5 (O§6.2).
        let session = pkcs11.open_rw_session(slot).map_err(Failure::Before)?;
        say("login", "C_Login");
        session.login(UserType::User, Some(&pin.as_str().into())).map_err(Failure::Login)?;
        // Its answer does not matter: the login is proven, and the process ends.
        let _ = session.logout();
        Ok(())
    }

    /// `C_Login answered CKR_PIN_INCORRECT`: as the standard and the vendors' logs spell it.
    fn words(error: &Error) -> String {
        let Error::Pkcs11(answer, function) = error else { return error.to_string() };
        let mut name = String::from("CKR");
        for c in format!("{answer:?}").chars() {
            if c.is_ascii_uppercase() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        format!("C_{function:?} answered {name}")
    }

    /// Answers of C_Login that say the token did not see a PIN. Any other may have cost a login (H10, H11).
    fn is_no_login(error: &Error) -> bool {
        matches!(
            error,
            Error::Pkcs11(
                RvError::DeviceError
                    | RvError::DeviceRemoved
                    | RvError::TokenNotPresent
                    | RvError::DeviceMemory
                    | RvError::HostMemory,
                _
            )
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct World {
        _dir: tempfile::TempDir,
        paths: Paths,
        provider: Provider,
        owner: Owner,
    }

    /// A host with the old vendor's library in the tree and the new client installed.
    fn world() -> World {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let vendor = paths.extapi().join("64/hsm/oldhsm/7.4.0");
        fs::create_dir_all(&vendor).unwrap();
        fs::write(vendor.join("libcryptoki_oldhsm.so"), "\x7fELF old").unwrap();
        fs::write(vendor.join("README"), "not a library").unwrap();
        fs::create_dir_all(paths.cloudhsm().join("lib")).unwrap();
        fs::write(paths.cloudhsm().join("lib").join(LIBRARY), "\x7fELF new").unwrap();
        fs::create_dir_all(paths.proc()).unwrap();
        let mut owner = Owner::root(&paths);
        (owner.uid, owner.gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        World { _dir: dir, provider: Provider::new(&paths), paths, owner }
    }

    impl World {
        fn names(&self) -> Vec<String> {
            self.provider.libraries().unwrap().into_iter().map(|library| library.path).collect()
        }
        /// A process that maps a file.
        fn process(&self, pid: u32, title: &str, path: &str) {
            let dir = self.paths.proc().join(pid.to_string());
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("cmdline"), format!("{title}\0")).unwrap();
            let path = self.paths.at(path);
            fs::write(dir.join("maps"), format!("7f00-7f01 r-xp 00000000 08:01 12  {}\n", path.display())).unwrap();
        }
    }

    const OLD: &str = "/opt/oracle/extapi/64/hsm/oldhsm/7.4.0/libcryptoki_oldhsm.so";
    const NEW: &str = "/opt/oracle/extapi/64/hsm/libcloudhsm_pkcs11.so";

    #[test]
    fn the_swap_leaves_exactly_one_library_and_its_undo_the_former_tree() {
        let world = world();
        assert_eq!(world.names(), [OLD]);
        let swap = world.provider.swap(&world.owner, "c-1").unwrap();
        assert_eq!(world.names(), [NEW]);
        assert!(world.provider.is_swapped().unwrap());
        // Outside what Oracle searches, whole.
        let former = swap.former.clone().unwrap();
        assert!(!former.starts_with(world.paths.extapi()));
        assert_eq!(fs::read_to_string(former.join("oldhsm/7.4.0/README")).unwrap(), "not a library");
        // Again is the same, and the disk alone tells it.
        assert_eq!(world.provider.swap(&world.owner, "c-1").unwrap(), swap);
        assert_eq!(world.provider.swapped("c-1").unwrap(), Some(swap.clone()));

        world.provider.swap_back(&swap, "c-1").unwrap();
        assert_eq!(world.names(), [OLD]);
        assert!(world.paths.extapi().join("64/hsm/oldhsm/7.4.0/README").exists());
        world.provider.swap_back(&swap, "c-1").unwrap();
        assert_eq!(world.names(), [OLD]);
        assert_eq!(world.provider.swapped("c-1").unwrap(), None);
        // There and back once more: the campaign went on after its undo.
        let again = world.provider.swap(&world.owner, "c-1").unwrap();
        assert_eq!(world.names(), [NEW]);
        world.provider.swap_back(&again, "c-1").unwrap();
        assert_eq!(world.names(), [OLD]);
    }

    /// A crash after each rename of the swap: the next attempt ends where the first would have.
    #[test]
    fn a_swap_that_a_crash_cut_off_is_gone_on_with() {
        for crash in 0..3 {
            let world = world();
            let dated = world.provider.dated("c-1");
            if crash >= 1 {
                fs::create_dir_all(dated.join("incoming")).unwrap();
                fs::write(dated.join("incoming/.half"), "half a library").unwrap();
            }
            if crash >= 2 {
                fs::rename(world.provider.tree(), dated.join("hsm")).unwrap();
            }
            if crash == 2 {
                // An undo has something to bring back although nothing is swapped.
                let told = world.provider.swapped("c-1").unwrap().unwrap();
                assert!(world.provider.is_between(&told).unwrap() && !world.provider.is_swapped().unwrap());
            }
            let swap = world.provider.swap(&world.owner, "c-1").unwrap();
            assert!(!world.provider.is_between(&swap).unwrap());
            assert_eq!(world.names(), [NEW], "crash {crash}");
            world.provider.swap_back(&swap, "c-1").unwrap();
            assert_eq!(world.names(), [OLD], "crash {crash}");
        }
        let world = world();
        let swap = world.provider.swap(&world.owner, "c-1").unwrap();
        // The undo was cut off after its first rename.
        fs::rename(world.provider.tree(), world.provider.dated("c-1").join("hsm-cloudhsm")).unwrap();
        world.provider.swap_back(&swap, "c-1").unwrap();
        assert_eq!(world.names(), [OLD]);
    }

    /// The monthly update of the client's package, with and without the copy into the tree that AWS's guide describes.
    #[test]
    fn h30_a_client_that_was_patched_since_the_swap_is_still_cloudhsms() {
        for copied in [false, true] {
            let world = world();
            let swap = world.provider.swap(&world.owner, "c-1").unwrap();
            fs::write(world.provider.new_library(), "\x7fELF patched").unwrap();
            if copied {
                fs::copy(world.provider.new_library(), world.provider.tree().join(LIBRARY)).unwrap();
            }
            assert!(world.provider.is_swapped().unwrap(), "copied {copied}");
            assert_eq!(world.provider.vendor().unwrap(), Some(Vendor::CloudHsm));
            // By the journal's record and, where a crash kept it from being written, by the disk alone.
            let told = if copied { swap } else { world.provider.swapped("c-1").unwrap().unwrap() };
            world.provider.swap_back(&told, "c-1").unwrap();
            assert_eq!(world.names(), [OLD], "copied {copied}");
            world.provider.swap_back(&told, "c-1").unwrap();
            assert_eq!(world.names(), [OLD]);
            assert!(!world.provider.is_swapped().unwrap());
        }
        // Someone kept the former one beside it: which is loaded is not known, and no answer would be safe.
        let world = world();
        world.provider.swap(&world.owner, "c-1").unwrap();
        fs::copy(world.provider.tree().join(LIBRARY), world.provider.tree().join("libcloudhsm_pkcs11.so.bak")).unwrap();
        assert!(matches!(world.provider.is_swapped(), Err(ProviderError::NotOne { found: 2 })));
        assert_eq!(world.provider.vendor().unwrap(), None);
    }

    #[test]
    fn h17_nothing_moves_while_a_process_maps_the_tree() {
        let world = world();
        world.process(71, "ora_gen0_FIN", OLD);
        world.process(72, "oracleHR (LOCAL=NO)", &format!("{OLD} (deleted)"));
        world.process(73, "sshd", "/usr/lib/libc.so.6");
        let mapped = world.provider.mapped().unwrap();
        let seen: Vec<_> =
            mapped.iter().map(|m| (m.pid, m.path.as_str(), m.deleted, m.sid.as_ref().map(|s| s.as_str()))).collect();
        assert_eq!(seen, [(71, OLD, false, Some("FIN")), (72, OLD, true, Some("HR"))]);
        assert!(matches!(world.provider.swap(&world.owner, "c-1"), Err(ProviderError::Mapped { pid: 71, .. })));
        assert_eq!(world.names(), [OLD]);
        for pid in ["71", "72"] {
            fs::remove_dir_all(world.paths.proc().join(pid)).unwrap();
        }
        let swap = world.provider.swap(&world.owner, "c-1").unwrap();
        world.process(74, "ora_gen0_FIN", NEW);
        assert!(matches!(world.provider.swap_back(&swap, "c-1"), Err(ProviderError::Mapped { pid: 74, .. })));
        assert_eq!(world.names(), [NEW]);
        assert!(!world.provider.cloudhsm_mapped().unwrap());
        world.process(75, "something", "/opt/cloudhsm/lib/libcloudhsm_pkcs11.so");
        assert!(world.provider.cloudhsm_mapped().unwrap(), "H18");
    }

    #[test]
    fn a_library_elsewhere_below_extapi_stops_the_swap() {
        let world = world();
        fs::create_dir_all(world.paths.extapi().join("32/hsm")).unwrap();
        fs::write(world.paths.extapi().join("32/hsm/libother.so.bak"), "x").unwrap();
        assert!(matches!(world.provider.swap(&world.owner, "c-1"), Err(ProviderError::NotOne { found: 2 })));
        assert_eq!(world.names().len(), 2);
        // A software source: no tree at all before, none after the undo.
        let world = self::world();
        fs::remove_dir_all(world.paths.extapi()).unwrap();
        let swap = world.provider.swap(&world.owner, "c-1").unwrap();
        assert_eq!((world.names(), &swap.former), (vec![NEW.to_owned()], &None));
        world.provider.swap_back(&swap, "c-1").unwrap();
        assert!(world.names().is_empty());
    }

    #[test]
    fn h10_an_answer_that_never_came_counts_as_a_login_spent() {
        let login = |said: &str| probe::judge(said, "was ended by signal 11".to_owned()).login;
        let begun = "tde2hsm-probe library x\nnoise tde2hsm-probe login C_Login\n";
        assert_eq!(login(begun), LoginResult::Refused);
        assert_eq!(login("noise\ntde2hsm-probe library x\n"), LoginResult::Unreachable);
        assert_eq!(login(&format!("{begun}tde2hsm-probe proven ok\n")), LoginResult::Proven);
        assert_eq!(login(&format!("{begun}tde2hsm-probe refused CKR_PIN_INCORRECT\n")), LoginResult::Refused);
    }
}
