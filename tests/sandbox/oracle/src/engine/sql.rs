//! Queries: Oracle's SELECT, rewritten token by token for SQLite, over views filled for the one statement.
//!
//! Dates are Julian day numbers, so `SYSDATE - 1` is what it says; a RAW is its upper hex, so RAWTOHEX and
//! HEXTORAW change nothing; `||` takes NULL for an empty string.

use std::collections::BTreeSet;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, config::DbConfig};
use serde::{Deserialize, Serialize};

use super::{Instance, Sess, views};
use crate::env::{UNIX_EPOCH_JULIAN, now};
use crate::error::{Ora, Result, ora};

/// What a statement answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    Message(String),
    Rows(Rows),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    pub columns: Vec<String>,
    /// Right-aligned, as sqlplus does with numbers.
    pub numeric: Vec<bool>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    #[must_use]
    pub fn message(text: &str) -> Answer {
        Answer::Message(text.into())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum T {
    Word(String),
    Num(String),
    Str(String),
    Quoted(String),
    Op(String),
}

impl T {
    fn is(&self, word: &str) -> bool {
        matches!(self, T::Word(w) if w.eq_ignore_ascii_case(word))
    }

    fn op(&self, op: &str) -> bool {
        matches!(self, T::Op(o) if o == op)
    }

    fn sql(&self) -> String {
        match self {
            // A word with `#` is no SQLite identifier unless it is quoted.
            T::Word(w) if w.contains('#') => format!("\"{}\"", w.to_uppercase()),
            T::Word(w) | T::Num(w) | T::Op(w) => w.clone(),
            T::Str(s) => format!("'{}'", s.replace('\'', "''")),
            T::Quoted(s) => format!("\"{s}\""),
        }
    }
}

fn lex(sql: &str) -> Result<Vec<T>> {
    let chars: Vec<char> = sql.chars().collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        let next = chars.get(i + 1).copied();
        if c.is_whitespace() {
            i += 1;
        } else if c == '-' && next == Some('-') {
            while i < chars.len() && chars[i] != '\n' {
                i += 1;
            }
        } else if c == '/' && next == Some('*') {
            i += 2;
            while i < chars.len() && !(chars[i] == '*' && chars.get(i + 1) == Some(&'/')) {
                i += 1;
            }
            i += 2;
        } else if c == '\'' {
            let mut text = String::new();
            i += 1;
            loop {
                match chars.get(i) {
                    None => ora!(1756, "quoted string not properly terminated"),
                    Some('\'') if chars.get(i + 1) == Some(&'\'') => {
                        text.push('\'');
                        i += 2;
                    }
                    Some('\'') => break,
                    Some(other) => {
                        text.push(*other);
                        i += 1;
                    }
                }
            }
            i += 1;
            out.push(T::Str(text));
        } else if c == '"' {
            let end = chars[i + 1..]
                .iter()
                .position(|c| *c == '"')
                .ok_or_else(|| Ora::with(1740, "missing double quote in identifier"))?;
            out.push(T::Quoted(chars[i + 1..i + 1 + end].iter().collect()));
            i += end + 2;
        } else if c.is_ascii_digit() || (c == '.' && next.is_some_and(|n| n.is_ascii_digit())) {
            let start = i;
            while i < chars.len() && (chars[i].is_ascii_digit() || chars[i] == '.') {
                i += 1;
            }
            out.push(T::Num(chars[start..i].iter().collect()));
        } else if c.is_alphabetic() || c == '_' {
            let start = i;
            while i < chars.len() && (chars[i].is_alphanumeric() || "_$#".contains(chars[i])) {
                i += 1;
            }
            out.push(T::Word(chars[start..i].iter().collect()));
        } else {
            let two: String = chars[i..(i + 2).min(chars.len())].iter().collect();
            let op = match two.as_str() {
                "||" | "<=" | ">=" | "<>" | "!=" => two.clone(),
                "^=" => "!=".into(),
                _ => c.to_string(),
            };
            i += if op.len() == 2 || two == "^=" { 2 } else { 1 };
            if !"(),.*+-/<>=|!;".contains(c) && op.len() == 1 {
                ora!(911);
            }
            out.push(T::Op(op));
        }
    }
    Ok(out)
}

/// Runs a query.
pub fn select(instance: &mut Instance, sess: &Sess, text: &str) -> Result<Answer> {
    let mut tokens = lex(text)?;
    if let Some(open) = tokens.iter().filter(|t| t.op("(")).count().checked_sub(tokens.iter().filter(|t| t.op(")")).count())
        && open > 0
    {
        ora!(907);
    }
    let owned = instance.tables.get(&sess.con).cloned().unwrap_or_default();
    qualify(&mut tokens, &owned);
    words(&mut tokens)?;
    listagg(&mut tokens);
    concat(&mut tokens);
    rownum(&mut tokens);
    let db = database()?;
    let user = instance.container(sess.con).map(|c| c.name.clone()).unwrap_or_default();
    context_function(&db, instance, sess, &user)?;
    let mut seen = BTreeSet::new();
    for token in &tokens {
        let (T::Word(name) | T::Quoted(name)) = token else { continue };
        let name = name.to_uppercase();
        if !seen.insert(name.clone()) {
            continue;
        }
        let data = if owned.contains(&name) {
            Some(views::user_table(instance, sess, &name)?)
        } else if looks_used_as_table(&tokens, &name) {
            views::view(instance, sess, &name)?
        } else {
            None
        };
        if let Some(data) = data {
            fill(&db, &name, &data)?;
        }
    }
    let sql: Vec<String> = tokens.iter().map(T::sql).collect();
    let sql = sql.join(" ").replace(" . ", ".");
    run(&db, &sql)
}

/// A name after FROM, JOIN or a comma of a FROM list: only those are looked up, for some views act (R10).
fn looks_used_as_table(tokens: &[T], name: &str) -> bool {
    tokens.iter().enumerate().any(|(i, t)| {
        let named = matches!(t, T::Word(w) | T::Quoted(w) if w.eq_ignore_ascii_case(name));
        named
            && i.checked_sub(1)
                .and_then(|at| tokens.get(at))
                .is_some_and(|before| before.is("FROM") || before.is("JOIN") || before.op(",") || before.op("("))
    })
}

/// `SYS.ENC$` → `ENC$`, `APP.T` → `"APP.T"`, `V_$X` → `V$X`.
fn qualify(tokens: &mut Vec<T>, owned: &BTreeSet<String>) {
    let mut i = 0;
    while i < tokens.len() {
        if let T::Word(word) = &mut tokens[i] {
            let upper = word.to_uppercase();
            if upper.starts_with("V_$") || upper.starts_with("GV_$") {
                *word = upper.replacen("V_$", "V$", 1);
            }
        }
        let dotted = tokens.get(i + 1).is_some_and(|t| t.op("."));
        if dotted
            && let (Some(T::Word(owner) | T::Quoted(owner)), Some(T::Word(name) | T::Quoted(name))) =
                (tokens.get(i), tokens.get(i + 2))
        {
            let full = format!("{owner}.{name}").to_uppercase();
            if owner.eq_ignore_ascii_case("SYS") || owner.eq_ignore_ascii_case("SYSTEM") {
                tokens.drain(i..i + 2);
                continue;
            }
            if owned.contains(&full) {
                tokens.splice(i..i + 3, [T::Quoted(full)]);
            }
        }
        i += 1;
    }
}

fn word(text: &str) -> T {
    T::Word(text.into())
}

fn op(text: &str) -> T {
    T::Op(text.into())
}

/// Words that mean something else, or nothing, to SQLite.
fn words(tokens: &mut Vec<T>) -> Result<()> {
    let mut i = 0;
    while i < tokens.len() {
        let after_dot = i > 0 && tokens[i - 1].op(".");
        let before_dot = tokens.get(i + 1).is_some_and(|t| t.op("."));
        let at = |n: usize| tokens.get(i + n);
        let is = |n: usize, w: &str| at(n).is_some_and(|t| t.is(w));
        let lone = !after_dot && !before_dot;
        if lone
            && (is(0, "SYSDATE")
                || is(0, "SYSTIMESTAMP")
                || is(0, "CURRENT_TIMESTAMP")
                || is(0, "LOCALTIMESTAMP")
                || is(0, "CURRENT_DATE"))
        {
            tokens.splice(i..=i, [word("ora_now"), op("("), op(")")]);
        } else if lone && is(0, "USER") && !tokens.get(i + 1).is_some_and(|t| t.op("(")) {
            tokens[i] = T::Str("SYS".into());
        } else if is(0, "AT") && is(1, "TIME") && is(2, "ZONE") {
            tokens.drain(i..(i + 4).min(tokens.len()));
            continue;
        } else if is(0, "AT") && is(1, "LOCAL") {
            tokens.drain(i..i + 2);
            continue;
        } else if is(0, "INTERVAL") && matches!(at(1), Some(T::Str(_))) {
            let Some(T::Str(amount)) = at(1).cloned() else { continue };
            let days = match at(2) {
                Some(t) if t.is("DAY") => 1.0,
                Some(t) if t.is("HOUR") => 24.0,
                Some(t) if t.is("MINUTE") => 1440.0,
                Some(t) if t.is("SECOND") => 86_400.0,
                _ => ora!(30089, "missing or invalid <datetime field>"),
            };
            tokens.splice(i..i + 3, [op("("), T::Num(amount), op("/"), T::Num(format!("{days:.1}")), op(")")]);
        } else if (is(0, "TIMESTAMP") || is(0, "DATE")) && matches!(at(1), Some(T::Str(_))) {
            tokens[i] = word("to_date");
            tokens.insert(i + 1, op("("));
            tokens.insert(i + 3, op(")"));
        } else if at(0).is_some_and(|t| t.op("/")) {
            // 1/24 is a number, not 0.
            tokens.splice(i..=i, [op("*"), T::Num("1.0".into()), op("/")]);
            i += 2;
        } else if is(0, "MINUS") {
            tokens[i] = word("EXCEPT");
        } else if is(0, "FETCH") && (is(1, "FIRST") || is(1, "NEXT")) {
            let (count, end) = match at(2) {
                Some(T::Num(n)) => (n.clone(), 5),
                _ => ("1".into(), 4),
            };
            let end = (i + end).min(tokens.len());
            tokens.splice(i..end, [word("LIMIT"), T::Num(count)]);
        } else if matches!(at(0), Some(T::Op(o)) if o == ";") {
            ora!(911);
        }
        i += 1;
    }
    Ok(())
}

/// The index after the bracket that closes the one at `open`.
fn closing(tokens: &[T], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        if token.op("(") {
            depth += 1;
        } else if token.op(")") {
            depth -= 1;
            if depth == 0 {
                return Some(i + 1);
            }
        }
    }
    None
}

fn opening(tokens: &[T], close: usize) -> Option<usize> {
    let mut depth = 0;
    for i in (0..=close).rev() {
        if tokens[i].op(")") {
            depth += 1;
        } else if tokens[i].op("(") {
            depth -= 1;
            if depth == 0 {
                return Some(i);
            }
        }
    }
    None
}

/// LISTAGG(x, s) WITHIN GROUP (ORDER BY y) → group_concat(x, s ORDER BY y).
fn listagg(tokens: &mut Vec<T>) {
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i].is("LISTAGG")
            && let Some(end) = closing(tokens, i + 1)
            && tokens.get(end).is_some_and(|t| t.is("WITHIN"))
            && let Some(last) = closing(tokens, end + 2)
        {
            let order: Vec<T> = tokens[end + 3..last - 1].to_vec();
            tokens.drain(end..last);
            tokens.splice(end - 1..end - 1, order);
            tokens[i] = word("group_concat");
        }
        i += 1;
    }
}

/// Each operand of `||` goes through a function that makes NULL an empty string.
fn concat(tokens: &mut Vec<T>) {
    let mut i = 0;
    while i < tokens.len() {
        if tokens[i].op("||") {
            // Right first: positions on the left stay.
            let mut end = primary_end(tokens, i + 1);
            while tokens.get(end).is_some_and(|t| t.op("*") || t.op("/")) {
                end = primary_end(tokens, end + 1);
            }
            let end = end.min(tokens.len());
            tokens.insert(end, op(")"));
            tokens.insert(i + 1, op("("));
            tokens.insert(i + 1, word("ora_text"));
            if i > 0 {
                let mut start = operand_start(tokens, i - 1);
                // Oracle reads `a - b || c` as `(a - b) || c`; SQLite binds `||` first.
                while start >= 2
                    && ["+", "-", "*", "/"].iter().any(|o| tokens[start - 1].op(o))
                    && ends_a_value(&tokens[start - 2])
                {
                    start = operand_start(tokens, start - 2);
                }
                let wrapped = start < i && tokens[start].is("ora_text");
                if !wrapped {
                    tokens.insert(i, op(")"));
                    tokens.insert(start, op("("));
                    tokens.insert(start, word("ora_text"));
                    i += 3;
                }
            }
        }
        i += 1;
    }
}

fn ends_a_value(token: &T) -> bool {
    match token {
        T::Num(_) | T::Str(_) | T::Quoted(_) => true,
        T::Word(w) => !is_keyword(w),
        T::Op(o) => o == ")",
    }
}

/// The index after a primary: a literal, a name, a call, brackets, CASE … END.
fn primary_end(tokens: &[T], start: usize) -> usize {
    let mut end = start + 1;
    if tokens.get(start).is_some_and(|t| t.op("(")) {
        return closing(tokens, start).unwrap_or(end);
    }
    if tokens.get(start).is_some_and(|t| t.is("CASE")) {
        return case_end(tokens, start);
    }
    while tokens.get(end).is_some_and(|t| t.op(".")) {
        end += 2;
    }
    if tokens.get(end).is_some_and(|t| t.op("(")) {
        end = closing(tokens, end).unwrap_or(end);
        // An analytic function goes on.
        if tokens.get(end).is_some_and(|t| t.is("OVER")) {
            end = closing(tokens, end + 1).unwrap_or(end);
        }
    }
    end
}

fn case_end(tokens: &[T], start: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(start) {
        if token.is("CASE") {
            depth += 1;
        } else if token.is("END") {
            depth -= 1;
            if depth == 0 {
                return i + 1;
            }
        }
    }
    tokens.len()
}

fn operand_start(tokens: &[T], last: usize) -> usize {
    let mut start = last;
    if tokens[last].op(")") {
        start = opening(tokens, last).unwrap_or(last);
        // A function's name stands before its bracket.
        if start > 0 && matches!(&tokens[start - 1], T::Word(w) if !is_keyword(w)) {
            start -= 1;
        }
    } else if tokens[last].is("END") {
        let mut depth = 0;
        for i in (0..=last).rev() {
            if tokens[i].is("END") {
                depth += 1;
            } else if tokens[i].is("CASE") {
                depth -= 1;
                if depth == 0 {
                    return i;
                }
            }
        }
    }
    while start >= 2 && tokens[start - 1].op(".") {
        start -= 2;
    }
    start
}

fn is_keyword(w: &str) -> bool {
    ["SELECT", "WHERE", "AND", "OR", "NOT", "IN", "THEN", "ELSE", "WHEN", "BY", "ON", "CASE", "DISTINCT"]
        .iter()
        .any(|k| w.eq_ignore_ascii_case(k))
}

/// `ROWNUM <= n` in a WHERE becomes a LIMIT of its query block; elsewhere ROWNUM is a row number.
fn rownum(tokens: &mut Vec<T>) {
    let mut i = 0;
    while i < tokens.len() {
        if !tokens[i].is("ROWNUM") {
            i += 1;
            continue;
        }
        let limit = match (tokens.get(i + 1), tokens.get(i + 2)) {
            (Some(T::Op(o)), Some(T::Num(n))) => {
                let n: i64 = n.parse().unwrap_or(0);
                match o.as_str() {
                    "<=" | "=" => Some(n),
                    "<" => Some(n - 1),
                    _ => None,
                }
            }
            _ => None,
        };
        if let Some(limit) = limit {
            tokens.splice(i..i + 3, [T::Num("1".into()), op("="), T::Num("1".into())]);
            let end = block_end(tokens, i);
            let limit = [word("LIMIT"), T::Num(limit.to_string())];
            match one_table(tokens, i, end) {
                Some(block) => {
                    // The rows are numbered before they are grouped or ordered.
                    tokens.splice(
                        block.condition_end..block.condition_end,
                        limit.into_iter().chain([op(")"), T::Word(block.alias)]),
                    );
                    tokens.splice(block.from + 1..block.from + 1, [op("("), word("SELECT"), op("*"), word("FROM")]);
                }
                None => {
                    tokens.splice(end..end, limit);
                }
            }
        } else {
            tokens.splice(i..=i, [word("ROW_NUMBER"), op("("), op(")"), word("OVER"), op("("), op(")")]);
        }
        i += 1;
    }
}

/// The end of the query block that holds `at`.
fn block_end(tokens: &[T], at: usize) -> usize {
    let mut depth = 0;
    let mut end = at;
    while end < tokens.len() {
        if tokens[end].op("(") {
            depth += 1;
        } else if tokens[end].op(")") {
            depth -= 1;
            if depth < 0 {
                break;
            }
        } else if depth == 0 && ["UNION", "EXCEPT", "INTERSECT"].iter().any(|w| tokens[end].is(w)) {
            break;
        }
        end += 1;
    }
    end
}

/// A block over one table or view: where its FROM is, where its WHERE ends, and what the table is called.
struct Block {
    from: usize,
    condition_end: usize,
    alias: String,
}

fn one_table(tokens: &[T], at: usize, end: usize) -> Option<Block> {
    let mut depth = 0;
    let from = (0..at).rev().find(|&i| {
        if tokens[i].op(")") {
            depth += 1;
        } else if tokens[i].op("(") {
            depth -= 1;
        }
        depth == 0 && tokens[i].is("FROM")
    })?;
    let (name, alias) = match tokens.get(from + 1..from + 4)? {
        [T::Word(t) | T::Quoted(t), w, ..] if w.is("WHERE") => (t, t),
        [T::Word(t) | T::Quoted(t), T::Word(alias), w] if w.is("WHERE") => (t, alias),
        _ => return None,
    };
    let alias = if name == alias { T::Quoted(name.to_uppercase()).sql() } else { alias.clone() };
    let mut depth = 0;
    let condition_end = (at..end)
        .find(|&i| {
            depth += i32::from(tokens[i].op("(")) - i32::from(tokens[i].op(")"));
            depth == 0 && (tokens[i].is("GROUP") || tokens[i].is("ORDER"))
        })
        .unwrap_or(end);
    Some(Block { from, condition_end, alias })
}

/// A view's content.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
}

fn fill(db: &Connection, name: &str, data: &Data) -> Result<()> {
    // A column of numbers compares with a string as a number, as in Oracle: SQLite does so for a column that is declared so.
    let kind = |i: usize| {
        let number = |row: &Vec<Value>| matches!(row.get(i), Some(Value::Integer(_)));
        let null = |row: &Vec<Value>| matches!(row.get(i), Some(Value::Null) | None);
        if data.rows.iter().all(|row| number(row) || null(row)) && data.rows.iter().any(number) { " INTEGER" } else { "" }
    };
    let columns: Vec<String> = data.columns.iter().enumerate().map(|(i, c)| format!("\"{c}\"{}", kind(i))).collect();
    let sql = format!("CREATE TABLE \"{name}\" ({})", columns.join(", "));
    db.execute(&sql, []).map_err(internal)?;
    let marks = vec!["?"; data.columns.len()].join(", ");
    let mut insert = db.prepare(&format!("INSERT INTO \"{name}\" VALUES ({marks})")).map_err(internal)?;
    for row in &data.rows {
        insert.execute(rusqlite::params_from_iter(row)).map_err(internal)?;
    }
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn internal(error: rusqlite::Error) -> Ora {
    Ora::with(600, format!("internal error code, arguments: [{error}], [], [], [], [], [], [], []"))
}

fn run(db: &Connection, sql: &str) -> Result<Answer> {
    let failed = |e: rusqlite::Error| oracle_error(&e.to_string());
    let mut statement = db.prepare(sql).map_err(failed)?;
    let columns: Vec<String> = statement.column_names().map(heading).collect();
    let count = columns.len();
    let mut numeric = vec![true; count];
    let mut found = Vec::new();
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let mut line = Vec::with_capacity(count);
        for (i, numeric) in numeric.iter_mut().enumerate() {
            let value = row.get_ref(i).map_err(failed)?;
            match value {
                ValueRef::Integer(_) | ValueRef::Null => {}
                ValueRef::Real(r) if !is_date(r) => {}
                _ => *numeric = false,
            }
            let text = text_of(value);
            line.push(text.filter(|t| !t.is_empty()));
        }
        found.push(line);
    }
    if found.is_empty() {
        numeric.fill(false);
    }
    Ok(Answer::Rows(Rows { columns, numeric, rows: found }))
}

/// A column's heading: its alias or name, an expression as it was written.
fn heading(name: &str) -> String {
    let plain = name.replace(['"', '`'], "");
    if plain.contains(['(', '|', '+', '\'']) {
        return plain.replace("ora_text", "").replace(' ', "").to_uppercase();
    }
    plain.rsplit('.').next().unwrap_or(&plain).to_uppercase()
}

fn oracle_error(text: &str) -> Ora {
    let detail = |mark: &str| {
        text.find(mark).map(|at| {
            let rest = &text[at + mark.len()..];
            rest.split([' ', '\n']).next().unwrap_or_default().trim_matches('"').to_uppercase()
        })
    };
    if detail("no such table: ").is_some() {
        Ora::new(942)
    } else if let Some(name) = detail("no such column: ").or_else(|| detail("no such function: ")) {
        Ora::with(904, format!("\"{}\": invalid identifier", name.replace('.', "\".\"")))
    } else if text.contains("syntax error") || text.contains("incomplete input") {
        if text.contains("near \"FROM\"") { Ora::new(936) } else { Ora::new(933) }
    } else if text.contains("ORA-") {
        Ora::with(1722, "invalid number")
    } else {
        Ora::with(600, format!("internal error code, arguments: [{text}], [], [], [], [], [], [], []"))
    }
}

/// Julian days of 1000 to 3000 AD, as no other number of a view is.
#[must_use]
pub fn is_date(value: f64) -> bool {
    (2_086_000.0..2_817_000.0).contains(&value)
}

fn text_of(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(i) => Some(i.to_string()),
        ValueRef::Real(r) if is_date(r) => Some(format_date(r, "DD-MON-RR")),
        ValueRef::Real(r) => Some(number_text(r)),
        ValueRef::Text(t) => Some(String::from_utf8_lossy(t).into_owned()),
        ValueRef::Blob(b) => Some(hex::encode_upper(b)),
    }
}

fn number_text(r: f64) -> String {
    let text = format!("{r:.9}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text.strip_prefix("0.") {
        Some(rest) => format!(".{rest}"),
        None => text.to_owned(),
    }
}

fn database() -> Result<Connection> {
    let db = Connection::open_in_memory().map_err(internal)?;
    // A misspelt "NAME" must be an error and not a string.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false).map_err(internal)?;
    functions(&db).map_err(internal)?;
    Ok(db)
}

fn arg(ctx: &Context<'_>, i: usize) -> Value {
    match ctx.get_raw(i) {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(r) => Value::Real(r),
        ValueRef::Text(t) => Value::Text(String::from_utf8_lossy(t).into_owned()),
        ValueRef::Blob(b) => Value::Blob(b.to_vec()),
    }
}

fn arg_text(ctx: &Context<'_>, i: usize) -> Option<String> {
    if i < ctx.len() { text_of(ctx.get_raw(i)) } else { None }
}

fn arg_real(ctx: &Context<'_>, i: usize) -> Option<f64> {
    match ctx.get_raw(i) {
        ValueRef::Integer(n) => Some(n as f64),
        ValueRef::Real(r) => Some(r),
        ValueRef::Text(t) => std::str::from_utf8(t).ok()?.trim().parse().ok(),
        _ => None,
    }
}

fn functions(db: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8;
    let add = |name: &'static str, n: i32, f: fn(&Context<'_>) -> Value| {
        db.create_scalar_function(name, n, flags, move |ctx| Ok(f(ctx)))
    };
    add("ora_now", 0, |_| Value::Real(now()))?;
    add("ora_text", 1, |ctx| Value::Text(arg_text(ctx, 0).unwrap_or_default()))?;
    add("nvl", 2, |ctx| match arg(ctx, 0) {
        Value::Null => arg(ctx, 1),
        Value::Text(t) if t.is_empty() => arg(ctx, 1),
        other => other,
    })?;
    add("nvl2", 3, |ctx| match arg(ctx, 0) {
        Value::Null => arg(ctx, 2),
        _ => arg(ctx, 1),
    })?;
    add("decode", -1, |ctx| {
        let subject = arg(ctx, 0);
        let mut i = 1;
        while i + 1 < ctx.len() {
            if arg(ctx, i) == subject {
                return arg(ctx, i + 1);
            }
            i += 2;
        }
        if i < ctx.len() { arg(ctx, i) } else { Value::Null }
    })?;
    add("to_char", -1, |ctx| match (ctx.get_raw(0), arg_text(ctx, 1)) {
        (ValueRef::Null, _) => Value::Null,
        (ValueRef::Real(r), Some(format)) if is_date(r) => Value::Text(format_date(r, &format)),
        (value, _) => text_of(value).map_or(Value::Null, Value::Text),
    })?;
    add("to_number", -1, |ctx| match arg(ctx, 0) {
        Value::Text(t) => match (t.trim().parse::<i64>(), t.trim().parse::<f64>()) {
            (Ok(i), _) => Value::Integer(i),
            (_, Ok(r)) => Value::Real(r),
            _ => Value::Null,
        },
        other => other,
    })?;
    for name in ["to_date", "to_timestamp", "to_timestamp_tz"] {
        add(name, -1, |ctx| match ctx.get_raw(0) {
            ValueRef::Real(r) => Value::Real(r),
            _ => arg_text(ctx, 0).and_then(|t| parse_date(&t)).map_or(Value::Null, Value::Real),
        })?;
    }
    for name in ["sys_extract_utc", "cast_date"] {
        add(name, 1, |ctx| arg(ctx, 0))?;
    }
    for name in ["rawtohex", "hextoraw"] {
        add(name, 1, |ctx| arg_text(ctx, 0).map_or(Value::Null, |t| Value::Text(t.to_uppercase())))?;
    }
    add("chr", 1, |ctx| {
        arg_real(ctx, 0).and_then(|n| char::from_u32(n as u32)).map_or(Value::Null, |c| Value::Text(c.to_string()))
    })?;
    add("mod", 2, |ctx| match (arg(ctx, 0), arg(ctx, 1)) {
        (Value::Integer(a), Value::Integer(b)) if b != 0 => Value::Integer(a % b),
        (a, _) => a,
    })?;
    for name in ["trunc", "floor"] {
        add(name, -1, |ctx| match ctx.get_raw(0) {
            ValueRef::Null => Value::Null,
            ValueRef::Real(r) if is_date(r) => Value::Real((r + 0.5).floor() - 0.5),
            _ => arg_real(ctx, 0).map_or(Value::Null, |r| Value::Integer(r.floor() as i64)),
        })?;
    }
    add("ceil", 1, |ctx| arg_real(ctx, 0).map_or(Value::Null, |r| Value::Integer(r.ceil() as i64)))?;
    for (name, greatest) in [("greatest", true), ("least", false)] {
        db.create_scalar_function(name, -1, flags, move |ctx| {
            let values = (0..ctx.len()).filter_map(|i| arg_real(ctx, i));
            let best = if greatest { values.reduce(f64::max) } else { values.reduce(f64::min) };
            Ok(best.map_or(Value::Null, Value::Real))
        })?;
    }
    for (name, left) in [("lpad", true), ("rpad", false)] {
        db.create_scalar_function(name, -1, flags, move |ctx| {
            let Some(text) = arg_text(ctx, 0) else { return Ok(Value::Null) };
            let width = arg_real(ctx, 1).unwrap_or(0.0) as usize;
            let fill = arg_text(ctx, 2).unwrap_or_else(|| " ".into());
            let have = text.chars().count();
            if have >= width || fill.is_empty() {
                return Ok(Value::Text(text.chars().take(width).collect()));
            }
            let pad: String = fill.chars().cycle().take(width - have).collect();
            Ok(Value::Text(if left { pad + &text } else { text + &pad }))
        })?;
    }
    add("regexp_like", -1, |ctx| {
        let (Some(text), Some(pattern)) = (arg_text(ctx, 0), arg_text(ctx, 1)) else {
            return Value::Null;
        };
        let pattern = match arg_text(ctx, 2) {
            Some(flags) if flags.contains('i') => format!("(?i){pattern}"),
            _ => pattern,
        };
        let found = regex::Regex::new(&pattern).is_ok_and(|re| re.is_match(&text));
        Value::Integer(i64::from(found))
    })?;
    add("standard_hash", -1, |ctx| {
        arg_text(ctx, 0).map_or(Value::Null, |t| Value::Text(crate::crypto::sha256_hex(t.as_bytes()).to_uppercase()))
    })
}

/// SYS_CONTEXT('USERENV', …) knows the session, so it is made for each statement.
fn context_function(db: &Connection, instance: &Instance, sess: &Sess, con: &str) -> Result<()> {
    let name = instance.memory.get("db_name").cloned().unwrap_or_default();
    let unique = instance.memory.get("db_unique_name").cloned().unwrap_or_default();
    let con = if con.is_empty() { name.to_uppercase() } else { con.to_owned() };
    let role = instance.control.as_ref().map_or("", |c| c.planted.role.as_str()).to_owned();
    let values: Vec<(&str, String)> = vec![
        ("CON_NAME", con),
        ("CON_ID", sess.con.to_string()),
        ("DB_NAME", name),
        ("DB_UNIQUE_NAME", unique),
        ("INSTANCE_NAME", instance.sid.clone()),
        ("INSTANCE", "1".into()),
        ("SESSION_USER", session_user(sess).into()),
        ("CURRENT_USER", session_user(sess).into()),
        ("CURRENT_SCHEMA", "SYS".into()),
        ("OS_USER", sess.hello.os_user.clone()),
        ("HOST", sess.hello.machine.clone()),
        ("SERVER_HOST", sess.hello.machine.clone()),
        ("SID", sess.sid.to_string()),
        ("SESSIONID", "4294967295".into()),
        ("ISDBA", "TRUE".into()),
        ("ORACLE_HOME", instance.home.clone()),
        ("DATABASE_ROLE", if role.is_empty() { "PRIMARY".into() } else { role }),
        ("CDB_NAME", instance.control.as_ref().filter(|c| c.cdb).map_or(String::new(), |c| c.db_name.clone())),
    ];
    let values: Vec<(String, String)> = values.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
    db.create_scalar_function("sys_context", -1, FunctionFlags::SQLITE_UTF8, move |ctx| {
        let wanted = arg_text(ctx, 1).unwrap_or_default().to_uppercase();
        Ok(values.iter().find(|(name, _)| *name == wanted).map_or(Value::Null, |(_, value)| Value::Text(value.clone())))
    })
    .map_err(internal)
}

#[must_use]
pub fn session_user(sess: &Sess) -> &'static str {
    match sess.hello.privilege {
        super::Privilege::Sysdba => "SYS",
        super::Privilege::Syskm => "SYSKM",
    }
}

fn to_jiff(julian: f64) -> jiff::civil::DateTime {
    let micros = ((julian - UNIX_EPOCH_JULIAN) * 86_400e6).round() as i64;
    // A Julian day in a double is good to 40 µs: what is that near to a whole second is one.
    let second = (micros + 500_000).div_euclid(1_000_000) * 1_000_000;
    let micros = if (micros - second).abs() < 50 { second } else { micros };
    let stamp = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
    jiff::tz::TimeZone::UTC.to_datetime(stamp)
}

/// TO_CHAR of a date.
#[must_use]
pub fn format_date(julian: f64, format: &str) -> String {
    let at = to_jiff(julian);
    let month = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
        [usize::try_from(at.month() - 1).unwrap_or(0)];
    let micros = at.subsec_nanosecond() / 1000;
    let mut out = String::new();
    let mut rest = format;
    while !rest.is_empty() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            out += &quoted[..end];
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        let upper = rest.to_uppercase();
        let pieces: [(&str, String); 18] = [
            ("YYYY", format!("{:04}", at.year())),
            ("RRRR", format!("{:04}", at.year())),
            ("HH24", format!("{:02}", at.hour())),
            ("HH12", format!("{:02}", (at.hour() + 11) % 12 + 1)),
            ("SSSSS", (i32::from(at.hour()) * 3600 + i32::from(at.minute()) * 60 + i32::from(at.second())).to_string()),
            ("MON", month.to_owned()),
            ("DD", format!("{:02}", at.day())),
            ("MM", format!("{:02}", at.month())),
            ("MI", format!("{:02}", at.minute())),
            ("SS", format!("{:02}", at.second())),
            ("YY", format!("{:02}", at.year() % 100)),
            ("RR", format!("{:02}", at.year() % 100)),
            ("HH", format!("{:02}", (at.hour() + 11) % 12 + 1)),
            ("TZH", "+00".into()),
            ("TZM", "00".into()),
            ("TZR", "UTC".into()),
            ("FF", String::new()),
            ("FX", String::new()),
        ];
        if let Some(after) = upper.strip_prefix("FF") {
            let digits = after.chars().next().and_then(|c| c.to_digit(10));
            let width = digits.unwrap_or(6) as usize;
            let text = format!("{micros:06}000");
            out += &text[..width.min(9)];
            rest = &rest[if digits.is_some() { 3 } else { 2 }..];
        } else if let Some((piece, value)) = pieces.iter().find(|(p, _)| upper.starts_with(p)) {
            out += value;
            rest = &rest[piece.len()..];
        } else {
            let c = rest.chars().next().unwrap_or(' ');
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    out
}

/// `2026-11-24 01:02:03`, with or without time, `T` or fraction.
#[must_use]
pub fn parse_date(text: &str) -> Option<f64> {
    let text = text.trim().trim_end_matches('Z').replace('T', " ");
    let text = text.split(" +").next().unwrap_or(&text).to_owned();
    let at: jiff::civil::DateTime = match text.len() {
        10 => text.parse::<jiff::civil::Date>().ok()?.to_datetime(jiff::civil::Time::midnight()),
        _ => text.parse().ok()?,
    };
    let stamp = jiff::tz::TimeZone::UTC.to_timestamp(at).ok()?;
    Some(UNIX_EPOCH_JULIAN + stamp.as_microsecond() as f64 / 86_400e6)
}
