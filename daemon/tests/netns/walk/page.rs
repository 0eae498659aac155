//! The pages and what the walk does with each line of shell in them.

use super::machine::Machine;
use crate::is_installed;
use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};

pub(super) const README: &str = "README.md";
pub(super) const GETTING_STARTED: &str = "docs/getting-started.md";
pub(super) const OPERATING: &str = "docs/operating-a-relay.md";
pub(super) const TROUBLESHOOTING: &str = "docs/troubleshooting.md";

/// What becomes of a line. Without an entry in `LINES` it runs as written, to its end, which has to be a good one.
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// It goes on until somebody ends it; the walk goes on when this line of shell ends well.
    Stays(&'static str),
    /// It is ended by ctrl-c when it has said this.
    Interrupted(&'static str),
    /// It takes its time, and has to have ended well at the end of its section.
    Meanwhile,
    /// Another line runs in its place, and why.
    Instead(&'static str, &'static str),
    /// It is not run, and why.
    Left(&'static str),
}
use How::{Instead, Interrupted, Left, Meanwhile, Stays};

const READY: &str = "shadowmesh status --check ready";
const PACKAGES: &str = "`just packages` makes the packages and looks into them; what the line would bring here is the configuration";

/// Every line of shell that does not simply run to its end. Lines are as in the page, without the comment behind them.
pub(super) const LINES: &[(&str, How)] = &[
    // README.md
    (
        "shadowmesh-relay --listen 0.0.0.0:443 --state-dir /var/lib/shadowmesh-relay",
        Stays("shadowmesh-relay status --state-dir /var/lib/shadowmesh-relay"),
    ),
    ("shadowmesh up --join-file home.token --name laptop --address 10.77.0.2/24", Stays(READY)),
    // docs/getting-started.md
    ("shadowmesh demo", Meanwhile),
    ("just run-relay", Stays("target/release/shadowmesh-relay status --state-dir target/dev/relay")),
    ("just run-peer a", Stays("just in a shadowmesh status --check ready")),
    ("just run-peer b", Stays("just in b shadowmesh status --check ready")),
    ("just run-peer c", Stays("just in c shadowmesh status --check ready")),
    ("just in b iperf3 -s", Stays("just in b grep -qi ':1451 ' /proc/net/tcp6")),
    ("just in a iperf3 -c 10.77.0.3", Meanwhile),
    ("just in b python3 -m http.server", Stays("just in b grep -qi ':1F40 ' /proc/net/tcp")),
    (
        "shadowmesh-relay --listen 0.0.0.0:443 --listen '[::]:443' --state-dir /var/lib/shadowmesh-relay",
        Stays("shadowmesh-relay status --state-dir /var/lib/shadowmesh-relay"),
    ),
    ("sudo shadowmesh up --join-file home.token --name laptop --address 10.77.0.2/24", Stays(READY)),
    ("shadowmesh ping server", Interrupted("from server")),
    ("shadowmesh capture - --snaplen 96 | tcpdump -nr -", Interrupted("10.77.0.1")),
    (
        "shadowmesh up --mode userspace --join-file home.token --name laptop --state-dir ~/.shadowmesh",
        Stays("shadowmesh status --check ready --state-dir ~/.shadowmesh"),
    ),
    (
        "ssh -o ProxyCommand='nc -X 5 -x 127.0.0.1:1080 %h %p' server",
        Left("needs an account and a server of ssh; the proxy is what the line with curl shows"),
    ),
    (
        "shadowmesh up --mode userspace … --forward 8080=server:80",
        Instead(
            "shadowmesh up --mode userspace --name laptop --state-dir ~/.shadowmesh --forward 8080=server:80",
            "the dots stand for the words of the first line; the token is remembered",
        ),
    ),
    (
        "shadowmesh up --mode userspace --name laptop --state-dir ~/.shadowmesh --forward 8080=server:80",
        Stays("shadowmesh status --check ready --state-dir ~/.shadowmesh"),
    ),
    (
        "shadowmesh up --mode userspace … --expose 22",
        Instead(
            "shadowmesh up --mode userspace --name laptop --state-dir ~/.shadowmesh --expose 22",
            "the dots stand for the words of the first line; the token is remembered",
        ),
    ),
    (
        "shadowmesh up --mode userspace --name laptop --state-dir ~/.shadowmesh --expose 22",
        Stays("shadowmesh status --check ready --state-dir ~/.shadowmesh"),
    ),
    ("sudo shadowmesh up --join-file home.token --mode tap --address 10.77.0.2/24", Stays(READY)),
    ("sudo dpkg -i shadowmesh.deb", Instead("install -D -m 0644 /var/tree/daemon/packaging/peer.toml /etc/shadowmesh/peer.toml", PACKAGES)),
    ("sudo systemctl enable --now shadowmesh", Instead("shadowmesh up", "what the unit runs; no systemd runs in a namespace")),
    ("shadowmesh up", Stays(READY)),
    (
        "sudo dpkg -i shadowmesh-relay.deb",
        Instead("install -D -m 0644 /var/tree/relay/packaging/relay.toml /etc/shadowmesh/relay.toml", PACKAGES),
    ),
    ("sudo systemctl enable --now shadowmesh-relay", Instead("shadowmesh-relay", "what the unit runs; no systemd runs in a namespace")),
    ("shadowmesh-relay", Stays("shadowmesh-relay status")),
    ("sudo systemctl restart shadowmesh", Instead("shadowmesh up", "what the unit runs; no systemd runs in a namespace")),
    (
        "sudo systemctl daemon-reload && sudo systemctl restart shadowmesh",
        Left("no systemd runs in a namespace; the walk opens the sealed key and looks whose it is"),
    ),
    // docs/operating-a-relay.md
    ("shadowmesh-relay --metrics 127.0.0.1:9462", Stays("curl -fsS http://127.0.0.1:9462/healthz")),
];

/// Sections with lines that no walk goes through, and why; `*`: all of the page.
pub(super) const ELSEWHERE: &[(&str, &str, &str)] = &[
    (README, "ShadowMesh", "builds for minutes: `.ci/run` has a step for each of the two"),
    (
        GETTING_STARTED,
        "In a container",
        "needs an engine and images of others; `fuzz/tests/container.rs` compares the Containerfile with the programs",
    ),
    ("docs/contributing.md", "*", "is what CI does"),
    ("docs/performance.md", "*", "measures for minutes on an idle machine; `fuzz/tests/pages.rs` looks whether the targets are there"),
    ("docs/testing.md", "*", "runs tests"),
    ("docs/transports.md", "*", "builds an example, which `cargo test` builds too"),
];

/// Sections that walks go through, in full.
pub(super) const WALKED: &[(&str, &str)] = &[
    (README, "Three terminals"),
    (README, "Hosts apart"),
    (GETTING_STARTED, "Build"),
    (GETTING_STARTED, "A network on one machine"),
    (GETTING_STARTED, "A network of hosts apart"),
    (GETTING_STARTED, "Without root"),
    (GETTING_STARTED, "Ethernet instead of IP"),
    (GETTING_STARTED, "Configuration"),
    (GETTING_STARTED, "As a service"),
    (GETTING_STARTED, "Sealed keys"),
    (GETTING_STARTED, "A new identity"),
    (OPERATING, "Where"),
    (OPERATING, "Two relays"),
    (OPERATING, "Who may use it"),
    (OPERATING, "Watching"),
    (TROUBLESHOOTING, "Troubleshooting"),
];

/// The lines of shell of one section, gone through in order. All have to be gone through.
pub(super) struct Section {
    place: String,
    lines: Vec<String>,
    next: Cell<usize>,
    meanwhile: RefCell<Vec<String>>,
    /// What a reader fills in.
    blanks: RefCell<Vec<(&'static str, String)>>,
}

impl Section {
    pub(super) fn open(page: &str, title: &str) -> Self {
        assert!(WALKED.contains(&(page, title)), "{page}, {title:?} is not in the list of what is walked");
        let (_, lines) = sections(page, "sh").into_iter().find(|(found, _)| found == title).unwrap_or_else(|| {
            panic!("{page} has no section {title:?} with shell in it");
        });
        Self {
            place: format!("{page}, {title:?}"),
            lines,
            next: Cell::default(),
            meanwhile: RefCell::default(),
            blanks: RefCell::default(),
        }
    }

    /// From now on this stands where the page leaves a word to the reader.
    pub(super) fn fill(&self, blank: &'static str, word: &str) {
        self.blanks.borrow_mut().push((blank, word.to_owned()));
    }

    /// Goes through all lines before the one that starts so.
    pub(super) fn before(&self, machine: &Machine<'_>, start: &str) {
        while !self.lines.get(self.next.get()).unwrap_or_else(|| panic!("{} has no more line {start:?}", self.place)).starts_with(start) {
            self.step(machine);
        }
    }

    /// Goes through the next line, and gives what it has said when it has ended.
    pub(super) fn step(&self, machine: &Machine<'_>) -> String {
        let line = self.lines.get(self.next.get()).unwrap_or_else(|| panic!("{} has no more lines", self.place));
        self.next.set(self.next.get() + 1);
        eprintln!("    {}$ {line}", machine.host.name);
        self.go(machine, line)
    }

    fn go(&self, machine: &Machine<'_>, line: &str) -> String {
        if OPTIONAL.iter().any(|program| is_used(line, program) && !is_installed(program)) {
            return String::new();
        }
        let filled = self.blanks.borrow().iter().fold(line.to_owned(), |line, (blank, word)| line.replace(blank, word));
        match LINES.iter().find(|(known, _)| *known == line).map(|(_, how)| *how) {
            None => machine.run(&filled).text(),
            Some(Stays(until)) => {
                machine.stay(&filled, until);
                String::new()
            }
            Some(Interrupted(text)) => {
                machine.stay_until_said(&filled, text);
                machine.interrupt(&filled, true)
            }
            Some(Meanwhile) => {
                machine.stay(&filled, "true");
                self.meanwhile.borrow_mut().push(filled);
                String::new()
            }
            Some(Instead(other, why)) => {
                eprintln!("    {}$ {other}        (in its place: {why})", machine.host.name);
                self.go(machine, other)
            }
            Some(Left(why)) => {
                eprintln!("        (left out: {why})");
                String::new()
            }
        }
    }

    /// Goes through what is left.
    pub(super) fn rest(&self, machine: &Machine<'_>) {
        while self.next.get() < self.lines.len() {
            self.step(machine);
        }
    }

    /// Goes through what is left, and waits for what runs meanwhile.
    pub(super) fn finish(self, machine: &Machine<'_>) {
        self.rest(machine);
        for line in self.meanwhile.take() {
            machine.end(&line);
        }
    }
}

/// Programs of which a line may do without, if it is left out: `walk_has_all_programs` says so.
pub(super) const OPTIONAL: [&str; 4] = ["tcpdump", "iperf3", "python3", "systemd-creds"];

fn is_used(line: &str, program: &str) -> bool {
    line.split(' ').any(|word| word == program)
}

/// The lines that are left out here, since a program is missing.
pub(super) fn left_out() -> Vec<String> {
    let missing: Vec<_> = OPTIONAL.into_iter().filter(|program| !is_installed(program)).collect();
    let all = pages().into_iter().flat_map(|page| sections(&page, "sh")).flat_map(|(_, lines)| lines);
    all.filter(|line| missing.iter().any(|program| is_used(line, program))).collect()
}

/// Titles and lines of the sections of a page that have blocks of this language; comments are cut off, what is wrapped is one line.
pub(super) fn sections(page: &str, language: &str) -> Vec<(String, Vec<String>)> {
    let text = fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
    let (mut sections, mut title, mut fence) = (Vec::<(String, Vec<String>)>::new(), String::new(), None::<bool>);
    for line in text.lines() {
        if let Some(opening) = line.trim_start().strip_prefix("```") {
            fence = if fence.is_some() { None } else { Some(opening.trim() == language) };
        } else if fence.is_none() && line.starts_with('#') {
            line.trim_start_matches('#').trim().clone_into(&mut title);
        } else if fence == Some(true) {
            let line = if language == "sh" { line.split(" #").next().unwrap_or_default().trim() } else { line };
            if sections.last().is_none_or(|(last, _)| *last != title) {
                sections.push((title.clone(), Vec::new()));
            }
            let (_, lines) = sections.last_mut().expect("just put there");
            match lines.last_mut() {
                Some(open) if open.ends_with('\\') => *open = format!("{} {line}", open.trim_end_matches('\\').trim_end()),
                _ if language == "sh" && (line.is_empty() || line.starts_with('#')) => {}
                _ => lines.push(line.to_owned()),
            }
        }
    }
    sections
}

/// All pages but the decisions, which tell of their day.
pub(super) fn pages() -> Vec<String> {
    let entries = fs::read_dir(root().join("docs")).expect("the pages are in docs");
    let paths = entries.map(|entry| entry.expect("a file").path()).filter(|path| path.extension().is_some_and(|ending| ending == "md"));
    let names = paths.filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()));
    let mut pages: Vec<String> = names.map(|name| format!("docs/{name}")).collect();
    pages.push("README.md".to_owned());
    pages.sort();
    pages
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the workspace").to_owned()
}
