//! The world's time for programs that know nothing of it.
//!
//! Preloaded, it answers for the wall clock of the C library and adds what the sandbox's clock is ahead of the machine. A host
//! has it in `/etc/ld.so.preload`, the operator's programs in `LD_PRELOAD`; so a key's activation, a backup's timestamp and the
//! operator's *now* are times of one world (H8). Time that only passes, such as a time-out, is the machine's.

use libc::{c_int, c_long, clockid_t, time_t, timespec, timeval};
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering};

/// Names the clock's file outside of hosts.
const ENV: &std::ffi::CStr = c"SANDBOX_CLOCK";
/// Where a host has it.
const HOST: &std::ffi::CStr = c"/run/sandbox/clock";

/// The mapped milliseconds; NULL before the first look, `&NONE` where there is no clock.
static AHEAD: AtomicPtr<AtomicI64> = AtomicPtr::new(std::ptr::null_mut());
static NONE: AtomicI64 = AtomicI64::new(0);

/// Nothing of the standard library that may itself ask for the time or hold a lock.
fn ahead_ms() -> i64 {
    let mut at = AHEAD.load(Ordering::Acquire);
    if at.is_null() {
        at = map().unwrap_or_else(|| (&raw const NONE).cast_mut());
        AHEAD.store(at, Ordering::Release);
    }
    // SAFETY: the mapping or the static lives as long as the process, and is only read as one aligned word.
    unsafe { (*at).load(Ordering::Relaxed) }
}

fn map() -> Option<*mut AtomicI64> {
    // SAFETY: plain calls of the C library with constant strings; the descriptor is ours and is closed again.
    unsafe {
        let named = libc::getenv(ENV.as_ptr());
        let mut fd = libc::open(HOST.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        if fd < 0 && !named.is_null() {
            fd = libc::open(named, libc::O_RDONLY | libc::O_CLOEXEC);
        }
        if fd < 0 {
            return None;
        }
        let size = size_of::<AtomicI64>();
        let whole = libc::lseek(fd, 0, libc::SEEK_END) >= size as i64;
        let at = if whole {
            libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        } else {
            libc::MAP_FAILED
        };
        libc::close(fd);
        (at != libc::MAP_FAILED).then_some(at.cast())
    }
}

/// The machine's own answer.
fn machine(clock: clockid_t, to: *mut timespec) -> c_int {
    // SAFETY: the caller's pointer, as it was given to clock_gettime.
    unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), to) as c_int }
}

/// # Safety
/// As the C library's: `to` points to a `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, to: *mut timespec) -> c_int {
    let answer = machine(clock, to);
    if answer == 0 && matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_TAI) && !to.is_null() {
        let ahead = ahead_ms();
        // SAFETY: the call has just written there.
        let time = unsafe { &mut *to };
        let nanos = time.tv_nsec + ahead.rem_euclid(1000) * 1_000_000;
        time.tv_sec += ahead.div_euclid(1000) + nanos / 1_000_000_000;
        time.tv_nsec = nanos % 1_000_000_000;
    }
    answer
}

fn now() -> timespec {
    let mut time = timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` outlives the call.
    unsafe { clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    time
}

/// # Safety
/// As the C library's: `to` points to a `timeval` or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gettimeofday(to: *mut timeval, _zone: *mut libc::c_void) -> c_int {
    let time = now();
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *to = timeval { tv_sec: time.tv_sec, tv_usec: time.tv_nsec / 1000 } };
    }
    0
}

/// # Safety
/// As the C library's: `to` points to a `time_t` or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn time(to: *mut time_t) -> time_t {
    let seconds = now().tv_sec;
    if !to.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *to = seconds };
    }
    seconds
}
