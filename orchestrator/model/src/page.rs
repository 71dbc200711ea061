//! Paging. A token names the place it continues from and the list it belongs to, so that one taken from another call
//! is refused as the services refuse it.

use crate::ApiError;

/// A page of `all` and the token of the next one.
pub(crate) fn page<'a, T>(
    all: &'a [T],
    scope: &str,
    max: usize,
    token: Option<&str>,
    bad_token: &str,
) -> Result<(&'a [T], Option<String>), ApiError> {
    let start = match token {
        None => 0,
        Some(token) => token
            .strip_prefix(&format!("{}.", mark(scope)))
            .and_then(|at| at.parse::<usize>().ok())
            .ok_or_else(|| ApiError::new(bad_token, "The specified token is not valid."))?,
    };
    let start = start.min(all.len());
    let end = (start + max).min(all.len());
    let next = (end < all.len()).then(|| format!("{}.{end}", mark(scope)));
    Ok((&all[start..end], next))
}

fn mark(scope: &str) -> String {
    use sha2::{Digest as _, Sha256};
    hex::encode(&Sha256::digest(scope.as_bytes())[..12])
}
