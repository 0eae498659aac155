//! A clean machine: this one's files under an overlay that is thrown away, a process table of its own, and the network of a `Host`.
//!
//! Nobody has ever run `ShadowMesh` there: what it keeps in `/etc` and `/var/lib` is gone, and no program of it is in a folder of programs.
//! `/var/walk` comes first in the search path, with `sudo` (a newcomer is no root, the test is), and with what a machine without the
//! internet and without an hour for building does in the place of `git clone` and `cargo build`: it takes this tree and what is built.

use crate::mesh::{peer_program, relay_program};
use crate::process::{Output, Process, bounded};
use crate::world::{Host, World};
use std::cell::{Cell, RefCell};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Where a line runs first.
const HOME: &str = "/var/newcomer";
/// What a command may take that ends by itself.
const LIMIT: Duration = Duration::from_secs(40);

/// Makes the machine in `$1` out of `/`, with this tree from `$2` and the programs from `$3`, and stays as its first process.
const BOOT: &str = r#"
set -eu
read -r outside _ </proc/self/stat
cd "$1"
mount -t tmpfs tmpfs .
cd "$1"
mkdir files tree root work work-of-tree
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/files,workdir=$1/work" root
mkdir -p root/var/tree root/var/built root/var/walk root/var/newcomer
mkdir -p tree
mount -t overlay overlay -o "lowerdir=$2,upperdir=$1/tree,workdir=$1/work-of-tree" root/var/tree
mount --bind "$3" root/var/built
mount --rbind /dev root/dev
mount --rbind /sys root/sys
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/run
rm -rf root/etc/shadowmesh root/var/lib/shadowmesh root/var/lib/shadowmesh-relay root/etc/credstore.encrypted
rm -f root/usr/bin/shadowmesh root/usr/bin/shadowmesh-relay root/usr/local/bin/shadowmesh root/usr/local/bin/shadowmesh-relay
chmod 0777 root/var/newcomer
echo "machine $outside"
exec chroot root sleep infinity
"#;

/// Runs the line `$1` where the last one left off; its process group is written down as number `$2`.
const LINE: &str = r#"
set -o pipefail
echo $$ >"/var/newcomer/.group-$2"
cd "$(cat /var/newcomer/.folder)"
eval "$1"
result=$?
pwd >/var/newcomer/.folder
exit $result
"#;

/// What stands in `/var/walk`.
const STANDINS: [(&str, &str); 3] = [
    ("sudo", "exec \"$@\""),
    ("git", "[ \"$*\" = \"clone https://github.com/shadowmesh/shadowmesh\" ] && ln -s /var/tree shadowmesh"),
    (
        "cargo",
        "case \"$*\" in\n\
         'build --release --bins -p shadowmesh-daemon -p shadowmesh-relay' | 'build --release --quiet --bins -p shadowmesh-daemon -p shadowmesh-relay') ;;\n\
         *) echo \"nobody built this before: cargo $*\" >&2; exit 1 ;;\n\
         esac\n\
         mkdir -p \"${CARGO_TARGET_DIR:=target}/release\" && ln -sf /var/built/shadowmesh /var/built/shadowmesh-relay \"$CARGO_TARGET_DIR/release/\"",
    ),
];

/// A machine that runs.
pub(super) struct Machine<'w> {
    pub(super) world: &'w World,
    pub(super) host: Host,
    first: Process,
    /// Its first process, by the number that it has outside.
    pid: String,
    lines: Cell<u32>,
    /// Lines that go on, by their text.
    standing: RefCell<Vec<(String, Standing)>>,
    /// The user that lines run as, if not root.
    user: Cell<Option<u32>>,
}

/// A line that goes on in a machine.
pub(super) struct Standing {
    process: Process,
    number: u32,
}

impl<'w> Machine<'w> {
    pub(super) fn start(world: &'w World, host: &Host) -> Self {
        let folder = world.folder(&format!("machine-{}", host.name));
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the workspace");
        let built = peer_program().parent().expect("a program is in a folder");
        assert!(relay_program().starts_with(built));
        let mut boot = host.command("unshare");
        boot.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "bash", "-c", BOOT, "boot"]);
        boot.arg(folder).arg(tree).arg(built);
        let mut first = Process::start(boot, world.log_file(&format!("machine-{}", host.name)));
        let pid = world.wait_for("a clean machine", Duration::from_secs(5), || {
            assert!(first.ended().is_none(), "the machine does not start:\n{}", first.said());
            let pid = first.said().lines().find_map(|line| line.strip_prefix("machine "))?.to_owned();
            // its root is its own from now on
            Path::new(&format!("/proc/{pid}/root/var/walk")).is_dir().then_some(pid)
        });
        let machine =
            Self { world, host: host.clone(), first, pid, lines: Cell::default(), standing: RefCell::default(), user: Cell::new(None) };
        for (name, script) in STANDINS {
            let path = machine.path(&format!("/var/walk/{name}"));
            fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("a file of the machine");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of the machine");
        }
        machine.go_home();
        machine
    }

    /// The programs are installed, as another machine's walk has shown.
    pub(super) fn with_programs(self) -> Self {
        self.run("ln -s /var/built/shadowmesh /var/built/shadowmesh-relay /usr/local/bin/");
        self
    }

    /// The next line runs in the newcomer's folder.
    pub(super) fn go_home(&self) {
        let name = format!("{HOME}/.folder");
        self.write(&name, HOME);
        fs::set_permissions(self.path(&name), fs::Permissions::from_mode(0o666)).expect("a file of the machine");
    }

    /// From now on lines run as an ordinary user; as root again with `None`.
    pub(super) fn become_user(&self, user: Option<u32>) {
        self.user.set(user);
    }

    /// Where a file of the machine is outside of it.
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{name}", self.pid))
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder of the machine");
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub(super) fn read(&self, name: &str) -> String {
        let path = self.path(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Gives a file in the newcomer's folder to another machine, as a person would carry it.
    pub(super) fn give(&self, name: &str, other: &Self) {
        let path = format!("{HOME}/{name}");
        other.write(&path, &self.read(&path));
    }

    fn command(&self, line: &str) -> (Command, u32) {
        let number = self.lines.get() + 1;
        self.lines.set(number);
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid, "--mount", "--pid", "--net", "--root", "--wd"]);
        if let Some(user) = self.user.get().map(|user| user.to_string()) {
            command.args(["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"]);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        // a test that runs in the background of a shell has been told to ignore ctrl-c, and its children with it
        command.args(["env", "-i", "--default-signal=INT,QUIT", &format!("HOME={HOME}"), "LANG=C.UTF-8", "NO_COLOR=1", "RUST_BACKTRACE=1"]);
        command.arg(format!("PATH=/var/walk:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:{path}"));
        command.args(["setsid", "--wait", "bash", "-c", LINE, "line", line, &number.to_string()]);
        (command, number)
    }

    /// Runs a line to its end; it has to end well.
    pub(super) fn run(&self, line: &str) -> Output {
        let output = self.attempt(line);
        assert!(output.status.success(), "on {}, `{line}` ended with {}:\n{}", self.host.name, output.status, output.text());
        output
    }

    /// Runs a line to its end.
    pub(super) fn attempt(&self, line: &str) -> Output {
        bounded(self.command(line).0, LIMIT)
    }

    /// Runs it again and again until it ends well.
    pub(super) fn until(&self, line: &str) -> Output {
        let what = format!("on {}: {line}", self.host.name);
        let done = || Some(self.attempt(line)).filter(|output| output.status.success());
        self.world.wait_for(&what, LIMIT, done)
    }

    /// Starts a line that goes on, and waits until another one ends well.
    pub(super) fn stay(&self, line: &str, until: &str) {
        let (command, number) = self.command(line);
        let log = self.world.folder("walk").join(format!("{}-{number}.log", self.host.name));
        let process = Process::start(command, log);
        self.standing.borrow_mut().push((line.to_owned(), Standing { process, number }));
        self.world.wait_for(&format!("on {}, after `{line}`: {until}", self.host.name), LIMIT, || {
            let mut standing = self.standing.borrow_mut();
            let (_, last) = standing.last_mut().expect("just put there");
            if let Some(status) = last.process.ended() {
                panic!("on {}, `{line}` was to stay and ended with {status}:\n{}", self.host.name, last.process.said());
            }
            drop(standing);
            self.attempt(until).status.success().then_some(())
        });
    }

    /// Starts a line that goes on, and waits until it says this.
    pub(super) fn stay_until_said(&self, line: &str, text: &str) {
        self.stay(line, "true");
        self.world
            .wait_for(&format!("on {}, `{line}` says {text:?}", self.host.name), LIMIT, || self.said(line).contains(text).then_some(()));
    }

    /// What a line that goes on has said.
    pub(super) fn said(&self, start: &str) -> String {
        let standing = self.standing.borrow();
        let found = standing.iter().rev().find(|(line, _)| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no `{start}` goes on, on {}", self.host.name)).1.process.said()
    }

    fn take(&self, start: &str) -> Standing {
        let mut standing = self.standing.borrow_mut();
        let at = standing.iter().rposition(|(line, _)| line.starts_with(start));
        standing.remove(at.unwrap_or_else(|| panic!("no `{start}` goes on, on {}", self.host.name))).1
    }

    /// Ctrl-C for a line that goes on; gives what it said. It has to end well, unless `any_end`.
    pub(super) fn interrupt(&self, start: &str, any_end: bool) -> String {
        let mut standing = self.take(start);
        let user = self.user.take();
        let group = self.read(&format!("{HOME}/.group-{}", standing.number));
        self.run(&format!("kill -INT -- -{}", group.trim()));
        self.user.set(user);
        let status = standing.process.end_within(LIMIT);
        assert!(any_end || status.success(), "on {}, `{start}` ended with {status}:\n{}", self.host.name, standing.process.said());
        standing.process.said()
    }

    /// Waits for the end of a line that goes on; it has to end well.
    pub(super) fn end(&self, start: &str) -> String {
        let mut standing = self.take(start);
        let status = standing.process.end_within(LIMIT);
        assert!(status.success(), "on {}, `{start}` ended with {status}:\n{}", self.host.name, standing.process.said());
        standing.process.said()
    }

    /// The ends of what lines that go on have said, for messages.
    pub(super) fn show(&self) {
        for (line, standing) in self.standing.borrow().iter() {
            eprintln!("---- {}: {line} ----\n{}", self.host.name, standing.process.said());
        }
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show();
        }
        // All that runs in it goes with its first process.
        self.first.kill();
    }
}
