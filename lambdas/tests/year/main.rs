//! A year of recovery, in virtual time: forty databases, the five functions through [`handle`], and a truth that tries to
//! open every point.
//!
//! Everything AWS is the model's; everything Oracle is coarse ([`estate`]). What the product says after each audit is held
//! against [`truth`], which restores volumes, looks for files, logs in to restored HSMs and finds each key, or does not.
//! `YEAR_SEED` chooses another year, `YEAR_DAYS` a shorter one.
//!
//! [`handle`]: tde2hsm_lambdas::handle
//! [`truth`]: tde2hsm_model::truth

mod cloud;
mod estate;
mod judge;
mod reasons;
mod schedule;
mod tally;

use schedule::Year;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, days: i64) -> (Year, String) {
    let mut year = Year::new(seed, days);
    year.run();
    let table = year.table();
    eprintln!("{table}\n{}", year.times());
    assert!(year.wrong().is_empty(), "{}", year.wrong().join("\n"));
    (year, table)
}

/// Every verdict right, no last good point deleted, no copy made twice, every breach alarmed once.
#[test]
fn h40_h45_a_year_of_faults_in_which_every_verdict_is_true() {
    let seed = number("YEAR_SEED").unwrap_or(1);
    let days = number("YEAR_DAYS").map_or(365, |n| n as i64);
    run(seed, days).0.suffices();
}

#[test]
fn a_year_is_its_seed() {
    let table = |seed| run(seed, 6).1;
    let first = table(5);
    assert_eq!(first, table(5));
    // The first line is the seed itself.
    let rest = |table: &str| table.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_ne!(rest(&first), rest(&table(6)));
}
