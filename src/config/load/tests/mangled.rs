//! A configuration with anything in it.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Cuts, doubles and garbles lines of a complete configuration: every outcome is a value or problems.
    #[test]
    fn a_mangled_configuration_never_panics(
        edits in prop::collection::vec(
            (0usize..200, 0usize..80, "[-:{}\\[\\]&*!|>'\"#% \ta0\u{0}é~?,]{0,4}"),
            1..8,
        ),
    ) {
        let shipped =
            [include_str!("../../../../conf/config.yaml"), include_str!("../../../../conf/demo.yaml")].concat();
        let mut lines: Vec<String> =
            shipped.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
        for (line, column, text) in edits {
            let index = line % lines.len();
            let line = &mut lines[index];
            let at = line.char_indices().map(|(at, _)| at).nth(column).unwrap_or(line.len());
            line.insert_str(at, &text);
            if column % 5 == 0 {
                line.truncate(at);
            }
        }
        drop(load_with(&lines.join("\n"), &[("AWS_REGION", "us-east-1")], &CliOverrides::default()));
    }
}
