# The client of MIGRATE is killed and the statement sent again while the server still works on the first (H28).
prepare; reverse_migrate; clean_redo; install_client; down; take_old_out; put_new_in; up
configuration 'HSM|FILE'; open_hsm "$NEW_PIN"; open_software
echo '{"phase_delay_ms":{"MIGRATE:columns":1500,"MIGRATE:tablespaces":1500}}' > /etc/oracle-sim.json
migrate_again & client=$!
for _ in $(seq 500); do pgrep -x sqlplus > /dev/null && break; sleep 0.02; done
# The statement is with the server by now, and has seconds to go.
sleep 0.8
kill -9 $client $(pgrep -x sqlplus) 2> /dev/null
echo '{}' > /etc/oracle-sim.json
migrate_again; clean_redo
wait
