//! The terminal: taken for as long as it is drawn on, and given back as it was, however that ends.

use std::io::{self, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::flush;

/// Another screen than the shell's, no cursor, and lines that are too long are cut.
const TAKE: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const GIVE_BACK: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Where the terminal does not say how large it is.
const USUAL_SIZE: (usize, usize) = (80, 24);
/// As Ctrl-C and Ctrl-D come where the terminal makes no signals of them.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// One that ends it.
    Quit,
    /// Any other.
    Other,
}

/// A terminal that is drawn on.
pub struct Terminal {
    before: Termios,
}

impl Terminal {
    /// Takes it.
    pub fn take() -> io::Result<Terminal> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Flush, &raw)?;
        let terminal = Terminal { before };
        flush(&mut io::stdout(), TAKE)?;
        Ok(terminal)
    }

    /// Columns and lines, as they are now: who makes the window larger sees more at once.
    pub fn size(&self) -> (usize, usize) {
        match tcgetwinsize(io::stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => USUAL_SIZE,
        }
    }

    /// Draws lines over what was there.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = String::from("\x1b[H");
        for (number, line) in lines.iter().enumerate() {
            text += if number > 0 { "\r\n" } else { "" };
            text += line;
            // Nothing is left of a longer line.
            text += "\x1b[0m\x1b[K";
        }
        text += "\x1b[J";
        flush(&mut io::stdout(), &text)
    }

    /// Waits so long for a key. A terminal that is gone is as good as one that wants no more.
    pub fn key(&mut self, patience: Duration) -> io::Result<Option<Key>> {
        let stdin = io::stdin();
        let mut watched = [PollFd::new(&stdin, PollFlags::IN)];
        let wait = Timespec { tv_sec: 0, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut watched, Some(&wait)) {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            // A signal: whoever looks for keys looks at those, too.
            Err(rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 64];
        let count = rustix::io::read(&stdin, &mut bytes)?;
        let is_end = |byte: &u8| matches!(*byte, b'q' | b'Q' | CTRL_C | CTRL_D);
        Ok(Some(if count == 0 || bytes[..count].iter().any(is_end) { Key::Quit } else { Key::Other }))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = flush(&mut io::stdout(), GIVE_BACK);
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
        let _ = io::stdout().flush();
    }
}
