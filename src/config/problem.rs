//! How a mistake in the configuration is told: where it stands, what is wrong, and what to do about it.
//!
//! Problems are collected, never thrown, so that one run of `check` names all of them. Nothing here decides what a
//! mistake is. Texts never hold a value that could be a secret: whoever reports quotes a value only through
//! [`At::quote`], which withholds what came out of an environment variable.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Line and column count from 1; a column is a character, not a byte.
    File { name: Arc<str>, line: usize, column: usize },
    /// A file as a whole: it cannot be read, it is too large.
    WholeFile(Arc<str>),
    /// An environment variable, by name.
    Environment(Arc<str>),
    /// An option of the command line, such as `--port`.
    CommandLine(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Self::WholeFile(name) => f.write_str(name),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::CommandLine(option) => write!(f, "command line {option}"),
        }
    }
}

/// A place and the path of keys that leads to it, `model_list[2].dheera_ai_params.model`; the path may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    pub(super) origin: Origin,
    pub(super) path: String,
    /// The environment variable that `os.environ/NAME` at this place was replaced by.
    pub(super) variable: Option<Arc<str>>,
}

impl At {
    pub(super) fn environment(name: &str) -> Self {
        Self { origin: Origin::Environment(name.into()), path: String::new(), variable: None }
    }

    pub(super) fn command_line(option: &'static str) -> Self {
        Self { origin: Origin::CommandLine(option), path: String::new(), variable: None }
    }

    /// Whether the value came out of an environment variable and must not be repeated.
    pub(super) fn is_withheld(&self) -> bool {
        self.variable.is_some() || matches!(self.origin, Origin::Environment(_))
    }

    /// A value for an error text. What an environment variable held may be a secret that was named by mistake, so it
    /// is called by the variable's name; long values are cut.
    pub(super) fn quote(&self, value: &str) -> String {
        if let Some(name) = &self.variable {
            return format!("the value of {name}");
        }
        if let Origin::Environment(name) = &self.origin {
            return format!("the value of {name}");
        }
        let mut shown: String = value.chars().take(QUOTED_CHARS_MAX).flat_map(char::escape_debug).collect();
        if value.chars().nth(QUOTED_CHARS_MAX).is_some() {
            shown.push('…');
        }
        format!("`{shown}`")
    }
}

/// Enough to recognise a value by, little enough that a pasted file does not fill the screen.
const QUOTED_CHARS_MAX: usize = 80;

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// A problem was told, so there is no value and nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told;

/// One thing to tell the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub origin: Origin,
    /// The keys that lead to the place; empty where there is none.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    fn new(at: &At, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { origin: at.origin.clone(), path: at.path.clone(), what: what.into(), remedy: remedy.into() }
    }
}

/// One line: `config.yaml:12:7: general_settings.port: is not a number. Write …`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}. {}", self.what, self.remedy)
    }
}

/// Something that does not stop the proxy but that the operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Finding);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a configuration cannot be used: every problem of it, in the order of the file, and the warnings beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    pub problems: Vec<Finding>,
    pub warnings: Vec<Warning>,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "error: {problem}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        let count = self.problems.len();
        write!(f, "{count} problem{} in the configuration", if count == 1 { "" } else { "s" })
    }
}

impl std::error::Error for Problems {}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Findings {
    problems: Vec<Finding>,
    warnings: Vec<Warning>,
}

impl Findings {
    pub(super) fn problem(&mut self, at: &At, what: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Finding::new(at, what, remedy));
    }

    pub(super) fn warn(&mut self, at: &At, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Warning(Finding::new(at, what, remedy)));
    }

    /// The value with its warnings, or all problems. A `None` without a problem cannot happen by construction of the
    /// resolver; if it ever does, it is told rather than taken for success.
    pub(super) fn conclude<T>(self, value: Option<T>, file: &At) -> Result<(T, Vec<Warning>), Problems> {
        let Self { mut problems, mut warnings } = self;
        problems.sort_by(|left, right| left.origin.cmp(&right.origin));
        warnings.sort_by(|left, right| left.0.origin.cmp(&right.0.origin));
        match value {
            Some(value) if problems.is_empty() => Ok((value, warnings)),
            _ => {
                if problems.is_empty() {
                    problems.push(Finding::new(
                        file,
                        "the configuration is incomplete",
                        "Please report this file as a bug",
                    ));
                }
                Err(Problems { problems, warnings })
            }
        }
    }
}

/// The known word nearest to `word`, if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        // A third of the word may differ: `aws_region_nam`, `wieght`, but not `foo` for `rpm`.
        .filter(|(distance, candidate)| *distance <= (length.max(candidate.len()) / 3).min(4))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits that turn one word into the other; swapped neighbours count as one (optimal string alignment).
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().take(QUOTED_CHARS_MAX).collect();
    let right: Vec<char> = right.chars().take(QUOTED_CHARS_MAX).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, &b) in right.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut cost = (at(&previous, column) + usize::from(a != b))
                .min(at(&previous, column + 1) + 1)
                .min(at(&current, column) + 1);
            let swapped = row > 0 && column > 0 && left.get(row - 1) == Some(&b) && right.get(column - 1) == Some(&a);
            if swapped {
                cost = cost.min(at(&before, column - 1) + 1);
            }
            current.push(cost);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let known = ["aws_region_name", "aws_role_name", "weight", "model", "api_key"];
        for (word, expected) in [
            ("aws_region_nam", Some("aws_region_name")),
            ("wieght", Some("weight")),
            ("modle", Some("model")),
            ("apikey", Some("api_key")),
            ("temperature", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }

    #[test]
    fn a_value_out_of_the_environment_is_called_by_its_name() {
        let mut at = At::command_line("--port");
        assert_eq!(at.quote("a\nb"), "`a\\nb`");
        assert_eq!(at.quote(&"x".repeat(100)).chars().count(), 83);
        at.variable = Some("PORT".into());
        assert_eq!(at.quote("secret"), "the value of PORT");
        assert_eq!(At::environment("HOST").quote("secret"), "the value of HOST");
    }

    #[test]
    fn problems_come_in_the_order_of_the_file() {
        let mut findings = Findings::default();
        for line in [12, 3, 7] {
            let at = At {
                origin: Origin::File { name: "c.yaml".into(), line, column: 5 },
                path: format!("key{line}"),
                variable: None,
            };
            findings.problem(&at, "is wrong", "Correct it");
        }
        let problems = findings.conclude(Some(()), &At::environment("X")).unwrap_err();
        assert_eq!(
            problems.to_string(),
            "error: c.yaml:3:5: key3: is wrong. Correct it\nerror: c.yaml:7:5: key7: is wrong. Correct it\n\
             error: c.yaml:12:5: key12: is wrong. Correct it\n3 problems in the configuration"
        );
    }
}
