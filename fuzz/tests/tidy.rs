//! House rules over the text of the repository that no compiler knows: clauses are cited, functions stay short, the docs name what the
//! code has. `.ci/tidy.py` has the rules that need no reading of Rust.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Lines of a function outside of tests.
const FUNCTION_LINES: usize = 70;
/// The crates whose code obeys the protocol; what the proving ground says of a clause is no implementation of it.
const PRODUCT: [&str; 5] = ["core", "runtime-std", "runtime-smol", "daemon", "relay"];
/// Clauses that no code or test need cite, and why. Clauses that are reserved as a whole are known by their text.
const EXCEPTIONS: [(&str, &str); 0] = [];

// ---- clauses ---------------------------------------------------------------------------------------------------

#[test]
fn each_clause_of_the_protocol_is_cited_where_it_is_obeyed_and_where_it_is_tested() {
    let clauses = clauses(&read("docs/protocol.md"));
    assert!(clauses.len() > 40, "the clauses of docs/protocol.md are `### 1.1 Title`");
    let (mut obeyed, mut tested) = (BTreeSet::new(), BTreeSet::new());
    for source in sources() {
        for (line, clause) in citations(&source.text) {
            if line >= source.tests_from {
                tested.insert(clause);
            } else if PRODUCT.iter().any(|name| source.path.starts_with(name)) {
                obeyed.insert(clause);
            }
        }
    }
    let mut complaints = Vec::new();
    for (clause, reserved) in &clauses {
        if *reserved || EXCEPTIONS.iter().any(|(exception, _)| exception == clause) {
            continue;
        }
        if !obeyed.contains(clause) {
            complaints.push(format!("no code cites protocol {clause}"));
        }
        if !tested.contains(clause) {
            complaints.push(format!("no test cites protocol {clause}"));
        }
    }
    none(&complaints);
}

#[test]
fn each_citation_names_a_clause_or_a_chapter_that_exists() {
    let text = read("docs/protocol.md");
    let mut known: BTreeSet<String> = clauses(&text).into_keys().collect();
    known.extend(text.lines().filter_map(|line| line.strip_prefix("## ")?.split(' ').next().map(str::to_owned)));
    let mut complaints = Vec::new();
    for source in sources() {
        for (line, clause) in citations(&source.text) {
            if !known.contains(&clause) {
                complaints.push(format!("{}:{line}: there is no clause {clause} in docs/protocol.md", source.path));
            }
        }
    }
    for path in files(&root().join("docs"), "md") {
        let text = fs::read_to_string(&path).expect("a page of the docs is text");
        for (number, line) in text.lines().enumerate() {
            for clause in numbers_after(line, "protocol ") {
                if !known.contains(&clause) {
                    complaints.push(format!("{}:{}: there is no clause {clause} in docs/protocol.md", name_of(&path), number + 1));
                }
            }
        }
    }
    none(&complaints);
}

#[test]
fn citations_are_read_in_all_their_forms() {
    let text = "//! Lanes (protocol 4.3): one.\nlet x = 1; // protocol 7.2 to 7.4, 5 and 3.10; the rest\n/// wrapped (protocol\n/// 6.3).\nlet protocol = 9;\n";
    let found: Vec<_> = citations(text).into_iter().collect();
    let expected = [(1, "4.3"), (2, "7.2"), (2, "7.3"), (2, "7.4"), (2, "5"), (2, "3.10"), (3, "6.3")];
    assert_eq!(found, expected.map(|(line, clause)| (line, clause.to_owned())));
}

// ---- sizes, logs, lints -----------------------------------------------------------------------------------------

#[test]
fn functions_stay_short() {
    let mut complaints = Vec::new();
    for source in sources() {
        for (line, name, length) in functions(&source.text) {
            if line < source.tests_from && length > FUNCTION_LINES {
                complaints.push(format!("{}:{line}: {name} has {length} lines, at most {FUNCTION_LINES}", source.path));
            }
        }
    }
    none(&complaints);
}

#[test]
fn a_function_is_measured_from_its_name_to_its_end() {
    let text = format!(
        "impl X {{\n    pub(crate) fn long(\n        a: u8,\n    ) {{\n{}    }}\n\n    fn short() {{}}\n}}\n",
        "        a();\n".repeat(9)
    );
    assert_eq!(functions(&text), [(2, "long".to_owned(), 13), (16, "short".to_owned(), 1)]);
}

#[test]
fn each_log_at_level_error_is_named_by_a_test() {
    let sources = sources();
    let mut complaints = Vec::new();
    for source in &sources {
        let code = source.text.lines().take(source.tests_from - 1).collect::<Vec<_>>().join("\n");
        for (at, _) in code.match_indices("error!(").filter(|(at, _)| is_macro_of_tracing(&code, *at)) {
            let message = code[at..].split('"').nth(1).unwrap_or("").to_owned();
            let named = sources.iter().any(|other| other.text.lines().skip(other.tests_from - 1).any(|line| line.contains(&message)));
            if message.is_empty() || !named {
                complaints.push(format!("{}: no test names the error {message:?}", source.path));
            }
        }
    }
    none(&complaints);
}

#[test]
fn each_crate_asks_for_a_sentence_on_each_public_item() {
    let workspace = read("Cargo.toml");
    assert!(workspace.contains("missing_docs = \"warn\""), "the lint is on for the workspace, and CI takes warnings as errors");
    let mut complaints = Vec::new();
    for name in PRODUCT.iter().chain(&["fuzz"]) {
        if !read(&format!("{name}/Cargo.toml")).contains("[lints]\nworkspace = true") {
            complaints.push(format!("{name}/Cargo.toml does not take the lints of the workspace"));
        }
    }
    // written in two pieces, so that this file does not find itself
    let waiver = ["(missing", "_docs"].concat();
    for source in sources().iter().filter(|source| PRODUCT.iter().any(|name| source.path.starts_with(name))) {
        if source.text.contains(&waiver) {
            complaints.push(format!("{}: an item without a sentence is let pass", source.path));
        }
    }
    none(&complaints);
}

// ---- docs and code name the same ---------------------------------------------------------------------------------

#[test]
fn each_decision_is_listed_under_its_number() {
    let list = read("docs/decisions/README.md");
    let mut numbers = BTreeSet::new();
    let mut complaints = Vec::new();
    for path in files(&root().join("docs/decisions"), "md") {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        if name == "README.md" {
            continue;
        }
        if !numbers.insert(name[..4].to_owned()) {
            complaints.push(format!("docs/decisions/{name}: the number is taken"));
        }
        if !list.contains(&format!("]({name})")) {
            complaints.push(format!("docs/decisions/README.md does not list {name}"));
        }
        let title = fs::read_to_string(&path).expect("a decision is text");
        if !title.starts_with(&format!("# {} ", &name[..4])) {
            complaints.push(format!("docs/decisions/{name} opens with its number, `# {} …`", &name[..4]));
        }
    }
    for link in list
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .filter(|link| Path::new(link).extension().is_some_and(|kind| kind == "md"))
    {
        if !root().join("docs/decisions").join(link).is_file() {
            complaints.push(format!("docs/decisions/README.md lists {link}, which is not there"));
        }
    }
    none(&complaints);
}

#[test]
fn each_page_is_in_the_book() {
    let summary = read("docs/SUMMARY.md");
    let docs = root().join("docs");
    let pages = files(&docs, "md").into_iter().filter_map(|page| page.strip_prefix(&docs).map(Path::to_owned).ok());
    let missing = pages.filter(|page| stem(page) != "SUMMARY" && !summary.contains(&format!("({})", page.display())));
    none(&missing.map(|page| format!("{} is not in docs/SUMMARY.md", page.display())).collect::<Vec<_>>());
    let title =
        |page: &Path| fs::read_to_string(docs.join(page)).ok().and_then(|text| Some(text.lines().next()?.strip_prefix("# ")?.to_owned()));
    for line in summary.lines() {
        let Some((told, page)) = line.trim().strip_prefix("- [").and_then(|line| line.strip_suffix(')')?.split_once("](decisions/0"))
        else {
            continue;
        };
        assert_eq!(title(Path::new(&format!("decisions/0{page}"))).as_deref(), Some(told), "a decision is listed by its title");
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let repository =
        read("Cargo.toml").lines().find_map(|line| line.strip_prefix("repository = ")).expect("a repository").trim_matches('"').to_owned();
    let docs = root().join("docs");
    let (mut complaints, mut anchors) = (Vec::new(), 0);
    for path in files(&docs, "md").into_iter().chain([root().join("README.md")]) {
        let text = fs::read_to_string(&path).expect("a page of the docs is text");
        let folder = path.parent().expect("a folder");
        for link in sentences(&text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split([')', ' ']).next()) {
            let mut complain = |what: &str| complaints.push(format!("{}: the link to {link} {what}", name_of(&path)));
            if let Some(rest) = link.strip_prefix(&repository) {
                let file = rest.split_once("/main/").map_or(rest, |(_, file)| file);
                if !root().join(file).exists() {
                    complain("leads to no file of ours");
                }
            } else if !link.contains("://") {
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { path.clone() } else { folder.join(file) };
                if !target.exists() {
                    complain("leads nowhere");
                } else if path.starts_with(&docs) && !target.canonicalize().expect("it exists").starts_with(&docs) {
                    complain("leads out of the book: name the file in the repository");
                } else if !anchor.is_empty() {
                    anchors += 1;
                    let text = fs::read_to_string(&target).expect("an anchor is in a page");
                    if !self::anchors(&text).contains(anchor) {
                        complain("names no heading there");
                    }
                }
            }
        }
    }
    none(&complaints);
    assert!(anchors > 10, "links to headings are `page.md#heading`");
}

/// The lines of a page that are not in a block of code.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// The names of the headings of a page, as all that shows Markdown makes them: a repeated one is counted.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let headings = sentences(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let name = |heading: &str| -> String {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
    };
    headings
        .map(|heading| {
            let name = name(heading);
            let before = seen.entry(name.clone()).and_modify(|count| *count += 1).or_insert(0);
            if *before == 0 { name } else { format!("{name}-{before}") }
        })
        .collect()
}

#[test]
fn anchors_are_made_as_readers_make_them() {
    let page = "# Why `a::b`, then?\n```sh\n# no heading\n```\n## 8.8 Datagrams over a relay\n## Grüße_x\n## Twice\n## Twice\n";
    let made = ["why-ab-then", "88-datagrams-over-a-relay", "grüße_x", "twice", "twice-1"];
    assert_eq!(anchors(page), made.map(str::to_owned).into());
}

#[test]
fn each_reason_of_a_drop_is_explained_and_no_other() {
    let page = read("docs/metrics.md");
    let peer: BTreeSet<String> = shadowmesh_core::drops::Drop::ALL.iter().map(|reason| reason.label().to_owned()).collect();
    compare("reasons of drops at a peer", &table_under(&page, "## Why a peer drops"), &peer);
    let relay: BTreeSet<String> = read("core/src/hub/drops.rs")
        .lines()
        .filter_map(|line| line.trim().split_once(" = \"")?.1.strip_suffix("\","))
        .map(str::to_owned)
        .collect();
    assert!(relay.len() > 20, "a reason of the relay is written `Name = \"name\",`");
    compare("reasons of drops at a relay", &table_under(&page, "## Why a relay drops"), &relay);
}

#[test]
fn each_metric_is_explained_and_no_other() {
    let page = read("docs/metrics.md");
    for (title, file) in [("# Metrics", "daemon/src/metrics.rs"), ("## A relay", "relay/src/metrics.rs")] {
        let source = Source::read(&root().join(file));
        let code: BTreeSet<String> =
            literals(&source.product()).filter(|name| name.starts_with("shadowmesh_")).map(str::to_owned).collect();
        // the encoder adds `_total` to counters
        let told = table_under(&page, title);
        let told = told.iter().map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned()).collect();
        compare(&format!("metrics of {file}"), &told, &code);
    }
}

#[test]
fn dashboard_and_alerts_name_metrics_that_exist() {
    let page = read("docs/metrics.md");
    let told: BTreeSet<String> = ["# Metrics", "## A relay"].into_iter().flat_map(|title| table_under(&page, title)).collect();
    for file in ["docs/monitoring/grafana.json", "docs/monitoring/alerts.yml"] {
        let text = read(file);
        let named = text.match_indices("shadowmesh_").map(|(at, _)| {
            let end = text[at..].find(|character: char| !character.is_ascii_alphanumeric() && character != '_');
            &text[at..at + end.unwrap_or(text.len() - at)]
        });
        let named: BTreeSet<&str> = named.map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect();
        let unknown: Vec<String> =
            named.iter().filter(|name| !told.contains(**name)).map(|name| format!("{file}: {name} is not in docs/metrics.md")).collect();
        none(&unknown);
        assert!(named.len() > 5, "{file} names only {named:?}");
    }
}

#[test]
fn each_key_of_a_configuration_is_explained_and_no_other() {
    let page = read("docs/configuration.md");
    let table = Source::read(&root().join("daemon/src/config/keys.rs")).product();
    let daemon: BTreeSet<String> =
        table.lines().filter_map(|line| line.trim().strip_prefix("key(\"")?.split('"').next()).map(str::to_owned).collect();
    assert!(daemon.len() > 20, "a key of a peer is written key(\"section.key\", …");
    compare("keys of a peer", &table_under(&page, "## Keys"), &daemon);
    let table = Source::read(&root().join("relay/src/settings/keys.rs")).product();
    let (_, table) = table.split_once("pub(super) const KEYS").expect("the table of keys");
    let mut relay = BTreeSet::new();
    for line in table.lines().map(str::trim) {
        let words: Vec<&str> = literals(line).collect();
        match line.split('(').next() {
            Some("number") => relay.insert(format!("limits.{}", words[0])),
            Some("key" | "span") => relay.insert(words[..2].join(".")),
            Some("Key { variable: Some") => relay.insert(words[1..3].join(".")),
            Some(_) | None => false,
        };
    }
    assert!(relay.len() > 20, "a key of a relay is written key(\"section\", \"name\", …");
    compare("keys of a relay", &table_under(&page, "## Keys of a relay"), &relay);
}

// ---- planted faults ------------------------------------------------------------------------------------------------

#[test]
fn each_planted_fault_still_applies_and_names_the_tests_that_catch_it() {
    let faults = files(&root().join("fuzz/faults"), "fault");
    assert!(faults.len() >= 12);
    let mut complaints = Vec::new();
    for path in faults {
        let name = name_of(&path);
        let text = fs::read_to_string(&path).expect("a fault is text");
        let lines: Vec<&str> = text.lines().collect();
        if !lines.iter().any(|line| line.starts_with("test: -p shadowmesh-")) {
            complaints.push(format!("{name} names no test"));
        }
        let place = |word: &str, from: usize| lines.iter().skip(from).position(|line| *line == word).map(|index| from + index);
        let mut from = 0;
        while let Some(start) = place("---", from) {
            let (Some(middle), Some(end)) = (place("+++", start), place("===", start)) else {
                panic!("{name}: ---, +++, === in this order")
            };
            let file = lines[..start].iter().rev().find_map(|line| line.strip_prefix("file: ")).expect("a replacement has a file");
            let old = lines[start + 1..middle].join("\n") + "\n";
            if lines[start + 1..middle] == lines[middle + 1..end] {
                complaints.push(format!("{name} changes nothing"));
            }
            let count = read(file).matches(&old).count();
            if count != 1 {
                complaints.push(format!("{name}: {file} has these lines {count} times, not once:\n{old}"));
            }
            from = end + 1;
        }
        if from == 0 {
            complaints.push(format!("{name} replaces nothing"));
        }
    }
    none(&complaints);
}

// ---- proofs ------------------------------------------------------------------------------------------------------

#[test]
fn each_model_is_cited_and_each_cited_model_is_there() {
    let models: BTreeSet<String> = files(&root().join("docs/proofs"), "pv").iter().map(|path| stem(path)).collect();
    assert!(models.len() > 20);
    let families: BTreeSet<&str> = models.iter().filter_map(|model| model.split('_').next()).collect();
    let is_model = |name: &str| families.iter().any(|family| name == *family || name.starts_with(&format!("{family}_")));
    let mut complaints = Vec::new();
    let mut cited = BTreeSet::new();
    for page in ["docs/protocol.md", "docs/threat-model.md", "docs/proofs/README.md"] {
        for name in read(page).split('`').skip(1).step_by(2).filter(|name| is_model(name)) {
            let stars = name.strip_suffix('*');
            let meant: Vec<&String> =
                models.iter().filter(|model| stars.map_or(model.as_str() == name, |start| model.starts_with(start))).collect();
            let is_flawed = |name: &str| name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '*');
            if meant.is_empty() && is_flawed(name) {
                complaints.push(format!("{page} cites the model {name}, which is not in docs/proofs"));
            }
            if page != "docs/proofs/README.md" {
                cited.extend(meant.into_iter().cloned());
            }
        }
    }
    for model in models.difference(&cited) {
        complaints.push(format!("neither docs/protocol.md nor docs/threat-model.md cites docs/proofs/{model}.pv"));
    }
    let listed = read("docs/proofs/README.md");
    for model in &models {
        if !listed.contains(&format!("`{model}`")) {
            complaints.push(format!("docs/proofs/README.md does not list {model}"));
        }
        let text = read(&format!("docs/proofs/{model}.pv"));
        if !text.contains("\n  RESULT ") {
            complaints.push(format!("docs/proofs/{model}.pv does not say what ProVerif must print"));
        }
    }
    none(&complaints);
}

// ---- reading -----------------------------------------------------------------------------------------------------

/// One file of Rust.
struct Source {
    path: String,
    text: String,
    /// The first line that belongs to tests, counted from 1; one above the last where there are none.
    tests_from: usize,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = name_of(path);
        let is_test = name.contains("/tests/") || ["/tests.rs", "/test.rs", "_tests.rs"].iter().any(|end| name.ends_with(end));
        let lines: Vec<&str> = text.lines().collect();
        let inline = lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].ends_with('{')).map(|index| index + 1);
        let tests_from = if is_test { 1 } else { inline.unwrap_or(lines.len() + 1) };
        Self { path: name, text, tests_from }
    }

    /// All but the tests.
    fn product(&self) -> String {
        self.text.lines().take(self.tests_from - 1).collect::<Vec<_>>().join("\n")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the workspace").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Path from the root of the repository.
fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_string_lossy().into_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

/// All files below a folder with this ending, in order; nothing that a build made.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && name != "corpus" && !name.starts_with('.') {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let all: Vec<Source> =
        PRODUCT.iter().chain(&["fuzz"]).flat_map(|name| files(&root().join(name), "rs")).map(|path| Source::read(&path)).collect();
    assert!(all.len() > 100, "the sources are beside this crate");
    all
}

/// Number of each clause, and whether all of it is reserved. A chapter without clauses is one itself.
fn clauses(protocol: &str) -> BTreeMap<String, bool> {
    let mut clauses: BTreeMap<String, bool> = BTreeMap::new();
    let mut last = String::new();
    for line in protocol.lines() {
        if let Some(title) = line.strip_prefix("### ").or_else(|| line.strip_prefix("## ")) {
            let number = title.split(' ').next().unwrap_or_default().to_owned();
            if let Some((chapter, _)) = number.split_once('.') {
                clauses.remove(chapter);
            }
            clauses.insert(number.clone(), false);
            last = number;
        } else if line.contains("This clause is reserved, not yet implemented") {
            clauses.insert(last.clone(), true);
        }
    }
    clauses
}

/// Line and clause of each citation in a comment; a citation may be wrapped.
fn citations(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut comment = String::new();
    let mut began = 0;
    for (number, line) in text.lines().chain([""]).enumerate() {
        let whole = line.trim_start();
        if whole.starts_with("//") {
            began = if comment.is_empty() { number + 1 } else { began };
            let before = comment.len();
            comment.push_str(whole.trim_start_matches(['/', '!']).trim());
            comment.push(' ');
            // what ends on this line is told of it, or a file's opening would have one citation
            if !comment.trim_end().ends_with("protocol") && !comment[before..].is_empty() {
                found.extend(numbers_after(&comment, "protocol ").into_iter().map(|clause| (began, clause)));
                comment.clear();
            }
            continue;
        }
        comment.clear();
        if let Some((_, trailing)) = line.split_once("// ") {
            found.extend(numbers_after(trailing, "protocol ").into_iter().map(|clause| (number + 1, clause)));
        }
    }
    found
}

/// The numbers behind each `word`: single ones, lists with `,` and `and`, ranges with `to`.
fn numbers_after(text: &str, word: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let mut found: Vec<String> = Vec::new();
    for (at, _) in lower.match_indices(word) {
        let mut rest = &lower[at + word.len()..];
        let mut range = false;
        while let Some((number, after)) = leading_number(rest) {
            let from =
                found.last().and_then(|last| Some((last.split_once('.')?.0.to_owned(), last.split_once('.')?.1.parse::<u32>().ok()?)));
            if let (true, Some((chapter, from)), Some((same, to))) = (range, from, number.split_once('.'))
                && chapter == same
            {
                let to: u32 = to.parse().expect("digits");
                found.extend((from + 1..to).map(|clause| format!("{chapter}.{clause}")));
            }
            found.push(number);
            let Some(separator) = [", ", " and ", " to "].into_iter().find(|separator| after.starts_with(separator)) else { break };
            range = separator == " to ";
            rest = &after[separator.len()..];
        }
    }
    found
}

fn leading_number(text: &str) -> Option<(String, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number = text[..end].trim_end_matches('.');
    (!number.is_empty() && number.starts_with(|c: char| c.is_ascii_digit())).then(|| (number.to_owned(), &text[number.len()..]))
}

/// Line, name and length of each function, by the indentation that rustfmt gives it.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let mut words = code.split(' ').skip_while(|word| ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe"].contains(word));
        let (Some("fn"), Some(rest)) = (words.next(), words.next()) else { continue };
        let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        let one_line = code.ends_with('}') || code.ends_with(';');
        let length = if one_line { 1 } else { lines[start..].iter().position(|line| *line == end).map_or(1, |length| length + 1) };
        found.push((start + 1, name, length));
    }
    found
}

fn is_macro_of_tracing(code: &str, at: usize) -> bool {
    let before = &code[..at];
    !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        && !before.lines().last().unwrap_or_default().trim_start().starts_with("//")
}

/// The string literals of a text without escapes.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2)
}

/// What stands in backticks in the first column of the tables between this title and the next of its rank or above.
fn table_under(page: &str, title: &str) -> BTreeSet<String> {
    let rank = title.chars().take_while(|c| *c == '#').count();
    let mut lines = page.lines().skip_while(|line| !line.starts_with(title));
    assert!(lines.next().is_some(), "the page has a title {title:?}");
    lines
        .take_while(|line| !line.starts_with('#') || line.chars().take_while(|c| *c == '#').count() > rank.max(2))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

fn compare(what: &str, told: &BTreeSet<String>, code: &BTreeSet<String>) {
    let untold: Vec<_> = code.difference(told).map(|name| format!("{what}: the page does not explain {name}")).collect();
    let gone: Vec<_> = told.difference(code).map(|name| format!("{what}: the code has no {name}")).collect();
    none(&[untold, gone].concat());
}

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
