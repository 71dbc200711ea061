//! Everything captured is searched for secrets before it is kept (H39).
//!
//! sqlplus prints a failing statement again, password included (`O§1.1`), and a value travels in many spellings. So
//! each secret is looked for in all of them, in any case, and a `user:password` also by its password alone.

use crate::secrets::Secret;
use base64::Engine as _;
use serde_json::Value;
use zeroize::Zeroizing;

/// What stands where a secret stood.
pub const REDACTED: &str = "*redacted*";
/// The password alone is looked for from this length on; a shorter one would redact half of any text.
const PART_MIN: usize = 4;

#[derive(Default)]
pub struct Redactor {
    /// Lower-case, the longest first.
    forms: Vec<Zeroizing<Vec<u8>>>,
}

impl Redactor {
    pub fn learn(&mut self, secret: &Secret) {
        for form in forms(secret.reveal()) {
            let form = Zeroizing::new(form.to_ascii_lowercase().into_bytes());
            if !form.is_empty() && !self.forms.contains(&form) {
                self.forms.push(form);
            }
        }
        self.forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    }

    pub fn redact(&self, text: &str) -> String {
        let lower = Zeroizing::new(text.to_ascii_lowercase().into_bytes());
        // Which bytes belong to a secret; forms may overlap.
        let mut covered = vec![Cover::No; lower.len()];
        for form in &self.forms {
            let mut from = 0;
            while let Some(at) = find(&lower[from..], form) {
                covered[from + at..from + at + form.len()].fill(Cover::Yes);
                from += at + 1;
            }
        }
        let mut clean = String::with_capacity(text.len());
        let mut before = Cover::No;
        for (at, c) in text.char_indices() {
            let here = covered[at];
            match (before, here) {
                (_, Cover::No) => clean.push(c),
                (Cover::No, Cover::Yes) => clean.push_str(REDACTED),
                (Cover::Yes, Cover::Yes) => {}
            }
            before = here;
        }
        clean
    }

    /// Every text in it, keys included.
    pub fn redact_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.redact(&text)),
            Value::Array(values) => Value::Array(values.into_iter().map(|value| self.redact_json(value)).collect()),
            Value::Object(map) => {
                Value::Object(map.into_iter().map(|(key, value)| (self.redact(&key), self.redact_json(value))).collect())
            }
            other => other,
        }
    }

    /// Some form of a secret is in these bytes.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        let lower = Zeroizing::new(bytes.to_ascii_lowercase());
        self.forms.iter().any(|form| find(&lower, form).is_some())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cover {
    Yes,
    No,
}

fn find(text: &[u8], form: &[u8]) -> Option<usize> {
    text.windows(form.len()).position(|window| window == form)
}

/// All spellings of a value, and of the password in a `user:password`.
fn forms(value: &str) -> Vec<Zeroizing<String>> {
    let mut all = spellings(value);
    if let Some((_, password)) = value.split_once(':')
        && password.len() >= PART_MIN
    {
        all.extend(spellings(password));
    }
    all
}

fn spellings(value: &str) -> Vec<Zeroizing<String>> {
    let json = Zeroizing::new(serde_json::to_string(value).expect("text serialises"));
    let mut all = vec![
        Zeroizing::new(value.to_owned()),
        Zeroizing::new(hex::encode(value)),
        Zeroizing::new(url(value, Escape::Reserved)),
        Zeroizing::new(url(value, Escape::AllButAlphanumeric)),
        Zeroizing::new(json[1..json.len() - 1].to_owned()),
        Zeroizing::new(value.replace('"', "\"\"")),
        Zeroizing::new(value.replace('\'', "''")),
    ];
    // A value in the middle of an encoded text starts at one of three offsets; the characters that its neighbours
    // take part in are left off. Both alphabets agree but for two characters.
    for engine in [base64::engine::general_purpose::STANDARD_NO_PAD, base64::engine::general_purpose::URL_SAFE_NO_PAD] {
        for offset in 0..3 {
            let mut bytes = Zeroizing::new(vec![0; offset]);
            bytes.extend_from_slice(value.as_bytes());
            let text = Zeroizing::new(engine.encode(&*bytes));
            let start = [0, 2, 3][offset];
            let end = bytes.len() / 3 * 4;
            if end > start && end - start >= PART_MIN {
                all.push(Zeroizing::new(text[start..end].to_owned()));
            }
        }
        // Alone, to its last character.
        all.push(Zeroizing::new(engine.encode(value)));
    }
    all
}

#[derive(Clone, Copy)]
enum Escape {
    /// What RFC 3986 leaves as it is stays.
    Reserved,
    AllButAlphanumeric,
}

fn url(value: &str, escape: Escape) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        let plain = match escape {
            Escape::Reserved => byte.is_ascii_alphanumeric() || b"-._~".contains(&byte),
            Escape::AllButAlphanumeric => byte.is_ascii_alphanumeric(),
        };
        if plain {
            text.push(byte.into());
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor(value: &str) -> Redactor {
        let mut redactor = Redactor::default();
        redactor.learn(&Secret::new(value.to_owned()));
        redactor
    }

    #[test]
    fn h39_every_form_of_a_planted_secret_is_found() {
        let value = "crypto_user:S3\"cr'et pä%ss/+x";
        let redactor = redactor(value);
        let standard = base64::engine::general_purpose::STANDARD;
        let url_safe = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let leaks = [
            format!("ADMINISTER KEY MANAGEMENT SET KEY IDENTIFIED BY \"{value}\" MIGRATE"),
            value.to_uppercase().replace('Ä', "ä"),
            standard.encode(value),
            standard.encode(format!("x{value}y")),
            url_safe.encode(format!("xx{value}yyy")),
            hex::encode(value),
            hex::encode_upper(value),
            url(value, Escape::Reserved),
            serde_json::to_string(&format!("pin={value}")).unwrap(),
            format!("ADD SECRET '{}'", value.replace('\'', "''")),
            format!("SELECT \"{}\"", value.replace('"', "\"\"")),
            format!("the password alone: {}", value.split_once(':').unwrap().1),
        ];
        for leak in leaks {
            assert!(redactor.finds(leak.as_bytes()), "not found: {leak}");
            let clean = redactor.redact(&leak);
            assert!(clean.contains(REDACTED), "not redacted: {leak}");
            assert!(!redactor.finds(clean.as_bytes()), "still there: {clean}");
        }
        assert_eq!(redactor.redact("ORA-28407: nothing to hide"), "ORA-28407: nothing to hide");
    }

    #[test]
    fn json_is_redacted_in_keys_and_values() {
        let value = serde_json::json!({"a": ["pw-7788"], "pw-7788": 1, "n": null});
        let clean = redactor("pw-7788").redact_json(value);
        assert_eq!(clean, serde_json::json!({"a": [REDACTED], REDACTED: 1, "n": null}));
    }

    proptest! {
        #[test]
        fn no_text_around_a_secret_hides_it(
            before in "\\PC{0,40}", value in "[a-zA-Z0-9:\"'%+/ ]{6,30}", after in "\\PC{0,40}"
        ) {
            let redactor = redactor(&value);
            let clean = redactor.redact(&format!("{before}{value}{after}"));
            prop_assert!(clean.contains(REDACTED));
            // The mark itself may spell a part of a short secret; the whole value may not be there.
            let rest = clean.replace(REDACTED, "\u{1}").to_ascii_lowercase();
            prop_assert!(!rest.contains(&value.to_ascii_lowercase()));
        }

        #[test]
        fn other_text_stays_as_it_is(text in "\\PC{0,80}") {
            let redactor = redactor("\u{2}never in a text\u{2}");
            prop_assert_eq!(redactor.redact(&text), text);
        }
    }
}
