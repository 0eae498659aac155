//! The Containerfile says nothing of the programs that is not so: its stages, paths, variables, commands and ports. No image is built here.
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// One stage: its name, what it begins from, and its instructions with their arguments.
struct Stage {
    name: String,
    from: String,
    lines: Vec<(String, String)>,
}

impl Stage {
    /// Arguments of all instructions of this name, those of the stages below it first.
    fn all<'a>(&'a self, stages: &'a [Stage], word: &str) -> Vec<&'a str> {
        let below = stages.iter().find(|stage| stage.name == self.from);
        let mut all = below.map(|below| below.all(stages, word)).unwrap_or_default();
        all.extend(self.lines.iter().filter(|(name, _)| name == word).map(|(_, rest)| rest.as_str()));
        all
    }

    /// The argument of the last instruction of this name.
    fn last<'a>(&'a self, stages: &'a [Stage], word: &str) -> &'a str {
        let all = self.all(stages, word);
        all.last().copied().unwrap_or_else(|| panic!("{} has no {word}", self.name))
    }

    /// What the program finds in its environment.
    fn environment<'a>(&'a self, stages: &'a [Stage]) -> BTreeMap<&'a str, &'a str> {
        let pairs = self.all(stages, "ENV").into_iter().flat_map(str::split_whitespace);
        pairs.map(|pair| pair.split_once('=').expect("NAME=VALUE")).collect()
    }

    /// The program and its first words.
    fn words(&self, stages: &[Stage]) -> Vec<String> {
        let list = |text: &str| serde_list(text);
        let mut words = list(self.last(stages, "ENTRYPOINT"));
        words.extend(self.all(stages, "CMD").last().map(|text| list(text)).unwrap_or_default());
        words
    }
}

/// A list as in JSON, of strings without escapes.
fn serde_list(text: &str) -> Vec<String> {
    let inside = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or_else(|| panic!("a list, not {text}"));
    let words = inside.split(',').map(|word| word.trim().strip_prefix('"').and_then(|word| word.strip_suffix('"')).map(str::to_owned));
    words.collect::<Option<_>>().unwrap_or_else(|| panic!("strings, not {text}"))
}

fn stages() -> Vec<Stage> {
    let text = fs::read_to_string(root().join("Containerfile")).expect("there is one");
    let text = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let mut stages: Vec<Stage> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (word, rest) = line.split_once(' ').unwrap_or_else(|| panic!("an instruction and its argument, not {line}"));
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        if word == "FROM" {
            let (from, name) = rest.split_once(" AS ").expect("each stage has a name");
            stages.push(Stage { name: name.to_owned(), from: from.to_owned(), lines: Vec::new() });
        } else {
            let known = ["RUN", "WORKDIR", "COPY", "USER", "ENV", "VOLUME", "STOPSIGNAL", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"];
            assert!(known.contains(&word), "{word} is no instruction");
            stages.last_mut().expect("FROM comes first").lines.push((word.to_owned(), rest));
        }
    }
    stages
}

fn stage<'a>(stages: &'a [Stage], name: &str) -> &'a Stage {
    stages.iter().find(|stage| stage.name == name).unwrap_or_else(|| panic!("there is no stage {name}"))
}

#[test]
fn what_is_built_is_there_and_what_is_copied_was_built() {
    let stages = stages();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let least = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("the oldest compiler").trim_matches('"');
    let programs = stage(&stages, "programs");
    assert!(programs.from.starts_with(&format!("docker.io/library/rust:{least}-")), "{} and not {least}", programs.from);
    let build = programs.all(&stages, "RUN").into_iter().find(|line| line.contains("cargo build")).expect("it is built");
    let mut words = build.split(' ');
    let mut packages = Vec::new();
    while words.any(|word| word == "-p") {
        packages.push(words.next().expect("-p has a package"));
    }
    assert_eq!(packages, ["shadowmesh-daemon", "shadowmesh-relay"]);
    for (at, one) in stages.iter().enumerate() {
        for copied in one.lines.iter().filter(|(word, _)| word == "COPY").filter_map(|(_, rest)| rest.strip_prefix("--from=")) {
            let (from, owner, what, to) = match copied.split(' ').collect::<Vec<_>>()[..] {
                [from, what, to] => (from, None, what, to),
                [from, owner, what, to] => (from, Some(owner), what, to),
                _ => panic!("COPY --from=STAGE [--chown=USER:GROUP] WHAT TO, not {copied}"),
            };
            assert!(stages[..at].iter().any(|before| before.name == from), "{from} is no stage before {}", one.name);
            let program = what.strip_prefix("/out/").expect("all that is made is in /out");
            if to.ends_with('/') {
                let state = Path::new(one.last(&stages, "VOLUME"));
                assert!(build.ends_with(&format!("install -d -m 0700 /out{}", state.display())), "the folder of the state is made");
                assert_eq!((what, Some(Path::new(to))), (format!("/out{to}").as_str(), state.parent()));
                assert_eq!(owner, Some(format!("--chown={0}:{0}", one.last(&stages, "USER")).as_str()), "it is the user's own");
                continue;
            }
            assert!(
                build.contains("--target-directory=/out")
                    && build.split(['"', ' ']).any(|word| word.ends_with(&format!("/release/{program}")))
            );
            assert_eq!(to, format!("/usr/bin/{program}"));
            assert_eq!(one.words(&stages)[0], to, "it is what runs");
        }
        assert!(
            one.from.contains('/') || one.from == "scratch" || stages[..at].iter().any(|before| before.name == one.from),
            "{} is from nowhere",
            one.name
        );
    }
}

#[test]
fn the_programs_understand_what_an_image_tells_them() {
    let stages = stages();
    let page = fs::read_to_string(root().join("docs/configuration.md")).expect("the keys");
    let relay_knows: Vec<String> = shadowmesh_relay::settings::names().map(|(_, variable)| variable).collect();
    for name in ["relay", "peer"] {
        let image = stage(&stages, name);
        let environment = image.environment(&stages);
        let mut words = image.words(&stages);
        let program = words[0].rsplit('/').next().expect("a name").to_owned();
        words[0].clone_from(&program);
        if name == "relay" {
            shadowmesh_relay::cli::check_command(&words).expect("a command line");
            assert!(environment.keys().all(|key| relay_knows.iter().any(|known| known == key)), "{environment:?}");
            let settings = shadowmesh_relay::settings::Settings::load(&shadowmesh_relay::settings::Flags::default(), &|key| {
                environment.get(key).map(|value| (*value).to_owned())
            });
            let settings = settings.expect("settings that fit");
            let ports: Vec<String> = image.last(&stages, "EXPOSE").split(' ').map(str::to_owned).collect();
            let port = settings.listen[0].port();
            assert_eq!(ports, [format!("{port}/tcp"), format!("{port}/udp"), format!("{}/udp", port + 1)]);
            assert!(port > 1023, "without a capability");
        } else {
            shadowmesh_daemon::check_command(&words).expect("a command line");
            assert!(environment.keys().all(|key| page.contains(&format!("`{key}`"))), "{environment:?}");
        }
        let health = image.last(&stages, "HEALTHCHECK");
        let mut asked = serde_list(health.split_once("CMD ").expect("a command").1);
        assert_eq!(asked[0], image.words(&stages)[0], "there is no other program that could ask");
        asked[0].clone_from(&program);
        let answer = if name == "relay" { shadowmesh_relay::cli::check_command(&asked) } else { shadowmesh_daemon::check_command(&asked) };
        answer.expect("a health check that is understood");
        assert_eq!(environment["SHADOWMESH_STATE_DIR"], image.last(&stages, "VOLUME"), "what has to last does");
        let user: u32 = image.last(&stages, "USER").parse().expect("a number, for those who look whether it is root");
        assert!(user > 0);
    }
}

#[test]
fn what_is_not_built_from_is_left_out() {
    let ignored = fs::read_to_string(root().join(".containerignore")).expect("a list");
    assert!(["target", ".git"].iter().all(|name| ignored.lines().any(|line| line == *name)));
    assert_eq!(fs::read_to_string(root().join(".dockerignore")).expect("the same under its other name"), ignored);
}
