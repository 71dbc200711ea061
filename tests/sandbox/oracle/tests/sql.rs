//! What scripts ask, as Oracle would answer.

mod common;

use common::*;

#[test]
fn selects_mean_what_they_mean_in_oracle() {
    let mut world = World::new();
    world.seed(&hsm19("FIN"));
    has(&world.sql("FIN", &format!("STARTUP\n{OPEN_OLD}")), "Database opened.");
    for (sql, wanted) in [
        ("SELECT 'a'||NULL||'b' FROM dual", "ab"),
        ("SELECT 10 - 3||' left' FROM dual", "7 left"),
        ("SELECT 2 * 3 + 1||'='||2 * 4 FROM dual", "7=8"),
        ("SELECT 'x'||CASE WHEN 1 = 1 THEN 'yes' ELSE 'no' END||'y' FROM dual", "xyesy"),
        ("SELECT '<'||(1/4)||'>' FROM dual", "<.25>"),
        ("SELECT COUNT(*)||' in the hour' FROM v$session WHERE logon_time > SYSDATE - 1/24 AND type = 'USER'", "1 in the hour"),
        ("SELECT COUNT(*)||' one' FROM app.data_t t WHERE ROWNUM <= 1", "1 one"),
        ("SELECT COUNT(*)||' three' FROM app.data_t WHERE id > 5 AND ROWNUM < 4", "3 three"),
        ("SELECT name FROM (SELECT name FROM v$tablespace ORDER BY name DESC) WHERE ROWNUM = 1", "USERS"),
        (
            "SELECT LISTAGG(name, ',') WITHIN GROUP (ORDER BY name)||'.' FROM v$tablespace",
            "DATA,MORE,SYSAUX,SYSTEM,UNDOTBS1,USERS.",
        ),
        ("SELECT NVL(NULL, 'n')||DECODE(2, 1, 'a', 2, 'b', 'c')||NVL2('x', 'y', 'z') FROM dual", "nby"),
        (
            "SELECT TO_CHAR(TO_DATE('2026-11-24 05:06:07','YYYY-MM-DD HH24:MI:SS') AT TIME ZONE 'UTC','YYYY-MM-DD\"T\"HH24:MI:SS') FROM dual",
            "2026-11-24T05:06:07",
        ),
        ("SELECT TO_CHAR(DATE '2026-02-03','DD-MON-YY') FROM dual", "03-FEB-26"),
        (
            "SELECT ROUND((TO_DATE('2026-01-02','YYYY-MM-DD') - TO_DATE('2026-01-01','YYYY-MM-DD')) * 86400)||' s' FROM dual",
            "86400 s",
        ),
        ("SELECT owner||'.'||table_name FROM dba_tables WHERE tablespace_name = 'DATA' ORDER BY num_rows DESC", "APP.DATA_T"),
        ("SELECT t.\"NAME\"||'' FROM \"APP\".\"DATA_T\" t WHERE t.id = 7", "APP.DATA_T 7"),
        ("SELECT RAWTOHEX(masterkeyid)||LENGTH(masterkeyid) FROM v$database_key_info", "32"),
        (
            "SELECT e.ts#||' '||t.name FROM v$encrypted_tablespaces e, v$tablespace t WHERE t.ts# = e.ts# AND t.con_id = e.con_id ORDER BY e.ts#",
            "4 DATA\n5 MORE",
        ),
        (
            "SELECT user||' '||sys_context('USERENV','CON_NAME')||' '||sys_context('USERENV','INSTANCE_NAME') FROM dual",
            "SYS FIN FIN",
        ),
        ("SELECT COUNT(*)||' users' FROM v$encryption_keys WHERE \"USER\" = 'SYS'", "1 users"),
        ("WITH w AS (SELECT con_id, status FROM v$encryption_wallet) SELECT status||' '||con_id FROM w", "OPEN 0"),
        ("SELECT column_name FROM dba_encrypted_columns MINUS SELECT 'ID' FROM dual", "PAYLOAD"),
        ("SELECT name||' '||sequence# FROM v$archived_log FETCH FIRST 1 ROWS ONLY", "no rows selected"),
        ("SELECT banner FROM v$version", "Oracle Database 19c Enterprise Edition Release 19.0.0.0.0"),
        ("SELECT nosuch FROM v$instance", "ORA-00904: \"NOSUCH\": invalid identifier"),
        ("SELECT 1 FROM nosuch", "ORA-00942"),
        ("SELECT (1 FROM dual", "ORA-00907"),
        ("SELECT 'a FROM dual", "ORA-01756"),
        ("FROBNICATE", "SP2-0734"),
        ("UPDATE app.data_t SET name = 'x'", "ORA-00900"),
    ] {
        has(&world.sql("FIN", &format!("{sql};")), wanted);
    }
}

#[test]
fn views_that_the_state_does_not_allow() {
    let mut world = World::new();
    world.seed(&hsm19("FIN"));
    has(
        &world.sql("FIN", "SELECT 1 FROM v$instance;"),
        "ORA-01034: ORACLE not available\nORA-27101: shared memory realm does not exist",
    );
    let out = world.sql(
        "FIN",
        "STARTUP NOMOUNT\nSELECT status||'!' FROM v$instance;\nSELECT name FROM v$database;\nSELECT 1 FROM dba_tables;",
    );
    for wanted in ["STARTED!", "ORA-01507", "ORA-01219"] {
        has(&out, wanted);
    }
    let out = world.sql("FIN", &format!("ALTER DATABASE MOUNT;\n{OPEN_OLD}\nSELECT status||'!' FROM v$encryption_wallet;\nSELECT open_mode FROM v$database;\nSELECT 1 FROM app.data_t;"));
    for wanted in ["OPEN_UNKNOWN_MASTER_KEY_STATUS!", "MOUNTED", "ORA-01109"] {
        has(&out, wanted);
    }
    has(&world.sql("FIN", "STARTUP"), "ORA-01081");
    has(&world.sql("FIN", "ALTER DATABASE OPEN;\nALTER DATABASE OPEN;"), "ORA-01531");
    has(&world.sql("FIN", "SHUTDOWN ABORT"), "ORACLE instance shut down.");
    assert!(world.pmon("FIN").is_none());
    // Another spelling of the home is another instance (O§5.3).
    world.sql("FIN", "STARTUP");
    has(&world.sql_in(&format!("{HOME19}/"), "FIN", "SELECT 1 FROM dual;"), "Connected to an idle instance.");
    has(&world.sql_in(HOME19, "", "SELECT 1 FROM dual;"), "ORA-12162");
    has(
        &world.sql("NOSUCH", "STARTUP"),
        "LRM-00109: could not open parameter file '/u01/app/oracle/product/19.0.0/dbhome_1/dbs/initNOSUCH.ora'",
    );
}

#[test]
fn parameters_in_memory_and_in_the_spfile() {
    let mut world = World::new();
    world.seed(&hsm19("FIN"));
    world.sql("FIN", "STARTUP");
    for (sql, wanted) in [
        ("ALTER SYSTEM SET WALLET_ROOT='/elsewhere' SCOPE=BOTH", "ORA-02095"),
        (
            "ALTER SYSTEM SET TDE_CONFIGURATION='KEYSTORE_CONFIGURATION=NONSENSE'",
            "ORA-02097: parameter cannot be modified because specified value is invalid\nORA-46695",
        ),
        ("ALTER SYSTEM SET nosuch=1", "ORA-02065"),
        ("ALTER SYSTEM SET TDE_CONFIGURATION=\"KEYSTORE_CONFIGURATION=HSM|FILE\" SCOPE=BOTH SID='*'", "System altered."),
    ] {
        has(&world.sql("FIN", &format!("{sql};")), wanted);
    }
    let out = world.sql("FIN", "SHOW PARAMETER tde_configuration\nCREATE PFILE='/u01/p.ora' FROM SPFILE;\nALTER DATABASE BACKUP CONTROLFILE TO '/u01/c.ctl';\nALTER DATABASE BACKUP CONTROLFILE TO '/u01/c.ctl';\nALTER DATABASE BACKUP CONTROLFILE TO '/u01/c.ctl' REUSE;");
    has(&out, "KEYSTORE_CONFIGURATION=HSM|FILE");
    has(&out, "File created.");
    has(&out, "ORA-27038");
    assert_eq!(out.matches("Database altered.").count(), 2);
    let pfile = std::fs::read_to_string(world.path("/u01/p.ora")).unwrap();
    has(&pfile, "*.tde_configuration='KEYSTORE_CONFIGURATION=HSM|FILE'");
}

#[test]
fn scripts_meet_sqlplus_own_rules() {
    let mut world = World::new();
    world.seed(&hsm19("FIN"));
    world.sql("FIN", "STARTUP");
    // `&` asks while DEFINE is on; a hyphen continues a line; a long line is ignored.
    has(&world.sql("FIN", "SET DEFINE ON\nSELECT 'a&x' FROM dual;\nbc"), "Enter value for x:");
    has(&world.sql("FIN", "SELECT 'con' -\n||'tinued' FROM dual;"), "continued");
    has(&world.sql("FIN", &format!("SELECT '{}' FROM dual;", "x".repeat(2500))), "SP2-0027");
    has(
        &world.sql("FIN", "SET HEADING ON PAGESIZE 50 FEEDBACK OFF\nSELECT con_id, name FROM v$containers;"),
        "    CON_ID NAME\n---------- ----\n         0 FIN",
    );
    let mut child = world.sqlplus_command(HOME19, "FIN").spawn().unwrap();
    use std::io::Write as _;
    write!(child.stdin.take().unwrap(), "CONNECT / AS SYSDBA\nWHENEVER SQLERROR EXIT SQL.SQLCODE\n{OPEN_OLD}\n{OPEN_OLD}\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(28354 % 256));
    // Key management without the right to restart.
    let mut child = world.sqlplus_command(HOME19, "FIN").spawn().unwrap();
    write!(child.stdin.take().unwrap(), "CONNECT / AS SYSKM\nSHOW USER\nSHUTDOWN IMMEDIATE\n").unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    has(&out, "USER is \"SYSKM\"");
    has(&out, "ORA-01031");
}
