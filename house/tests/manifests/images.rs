//! Images are named in one place, and hold one binary.

use std::collections::BTreeSet;
use std::path::Path;

use egress_config::Program;
use egress_house_rules::manifest;
use serde_json::Value;

use crate::given::Given;
use crate::unit::{each_pod, entries};

#[test]
fn images_are_those_of_this_version() {
    each_pod(|pod| {
        for (container, given) in pod.containers() {
            let program = match given {
                Given::Stranger => continue,
                Given::Wait | Given::Router(_) => Program::RouterInit,
                Given::Proxy(proxy) => proxy.program,
            };
            let expected = format!("{}:{}", program.name(), env!("CARGO_PKG_VERSION"));
            let image = container.at("/image").and_then(Value::as_str);
            assert_eq!(image, Some(expected.as_str()), "{}", pod.place());
        }
    });
}

#[test]
fn a_base_tags_the_images_that_it_uses() {
    let mut seen = 0;
    for base in entries("base") {
        let [kustomization] = &manifest::read(&base.join("kustomization.yaml")).unwrap()[..] else {
            panic!("{} holds more than one", base.display());
        };
        let tagged: BTreeSet<_> = kustomization
            .list("/images")
            .into_iter()
            .map(|image| {
                assert_eq!(image["newTag"], env!("CARGO_PKG_VERSION"));
                image["name"].as_str().unwrap().to_owned()
            })
            .collect();
        let rendered = manifest::render(&base).unwrap();
        let used: BTreeSet<_> = rendered
            .iter()
            .flat_map(manifest::Object::containers)
            .map(|container| {
                let image = container.at("/image").unwrap().as_str().unwrap();
                image.split(':').next().unwrap().to_owned()
            })
            .collect();
        assert_eq!(tagged, used, "{}", base.display());
        seen += used.len();
    }
    assert_eq!(seen, 5, "images of bases");
}

#[test]
fn an_image_holds_the_binary_alone() {
    for program in Program::ALL {
        let name = program.name();
        let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../images");
        let text = std::fs::read_to_string(images.join(name).join("Containerfile")).unwrap();
        let instructions: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
            .filter(|line| {
                !["ARG ", "LABEL ", "EXPOSE "]
                    .iter()
                    .any(|word| line.starts_with(word))
            })
            .collect();
        let mut expected = vec!["FROM scratch".to_owned(), format!("COPY {name} /{name}")];
        if program != Program::RouterInit {
            // A number: `runAsNonRoot` cannot be checked against a name.
            expected.push("USER 65532:65532".to_owned());
        }
        expected.push(format!("ENTRYPOINT [\"/{name}\"]"));
        assert_eq!(instructions, expected, "{name}");
    }
}
