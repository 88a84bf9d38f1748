//! YAML text to a tree whose scalars keep their text and their line, so that `3.30` never passes through a float.
//!
//! It stands on the events of `saphyr-parser` and takes plain documents only: aliases, tags, keys that are not words
//! and duplicate keys are problems with a line. What the keys mean is `read.rs`'s to know.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser};

/// A price book nests six deep; more is not one.
const DEPTH_MAX: usize = 12;

#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) content: Content<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    Scalar(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Map(Vec<(Cow<'a, str>, Node<'a>)>),
}

/// What is wrong, and on which line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    pub what: String,
}

struct Open<'a> {
    node: Node<'a>,
    /// The key that waits for its value.
    key: Option<Cow<'a, str>>,
}

/// The tree of the document, as far as it can be read; `None` where the text is no YAML or holds nothing.
pub(super) fn parse<'a>(text: &'a str, problems: &mut Vec<Problem>) -> Option<Node<'a>> {
    let mut open: Vec<Open<'a>> = Vec::new();
    let mut root = None;
    for event in Parser::new_from_str(text) {
        let (event, line) = match event {
            Ok((event, span)) => (event, span.start.line()),
            Err(error) => {
                let what = format!("is not valid YAML: {}", error.info());
                problems.push(Problem { line: error.marker().line(), what });
                return None;
            }
        };
        let (content, tagged) = match event {
            Event::Scalar(text, _, anchor, tag) => (Content::Scalar(text), anchor != 0 || tag.is_some()),
            Event::SequenceStart(anchor, tag) => (Content::List(Vec::new()), anchor != 0 || tag.is_some()),
            Event::MappingStart(anchor, tag) => (Content::Map(Vec::new()), anchor != 0 || tag.is_some()),
            Event::Alias(_) => (Content::Scalar(Cow::Borrowed("")), true),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(closed) = open.pop() {
                    attach(closed.node, &mut open, &mut root, problems);
                }
                continue;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
        };
        if tagged {
            problems.push(Problem { line, what: "anchors, aliases and tags are not taken: write it out".to_owned() });
        }
        let node = Node { line, content };
        if matches!(node.content, Content::Scalar(_)) {
            attach(node, &mut open, &mut root, problems);
        } else if open.len() < DEPTH_MAX {
            open.push(Open { node, key: None });
        } else {
            problems.push(Problem { line, what: "is nested too deeply".to_owned() });
            return None;
        }
    }
    root
}

/// Puts a finished node where it belongs: as a key, a value, an element, or the root.
fn attach<'a>(node: Node<'a>, open: &mut [Open<'a>], root: &mut Option<Node<'a>>, problems: &mut Vec<Problem>) {
    let line = node.line;
    let Some(parent) = open.last_mut() else {
        if root.is_some() {
            problems.push(Problem { line, what: "a second document begins here: keep one".to_owned() });
        }
        *root = Some(node);
        return;
    };
    match &mut parent.node.content {
        Content::Scalar(_) => {}
        Content::List(elements) => elements.push(node),
        Content::Map(entries) => match (parent.key.take(), node.content) {
            (Some(key), _) if entries.iter().any(|(known, _)| *known == key) => {
                problems.push(Problem { line, what: format!("`{key}` is written twice") });
            }
            (Some(key), content) => entries.push((key, Node { line, content })),
            (None, Content::Scalar(key)) => parent.key = Some(key),
            (None, _) => {
                parent.key = Some(Cow::Borrowed(""));
                problems.push(Problem { line, what: "keys are plain words".to_owned() });
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(usize, String)> {
        let mut problems = Vec::new();
        parse(text, &mut problems);
        problems.into_iter().map(|problem| (problem.line, problem.what)).collect()
    }

    #[test]
    fn amounts_keep_their_text_and_their_line() {
        let mut none = Vec::new();
        let root = parse("a: 1\nb: { c: \"3.30\", d: 3e-06 }\n", &mut none).unwrap();
        let Content::Map(top) = root.content else { panic!() };
        let Content::Map(inner) = &top[1].1.content else { panic!() };
        let Content::Scalar(text) = &inner[1].1.content else { panic!() };
        assert_eq!((text.as_ref(), inner[1].1.line), ("3e-06", 2));
        assert!(none.is_empty());
    }

    #[test]
    fn what_is_no_plain_document_is_told_with_its_line() {
        for (text, line, what) in [
            ("a: 1\na: 2\n", 2, "written twice"),
            ("a: &x 1\n", 1, "anchors"),
            ("a: &x 1\nb: *x\n", 2, "anchors"),
            ("a: [1\n", 2, "not valid YAML"),
            ("? [a]\n: 1\n", 1, "plain words"),
            ("a: 1\n---\nb: 2\n", 3, "second document"),
            ("[[[[[[[[[[[[[[1]]]]]]]]]]]]]]", 1, "too deeply"),
        ] {
            let found = problems(text);
            assert!(found.iter().any(|(at, said)| *at == line && said.contains(what)), "{text:?}: {found:?}");
        }
    }
}
