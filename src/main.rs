//! The thin binary: parse, run, print the error chain, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    walferry::cli::main()
}
