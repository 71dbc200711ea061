//! `explain CODE`: the page of a code, else what the catalogue says.

use crate::args::Explain;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use serde::Serialize;
use tde2hsm_protocol::{Code, describe};

const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

#[derive(Serialize)]
struct Explained<'a> {
    code: Code,
    title: &'a str,
    hint: &'a str,
    page: Option<&'a str>,
}

pub fn run(context: &Context, args: &Explain) -> Result<Exit, Failure> {
    let text = args.code.to_ascii_uppercase();
    let code: Code = text.parse().map_err(|_| {
        Failure::usage(format!("`{}` is not a code of this program", args.code)).hint("codes look like `TDE0107`")
    })?;
    let info = describe(code).expect("a parsed code is in the catalogue");
    let page = PAGES.iter().find(|(name, _)| *name == code.to_string()).map(|(_, page)| *page);
    let human = page.map_or_else(|| format!("{code}: {}\n\nWhat to do: {}\n", info.title, info.hint), str::to_owned);
    context.out.answer("explain", &Explained { code, title: info.title, hint: info.hint, page }, &human)?;
    Ok(Exit::Ok)
}
