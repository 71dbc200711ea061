//! The world's clock: the machine's, moved ahead by `sandbox clock --advance`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tde2hsm_model::Millis;

/// How far the world is ahead is a file, which the hosts' programs and the operator's map (see `clock/`).
#[derive(Debug)]
pub struct Clock {
    ahead_ms: AtomicI64,
    file: PathBuf,
}

impl Clock {
    pub fn new(file: &Path) -> std::io::Result<Self> {
        std::fs::write(file, 0i64.to_ne_bytes())?;
        Ok(Self { ahead_ms: AtomicI64::new(0), file: file.to_owned() })
    }

    /// The machine's own time, asked of the kernel: the C library of this process may tell another world's.
    pub fn real() -> Millis {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` outlives the call.
        unsafe { libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_REALTIME, &raw mut time) };
        Millis(time.tv_sec * 1000 + time.tv_nsec / 1_000_000)
    }

    pub fn now(&self) -> Millis {
        Self::real().plus_ms(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// The world's time as the standard library has it.
    pub fn system(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.now().0).unwrap_or_default())
    }

    pub fn advance(&self, by: Duration) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt as _;
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        let ahead = self.ahead_ms.fetch_add(by, Ordering::Relaxed).saturating_add(by);
        // In place: the file is mapped.
        std::fs::OpenOptions::new().write(true).open(&self.file)?.write_all_at(&ahead.to_ne_bytes(), 0)
    }

    pub fn ahead(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.ahead_ms.load(Ordering::Relaxed)).unwrap_or_default())
    }
}

/// Reads `3d`, `12h`, `30m`, `45s` or a sum of them such as `1d12h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write it like 3d, 12h, 30m, 45s or 1d12h");
    let (mut total, mut digits) = (0u64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(wrong()),
        };
        let n: u64 = digits.parse().map_err(|_| wrong())?;
        total = n.checked_mul(unit).and_then(|secs| total.checked_add(secs)).ok_or_else(wrong)?;
        digits.clear();
    }
    if digits.is_empty() && !text.is_empty() { Ok(Duration::from_secs(total)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_sums_of_units() {
        assert_eq!(parse_duration("3d"), Ok(Duration::from_secs(3 * 86_400)));
        assert_eq!(parse_duration("1d12h5s"), Ok(Duration::from_secs(86_400 + 12 * 3_600 + 5)));
        for wrong in ["", "3", "d", "3x", "-3d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
