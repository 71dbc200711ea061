//! The command line.

pub fn main() -> i32 {
    match std::env::args().nth(1).as_deref() {
        Some("as-owner") => match crate::owner::serve(std::io::stdin().lock(), std::io::stdout().lock()) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        _ => 2,
    }
}
