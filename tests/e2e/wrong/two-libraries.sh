# The old library stays beside the new one (O§4.1).
prepare; reverse_migrate; clean_redo; install_client; down; put_new_in; up; migrate; clean_redo
