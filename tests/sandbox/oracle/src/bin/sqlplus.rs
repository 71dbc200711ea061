//! `$ORACLE_HOME/bin/sqlplus`.

fn main() {
    std::process::exit(sandbox_oracle::sqlplus::main());
}
