# The migration by hand: what a runner does, as shell functions for one 19c database in WALLET_ROOT style. Runs as root inside
# a sandbox host. `right.sh` puts them in the right order; each of the others leaves out or swaps one thing.
# Environment: OLD_PIN, NEW_PIN, SOFTWARE_PASSWORD, RPM, CA, HSM_IP.
set -u
export ORACLE_HOME=/u01/app/oracle/product/19.0.0/dbhome_1
ORACLE_SID=$(grep -v '^#' /etc/oratab | head -1 | cut -d: -f1)
export ORACLE_SID
WALLET=/u01/app/oracle/admin/$ORACLE_SID/wallet/tde
EXTAPI=/opt/oracle/extapi/64/hsm

as_oracle() { setpriv --reuid 54321 --regid 54321 --groups 54321,54322 "$@"; }
sql() { { printf 'CONNECT / AS SYSDBA\n'; cat; printf 'EXIT\n'; } | as_oracle "$ORACLE_HOME/bin/sqlplus" -S -L /nolog; }
configuration() { echo "ALTER SYSTEM SET TDE_CONFIGURATION='KEYSTORE_CONFIGURATION=$1' SCOPE=BOTH;" | sql; }
open_software() { echo "ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"$SOFTWARE_PASSWORD\";" | sql; }
open_hsm() { echo "ADMINISTER KEY MANAGEMENT SET KEYSTORE OPEN IDENTIFIED BY \"$1\";" | sql; }
clean_redo() { printf 'ALTER SYSTEM ARCHIVE LOG CURRENT;\nALTER SYSTEM CHECKPOINT;\nALTER SYSTEM ARCHIVE LOG CURRENT;\nALTER SYSTEM CHECKPOINT;\n' | sql; }
prepare() {
    as_oracle mkdir -p "$WALLET"
    echo "ADMINISTER KEY MANAGEMENT CREATE KEYSTORE IDENTIFIED BY \"$SOFTWARE_PASSWORD\";" | sql
}
reverse_migrate() {
    configuration 'FILE|HSM'
    open_software
    echo "ADMINISTER KEY MANAGEMENT SET ENCRYPTION KEY IDENTIFIED BY \"$SOFTWARE_PASSWORD\" REVERSE MIGRATE USING \"$OLD_PIN\" WITH BACKUP USING 'hand';" | sql
}
down() { echo "SHUTDOWN ${1:-IMMEDIATE}" | sql; }
up() {
    echo 'STARTUP MOUNT' | sql
    open_software
    echo 'ALTER DATABASE OPEN;' | sql
}
install_client() {
    rpm -i --nodeps "$RPM"
    cp "$CA" /opt/cloudhsm/etc/customerCA.crt
    /opt/cloudhsm/bin/configure-pkcs11 -a "$HSM_IP" --hsm-ca-cert /opt/cloudhsm/etc/customerCA.crt
    chown -R oracle:oinstall /opt/cloudhsm/run
    chmod -R a+rX /opt/cloudhsm
}
take_old_out() { mv "$EXTAPI/oldhsm" "/opt/oracle/old-$$"; }
put_new_in() {
    mkdir -p "$EXTAPI/cloudhsm"
    cp /opt/cloudhsm/lib/libcloudhsm_pkcs11.so "$EXTAPI/cloudhsm/"
    chown -R oracle:oinstall "$EXTAPI"
}
migrate() {
    configuration 'HSM|FILE'
    open_hsm "$NEW_PIN"
    open_software
    migrate_again
}
migrate_again() { echo "ADMINISTER KEY MANAGEMENT SET ENCRYPTION KEY IDENTIFIED BY \"${1:-$NEW_PIN}\" MIGRATE USING \"$SOFTWARE_PASSWORD\" WITH BACKUP USING 'hand';" | sql; }
