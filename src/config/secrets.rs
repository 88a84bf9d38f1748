//! The only place of the configuration where environment variables are read, behind a trait so that tests and
//! `environment_variables:` can put their own values in front.
//!
//! Every value is a [`Secret`]: nobody here knows which variable holds one. It does not decide what a variable means.

use std::collections::BTreeMap;
use std::env::VarError;

use crate::types::secret::Secret;

/// A variable is set, but to bytes that are not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUnicode;

/// Where environment variables come from.
pub trait Environment {
    /// The value of a variable, `None` when it is not set. A variable that is set to nothing is `Some("")`.
    ///
    /// # Errors
    /// When the value is not UTF-8.
    fn variable(&self, name: &str) -> Result<Option<Secret>, NotUnicode>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    #[expect(clippy::disallowed_methods, reason = "this is the place that everybody else is sent to")]
    fn variable(&self, name: &str) -> Result<Option<Secret>, NotUnicode> {
        match std::env::var(name) {
            Ok(value) => Ok(Some(Secret::new(value))),
            Err(VarError::NotPresent) => Ok(None),
            Err(VarError::NotUnicode(_)) => Err(NotUnicode),
        }
    }
}

/// A fixed set of variables.
impl Environment for BTreeMap<String, Secret> {
    fn variable(&self, name: &str) -> Result<Option<Secret>, NotUnicode> {
        Ok(self.get(name).cloned())
    }
}

/// `environment_variables:` of the configuration in front of the process's own: what the file says wins, as users of
/// such files expect from LiteLLM.
pub(super) struct Overlay<'a> {
    pub(super) set: BTreeMap<String, Secret>,
    pub(super) base: &'a dyn Environment,
}

impl Environment for Overlay<'_> {
    fn variable(&self, name: &str) -> Result<Option<Secret>, NotUnicode> {
        match self.set.get(name) {
            Some(value) => Ok(Some(value.clone())),
            None => self.base.variable(name),
        }
    }
}

/// The name in `os.environ/NAME`, if the text is such a reference.
pub(super) fn reference(text: &str) -> Option<&str> {
    text.trim().strip_prefix("os.environ/")
}

/// Whether a text can be the name of an environment variable.
pub(super) fn is_variable_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_s_variables_stand_before_the_process_s() {
        let base = BTreeMap::from([("A".to_owned(), Secret::new("base")), ("B".to_owned(), Secret::new("base"))]);
        let overlay = Overlay { set: BTreeMap::from([("A".to_owned(), Secret::new("file"))]), base: &base };
        let value = |name| overlay.variable(name).unwrap().map(|secret| secret.expose().to_owned());
        assert_eq!(value("A").as_deref(), Some("file"));
        assert_eq!(value("B").as_deref(), Some("base"));
        assert_eq!(value("C"), None);
    }

    #[test]
    fn a_reference_is_recognised_by_its_prefix_alone() {
        assert_eq!(reference("os.environ/KEY"), Some("KEY"));
        assert_eq!(reference(" os.environ/KEY "), Some("KEY"));
        assert_eq!(reference("os.environ"), None);
        assert!(is_variable_name("AWS_REGION") && is_variable_name("_x"));
        assert!(!is_variable_name("1A") && !is_variable_name("A-B") && !is_variable_name(""));
    }
}
