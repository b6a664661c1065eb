//! What is made of the declarations: completions, man pages, the settings page.

use std::io;

use super::args::Generate;
use super::{flags, output};
use crate::config::settings::page;

/// The program's name, as it is called.
const PROGRAM: &str = "walferry";

/// Writes what was asked for.
pub(super) fn write(what: Generate) -> io::Result<()> {
    match what {
        Generate::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut flags::command(), PROGRAM, &mut script);
            output::write(&String::from_utf8_lossy(&script))
        }
        Generate::Man { folder } => clap_mangen::generate_to(flags::command(), folder),
        Generate::Settings => output::write(&page::markdown()),
    }
}
