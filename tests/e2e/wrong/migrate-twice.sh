# MIGRATE once more "to be sure".
prepare; reverse_migrate; clean_redo; install_client; down; take_old_out; put_new_in; up; migrate; migrate_again; clean_redo
