//! Every configuration that the project ships is valid: users begin with a copy of one.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{project_file, run_to_end};

#[test]
fn every_shipped_configuration_passes_check() {
    let files =
        fs::read_dir(project_file("conf")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files
        .filter(|name| {
            std::path::Path::new(name).extension().is_some_and(|ending| ending == "yaml") && name != "prices.yaml"
        })
        .collect();
    assert!(files.contains("config.yaml") && files.contains("demo.yaml"), "{files:?}");
    for file in files {
        let path = project_file("conf").join(&file);
        let text = fs::read_to_string(&path).unwrap();
        // A configuration may take any value from the environment; here each such variable has one.
        let named = text.match_indices("os.environ/").map(|(at, word)| {
            let rest = &text[at + word.len()..];
            let end =
                rest.find(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_')).unwrap_or(rest.len());
            &rest[..end]
        });
        let mut variables: Vec<_> =
            named.filter(|name| !name.is_empty()).map(|name| (name, "value-0123456789")).collect();
        variables.push(("AWS_REGION", "us-east-1"));
        let output = run_to_end(&["check", "--config", path.to_str().unwrap()], &variables);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{file}:\n{out}\n{err}");
        assert!(out.contains("The configuration is valid."), "{file}:\n{out}\n{err}");
    }
}
