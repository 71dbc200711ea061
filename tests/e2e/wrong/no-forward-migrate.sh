# The guide that ends with METHOD=HSM and never says MIGRATE (O§8.2).
prepare; reverse_migrate; clean_redo; install_client; down; take_old_out; put_new_in; up
configuration 'HSM|FILE'; open_hsm "$NEW_PIN"
