//! The container file and the Kubernetes example are plain text: here they are read as those read them who use them, and held
//! against what the node really takes.

use std::path::Path;
use std::process::Command;

use lode_tests::node::binary;
use lode_tests::source;
use yaml_rust2::{Yaml, YamlLoader};

fn read(path: &str) -> String {
    std::fs::read_to_string(source::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every document of the example, by its kind.
fn objects() -> Vec<(String, Yaml)> {
    let documents = YamlLoader::load_from_str(&read("deploy/kubernetes.yaml")).expect("it is YAML");
    let kind = |document: Yaml| (document["kind"].as_str().expect("a kind").to_owned(), document);
    documents
        .into_iter()
        .filter(|document| !document.is_badvalue() && !document.is_null())
        .map(kind)
        .collect()
}

#[track_caller]
fn object(kind: &str) -> Yaml {
    let found = objects().into_iter().find(|(of, _)| of == kind);
    found.unwrap_or_else(|| panic!("there is no {kind}")).1
}

#[track_caller]
fn text<'y>(of: &'y Yaml, path: &str) -> &'y str {
    let found = path.split('.').fold(of, |of, name| match name.parse::<usize>() {
        Ok(place) => &of[place],
        Err(_) => &of[name],
    });
    found.as_str().unwrap_or_else(|| panic!("{path} is no text: {found:?}"))
}

/// What the node says of these words of a command line: `lode config` checks them as `lode serve` does.
fn config_of(words: &[&str]) -> Result<(), String> {
    let mut command = Command::new(binary());
    let output = command.arg("config").args(words).env_clear().output().expect("lode can be run");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn each_object_says_what_an_api_server_wants_of_it() {
    let versions = [
        ("Namespace", "v1"),
        ("StorageClass", "storage.k8s.io/v1"),
        ("PersistentVolume", "v1"),
        ("Service", "v1"),
        ("PodDisruptionBudget", "policy/v1"),
        ("StatefulSet", "apps/v1"),
    ];
    let found: Vec<(String, String)> =
        objects().into_iter().map(|(kind, object)| (kind, text(&object, "apiVersion").to_owned())).collect();
    let wanted: Vec<(String, String)> =
        versions.map(|(kind, version)| (kind.into(), version.into())).to_vec();
    assert_eq!(found, wanted);
    for (kind, object) in objects() {
        let name = text(&object, "metadata.name");
        let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(!name.is_empty() && name.chars().all(is_good), "{kind} is called {name}");
        if !["Namespace", "StorageClass", "PersistentVolume"].contains(&kind.as_str()) {
            assert_eq!(text(&object, "metadata.namespace"), "lode", "{kind}");
        }
    }
    let class = object("StorageClass");
    assert_eq!(text(&class, "volumeBindingMode"), "WaitForFirstConsumer");
    let volume = object("PersistentVolume");
    assert_eq!(text(&volume, "spec.storageClassName"), text(&class, "metadata.name"));
    assert!(text(&volume, "spec.local.path").starts_with('/'));
    assert!(!volume["spec"]["nodeAffinity"]["required"].is_badvalue(), "a local volume says where it is");
    assert_eq!(text(&object("Service"), "spec.clusterIP"), "None", "shards have ports of their own");
}

#[test]
fn the_pod_is_one_that_is_bound_watched_and_held_down() {
    let set = object("StatefulSet");
    let (spec, template) = (&set["spec"], &set["spec"]["template"]);
    assert_eq!(spec["selector"]["matchLabels"], template["metadata"]["labels"]);
    assert_eq!(object("Service")["spec"]["selector"], template["metadata"]["labels"]);
    assert_eq!(text(spec, "serviceName"), text(&object("Service"), "metadata.name"));
    let pod = &template["spec"];
    assert!(pod["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds >= 30));
    assert_eq!(text(pod, "securityContext.seccompProfile.type"), "Localhost");
    let profile = text(pod, "securityContext.seccompProfile.localhostProfile");
    assert!(read("docs/containers.md").contains(profile), "the page says how {profile} is made");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], Yaml::Boolean(true));
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], Yaml::Boolean(false));
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], Yaml::Boolean(true));
    assert_eq!(text(container, "securityContext.capabilities.drop.0"), "ALL");
    for (probe, path) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(text(&container[probe], "httpGet.path"), path);
        assert_eq!(text(&container[probe], "httpGet.port"), "admin");
    }
    assert_eq!(container["resources"]["requests"], container["resources"]["limits"], "a guaranteed pod");
    let ports: Vec<&str> =
        container["ports"].as_vec().expect("ports").iter().map(|port| text(port, "name")).collect();
    assert_eq!(ports, ["lode", "admin"]);
    // What is mounted is there to be mounted.
    let volumes = pod["volumes"].as_vec().into_iter().flatten().map(|volume| text(volume, "name"));
    let claims = spec["volumeClaimTemplates"].as_vec().into_iter().flatten();
    let there: Vec<&str> = volumes.chain(claims.map(|claim| text(claim, "metadata.name"))).collect();
    for mount in container["volumeMounts"].as_vec().expect("mounts") {
        assert!(there.contains(&text(mount, "name")), "{mount:?}");
    }
    assert_eq!(
        text(&spec["volumeClaimTemplates"][0], "spec.storageClassName"),
        text(&object("StorageClass"), "metadata.name")
    );
}

#[test]
fn the_node_takes_what_the_pod_and_the_image_tell_it() {
    let set = object("StatefulSet");
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let args: Vec<&str> =
        container["args"].as_vec().expect("args").iter().map(|arg| arg.as_str().expect("a text")).collect();
    assert_eq!(args[0], "serve");
    config_of(&args[1..]).unwrap_or_else(|error| panic!("{error}"));
    assert!(config_of(&["--no-such-option"]).is_err(), "what is wrong is told");
    let memory =
        args.iter().find_map(|arg| arg.strip_prefix("--memory=")?.strip_suffix("GiB")).expect("told");
    let limit = text(container, "resources.limits.memory").strip_suffix("Gi").expect("in Gi");
    let [memory, limit] = [memory, limit].map(|gib| gib.parse::<u32>().expect("a number"));
    assert!(memory < limit, "the node takes {memory} GiB and a little more, the pod has {limit}");
    for (name, port) in [("lode", 7411), ("admin", 9411)] {
        let ports = container["ports"].as_vec().expect("ports");
        let found = ports.iter().find(|found| found["name"].as_str() == Some(name)).expect("there");
        assert_eq!(found["containerPort"].as_i64(), Some(port));
        assert!(args.iter().any(|arg| arg.ends_with(&format!(":{port}"))), "the node listens at {port}");
    }
    let file = instructions();
    let command = file.iter().find(|(name, _)| name == "CMD").expect("a CMD");
    let words: Vec<String> = serde_json::from_str(&command.1).expect("words in JSON");
    assert_eq!(words[0], "serve");
    config_of(&words[1..].iter().map(String::as_str).collect::<Vec<_>>())
        .unwrap_or_else(|error| panic!("{error}"));
}

/// The instructions of the container file with what follows each, lines that go on put together.
fn instructions() -> Vec<(String, String)> {
    let text = read("deploy/Containerfile").replace("\\\n", " ");
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, rest) =
                line.split_once(' ').unwrap_or_else(|| panic!("an instruction says something: {line}"));
            (name.to_owned(), rest.trim().to_owned())
        })
        .collect()
}

#[test]
fn the_container_file_is_one_and_copies_what_is_there() {
    const KNOWN: [&str; 11] = [
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "USER",
        "VOLUME",
        "EXPOSE",
        "STOPSIGNAL",
        "ENTRYPOINT",
        "CMD",
        "ENV",
    ];
    let file = instructions();
    assert_eq!(file[0].0, "FROM");
    let mut stages = Vec::new();
    for (name, rest) in &file {
        assert!(KNOWN.contains(&name.as_str()), "{name} is no instruction that is used here");
        let words: Vec<&str> = rest.split_whitespace().collect();
        match name.as_str() {
            "FROM" => {
                assert!(words[0].matches('/').count() >= 2, "an image is named with its registry: {rest}");
                stages.extend(words.iter().position(|word| *word == "AS").map(|at| words[at + 1]));
            }
            "COPY" => match words[0].strip_prefix("--from=") {
                Some(stage) => assert!(stages.contains(&stage), "{stage} was built before"),
                None => {
                    for from in &words[..words.len() - 1] {
                        assert!(source::root().join(from).exists(), "{from} is there to be copied");
                    }
                }
            },
            "ENTRYPOINT" | "CMD" | "VOLUME" => {
                serde_json::from_str::<Vec<String>>(rest)
                    .unwrap_or_else(|error| panic!("{name} {rest}: {error}"));
            }
            _ => {}
        }
    }
    let user = file.iter().find(|(name, _)| name == "USER").expect("it does not run as root");
    let set = object("StatefulSet");
    let id = set["spec"]["template"]["spec"]["securityContext"]["runAsUser"].as_i64().expect("a number");
    assert_eq!(user.1, format!("{id}:{id}"), "the same account as the pod's");
    for package in ["node", "Cargo.lock"] {
        assert!(Path::new(&source::root().join(package)).exists(), "{package} is what the image is built of");
    }
    assert!(read(".dockerignore").lines().any(|line| line == "target"), "builds stay out of the image");
}
