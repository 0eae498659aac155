//! The control socket: one JSON line in, one JSON line out, over a unix socket that only its owner can open. An answer may go on after
//! its line, with bytes for as long as both ends like; then it is the last one on its connection.
//!
//! This file knows lines, not JSON: what is in a line is the business of daemon and relay.
use core::{fmt, pin::Pin};
use futures_util::{Stream, StreamExt, stream::FuturesUnordered};
use smol::{
    Timer, future,
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, Cursor},
    net::unix::{UnixListener, UnixStream},
};
use std::{
    fs,
    io::{self, BufRead, Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// One request line, in bytes, its newline included.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// One answer line, in bytes: a relay's status with all its clients fits.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Connections at one time; more wait in the kernel's backlog.
pub const MAX_CONNECTIONS: usize = 32;
/// A connection that asks nothing for so long is closed.
pub const IDLE_TIME: Duration = Duration::from_mins(1);
/// Pause after a failed accept, so that exhausted descriptors do not spin the loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a control socket could not be made or used; each is a sentence for a person.
#[derive(Debug)]
pub enum ControlError {
    /// A running process answers on it.
    InUse(PathBuf),
    /// The path holds something else.
    NotASocket(PathBuf),
    /// Nobody listens there.
    NotRunning(PathBuf),
    /// The answer did not come in time.
    TimedOut(PathBuf),
    /// The operating system refused.
    Io(PathBuf, io::Error),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "control socket {}: another process is already running here", path.display()),
            Self::NotASocket(path) => {
                write!(f, "control socket {}: something that is not a socket has this name; remove it or choose another", path.display())
            }
            Self::NotRunning(path) => write!(f, "nothing is running at {}", path.display()),
            Self::TimedOut(path) => write!(f, "control socket {}: no answer in time", path.display()),
            Self::Io(path, error) => write!(f, "control socket {}: {error}", path.display()),
        }
    }
}

impl core::error::Error for ControlError {}

/// What a request gets.
pub enum Answer {
    /// One line, without its newline.
    Line(String),
    /// One line, and then bytes until they end or who asked hangs up.
    Stream(String, Pin<Box<dyn Stream<Item = Vec<u8>>>>),
}

impl From<String> for Answer {
    fn from(line: String) -> Self {
        Self::Line(line)
    }
}

/// A bound control socket; its file is removed on drop.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode, so that a successor's socket is not removed by mistake.
    file: (u64, u64),
}

impl ControlSocket {
    /// Binds `path` with mode 0600. A socket that nobody listens on any more is replaced.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |error| ControlError::Io(path.to_owned(), error);
        remove_stale(path)?;
        // The mask makes the file private from its first moment; it is process-wide, and set back at once.
        let mask = rustix::process::umask(rustix::fs::Mode::from_bits_truncate(0o177));
        let bound = std::os::unix::net::UnixListener::bind(path);
        rustix::process::umask(mask);
        let listener = bound.map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        let meta = fs::symlink_metadata(path).map_err(failed)?;
        let listener = smol::Async::new(listener).map_err(failed)?;
        Ok(Self { listener: listener.into(), path: path.to_owned(), file: (meta.dev(), meta.ino()) })
    }

    /// Answers requests for ever: `handler` turns one line (without its newline) into an answer.
    pub async fn serve<F, A>(&self, handler: F)
    where
        F: Fn(String) -> A,
        A: Future<Output: Into<Answer>>,
    {
        let mut talks = FuturesUnordered::new();
        loop {
            if talks.len() >= MAX_CONNECTIONS {
                talks.next().await;
                continue;
            }
            let accept = async { Some(self.listener.accept().await) };
            let finish = async {
                if talks.next().await.is_none() {
                    future::pending::<()>().await;
                }
                None
            };
            match future::or(accept, finish).await {
                Some(Ok((stream, _))) => talks.push(talk(stream, &handler)),
                Some(Err(error)) => {
                    tracing::debug!(%error, "control accept failed");
                    Timer::after(ACCEPT_PAUSE).await;
                }
                None => {}
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| (meta.dev(), meta.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let failed = |error| ControlError::Io(path.to_owned(), error);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(meta) if !meta.file_type().is_socket() => return Err(ControlError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ControlError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Err(error) => Err(failed(error)),
    }
}

async fn talk<F, A>(stream: UnixStream, handler: &F)
where
    F: Fn(String) -> A,
    A: Future<Output: Into<Answer>>,
{
    let mut reader = BufReader::new(stream.clone());
    let mut writer = stream;
    loop {
        let late = async {
            Timer::after(IDLE_TIME).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        let answer = match future::or(read_request(&mut reader), late).await {
            Ok(Some(Ok(line))) => handler(line).await.into(),
            Ok(Some(Err(fault))) => Answer::Line(format!("{{\"error\":\"{fault}\"}}")),
            Ok(None) | Err(_) => return,
        };
        let (mut answer, rest) = match answer {
            Answer::Line(line) => (line, None),
            Answer::Stream(line, rest) => (line, Some(rest)),
        };
        debug_assert!(!answer.contains('\n'), "an answer is one line");
        answer.push('\n');
        let late = async {
            Timer::after(IDLE_TIME).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        if let Err(error) = future::or(writer.write_all(answer.as_bytes()), late).await {
            tracing::trace!(%error, "control answer not taken");
            return;
        }
        if let Some(rest) = rest {
            return future::or(pour(rest, writer), until_hung_up(reader)).await;
        }
    }
}

/// Writes until there is no more. A reader that pauses may take its time: what waits for it is bounded elsewhere.
async fn pour(mut rest: Pin<Box<dyn Stream<Item = Vec<u8>>>>, mut writer: UnixStream) {
    while let Some(bytes) = rest.next().await {
        if let Err(error) = writer.write_all(&bytes).await {
            return tracing::trace!(%error, "a stream of the control socket is not taken");
        }
    }
}

/// The end of what the other end sends; it has nothing more to say.
async fn until_hung_up(mut reader: BufReader<UnixStream>) {
    let mut ignored = [0; 64];
    while reader.read(&mut ignored).await.is_ok_and(|len| len > 0) {}
}

/// One line; `None` at the end of the stream or after a line that was too long.
async fn read_request(reader: &mut BufReader<UnixStream>) -> io::Result<Option<Result<String, &'static str>>> {
    let mut line = Vec::new();
    reader.take(MAX_REQUEST_BYTES as u64 + 1).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        // Ended early, or longer than a request can be: the rest cannot be told from a new request, so the talk ends.
        return Ok(None);
    }
    line.pop();
    Ok(Some(String::from_utf8(line).map_err(|_| "a request is one line of UTF-8")))
}

/// A blocking client for commands; any number of requests, one after another.
pub struct ControlClient {
    reader: io::BufReader<std::os::unix::net::UnixStream>,
    path: PathBuf,
}

impl ControlClient {
    /// Connects to a running process; each request then waits at most `timeout` for each part of its answer.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ControlError> {
        let stream = std::os::unix::net::UnixStream::connect(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ControlError::NotRunning(path.to_owned()),
            _ => ControlError::Io(path.to_owned(), error),
        })?;
        let failed = |error| ControlError::Io(path.to_owned(), error);
        stream.set_read_timeout(Some(timeout)).map_err(failed)?;
        stream.set_write_timeout(Some(timeout)).map_err(failed)?;
        Ok(Self { reader: io::BufReader::new(stream), path: path.to_owned() })
    }

    /// Sends one line and gives back the line that answers it, without its newline.
    pub fn request(&mut self, line: &str) -> Result<String, ControlError> {
        let path = self.path.clone();
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ControlError::TimedOut(path.clone()),
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ControlError::NotRunning(path.clone()),
            _ => ControlError::Io(path.clone(), error),
        };
        let mut out = line.replace('\n', " ");
        out.push('\n');
        self.reader.get_mut().write_all(out.as_bytes()).map_err(failed)?;
        let mut answer = String::new();
        self.reader.by_ref().take(MAX_ANSWER_BYTES as u64).read_line(&mut answer).map_err(failed)?;
        if answer.pop() != Some('\n') {
            return Err(ControlError::NotRunning(self.path.clone()));
        }
        Ok(answer)
    }

    /// The rest of an answer that goes on after its line; it may take its time.
    pub fn into_stream(self) -> Result<impl AsyncRead + Unpin, ControlError> {
        let path = self.path;
        let failed = |error| ControlError::Io(path, error);
        let ahead = Cursor::new(self.reader.buffer().to_vec());
        let stream = smol::Async::new(self.reader.into_inner()).map_err(failed)?;
        Ok(ahead.chain(stream))
    }
}

/// One request to a running process, for commands.
pub fn request(path: &Path, line: &str, timeout: Duration) -> Result<String, ControlError> {
    ControlClient::connect(path, timeout)?.request(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `ask` on a thread against a served socket that echoes lines in brackets.
    fn with_server(path: &Path, ask: impl FnOnce() + Send + 'static) {
        smol::block_on(async {
            let socket = ControlSocket::bind(path).expect("binds");
            let serve = socket.serve(async |line| format!("[{line}]"));
            future::or(smol::unblock(ask), async {
                serve.await;
            })
            .await;
        });
    }

    #[test]
    fn answers_line_by_line_and_is_private() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("control.sock");
        let asked = path.clone();
        with_server(&path, move || {
            assert_eq!(fs::metadata(&asked).expect("there").permissions().mode() & 0o777, 0o600);
            let mut client = ControlClient::connect(&asked, IDLE_TIME).expect("connects");
            assert_eq!(client.request("a").expect("answered"), "[a]");
            assert_eq!(client.request("b\nc").expect("answered"), "[b c]");
            assert!(matches!(ControlSocket::bind(&asked), Err(ControlError::InUse(_))));
        });
        assert!(!path.exists(), "the socket file is removed");
        assert!(matches!(request(&path, "a", IDLE_TIME), Err(ControlError::NotRunning(_))));
    }

    #[test]
    fn bad_requests_are_answered_or_end_the_talk() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("control.sock");
        let asked = path.clone();
        with_server(&path, move || {
            let mut raw = std::os::unix::net::UnixStream::connect(&asked).expect("connects");
            raw.write_all(b"\xff\xfe\n").expect("writes");
            let mut answer = [0; 9];
            raw.read_exact(&mut answer).expect("answered");
            assert_eq!(&answer, b"{\"error\":");
            let mut client = ControlClient::connect(&asked, IDLE_TIME).expect("connects");
            assert!(client.request(&"x".repeat(MAX_REQUEST_BYTES * 2)).is_err());
            assert_eq!(request(&asked, &"x".repeat(MAX_REQUEST_BYTES - 1), IDLE_TIME).expect("answered").len(), MAX_REQUEST_BYTES + 1);
        });
    }

    #[test]
    fn an_answer_may_go_on_until_one_end_hangs_up() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("control.sock");
        let asked = path.clone();
        let (gone, went) = flume::bounded::<()>(0);
        let ask = move || {
            let mut client = ControlClient::connect(&asked, IDLE_TIME).expect("connects");
            assert_eq!(client.request("count").expect("answered"), "from one");
            let mut stream = client.into_stream().expect("goes on");
            let mut numbers = [0; 5];
            smol::block_on(stream.read_exact(&mut numbers)).expect("more");
            assert_eq!(numbers, [1, 2, 3, 4, 5]);
            drop(stream);
            assert_eq!(went.recv(), Err(flume::RecvError::Disconnected), "the stream lives, and nobody reads it");
        };
        smol::block_on(async {
            let socket = ControlSocket::bind(&path).expect("binds");
            let gone = std::cell::Cell::new(Some(gone));
            let serve = socket.serve(|_| {
                let gone = gone.take();
                // After the fifth there is nothing to write: only the reader's end can tell.
                let rest = futures_util::stream::unfold((0_u8, gone), async |(last, gone)| {
                    if last == 5 {
                        future::pending::<()>().await;
                    }
                    Some((vec![last + 1], (last + 1, gone)))
                });
                async { Answer::Stream("from one".to_owned(), Box::pin(rest)) }
            });
            future::or(smol::unblock(ask), async {
                serve.await;
            })
            .await;
        });
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
        assert!(path.exists());
        drop(ControlSocket::bind(&path).expect("replaces the stale socket"));
        fs::write(&path, "precious").expect("writes");
        assert!(matches!(ControlSocket::bind(&path), Err(ControlError::NotASocket(_))));
        assert_eq!(fs::read(&path).expect("still there"), b"precious");
    }
}
