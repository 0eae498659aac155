//! A journal on its way to the disk.
//!
//! ```text
//!   control room: handle ─▶ Scribe ── bytes, at most 8 MiB on their way ──▶ thread "journal" ─▶ file, mode 0600
//! ```
//! The control room never waits for the disk. When the disk fails or falls behind, the journal ends with a warning and the machine
//! goes on: a journal with a hole is worth nothing behind it, a peer without a journal is worth the same as before.
use shadowmesh_core::{
    journal::{Recorded, Recorder},
    time::Instant,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};
use zeroize::Zeroizing;

/// Bytes on their way to the disk; beyond, the disk is too slow for this machine.
const WAITING_BYTES: usize = 8 << 20;
/// How long the end of a machine may wait for its journal to be written.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// A new file for a journal, which nobody else can read.
pub struct JournalFile {
    file: File,
    path: PathBuf,
}

impl JournalFile {
    /// Makes the file. One that is there is never overwritten.
    ///
    /// # Errors
    /// A sentence: it is there already, or cannot be made.
    pub fn create(path: &Path) -> Result<Self, String> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("the journal {} is there already: it is never overwritten, name another file", path.display())
            }
            _ => format!("the journal {} cannot be made: {why}", path.display()),
        })?;
        tracing::warn!(
            journal = %path.display(),
            "everything that this process does is recorded, its keys included: keep the file as secret as the identity and remove it after use"
        );
        Ok(Self { file, path: path.to_owned() })
    }
}

/// Records a machine's run; without a file, nothing.
pub(crate) struct Scribe<M> {
    open: Option<Open<M>>,
}

struct Open<M> {
    recorder: Recorder<M>,
    path: PathBuf,
    writer: Sender<Zeroizing<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
    /// Says so by ending when all is written.
    written: mpsc::Receiver<()>,
}

impl<M: Recorded> Scribe<M> {
    /// Begins to record the machine that is made from `config`, where there is a file for it.
    pub(crate) fn of(file: Option<JournalFile>, config: &M::Config) -> io::Result<Self> {
        match file {
            Some(JournalFile { file, path }) => Self::new(file, path, config),
            None => Ok(Self { open: None }),
        }
    }

    fn new(file: impl Write + Send + 'static, path: PathBuf, config: &M::Config) -> io::Result<Self> {
        let (writer, bytes) = mpsc::channel::<Zeroizing<Vec<u8>>>();
        let (done, written) = mpsc::channel::<()>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let (left, name) = (Arc::clone(&waiting), path.clone());
        thread::Builder::new().name("journal".into()).spawn(move || {
            let _done = done;
            if let Err(why) = write_all(file, &bytes, &left) {
                tracing::warn!(journal = %name.display(), %why, "the journal ends here: it cannot be written");
            }
        })?;
        let mut scribe = Self { open: Some(Open { recorder: Recorder::new(config), path, writer, waiting, written }) };
        scribe.send();
        Ok(scribe)
    }

    /// This event comes next.
    pub(crate) fn event(&mut self, now: Instant, event: &M::Event<'_>) {
        if let Some(open) = &mut self.open {
            open.recorder.event(now, event);
            // now, and not with its actions: should the machine panic over it, the journal has the reason
            self.send();
        }
    }

    /// These actions came of it.
    pub(crate) fn actions(&mut self, actions: &[M::Action]) {
        if let Some(open) = &mut self.open {
            open.recorder.actions(actions);
            self.send();
        }
    }

    fn send(&mut self) {
        let Some(open) = &mut self.open else { return };
        let bytes = Zeroizing::new(open.recorder.bytes().to_vec());
        open.recorder.written();
        if open.waiting.fetch_add(bytes.len(), Ordering::AcqRel) > WAITING_BYTES {
            tracing::warn!(journal = %open.path.display(), "the journal ends here: the disk is too slow for it");
            self.open = None;
        } else if open.writer.send(bytes).is_err() {
            // the thread has said why
            self.open = None;
        }
    }
}

impl<M> Drop for Scribe<M> {
    fn drop(&mut self) {
        if let Some(Open { writer, written, path, .. }) = self.open.take() {
            drop(writer);
            if written.recv_timeout(CLOSE_WITHIN) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!(journal = %path.display(), "the end of the journal is not written yet");
            }
        }
    }
}

/// Writes what comes, in large pieces while much waits and at once when nothing does.
fn write_all(file: impl Write, bytes: &mpsc::Receiver<Zeroizing<Vec<u8>>>, waiting: &AtomicUsize) -> io::Result<()> {
    let mut file = BufWriter::with_capacity(64 * 1024, file);
    while let Ok(mut piece) = bytes.recv() {
        loop {
            file.write_all(&piece)?;
            waiting.fetch_sub(piece.len(), Ordering::AcqRel);
            match bytes.try_recv() {
                Ok(next) => piece = next,
                Err(_) => break,
            }
        }
        file.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::{
        Node,
        config::NodeConfig,
        crypto::{Identity, rustcrypto::RustCrypto},
        event::Event,
        journal::{Journal, Replay, Verdict},
        machine::Machine,
        network::{Network, RelayAddress},
    };
    use std::{fs, os::unix::fs::PermissionsExt, sync::Mutex};

    #[test]
    fn a_run_is_written_and_replays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.journal");
        let mut scribe = Scribe::<Node>::of(Some(JournalFile::create(&path).expect("a new file")), &config()).expect("a thread");
        let mut node = Node::new(config());
        for (at, event) in [Event::Entropy(&[1; 32]), Event::Start, Event::Leave].into_iter().enumerate() {
            let (now, mut actions) = (Instant::from_millis(at as u64), Vec::new());
            scribe.event(now, &event);
            node.handle(now, event, &mut actions);
            scribe.actions(&actions);
        }
        drop(scribe);
        let bytes = fs::read(&path).expect("it is there");
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
        assert_eq!(verdicts(&bytes), vec![Verdict::Same; 3]);
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mine");
        fs::write(&path, "precious").expect("a file");
        let why = JournalFile::create(&path).err().expect("refused");
        assert!(why.contains("never overwritten"), "{why}");
        assert_eq!(fs::read(&path).expect("it is there"), b"precious");
        let why = JournalFile::create(&folder.path().join("no/such/folder")).err().expect("refused");
        assert!(why.contains("cannot be made"), "{why}");
    }

    /// Takes so many bytes, then fails.
    struct Full(Arc<Mutex<Vec<u8>>>, usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut have = self.0.lock().expect("nobody panicked");
            let taken = bytes.len().min(self.1 - have.len());
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            have.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_that_fails_ends_the_journal_and_not_the_machine() {
        let have = Arc::new(Mutex::new(Vec::new()));
        let mut scribe = Scribe::<Node>::new(Full(Arc::clone(&have), 20_000), "full".into(), &config()).expect("a thread");
        // the control room learns it when it sends again, and goes on
        while scribe.open.is_some() {
            scribe.event(Instant::ZERO, &Event::Message { conn: shadowmesh_core::id::ConnId(0), handle: None, bytes: &mut [0; 1_000] });
            scribe.actions(&[]);
        }
        scribe.event(Instant::ZERO, &Event::Alarm);
        let bytes = have.lock().expect("nobody panicked").clone();
        assert!(bytes.len() <= 20_000 && Journal::open(&bytes).is_ok(), "what was written before, {} bytes, is a journal", bytes.len());
    }

    fn verdicts(bytes: &[u8]) -> Vec<Verdict> {
        let Ok(Journal::Node(tape)) = Journal::open(bytes) else { panic!("a peer's journal") };
        let mut replay = Replay::new(tape);
        let mut verdicts = Vec::new();
        while let Some(step) = replay.step().expect("a good journal") {
            verdicts.push(step.verdict);
        }
        verdicts
    }

    fn config() -> NodeConfig {
        let relay = RelayAddress::new("wss://192.0.2.1", None).expect("a good URL");
        let network = Network::new([5; 32], "net", vec![relay]).expect("a good network");
        NodeConfig::new(Arc::new(Identity::from_seed([1; 32])), Arc::new(RustCrypto), network)
    }
}
