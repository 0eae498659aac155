//! The terminal while the dashboard has it: keys come one by one, the screen is another one, and both end with the value.
use rustix::termios::{self, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

/// Another screen without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// Where the kernel does not know how large the screen is.
const USUAL: (usize, usize) = (80, 24);

/// A terminal that is given back as it was, however this ends.
pub(super) struct Terminal {
    stdin: io::Stdin,
    stdout: io::Stdout,
    before: Termios,
}

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Quit,
    Up,
    Down,
    First,
    Last,
    Back,
}

impl Terminal {
    /// Takes it, where there is one to read keys from and to draw on.
    pub(super) fn take() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || !crate::out::terminal() {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        // Keys at once and unseen. Ctrl-C and ctrl-Z are keys as well: a signal would leave the terminal as it is now.
        raw.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        raw.input_modes &= !(InputModes::IXON | InputModes::ICRNL);
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw).ok()?;
        let terminal = Self { stdin, stdout: io::stdout(), before };
        terminal.write(ENTER);
        Some(terminal)
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> (usize, usize) {
        match termios::tcgetwinsize(&self.stdout) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
            _ => USUAL,
        }
    }

    /// Shows these lines, from the top.
    pub(super) fn show(&self, lines: &[String]) {
        let mut text = String::new();
        for (row, line) in lines.iter().enumerate() {
            let _ = write!(text, "\x1b[{};1H{line}\x1b[K", row + 1);
        }
        text.push_str("\x1b[J");
        self.write(&text);
    }

    /// The keys that were pressed; an error is the end of the terminal.
    pub(super) fn keys(&self) -> io::Result<Vec<Key>> {
        let mut bytes = [0; 256];
        match rustix::io::read(&self.stdin, &mut bytes) {
            // There was something to read, and this is it: the terminal is gone.
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => Ok(keys(&bytes[..len])),
            Err(error) => Err(error.into()),
        }
    }

    /// Nobody is told when the terminal is gone: the next key or signal says so.
    fn write(&self, text: &str) {
        let mut stdout = self.stdout.lock();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.write(LEAVE);
        let _ = termios::tcsetattr(&self.stdin, OptionalActions::Flush, &self.before);
    }
}

/// What these bytes mean; what means nothing is left out.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while !bytes.is_empty() {
        let (key, len) = match bytes {
            [0x1b, b'[' | b'O', letter, ..] => {
                let key = match letter {
                    b'A' => Some(Key::Up),
                    b'B' => Some(Key::Down),
                    b'H' => Some(Key::First),
                    b'F' => Some(Key::Last),
                    b'D' => Some(Key::Back),
                    _ => None,
                };
                (key, 3)
            }
            [0x1b, ..] => (Some(Key::Back), 1),
            [b'q' | b'Q' | 3 | 4, ..] => (Some(Key::Quit), 1),
            [b'k', ..] => (Some(Key::Up), 1),
            [b'j', ..] => (Some(Key::Down), 1),
            _ => (None, 1),
        };
        keys.extend(key);
        bytes = &bytes[len..];
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_keys() {
        for (bytes, expected) in [
            (&b"\x1b[A\x1bOB"[..], &[Key::Up, Key::Down][..]),
            (b"jkq", &[Key::Down, Key::Up, Key::Quit]),
            (b"\x03", &[Key::Quit]),
            (b"\x1b", &[Key::Back]),
            (b"\x1b[", &[Key::Back]),
            (b"xyz \x1b[Z\xff\x1a", &[]),
            (b"\x1b[H\x1b[F", &[Key::First, Key::Last]),
        ] {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }
}
