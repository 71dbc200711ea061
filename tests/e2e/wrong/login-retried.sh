# A wrong PIN, tried again because it might be the network (H11).
prepare; reverse_migrate; clean_redo; install_client; down; take_old_out; put_new_in; up
configuration 'HSM|FILE'
for _ in 1 2 3 4 5; do open_hsm "${NEW_PIN}x"; done
migrate
