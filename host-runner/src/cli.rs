//! The command line.

pub fn main() -> i32 {
    match std::env::args().nth(1).as_deref() {
        Some("as-owner") => match crate::owner::serve(std::io::stdin().lock(), std::io::stdout().lock()) {
            Ok(()) => 0,
            Err(_) => 1,
        },
        Some("probe") => {
            let args: Vec<String> = std::env::args().skip(2).collect();
            match args.as_slice() {
                [what, library] => crate::provider::probe::main(what, library),
                _ => 2,
            }
        }
        _ => 2,
    }
}
