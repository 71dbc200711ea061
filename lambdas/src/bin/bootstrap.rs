//! The one program of all functions: its handler's name (`_HANDLER`) says which it is.

#![forbid(unsafe_code)]

fn main() {}
