# All is well, then the configuration is "cleaned up" to HSM alone: what only the interim keystore opens is gone (H4).
prepare; reverse_migrate; clean_redo
echo 'ALTER TABLESPACE HISTORY READ ONLY;' | sql
install_client; down; take_old_out; put_new_in; up; migrate; clean_redo
configuration HSM; down; echo 'STARTUP' | sql; open_hsm "$NEW_PIN"
