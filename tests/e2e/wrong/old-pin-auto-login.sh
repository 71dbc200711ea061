# An auto-login keystore with the old PIN under HSM|FILE: each look at V$ENCRYPTION_WALLET is a login (H12).
prepare; reverse_migrate; clean_redo
printf "ADMINISTER KEY MANAGEMENT ADD SECRET '%s' FOR CLIENT 'HSM_PASSWORD' IDENTIFIED BY \"%s\" WITH BACKUP;\nADMINISTER KEY MANAGEMENT CREATE AUTO_LOGIN KEYSTORE FROM KEYSTORE '%s' IDENTIFIED BY \"%s\";\n" "$OLD_PIN" "$SOFTWARE_PASSWORD" "$WALLET" "$SOFTWARE_PASSWORD" | sql
configuration 'HSM|FILE'
install_client; down; take_old_out; put_new_in; up
for _ in 1 2 3; do echo 'SELECT status FROM v$encryption_wallet;' | sql; done
