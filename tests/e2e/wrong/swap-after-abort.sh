# ABORT because IMMEDIATE took long: redo still needs the old key, and the old library is gone (H2).
prepare; reverse_migrate
install_client; down ABORT; take_old_out; put_new_in; up; migrate; clean_redo
