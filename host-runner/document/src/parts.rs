//! The parts a document is made of. Each alphabet leaves out whatever a shell, a URL, JSON or the agent's own
//! substitution would read.

use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct PartError {
    pub text: String,
    pub expected: &'static str,
}

macro_rules! part {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $max:literal, $others:literal, $first:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Result<Self, PartError> {
                let text: String = text.into();
                let begins: fn(u8) -> bool = $first;
                let first = text.bytes().next().is_some_and(begins);
                let rest = text.bytes().all(|b| b.is_ascii_alphanumeric() || $others.contains(&b));
                if first && rest && text.len() <= $max {
                    Ok($name(text))
                } else {
                    let text = text.chars().filter(|c| !c.is_control()).take(80).collect();
                    Err(PartError { text, expected: $expected })
                }
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl From<$name> for String {
            fn from(part: $name) -> String {
                part.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = PartError;
            fn try_from(text: String) -> Result<Self, PartError> {
                $name::new(text)
            }
        }
    };
}

part!(/// A file's own name, and a package's: no directory.
    FileName, "a file name of letters, digits, `.`, `_` and `-`", 128, b"._-", |b| b.is_ascii_alphanumeric());
part!(/// An S3 bucket.
    BucketName, "a bucket name (lower-case letters, digits, `.` and `-`)", 63, b".-", |b| b.is_ascii_alphanumeric());
part!(/// The VersionId that S3 gave an object: opaque, so it may begin with any of its characters. It only ever stands in a URL's query.
    ObjectVersion, "an S3 VersionId", 1024, b"._-", |_| true);
part!(/// An operating system and its major version, such as `rhel8`.
    OsName, "an operating system such as `rhel8`", 32, b"._-", |b| b.is_ascii_alphanumeric());
part!(/// Version and release of a package, such as `5.17.0-1.el8`.
    PackageVersion, "a package version", 64, b"._+~-", |b| b.is_ascii_alphanumeric());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_shell_url_or_the_agent_reads_gets_in() {
        for c in "\"'`$(){}[]<>|&;*?!#~\\/ \t\n\r\0=%+,:@^é".chars() {
            for text in [format!("a{c}b"), format!("{c}ab"), format!("ab{c}")] {
                assert!(FileName::new(text.clone()).is_err(), "{text:?} as a file name");
                assert!(BucketName::new(text.clone()).is_err(), "{text:?} as a bucket");
                assert!(ObjectVersion::new(text.clone()).is_err(), "{text:?} as a version");
                assert!(OsName::new(text.clone()).is_err(), "{text:?} as an operating system");
                let version = PackageVersion::new(text.clone());
                assert!(version.is_err() || (c == '+' || c == '~') && !text.starts_with(c), "{text:?} as a package version");
            }
        }
        for text in [".Qq7", "_nL.x", "-9Zk"] {
            assert!(ObjectVersion::new(text).is_ok(), "{text:?}: S3 gives such versions");
        }
        assert!(ObjectVersion::new("").is_err());
        for text in ["", ".", "..", "-rf", "_x"] {
            assert!(FileName::new(text).is_err(), "{text:?}");
        }
    }
}
