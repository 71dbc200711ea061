# The client of MIGRATE is killed and the statement sent again while the server still works on the first (H28).
prepare; reverse_migrate; clean_redo; install_client; down; take_old_out; put_new_in; up
configuration 'HSM|FILE'; open_hsm "$NEW_PIN"; open_software
echo '{"phase_delay_ms":{"MIGRATE:columns":1500,"MIGRATE:tablespaces":1500}}' > /etc/oracle-sim.json
migrate_again & client=$!
for _ in $(seq 100); do pgrep -P $client -x sqlplus > /dev/null 2>&1 && break; pgrep -x sqlplus > /dev/null && break; done
kill -9 $client $(pgrep -x sqlplus) 2> /dev/null
echo '{}' > /etc/oracle-sim.json
migrate_again; clean_redo
wait
