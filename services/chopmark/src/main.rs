//! The one binary of Chopmark; all of it is in the library.

use std::process::ExitCode;

/// glibc's allocator took a tenth of the processor time of a busy server; see loadtest/RESULTS.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    chopmark::main()
}
