//! Objects out of the API's answers as they stand there: members in their order, numbers by their text, so that no
//! amount passes through a float; and tables of them.
//!
//! What is shown is cleaned of control characters, because names of tags and end users come from clients and a
//! terminal obeys what it is sent.

use std::fmt;

use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(member) = map.next_entry()? {
                    fields.push(member);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Fields {
    /// A member as it is shown; `None` when it is missing, null or empty.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        Some(shown(self.written(name)?)).filter(|text| !text.is_empty())
    }

    fn written(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Two columns: names, and values that are not empty.
    pub(super) fn vertical(&self) -> String {
        let mut table = plain();
        for (name, value) in &self.0 {
            let value = shown(value);
            if !value.is_empty() {
                table.add_row([clean(name), value]);
            }
        }
        text(&mut table)
    }
}

/// A line per object with the columns that any of them fills; numbers stand to the right.
pub(super) fn horizontal<'n>(rows: &[Fields], columns: impl IntoIterator<Item = &'n str>) -> String {
    let filled: Vec<&str> = columns.into_iter().filter(|name| rows.iter().any(|row| row.get(name).is_some())).collect();
    let mut table = plain();
    table.set_header(filled.iter().map(|name| clean(&name.replace('_', " ").to_uppercase())));
    for row in rows {
        table.add_row(filled.iter().map(|name| row.get(name).unwrap_or_default()));
    }
    for (index, name) in filled.iter().enumerate() {
        let numeric = rows.iter().filter_map(|row| row.written(name)).all(is_number);
        if let Some(column) = table.column_mut(index).filter(|_| numeric) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text(&mut table)
}

/// Missing counts, so that one empty cell does not move a column.
fn is_number(value: &RawValue) -> bool {
    value.get() == "null" || value.get().starts_with(|first: char| first.is_ascii_digit() || first == '-')
}

fn plain() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn text(table: &mut Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

fn shown(value: &RawValue) -> String {
    let text = value.get();
    match text.as_bytes().first() {
        Some(b'"') => clean(&serde_json::from_str::<String>(text).unwrap_or_default()),
        Some(b'[') => {
            let elements: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap_or_default();
            elements.iter().map(|element| shown(element)).collect::<Vec<_>>().join(", ")
        }
        _ if matches!(text, "null" | "{}") => String::new(),
        _ => clean(text),
    }
}

fn clean(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(json: &str) -> Vec<Fields> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn amounts_are_shown_as_they_were_sent() {
        let rows = rows(r#"[{"name":"a","spend":9007199.254740991},{"name":"bbbb","spend":1e-9,"x":null}]"#);
        let table = horizontal(&rows, ["name", "spend", "x", "missing"]);
        assert_eq!(table, "NAME              SPEND\na     9007199.254740991\nbbbb               1e-9\n");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_shown() {
        let rows = rows(r#"[{"tag":"a\u001b[31mb\nc","list":["x","\u0007"],"empty":{},"map":{"k":1}}]"#);
        let shown = rows[0].vertical();
        assert_eq!(shown, "tag   a\u{fffd}[31mb\u{fffd}c\nlist  x, \u{fffd}\nmap   {\"k\":1}\n");
    }
}
