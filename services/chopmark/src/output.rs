//! Standard output, and what may be shown on a terminal.

use std::{
    fmt,
    io::{self, Write},
    path::Path,
};

use serde::Serialize;

/// The command line is wrong, or a file cannot be read: sysexits' EX_USAGE, as `verify.sh` has it,
/// because 0 to 3 are verdicts.
pub(crate) const EXIT_USAGE: u8 = 64;
/// Not now, perhaps later: sysexits' EX_TEMPFAIL.
pub(crate) const EXIT_TRY_LATER: u8 = 75;

/// A fault of the command line; ends the program with [`EXIT_USAGE`].
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Standard output, locked. A reader that went away (`| head`) is no error: the exit status still
/// has to say what was found.
pub(crate) struct Out(io::StdoutLock<'static>);

impl Out {
    pub(crate) fn lock() -> Self {
        Self(io::stdout().lock())
    }

    /// One JSON object on a line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec(value)?;
        text.push(b'\n');
        self.write_all(&text)
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

/// Text from outside with its control characters replaced, so that it cannot forge a line or
/// command a terminal.
pub(crate) fn plain(text: &str) -> String {
    let misleads = |c: char| {
        c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if misleads(c) { '\u{fffd}' } else { c }).collect()
}

/// A path, as [`plain`].
pub(crate) fn shown(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_forge_lines() {
        let forged = Path::new("a\nVALID index=1\u{1b}[2J\u{202e}.pdf");
        let shown = shown(forged);
        assert!(!shown.contains(['\n', '\u{1b}', '\u{202e}']));
        assert_eq!(plain("合同 (终稿).pdf"), "合同 (终稿).pdf");
    }
}
