# The right order. Everything the others are told by must hold here.
prepare; reverse_migrate; clean_redo
install_client; down;
take_old_out; put_new_in; up; migrate; clean_redo
