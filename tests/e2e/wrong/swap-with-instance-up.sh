# The library is replaced under a running instance, which goes on talking to the old HSM (O§4.3).
prepare; reverse_migrate; clean_redo; install_client; take_old_out; put_new_in
migrate; migrate_again "$OLD_PIN"; clean_redo
