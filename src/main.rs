//! Arguments -> configuration -> app -> exit code.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    // Threads of client libraries may be in the middle of something; the exit code must not wait for them.
    std::process::exit(sluice::cli::main());
}
