//! What the pages tell people to type and to write into files is understood: commands of our programs word by word, recipes, targets of
//! cargo, scripts, and configurations. Nothing is run here; `daemon/tests/netns/walk.rs` does that.
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Programs of others with which commands of the pages begin.
const OTHERS: [&str; 7] = ["git", "cd", "podman", "curl", "ssh", "shred", "tcpdump"];
/// Programs that run the rest of their line; `just in NAME` is another one.
const RUNNERS: [&str; 2] = ["sudo", "exec"];
/// An identity in the place of each `sm-…`.
const SOME_ID: &str = "sm-mqkie33exorklwslfjea66poiu4oa6a4xrowz4zn4xkkxi3xvaulgpzw";

// ---- commands -----------------------------------------------------------------------------------------------------

#[test]
fn each_command_in_a_block_of_shell_is_understood() {
    let recipes = recipes(&read("justfile"));
    let (mut complaints, mut seen) = (Vec::new(), BTreeSet::new());
    for page in pages() {
        for line in page.blocks("sh").into_iter().flat_map(|block| block.lines) {
            for command in commands(&line) {
                if let Err(why) = understood(&command, &recipes) {
                    complaints.push(format!("{}: {}: {why}", page.name, command.join(" ")));
                }
                seen.insert(command);
            }
        }
    }
    none(&complaints);
    assert!(seen.len() > 90, "only {} commands were found: are they looked for where they stand?", seen.len());
}

#[test]
fn each_command_in_a_sentence_is_understood() {
    let recipes = recipes(&read("justfile"));
    let (mut complaints, mut seen) = (Vec::new(), BTreeSet::new());
    for page in pages() {
        for span in page.spans().filter(|span| ["shadowmesh ", "shadowmesh-relay ", "just "].iter().any(|start| span.starts_with(start))) {
            for command in commands(&span) {
                if let Err(why) = in_a_sentence(&command, &recipes) {
                    complaints.push(format!("{}: {}: {why}", page.name, command.join(" ")));
                }
                seen.insert(command);
            }
        }
    }
    none(&complaints);
    assert!(seen.len() > 40, "only {} commands were found: are they looked for where they stand?", seen.len());
}

/// A sentence may name a command without what it needs (`shadowmesh join`), or with a word in capitals for that (`completions SHELL`); but
/// with nothing that it does not take.
fn in_a_sentence(command: &[String], recipes: &[Recipe]) -> Result<(), String> {
    let stands_for = |word: &String| word.chars().all(|character| character.is_ascii_uppercase() || character == '…');
    let incomplete = ["required arguments were not provided", "a value is required for", "requires a subcommand"];
    match understood(command, recipes) {
        Err(why) if incomplete.iter().any(|told| why.contains(told)) => Ok(()),
        Err(why) if command.iter().filter(|word| stands_for(word)).any(|word| why.starts_with(&format!("invalid value '{word}'"))) => {
            Ok(())
        }
        Err(_) if command.first().is_some_and(stands_for) => Ok(()),
        other => other,
    }
}

fn understood(command: &[String], recipes: &[Recipe]) -> Result<(), String> {
    let (program, rest) = command.split_first().ok_or("nothing to do")?;
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match program.as_str() {
        "shadowmesh" => shadowmesh_daemon::check_command(command),
        "shadowmesh-relay" => shadowmesh_relay::cli::check_command(command),
        "just" => recipe_takes(&rest, recipes),
        "cargo" => cargo_finds(&rest),
        script if script.starts_with(".ci/") => exists(script),
        example if example.starts_with("target/release/examples/") => target("examples", stem(Path::new(example)).as_str()),
        known if OTHERS.contains(&known) => Ok(()),
        // Programs that come in the middle of a line, behind sudo, a pipe or `just in`.
        "install" | "dpkg" | "systemctl" | "systemd-creds" | "nft" | "iperf3" | "python3" | "bash" => Ok(()),
        unknown => Err(format!("{unknown} is none of the programs that the pages use")),
    }
}

#[test]
fn commands_are_found_in_all_their_forms() {
    let found = |line: &str| commands(line).into_iter().map(|words| words.join(" ")).collect::<Vec<_>>();
    assert_eq!(found("sudo shadowmesh up --name 'a b' … > file   # why"), ["shadowmesh up --name a b"]);
    assert_eq!(
        found("just in a shadowmesh ping b && shadowmesh-relay id | cat"),
        ["just in a", "shadowmesh ping b", "shadowmesh-relay id", "cat"]
    );
    assert_eq!(found("A=1 B=2 just sim 42 <file"), ["just sim 42"]);
    assert_eq!(found("podman exec relay shadowmesh-relay id"), ["podman exec relay", "shadowmesh-relay id"]);
    assert_eq!(found("a \"$(shadowmesh id)\""), ["a $(shadowmesh id)"], "what stands in quotes is one word");
    assert!(found("# nothing").is_empty());
}

#[test]
fn what_is_wrong_is_refused() {
    let recipes = recipes(&read("justfile"));
    let wrong = [
        "shadowmesh up --no-such-flag",
        "shadowmesh-relay --listen nowhere",
        "just no-such-recipe",
        "just replay-all FILE",
        "just fuzz-keep",
        "just prop 1 2",
        "cargo test -p shadowmesh-daemon --test no_such_test",
        "cargo build -p no-such-package",
        ".ci/no-such-script",
        "target/release/examples/no-such-example",
        "shadowmsh status",
    ];
    for line in wrong {
        for command in commands(line) {
            assert!(understood(&command, &recipes).is_err(), "{line}");
        }
    }
}

// ---- recipes, targets and files -----------------------------------------------------------------------------------

/// A recipe of the justfile, and how many words it takes.
struct Recipe {
    name: String,
    least: usize,
    most: usize,
}

/// The recipes of a justfile: `name WORD OTHER="default" *REST +SOME: dependencies`.
fn recipes(justfile: &str) -> Vec<Recipe> {
    let headers = justfile.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    let mut recipes = Vec::new();
    for (header, _) in headers.filter(|line| !line.contains(":=")).filter_map(|line| line.split_once(':')) {
        let mut recipe = Recipe { name: String::new(), least: 0, most: 0 };
        for (place, word) in words(header).into_iter().enumerate() {
            match word.chars().next() {
                _ if place == 0 => recipe.name = word,
                Some('*') => recipe.most = usize::MAX,
                Some('+') => (recipe.least, recipe.most) = (recipe.least + 1, usize::MAX),
                _ => (recipe.least, recipe.most) = (recipe.least + usize::from(!word.contains('=')), recipe.most + 1),
            }
        }
        recipes.push(recipe);
    }
    assert!(recipes.len() > 20, "recipes are written `name ARGUMENTS:` at the beginning of a line");
    recipes
}

fn recipe_takes(words: &[&str], recipes: &[Recipe]) -> Result<(), String> {
    let (name, given) = words.split_first().ok_or("just what?")?;
    let recipe = recipes.iter().find(|recipe| recipe.name == *name).ok_or("there is no such recipe")?;
    // What `just in NAME` runs is a command of its own, and looked at as such.
    let given = given.len() + usize::from(recipe.name == "in");
    if (recipe.least..=recipe.most).contains(&given) { Ok(()) } else { Err(format!("the recipe takes {} words or more", recipe.least)) }
}

/// Packages and targets that a command of cargo names are there.
fn cargo_finds(words: &[&str]) -> Result<(), String> {
    let known = ["build", "test", "run", "bench", "install"];
    let verb = words.first().ok_or("cargo what?")?;
    if !known.contains(verb) {
        return Err(format!("cargo {verb} is none of the commands that the pages use"));
    }
    let ours = words.split(|word| *word == "--").next().unwrap_or_default();
    for (option, name) in ours.windows(2).map(|pair| (pair[0], pair[1])) {
        match option {
            "-p" => exists(&format!("{}/Cargo.toml", name.strip_prefix("shadowmesh-").ok_or("our packages are shadowmesh-…")?))?,
            "--test" => target("tests", name)?,
            "--example" => target("examples", name)?,
            "--bin" if !["shadowmesh", "shadowmesh-relay"].contains(&name) => target("src/bin", name)?,
            _ => {}
        }
    }
    Ok(())
}

/// Some package has a target of this name in such a folder.
fn target(folder: &str, name: &str) -> Result<(), String> {
    let packages = ["core", "runtime-std", "runtime-smol", "daemon", "relay", "fuzz"];
    let found = packages.iter().map(|package| root().join(package).join(folder)).any(|folder| {
        let main = folder.join(name).join("main.rs");
        main.is_file() || folder.join(name).with_extension("rs").is_file()
    });
    if found { Ok(()) } else { Err(format!("no package has {folder}/{name}")) }
}

fn exists(name: &str) -> Result<(), String> {
    if root().join(name).exists() { Ok(()) } else { Err(format!("{name} is not there")) }
}

// ---- configurations ------------------------------------------------------------------------------------------------

#[test]
fn each_configuration_in_the_pages_is_one() {
    let (mut complaints, mut seen) = (Vec::new(), 0);
    for page in pages() {
        let blocks = page.blocks("toml").into_iter().map(|block| block.lines.join("\n"));
        let keys = page.spans().filter(|span| span.contains(" = ") && span.split([' ', '.']).next().is_some_and(is_section));
        for text in blocks.chain(keys) {
            seen += 1;
            if let Err(why) = configuration(&page.name, &text) {
                complaints.push(format!("{}: {why}, in:\n{text}", page.name));
            }
        }
    }
    none(&complaints);
    assert!(seen > 8, "only {seen} configurations were found: are they looked for where they stand?");
    assert!(configuration("docs/configuration.md", "p2p.no_such_key = 1").is_err());
    assert!(configuration("docs/operating-a-relay.md", "[access]\nallow = 7").is_err());
}

/// Of a relay on the page about it, of a peer on all others.
fn configuration(page: &str, text: &str) -> Result<(), String> {
    let text = text.replace("sm-…", SOME_ID).replace("3b1f…", "3b1f3b1f3b1f3b1f");
    if page.ends_with("operating-a-relay.md") {
        let settings = shadowmesh_relay::settings::Settings::of_text(Path::new("relay.toml"), &text);
        return settings.map(drop).map_err(|failure| failure.to_string());
    }
    shadowmesh_daemon::check_config(&text)
}

fn is_section(word: &str) -> bool {
    ["identity", "network", "interface", "dns", "userspace", "p2p", "crypto", "tls", "log", "state", "control", "metrics"].contains(&word)
}

// ---- reading -------------------------------------------------------------------------------------------------------

/// A page that people read.
struct Page {
    name: String,
    text: String,
}

/// A block of code: its lines without those that are empty or all comment.
struct Block {
    lines: Vec<String>,
}

impl Page {
    /// The blocks of this language.
    fn blocks(&self, language: &str) -> Vec<Block> {
        let (mut blocks, mut open) = (Vec::new(), None::<Block>);
        for line in self.text.lines() {
            match (line.trim_start().strip_prefix("```"), open.take()) {
                (Some(_), Some(block)) => blocks.push(block),
                (Some(fence), None) => open = Some(Block { lines: Vec::new() }).filter(|_| fence.trim() == language),
                (None, Some(mut block)) => {
                    block.lines.push(line.to_owned());
                    open = Some(block);
                }
                (None, None) => {}
            }
        }
        blocks
    }

    /// What stands in backticks in its sentences.
    fn spans(&self) -> impl Iterator<Item = String> {
        let mut fenced = false;
        let sentences = self.text.lines().filter(move |line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fence && !fenced
        });
        let lines: Vec<&str> = sentences.collect();
        let text = lines.join("\n");
        let spans: Vec<String> = text.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")).collect();
        spans.into_iter()
    }
}

/// All pages but the decisions, which tell of their day.
fn pages() -> Vec<Page> {
    let folders = ["docs", "docs/performance"].map(|folder| root().join(folder));
    let paths =
        folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder of pages")).map(|entry| entry.expect("a file").path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    paths.push(root().join("README.md"));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Page { name: path.strip_prefix(root()).unwrap_or(&path).to_string_lossy().into_owned(), text }
    };
    paths.into_iter().map(read).collect()
}

/// The commands of a line of shell; what one of ours is behind (`sudo`, `just in a`) is a command of its own.
fn commands(line: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for command in words(line).split(|word| ["|", "&&", ";"].contains(&word.as_str())) {
        let command = command.iter().take_while(|word| *word != ">" && !word.starts_with('<')).filter(|word| *word != "…").cloned();
        let mut command: Vec<String> = command.skip_while(|word| word.split_once('=').is_some_and(|(name, _)| is_variable(name))).collect();
        while command.first().is_some_and(|word| RUNNERS.contains(&word.as_str())) {
            command.remove(0);
        }
        let ours = command.iter().position(|word| word == "shadowmesh" || word == "shadowmesh-relay");
        let inner = match command.first().map(String::as_str) {
            Some("just") if command.get(1).is_some_and(|word| word == "in") && command.len() > 3 => Some(3),
            Some("podman") => ours.filter(|_| command.get(1).is_some_and(|word| word == "exec")),
            _ => None,
        };
        let inner = inner.map(|at| command.split_off(at));
        found.extend([Some(command), inner].into_iter().flatten().filter(|command| !command.is_empty()));
    }
    found
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|character| character.is_ascii_uppercase() || character.is_ascii_digit() || character == '_')
}

/// A line of shell as words: quotes hold them together, a comment ends them.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if open == character => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the folder of the workspace").to_owned()
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn stem(path: &Path) -> String {
    path.file_stem().expect("a name").to_string_lossy().into_owned()
}

fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}
