//! One runner at a time, one campaign at a time (H31, H32).
