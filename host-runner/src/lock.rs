//! One runner at a time (design §5.4).
//!
//! The kernel holds the lock, so it ends with the worker whatever ends the worker, and no file has to be cleaned up.
//! It is not inherited by programs that the worker starts: a sqlplus that outlives its worker does not keep the next
//! one out, which looks for the sessions it left instead (H28).

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use tde2hsm_protocol::OperationId;

use crate::paths::Paths;

/// Held until dropped.
pub struct Lock {
    _held: Flock<File>,
}

fn open(paths: &Paths) -> std::io::Result<File> {
    crate::files::make_dir(&paths.state(), 0o700).map_err(std::io::Error::other)?;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    options.open(paths.state().join("lock"))
}

impl Lock {
    /// `None`: another process holds it.
    pub fn take(paths: &Paths, operation: Option<&OperationId>) -> std::io::Result<Option<Lock>> {
        match Flock::lock(open(paths)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut held) => {
                let name = operation.map(OperationId::as_str).unwrap_or_default();
                held.set_len(0)?;
                held.rewind()?;
                held.write_all(name.as_bytes())?;
                Ok(Some(Lock { _held: held }))
            }
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// The lock is held by someone, by which operation's worker where it says so.
    pub fn holder(paths: &Paths) -> std::io::Result<Holder> {
        let mut file = open(paths)?;
        // A shared lock for a moment: it disturbs no one but a worker that tries in that moment, and that one tries again.
        match Flock::lock(file.try_clone()?, FlockArg::LockSharedNonblock) {
            Ok(_) => Ok(Holder::Nobody),
            Err((_, nix::Error::EWOULDBLOCK)) => {
                let mut name = String::new();
                file.rewind()?;
                file.read_to_string(&mut name)?;
                Ok(OperationId::new(name.trim()).map_or(Holder::Unnamed, Holder::Operation))
            }
            Err((_, error)) => Err(error.into()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    Operation(OperationId),
    Unnamed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_runner_at_a_time_and_the_lock_ends_with_its_holder() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let one = OperationId::new("op-1").unwrap();
        assert_eq!(Lock::holder(&paths).unwrap(), Holder::Nobody);
        let held = Lock::take(&paths, Some(&one)).unwrap().unwrap();
        assert!(Lock::take(&paths, None).unwrap().is_none());
        assert_eq!(Lock::holder(&paths).unwrap(), Holder::Operation(one));
        // A program that is started meanwhile does not inherit it.
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        drop(held);
        assert_eq!(Lock::holder(&paths).unwrap(), Holder::Nobody);
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
