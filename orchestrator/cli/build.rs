//! Puts the pages of `docs/errors` into the program, so that `tde2hsm explain CODE` works where no file of this
//! repository is.

use std::fmt::Write as _;
use std::path::Path;

fn main() {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    println!("cargo::rerun-if-changed={}", pages.display());
    let mut names: Vec<String> = std::fs::read_dir(&pages)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.len() == "TDE0000.md".len() && name.starts_with("TDE") && name.ends_with(".md"))
        .collect();
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        let path = pages.join(&name);
        println!("cargo::rerun-if-changed={}", path.display());
        let code = name.trim_end_matches(".md");
        writeln!(table, "    ({code:?}, include_str!({:?})),", path.display().to_string()).expect("writing to memory");
    }
    table.push_str("]\n");
    let out = std::env::var("OUT_DIR").expect("Cargo sets OUT_DIR for build scripts");
    std::fs::write(Path::new(&out).join("pages.rs"), table).expect("Cargo's output directory can be written");
}
