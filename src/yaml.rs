//! YAML text to a tree in which every key and value knows its line and column, and every scalar keeps its text: what the
//! configuration and the price book are read from.
//!
//! It stands on the events of `saphyr-parser` and adds what both need: duplicate keys, anchors, aliases, tags, complex
//! keys and further documents are problems with a place, and depth is bounded. It does not resolve types: `3e-06` stays
//! the text `3e-06`, so a price never passes through a float. Scalars are [`Secret`]s, because any of them may be one in a
//! configuration. docs/decisions/0001-yaml-crate.md says why not a serde front end.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use crate::types::secret::Secret;

/// The configuration nests five deep, the price book six; this is what stops a hostile file.
const DEPTH_MAX: usize = 16;

/// A place in the text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Debug)]
pub struct Node {
    pub place: Place,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// The text as written. `plain` tells `null` from `"null"`.
    Scalar {
        text: Secret,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub struct Entry {
    pub key: String,
    pub key_place: Place,
    pub value: Node,
}

/// What is wrong with the text as YAML.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxProblem {
    pub place: Place,
    pub what: String,
    pub remedy: &'static str,
}

impl Node {
    /// Whether nothing was written, or `null` or `~`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        match &self.content {
            Content::Scalar { text, plain } => *plain && matches!(text.expose(), "" | "~" | "null" | "Null" | "NULL"),
            Content::List(_) | Content::Map(_) => false,
        }
    }

    /// The kind of value, for error texts.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.content {
            _ if self.is_null() => "empty",
            Content::Scalar { .. } => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a mapping",
        }
    }
}

/// The tree of the first document, `None` when the text holds no document or cannot be read at all. Problems are
/// told to `problems`; with problems told the tree may be incomplete.
pub fn parse(text: &str, problems: &mut Vec<SyntaxProblem>) -> Option<Node> {
    let mut builder = Builder { problems, open: Vec::new(), root: None, documents: 0 };
    let mut parser = Parser::new_from_str(text);
    loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => return builder.root,
            Some(Ok((event, span))) => {
                if builder.take(event, span).is_err() {
                    return builder.root;
                }
            }
            Some(Err(error)) => {
                let marker = error.marker();
                let place = Place { line: marker.line(), column: marker.col() + 1 };
                // The parser's texts name tokens and never quote the input.
                let what = format!("is not valid YAML: {}", error.info());
                let remedy = if has_tab_indent(text, place.line) {
                    "Indent with spaces: YAML does not allow tabs"
                } else {
                    "Correct the indentation, quotes or brackets at or just before this place"
                };
                builder.problems.push(SyntaxProblem { place, what, remedy });
                return None;
            }
        }
    }
}

/// Whether a line, or the one before it, is indented with a tab: by far the commonest cause of a scanner's error.
fn has_tab_indent(text: &str, line: usize) -> bool {
    text.lines()
        .skip(line.saturating_sub(2))
        .take(2)
        .any(|line| line.chars().take_while(|character| character.is_whitespace()).any(|character| character == '\t'))
}

/// A collection that has begun and not ended.
struct Open {
    place: Place,
    content: Content,
    /// The key that waits for its value.
    key: Option<(String, Place)>,
}

struct Builder<'a> {
    problems: &'a mut Vec<SyntaxProblem>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
}

/// Reading on makes no sense.
struct Stop;

impl Builder<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        let place = Place { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problem(place, "a second document begins here", "Keep one document: remove this `---`");
                    return Err(Stop);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(place, anchor, tag.is_some());
                let content = Content::Scalar { text: Secret::new(text), plain: style == ScalarStyle::Plain };
                self.place(Node { place, content });
            }
            Event::Alias(_) => {
                self.problem(place, "an alias (`*name`) is not supported", "Write the value out");
                self.place(Node { place, content: Content::Map(Vec::new()) });
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(place, anchor, tag.is_some());
                self.enter(place, Content::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(place, anchor, tag.is_some());
                self.enter(place, Content::Map(Vec::new()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(Open { place, content, .. }) = self.open.pop() {
                    self.place(Node { place, content });
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn enter(&mut self, place: Place, content: Content) -> Result<(), Stop> {
        if self.open.len() >= DEPTH_MAX {
            self.problem(place, "is nested too deeply", "No setting nests this deep: look for a stray bracket");
            return Err(Stop);
        }
        self.open.push(Open { place, content, key: None });
        Ok(())
    }

    /// Puts a finished node where it belongs: as a key, a value, an element, or the root.
    fn place(&mut self, node: Node) {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut parent.content {
            Content::List(elements) => elements.push(node),
            Content::Map(entries) => match parent.key.take() {
                Some((key, key_place)) => {
                    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                        let what = format!("the key `{key}` is written twice, first on line {}", first.key_place.line);
                        let remedy = "Keep one of the two";
                        self.problems.push(SyntaxProblem { place: key_place, what, remedy });
                    } else {
                        entries.push(Entry { key, key_place, value: node });
                    }
                }
                None => match node.content {
                    Content::Scalar { text, .. } => parent.key = Some((text.expose().to_owned(), node.place)),
                    Content::List(_) | Content::Map(_) => {
                        parent.key = Some((String::new(), node.place));
                        self.problem(node.place, "a list or a mapping stands as a key", "Keys are plain words");
                    }
                },
            },
            Content::Scalar { .. } => {}
        }
    }

    fn refuse_extras(&mut self, place: Place, anchor: usize, tagged: bool) {
        if anchor != 0 {
            self.problem(place, "an anchor (`&name`) is not supported", "Remove it and write the values out");
        }
        if tagged {
            self.problem(place, "a tag (`!name`) is not supported", "Remove it");
        }
    }

    fn problem(&mut self, place: Place, what: &str, remedy: &'static str) {
        self.problems.push(SyntaxProblem { place, what: what.to_owned(), remedy });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only_problem(text: &str) -> (usize, usize, String) {
        let mut problems = Vec::new();
        parse(text, &mut problems);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let SyntaxProblem { place, what, .. } = problems.remove(0);
        (place.line, place.column, what)
    }

    #[test]
    fn scalars_keep_their_text_and_their_place() {
        let mut problems = Vec::new();
        let root = parse("a:\n  price: 3e-06\n  quoted: \"null\"\n  nothing:\n", &mut problems).unwrap();
        let Content::Map(top) = root.content else { panic!() };
        let Content::Map(inner) = &top[0].value.content else { panic!() };
        let Content::Scalar { text, plain: true } = &inner[0].value.content else { panic!() };
        assert_eq!((text.expose(), inner[0].value.place), ("3e-06", Place { line: 2, column: 10 }));
        assert_eq!(inner[0].key_place, Place { line: 2, column: 3 });
        assert!(!inner[1].value.is_null() && inner[2].value.is_null());
        assert!(problems.is_empty());
    }

    #[test]
    fn what_a_configuration_must_not_hold_is_told_with_its_place() {
        for (text, line, column, what) in [
            ("a: 1\nb: 2\na: 3\n", 3, 1, "written twice, first on line 1"),
            ("a: &x 1\n", 1, 4, "anchor"),
            ("a: !!str 1\n", 1, 4, "tag"),
            ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
            ("? [a]\n: 1\n", 1, 3, "stands as a key"),
            ("a: [1, 2\n", 2, 1, "not valid YAML"),
            ("a:\n\tb: 1\n", 2, 2, "not valid YAML"),
            ("a: 'x\n", 1, 4, "not valid YAML"),
        ] {
            let found = only_problem(text);
            assert_eq!((found.0, found.1), (line, column), "{text:?} {}", found.2);
            assert!(found.2.contains(what), "{text:?}: {}", found.2);
        }
    }

    #[test]
    fn a_tab_is_named_as_the_cause() {
        let mut problems = Vec::new();
        parse("a:\n\tb: 1\n", &mut problems);
        assert!(problems[0].remedy.contains("tabs"));
    }

    #[test]
    fn deep_nesting_ends_with_a_problem() {
        assert!(only_problem(&"[".repeat(100)).2.contains("too deeply"));
        assert!(only_problem(&"a: &x [*x]".replace("&x ", "")).2.contains("not valid YAML"));
    }

    #[test]
    fn an_empty_text_has_no_tree() {
        assert!(parse("", &mut Vec::new()).is_none());
        assert!(parse("# only a comment\n", &mut Vec::new()).is_none());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[a-z0-9:\\-\\[\\]{}&*!|>'\"#%@` \t\n?,.~<\\\\é\u{feff}\u{0}]{0,120}") {
            parse(&text, &mut Vec::new());
        }
    }
}
