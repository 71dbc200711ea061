//! What is too large for a report, kept on the host until it is fetched: surveys, journals of a campaign, whole reports.
//!
//! A detail's name is the digest of its bytes, so that a piece that was fetched late still belongs to what the report
//! named, and writing one twice is writing it once.

use crate::files::{self, FileError, FileKind};
use crate::paths::Paths;
use serde::Serialize;
use tde2hsm_protocol::{Chunk, DetailRef, Digest, wire};

/// The newest are kept.
const KEPT: usize = 200;

/// Keeps a value.
pub fn put<T: Serialize>(paths: &Paths, value: &T) -> Result<DetailRef, FileError> {
    let bytes = wire::deflate(&serde_json::to_vec(value).expect("protocol types serialise"));
    let detail = DetailRef::of(&bytes);
    let dir = paths.details();
    files::make_dir(&dir, 0o700)?;
    let path = dir.join(detail.digest.to_string());
    if files::hash(&path)? != Some(detail.digest) {
        files::write_own(&path, &bytes, 0o600)?;
        thin(paths)?;
    }
    Ok(detail)
}

/// `None` when the host does not keep that detail, or it has no such piece.
pub fn chunk(paths: &Paths, digest: Digest, index: u16) -> Result<Option<(DetailRef, Chunk)>, FileError> {
    let Some(bytes) = files::read(&paths.details().join(digest.to_string()))? else { return Ok(None) };
    if Digest::of(&bytes) != digest {
        return Ok(None);
    }
    Ok(Chunk::of(&bytes, index).map(|chunk| (DetailRef::of(&bytes), chunk)))
}

fn thin(paths: &Paths) -> Result<(), FileError> {
    let mut infos = files::list(&paths.details())?.unwrap_or_default();
    infos.retain(|info| info.kind == FileKind::File);
    infos.sort_by_key(|info| std::cmp::Reverse((info.modified, info.path.clone())));
    for info in infos.into_iter().skip(KEPT) {
        // Reports of reports: the journal has the facts.
        let _ = std::fs::remove_file(info.path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_fetched_piece_by_piece() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let value: Vec<String> = (0..2000).map(|n| Digest::of(&[n as u8, (n / 256) as u8]).to_string()).collect();
        let detail = put(&paths, &value).unwrap();
        assert_eq!(put(&paths, &value).unwrap(), detail);
        assert!(detail.chunks > 2);
        let chunks: Vec<Chunk> = (0..detail.chunks).map(|n| chunk(&paths, detail.digest, n).unwrap().unwrap().1).collect();
        let back: Vec<String> = serde_json::from_slice(&detail.assemble(&chunks).unwrap()).unwrap();
        assert_eq!(back, value);
        assert!(chunk(&paths, detail.digest, detail.chunks).unwrap().is_none());
        assert!(chunk(&paths, Digest::ZERO, 0).unwrap().is_none());
        // A damaged one is none.
        std::fs::write(paths.details().join(detail.digest.to_string()), "x").unwrap();
        assert!(chunk(&paths, detail.digest, 0).unwrap().is_none());
    }
}
