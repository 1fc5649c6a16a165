//! The commands that pages show, and what runs them. One that is not here is
//! not known to work, and fails.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process;
use std::time::{Duration, Instant};

use egress_lab::harness::TestResult;
use egress_lab::harness::libtest_mimic::Failed;
use egress_lab::{Command, NetNs, Output, program};

use crate::manifest::{self, text};
use crate::page::{read, root};
use crate::scene::{CLIENT, DEADLINE, POD, PROGRAMS, Scene, Setting};
use crate::yaml;

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) code: i32,
}

impl Answer {
    fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            code: 0,
        }
    }
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            text: format!("{}{}", output.stdout, output.stderr),
            code: output.code,
        }
    }
}

/// Where the reader of a page sits: the clusters that the page speaks of, and
/// what he has written so far.
#[derive(Debug)]
pub(crate) struct Desk {
    setting: Setting,
    scenes: BTreeMap<Setting, Scene>,
    list: Option<String>,
    init_arguments: Option<Vec<String>>,
}

/// Splits a line as a shell does that is asked for nothing else: quotes, and
/// comments.
pub(crate) fn words(line: &str) -> Result<Vec<String>, Failed> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => words.extend(word.take()),
            (None, '$' | '|' | '>' | '<' | '&' | ';' | '`' | '*') => {
                return Err(format!("{line}: nobody here is a shell that knows {c}").into());
            }
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() {
        return Err(format!("{line}: a quote does not end").into());
    }
    Ok(words)
}

impl Desk {
    pub(crate) fn new(setting: Setting) -> Self {
        Self {
            setting,
            scenes: BTreeMap::new(),
            list: None,
            init_arguments: None,
        }
    }

    /// A list that later commands of the page read as a file.
    pub(crate) fn remember_list(&mut self, text: &str) {
        self.list = Some(text.to_owned());
    }

    /// The init container gets other arguments, until it was looked at.
    pub(crate) fn change_init_arguments(&mut self, arguments: Vec<String>) {
        self.init_arguments = Some(arguments);
    }

    fn scene(&mut self, setting: Setting) -> Result<&mut Scene, Failed> {
        self.setting = setting;
        Ok(match self.scenes.entry(setting) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(free) => free.insert(Scene::build(setting, None)?),
        })
    }

    /// Runs a command that may be early: one that only looks is asked again
    /// until its answer `is_right` or time is over.
    pub(crate) fn run_until(
        &mut self,
        words: &[String],
        is_right: impl Fn(&Answer) -> bool,
    ) -> Result<Answer, Failed> {
        const LOOKING: [&str; 2] = ["logs", "get"];
        let looks = words
            .get(1)
            .is_some_and(|verb| LOOKING.contains(&verb.as_str()));
        // A program that only answers has said everything when it ends.
        let looks = looks && self.init_arguments.is_none();
        let started = Instant::now();
        loop {
            let answer = self.run(words)?;
            if !looks || is_right(&answer) || started.elapsed() > DEADLINE / 4 {
                return Ok(answer);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a command.
    pub(crate) fn run(&mut self, words: &[String]) -> Result<Answer, Failed> {
        let all: Vec<_> = words.iter().map(String::as_str).collect();
        match all.as_slice() {
            ["kubectl", "apply", options @ ..] => self.apply(options),
            ["kubectl", "delete", "--filename", file] => applied(&[file]),
            ["kubectl", "exec", target, rest @ ..] => self.exec(target, rest),
            ["kubectl", "logs", target, rest @ ..] => self.logs(target, rest),
            ["kubectl", "get", "--raw", path] => self.get_raw(path),
            ["kubectl", "debug", target, rest @ ..] => self.debug(target, rest),
            ["kubectl", "rollout", "restart", target] => has_target(target),
            ["kubectl", "get", "pods", "--selector", selector] => has_pods(selector),
            ["kubectl", "label", "namespace", _, label] => is_asked_for(label),
            ["podman", "run", "--rm", rest @ ..] => self.podman_run(rest),
            ["make", verb, rest @ ..] => make(verb, rest),
            ["cargo", "test", "--package", "egress-lab", "--", part] => has_tests(part),
            _ => Err(format!("nobody here knows how to run: {}", words.join(" ")).into()),
        }
    }

    /// `--filename FILE` and `--kustomize FOLDER`. What a page applies is what
    /// it speaks of from there on.
    fn apply(&mut self, options: &[&str]) -> Result<Answer, Failed> {
        for option in options.chunks(2) {
            match *option {
                ["--filename", file] => {
                    let _ = applied(&[file])?;
                    if let Some(setting) = Setting::of_file(file) {
                        let _ = self.scene(setting)?;
                    }
                }
                ["--kustomize", folder] => {
                    // A folder of the reader's own was checked where it is shown.
                    if !yaml::is_readers_own(folder) {
                        assert!(manifest::is_there(folder), "there is no {folder}");
                        let rendered = yaml::kustomize(&root().join(folder))?;
                        assert!(
                            !manifest::objects(&rendered).is_empty(),
                            "{folder} is empty"
                        );
                    }
                }
                _ => return Err(format!("kubectl apply {option:?} is not known").into()),
            }
        }
        Ok(Answer::new(""))
    }

    fn exec(&mut self, target: &str, rest: &[&str]) -> Result<Answer, Failed> {
        let (container, rest) = container(rest);
        let ["--", name, arguments @ ..] = rest else {
            return Err("kubectl exec wants -- before the command".into());
        };
        let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let output = if target == CLIENT {
            self.scene(self.setting)?.exec_in_client(name, &arguments)?
        } else {
            let setting = self.setting_of(target, container)?;
            self.scene(setting)?.exec(container, name, &arguments)?
        };
        let mut answer = Answer::from(output);
        if answer.code != 0 {
            let words = format!("command terminated with exit code {}\n", answer.code);
            answer.text.push_str(&words);
        }
        Ok(answer)
    }

    fn logs(&mut self, target: &str, rest: &[&str]) -> Result<Answer, Failed> {
        let (container, rest) = container(rest);
        let setting = self.setting_of(target, container)?;
        let log = match self.init_arguments.take() {
            Some(arguments) => Scene::build(setting, Some(&arguments))?.logs(container)?,
            None => self.scene(setting)?.logs(container)?,
        };
        let count = match rest {
            [] => usize::MAX,
            ["--tail", count] => count.parse()?,
            _ => return Err(format!("kubectl logs {rest:?} is not known").into()),
        };
        let lines: Vec<_> = log.lines().collect();
        let shown = lines.len().saturating_sub(count);
        Ok(Answer::new(lines[shown..].join("\n")))
    }

    /// `/api/v1/namespaces/default/pods/egress-1:9090/proxy/PATH`
    fn get_raw(&mut self, path: &str) -> Result<Answer, Failed> {
        let pod = format!("/api/v1/namespaces/default/pods/{POD}:9090/proxy");
        let path = path.strip_prefix(&pod).ok_or("it is a page of the pod")?;
        let page = self.scene(self.setting)?.page(9090, path)?;
        if page.status == 200 {
            return Ok(Answer::new(page.body));
        }
        Ok(Answer {
            text: page.body,
            code: 1,
        })
    }

    /// A container with a tool of the operator's, in the network of the pod.
    fn debug(&mut self, target: &str, rest: &[&str]) -> Result<Answer, Failed> {
        assert_eq!(target, POD, "an ephemeral container belongs to a pod");
        let [
            image,
            "--profile=netadmin",
            "--stdin",
            "--tty",
            "--",
            name,
            arguments @ ..,
        ] = rest
        else {
            return Err(format!("kubectl debug {rest:?} is not known").into());
        };
        assert!(image.starts_with("--image="), "{image}");
        let arguments: Vec<_> = arguments.iter().map(|word| (*word).to_owned()).collect();
        Ok(self.scene(self.setting)?.debug(name, &arguments)?.into())
    }

    /// The image of a program, with the page's last list where a file is
    /// mounted.
    fn podman_run(&mut self, rest: &[&str]) -> Result<Answer, Failed> {
        let netns = NetNs::create("podman")?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("list");
        let mut mounted = None;
        let mut environment = BTreeMap::new();
        let mut rest = rest;
        loop {
            match rest {
                ["--env", assignment, after @ ..] => {
                    let (name, value) = assignment.split_once('=').ok_or("NAME=VALUE")?;
                    environment.insert(name.to_owned(), value.to_owned());
                    rest = after;
                }
                ["--volume", volume, after @ ..] => {
                    let [_, inside, "ro"] = volume.split(':').collect::<Vec<_>>()[..] else {
                        return Err(format!("{volume}: FILE:PATH:ro").into());
                    };
                    let list = self
                        .list
                        .as_deref()
                        .ok_or("the page shows no list before")?;
                    fs::write(&file, list)?;
                    mounted = Some(inside.to_owned());
                    rest = after;
                }
                _ => break,
            }
        }
        let [image, arguments @ ..] = rest else {
            return Err("podman run without an image".into());
        };
        let name = image
            .strip_suffix(":0.1.0")
            .ok_or("the tag of the manifests")?;
        assert!(PROGRAMS.contains(&name), "{name}");
        for value in environment.values_mut() {
            if mounted.as_ref() == Some(value) {
                *value = file.display().to_string();
            }
        }
        let command = Command::new(&netns, program(name)?)
            .envs(environment)
            .capabilities(&[]);
        let command = arguments
            .iter()
            .fold(command, |command, word| command.arg(*word));
        Ok(command.run()?.into())
    }

    /// Which cluster a pod or what makes it is in.
    fn setting_of(&self, target: &str, container: Option<&str>) -> Result<Setting, Failed> {
        let name = target.strip_prefix("deployment/").unwrap_or(target);
        if name != POD {
            return Err(format!("{target}: the examples make {POD}").into());
        }
        Ok(container
            .and_then(Setting::of_container)
            .unwrap_or(self.setting))
    }
}

/// `--container NAME`, where it stands.
fn container<'a>(rest: &'a [&'a str]) -> (Option<&'a str>, &'a [&'a str]) {
    match rest {
        ["--container", name, rest @ ..] => (Some(name), rest),
        _ => (None, rest),
    }
}

/// Manifests that are there; that they are good is checked with all others.
fn applied(files: &[&str]) -> Result<Answer, Failed> {
    for file in files {
        if !manifest::is_there(file) {
            return Err(format!("there is no {file}").into());
        }
        assert!(
            !manifest::objects(&read(file)).is_empty(),
            "{file} is empty"
        );
    }
    Ok(Answer::new(""))
}

/// Every object of bases and examples: kind and name.
fn made() -> BTreeSet<(String, String)> {
    let mut made = BTreeSet::new();
    let folders = ["base", "examples"].map(|folder| root().join("manifests").join(folder));
    for folder in folders {
        for mode in fs::read_dir(folder).unwrap() {
            for file in fs::read_dir(mode.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_none_or(|extension| extension != "yaml") {
                    continue;
                }
                for object in manifest::objects(&fs::read_to_string(path).unwrap()) {
                    let kind = text(&object, "/kind").to_lowercase();
                    made.insert((kind, text(&object, "/metadata/name").to_owned()));
                }
            }
        }
    }
    made
}

fn has_target(target: &str) -> Result<Answer, Failed> {
    let (kind, name) = target.split_once('/').ok_or("KIND/NAME")?;
    if made().contains(&(kind.to_owned(), name.to_owned())) {
        return Ok(Answer::new(""));
    }
    Err(format!("no manifest makes {target}").into())
}

/// A label of namespaces that the network policies ask for.
fn is_asked_for(label: &str) -> Result<Answer, Failed> {
    let (key, value) = label.split_once('=').ok_or("KEY=VALUE")?;
    let policies = fs::read_dir(root().join("manifests/examples"))?
        .filter_map(Result::ok)
        .map(|mode| mode.path().join("networkpolicy.yaml"));
    let mut seen = 0;
    for policy in policies {
        for policy in manifest::objects(&fs::read_to_string(policy)?) {
            let sources = policy.pointer("/spec/ingress/0/from/0/namespaceSelector/matchLabels");
            if sources.and_then(|labels| labels.get(key)) != Some(&value.into()) {
                return Err(format!("no namespace needs {label}").into());
            }
            seen += 1;
        }
    }
    assert!(seen > 0, "no policy");
    Ok(Answer::new(""))
}

/// Pods by the label that all examples have.
fn has_pods(selector: &str) -> Result<Answer, Failed> {
    if selector == format!("name={POD}") {
        return Ok(Answer::new(""));
    }
    Err(format!("no pod has the label {selector}").into())
}

/// A verb of the Makefile: one that CI does not run must be one that this
/// machine cannot run in a test, and says at least what it would do.
fn make(verb: &str, rest: &[&str]) -> Result<Answer, Failed> {
    let makefile = read("Makefile");
    let mut in_ci: BTreeSet<&str> = ["test"].into();
    for line in makefile.lines() {
        if let Some(list) = line.strip_prefix("test: ") {
            in_ci.extend(list.split("##").next().unwrap_or("").split_whitespace());
        }
    }
    // By tests of their own: the demonstration and the laws.
    const ELSEWHERE: [&str; 4] = ["demo", "laws", "lint", "help"];
    // They take long and prove nothing about the programs' meaning.
    const BY_HAND: [&str; 2] = ["bench", "fuzz"];
    if ![&ELSEWHERE[..], &BY_HAND].concat().contains(&verb) && !in_ci.contains(verb) {
        return Err(format!("nothing shows that make {verb} works").into());
    }
    let output = process::Command::new("make")
        .args(["--dry-run", verb])
        .args(rest)
        .current_dir(root())
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(Answer::new(""))
}

/// Tests of the lab whose names have a part.
fn has_tests(part: &str) -> Result<Answer, Failed> {
    let folder = root().join("tests/tests");
    let found = fs::read_dir(folder)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .flat_map(|path| match path.is_dir() {
            true => fs::read_dir(path)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect(),
            false => vec![path],
        })
        .filter_map(|path| fs::read_to_string(path).ok())
        .any(|source| {
            source.contains(&format!("fn {part}")) || source.contains(&format!("{part}::"))
        });
    if found {
        return Ok(Answer::new(""));
    }
    Err(format!("no test has {part} in its name").into())
}

pub(crate) fn unknown_commands_are_refused() -> TestResult {
    let mut desk = Desk::new(Setting::Redirect);
    for line in [
        "rm -rf /",
        "kubectl apply --filename manifests/examples/redirect/none.yaml",
        "kubectl apply -f manifests/examples/redirect/pod.yaml",
        "kubectl exec other-1 -- /egress-router-init status",
        "kubectl rollout restart deployment/other",
        "kubectl frobnicate",
        "make nothing",
        "make clean",
        "podman run --rm alpine:3 true",
        "cargo test --package egress-lab -- no_such_test_anywhere_at_all",
    ] {
        // The name of the last one stands in this very file.
        let result = words(line).and_then(|words| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| desk.run(&words)))
                .unwrap_or_else(|_| Err("it panicked".into()))
        });
        assert!(result.is_err(), "{line}: {result:?}");
    }
    for line in [
        "kubectl get pods | less",
        "echo $HOME",
        "a > b",
        "a; b",
        "a 'b",
    ] {
        assert!(words(line).is_err(), "{line}");
    }
    assert_eq!(words("a 'b c' \"d\" e # f")?, ["a", "b c", "d", "e"]);
    Ok(())
}
