//! Event in, job of `dr-driver`, answer out. Thin: nothing is decided here.

#![forbid(unsafe_code)]
