//! What was read of the records bucket before.
//!
//! A record lives as long as the snapshot that it is of, and most of them never change again: reading all of them anew a hundred
//! times a day is what a run costs most by. A list says the ETag of each object, so one that has the ETag that it had when it was
//! read need not be read again. It is never more than that: a process that has just begun has read nothing, and nothing that must
//! survive lies here.

use crate::{Cloud, Object, ObjectInfo, Result};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Of bodies and keys, in bytes. What is beyond is read at each run.
const BOUND: usize = 256 * 1024 * 1024;

#[derive(Debug, Default)]
pub struct Remembered {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// ETags of the last list, each for one answer: a list that is older than the run says nothing.
    listed: HashMap<String, String>,
    objects: HashMap<String, Object>,
    bytes: usize,
}

impl Remembered {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lies below a prefix now; the rest that lay there is forgotten.
    pub fn listed(&self, prefix: &str, found: &[ObjectInfo]) {
        let mut inner = self.inner();
        inner.listed.retain(|key, _| !key.starts_with(prefix));
        inner.listed.extend(found.iter().map(|info| (info.key.clone(), info.etag.clone())));
        let Inner { listed, objects, bytes } = &mut *inner;
        objects.retain(|key, object| {
            let stays = !key.starts_with(prefix) || listed.get(key) == Some(&object.etag);
            if !stays {
                *bytes -= size(object);
            }
            stays
        });
    }

    /// The object, where the last list named it as it was read.
    pub fn get(&self, key: &str) -> Option<Object> {
        let mut inner = self.inner();
        let etag = inner.listed.remove(key)?;
        inner.objects.get(key).filter(|object| object.etag == etag).cloned()
    }

    /// The same, or read and kept.
    pub async fn or_read(&self, cloud: &dyn Cloud, key: &str) -> Result<Option<Object>> {
        if let Some(object) = self.get(key) {
            return Ok(Some(object));
        }
        let object = cloud.get(key).await?;
        object.iter().for_each(|object| self.keep(object));
        Ok(object)
    }

    pub fn keep(&self, object: &Object) {
        let mut inner = self.inner();
        if let Some(former) = inner.objects.remove(&object.key) {
            inner.bytes -= size(&former);
        }
        if inner.bytes + size(object) <= BOUND {
            inner.bytes += size(object);
            inner.objects.insert(object.key.clone(), object.clone());
        }
    }
}

fn size(object: &Object) -> usize {
    object.key.len() * 2 + object.etag.len() + object.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tde2hsm_protocol::Timestamp;

    fn object(key: &str, etag: &str) -> Object {
        Object { key: key.to_owned(), body: b"{}".to_vec(), etag: etag.to_owned(), modified: Timestamp(0) }
    }

    fn info(key: &str, etag: &str) -> ObjectInfo {
        ObjectInfo { key: key.to_owned(), etag: etag.to_owned(), modified: Timestamp(0) }
    }

    #[test]
    fn only_what_the_last_list_named_as_it_was_read_is_not_read_again() {
        let memory = Remembered::default();
        memory.keep(&object("a/1", "x"));
        memory.keep(&object("a/2", "x"));
        memory.keep(&object("b/1", "x"));
        assert_eq!(memory.get("a/1"), None, "no list says that it is so still");
        memory.listed("a/", &[info("a/1", "x"), info("a/2", "y")]);
        assert_eq!(memory.get("a/1"), Some(object("a/1", "x")));
        assert_eq!(memory.get("a/1"), None, "once a list");
        assert_eq!(memory.get("a/2"), None, "it is another now");
        memory.listed("b/", &[info("b/1", "x")]);
        assert!(memory.get("b/1").is_some());
        memory.listed("a/", &[]);
        memory.listed("b/", &[]);
        assert_eq!(memory.inner().bytes, 0, "what is gone takes no place");
    }
}
