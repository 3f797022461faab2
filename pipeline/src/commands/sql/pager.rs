//! Answers that are longer than the screen go through a pager, as those of psql do.
//!
//! | | |
//! |---|---|
//! | which | `$PAGER`, by a shell; else `less`. `LESS` is `SFRX` where it isn't set: lines aren't folded, what fits is just shown |
//! | when | at a prompt on a terminal, once more lines than the screen has were printed |
//! | never | with `\pset pager off`, an empty `PAGER` or `cat`, or where the pager can't be started |
//!
//! **Invariant:** a person who leaves the pager has seen enough: the statement ends, and the prompt goes on.

use std::{
    env,
    io::{self, Write},
    process::{Child, Command, Stdio},
};

use unicode_width::UnicodeWidthStr;

/// A terminal, in characters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Screen {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// The pager that is wanted; `None` where none is.
pub(super) fn wanted() -> Option<String> {
    let named = env::var("PAGER").unwrap_or_else(|_| "less".to_owned());
    Some(named).filter(|pager| !matches!(pager.trim(), "" | "cat"))
}

/// Keeps what is printed until it is more than a screen, then gives all of it to a pager.
pub(super) struct Paged<'a, W: Write> {
    out: &'a mut W,
    /// The pager, and what needs none.
    wanted: Option<(String, Screen)>,
    kept: Vec<u8>,
    pager: Option<Child>,
}

impl<'a, W: Write> Paged<'a, W> {
    /// Prints to `out` what fits on the screen, or everything where no pager is wanted.
    pub(super) fn new(out: &'a mut W, wanted: Option<(String, Screen)>) -> Paged<'a, W> {
        Paged { out, wanted, kept: Vec::new(), pager: None }
    }

    /// Ends the answer: shows it, or waits until the person leaves the pager.
    pub(super) fn end(mut self) -> io::Result<()> {
        if self.pager.is_some() {
            return self.leave();
        }
        self.out.write_all(&std::mem::take(&mut self.kept))?;
        self.out.flush()
    }

    fn leave(&mut self) -> io::Result<()> {
        let Some(mut pager) = self.pager.take() else { return Ok(()) };
        // It ends at the end of its input, or when the person says so.
        drop(pager.stdin.take());
        pager.wait().map(drop)
    }

    fn start(&mut self) -> io::Result<()> {
        let Some((command, _)) = self.wanted.take() else { return Ok(()) };
        let mut shell = Command::new("sh");
        shell.args(["-c", &command]).stdin(Stdio::piped());
        if env::var_os("LESS").is_none() {
            shell.env("LESS", "SFRX");
        }
        match shell.spawn() {
            Ok(pager) => self.pager = Some(pager),
            Err(cause) => eprintln!("aion: start the pager {command}: {cause}"),
        }
        let kept = std::mem::take(&mut self.kept);
        self.pass_on(&kept)
    }

    fn pass_on(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.pager.as_mut().and_then(|pager| pager.stdin.as_mut()) {
            Some(pager) => pager.write_all(bytes),
            None => self.out.write_all(bytes),
        }
    }
}

impl<W: Write> Write for Paged<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((_, screen)) = &self.wanted else {
            self.pass_on(bytes)?;
            return Ok(bytes.len());
        };
        self.kept.extend(bytes);
        if !fits(&self.kept, *screen) {
            self.start()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A statement that is stopped leaves the pager to the person, with what it has.
impl<W: Write> Drop for Paged<'_, W> {
    fn drop(&mut self) {
        self.leave().ok();
    }
}

/// Whether text fits on a screen, whose last line is the prompt's.
fn fits(text: &[u8], screen: Screen) -> bool {
    let text = String::from_utf8_lossy(text);
    let lines = text.lines().map(|line| line.width().div_ceil(screen.columns.max(1)).max(1));
    lines.sum::<usize>() < screen.rows
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    const SCREEN: Screen = Screen { columns: 10, rows: 4 };

    fn paged(command: &str, lines: &[&str]) -> String {
        let mut out = Vec::new();
        let mut paged = Paged::new(&mut out, Some((command.to_owned(), SCREEN)));
        for line in lines {
            writeln!(paged, "{line}").unwrap();
        }
        paged.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_fits_is_shown_and_what_does_not_goes_to_the_pager() {
        let folder = tempfile::tempdir().unwrap();
        let seen = folder.path().join("seen");
        let command = format!("cat > '{}'", seen.display());
        assert_eq!(paged(&command, &["1", "2", "3"]), "1\n2\n3\n");
        assert!(!seen.exists());
        assert_eq!(paged(&command, &["1", "2", "3", "4", "5"]), "");
        assert_eq!(std::fs::read_to_string(&seen).unwrap(), "1\n2\n3\n4\n5\n");
        // A line that is folded takes several.
        std::fs::remove_file(&seen).unwrap();
        assert_eq!(paged(&command, &["1", &"x".repeat(25)]), "");
        assert!(seen.exists());
    }

    #[test]
    fn without_a_pager_everything_is_shown() {
        let mut out = Vec::new();
        let mut paged = Paged::new(&mut out, None);
        paged.write_all(b"1\n2\n3\n4\n5\n").unwrap();
        paged.end().unwrap();
        assert_eq!(out, b"1\n2\n3\n4\n5\n");
    }

    #[test]
    fn a_person_who_leaves_the_pager_breaks_its_pipe() {
        let mut out = Vec::new();
        let mut paged = Paged::new(&mut out, Some(("true".to_owned(), SCREEN)));
        let line = [b"x\n".repeat(1000)].concat();
        let left = (0..1000).find_map(|_| paged.write_all(&line).err()).unwrap();
        assert_eq!(left.kind(), io::ErrorKind::BrokenPipe);
    }
}
