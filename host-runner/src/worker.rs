//! The work runs in a process that no one who started it can end (invariant 8).
