# Everything but the swap: the keys go to the old HSM again.
prepare; reverse_migrate; clean_redo; install_client; down; up
configuration 'HSM|FILE'; open_hsm "$OLD_PIN"; open_software; migrate_again "$OLD_PIN"; clean_redo
