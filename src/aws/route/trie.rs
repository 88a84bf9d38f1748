//! Path templates as a tree over raw segments: exact literals first, then the label, with a way back when a literal
//! turns out to lead nowhere (`/datasets/list` is one operation by POST and a data set called `list` by GET).
//!
//! Knows nothing of HTTP beyond the method's name, and does not decide between operations that share a template.

use std::collections::BTreeMap;

use super::Entry;

/// A node stands for the segments read so far.
#[derive(Debug, Default)]
pub(super) struct Node {
    literals: BTreeMap<&'static str, Node>,
    label: Option<Box<Node>>,
    leaves: Vec<Leaf>,
}

/// The operations of one template and method; more than one where services collide.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) method: &'static str,
    trailing_slash: bool,
    pub(super) entries: Vec<Entry>,
}

impl Leaf {
    /// Whether the template has a label, which then holds what tells services apart.
    pub(super) fn has_label(&self) -> bool {
        self.entries.iter().any(|entry| entry.operation.template.contains('{'))
    }
}

impl Node {
    /// Adds an entry under its operation's own template and method.
    pub(super) fn insert(&mut self, entry: Entry) {
        let template = entry.operation.template.trim_start_matches('/');
        let (segments, trailing_slash) = match template.strip_suffix('/') {
            Some(segments) => (segments, true),
            None => (template, false),
        };
        let mut node = self;
        for segment in segments.split('/') {
            node = if segment.starts_with('{') {
                node.label.get_or_insert_default()
            } else {
                node.literals.entry(segment).or_default()
            };
        }
        let method = entry.operation.method;
        match node.leaves.iter_mut().find(|leaf| leaf.method == method && leaf.trailing_slash == trailing_slash) {
            Some(leaf) => leaf.entries.push(entry),
            None => node.leaves.push(Leaf { method, trailing_slash, entries: vec![entry] }),
        }
    }

    /// The most specific leaf for which `accept` answers yes. `rest` is the path without its leading slash; its
    /// segments are never decoded.
    pub(super) fn find(&self, rest: &str, accept: &mut dyn FnMut(&Leaf) -> bool) -> Option<&Leaf> {
        let (segment, tail) = match rest.split_once('/') {
            Some((segment, tail)) => (segment, Some(tail)),
            None => (rest, None),
        };
        if segment.is_empty() {
            return None;
        }
        self.literals.get(segment).into_iter().chain(self.label.as_deref()).find_map(|node| match tail {
            None => node.leaf(false, accept),
            Some("") => node.leaf(true, accept),
            Some(tail) => node.find(tail, accept),
        })
    }

    #[cfg(test)]
    pub(super) fn each_leaf(&self, see: &mut dyn FnMut(&Leaf)) {
        self.leaves.iter().for_each(&mut *see);
        self.literals.values().chain(self.label.as_deref()).for_each(|node| node.each_leaf(see));
    }

    fn leaf(&self, trailing_slash: bool, accept: &mut dyn FnMut(&Leaf) -> bool) -> Option<&Leaf> {
        self.leaves.iter().find(|leaf| leaf.trailing_slash == trailing_slash && accept(leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::Node;
    use crate::aws::operation::{AccessClass, Metering, Operation, Service, Streaming};
    use crate::aws::route::Entry;

    const fn operation(name: &'static str, template: &'static str) -> Operation {
        Operation {
            service: Service::Bedrock,
            name,
            method: "GET",
            template,
            streaming: Streaming::None,
            metering: Metering::Free,
            access: AccessClass::Read,
            stream_exceptions: &[],
            bearer: true,
            request_headers: &[],
        }
    }

    /// AWS's table has no literal and label that differ in nothing else today; the next one may.
    static OPERATIONS: [Operation; 5] = [
        operation("Label", "/a/{x}"),
        operation("Literal", "/a/list"),
        operation("Slash", "/a/list/"),
        operation("Deep", "/a/list/b"),
        operation("LabelDeep", "/a/{x}/c"),
    ];

    #[test]
    fn literals_beat_labels_and_dead_ends_are_left() {
        let mut tree = Node::default();
        for operation in &OPERATIONS {
            tree.insert(Entry { operation, body_model_member: None });
        }
        let found = |rest| tree.find(rest, &mut |_| true).map(|leaf| leaf.entries[0].operation.name);
        for (rest, expected) in [
            ("a/list", Some("Literal")),
            ("a/list/", Some("Slash")),
            ("a/list/b", Some("Deep")),
            ("a/list/c", Some("LabelDeep")),
            ("a/other", Some("Label")),
            ("a/other/", None),
            ("a/other/b", None),
            ("a/", None),
            ("a//c", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(found(rest), expected, "{rest}");
        }
        assert_eq!(tree.find("a/list", &mut |_| false).map(|leaf| leaf.method), None);
    }
}
