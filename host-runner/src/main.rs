fn main() {
    std::process::exit(tde2hsm_host_runner::main());
}
