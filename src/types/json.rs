//! Writes JSON of known fields, byte for byte as `serde_json` does with the same types, for what is written at each
//! request. Reading stays with `serde`.

/// Writes an object field by field. What does not apply is left out by the caller, as `skip_serializing_if` does.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
    /// What stands before the next field.
    before: u8,
}

impl<'a> Object<'a> {
    pub const fn begin(out: &'a mut Vec<u8>) -> Self {
        Self { out, before: b'{' }
    }

    /// A field whose value the caller writes. Names need no escaping.
    // With the name known, it is written by one or two moves.
    #[inline]
    pub fn field(&mut self, name: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(&[self.before, b'"']);
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.before = b',';
        self.out
    }

    #[inline]
    pub fn text(&mut self, name: &str, value: &str) {
        text(self.field(name), value);
    }

    /// A text that needs no escaping: a word of our own.
    #[inline]
    pub fn word(&mut self, name: &str, value: &'static str) {
        quoted(self.field(name), value);
    }

    /// A text, unless it is empty.
    #[inline]
    pub fn known_text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    #[inline]
    pub fn optional_text(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// A number, unless it is zero.
    #[inline]
    pub fn known_number(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.number(name, value);
        }
    }

    #[inline]
    pub fn optional_number(&mut self, name: &str, value: Option<u64>) {
        if let Some(value) = value {
            self.number(name, value);
        }
    }

    #[inline]
    pub fn number(&mut self, name: &str, value: impl itoa::Integer) {
        number(self.field(name), value);
    }

    pub fn flag(&mut self, name: &str, value: bool) {
        let value: &[u8] = if value { b"true" } else { b"false" };
        self.field(name).extend_from_slice(value);
    }

    pub fn array<T>(&mut self, name: &str, items: &[T], item: impl Fn(&mut Vec<u8>, &T)) {
        let out = self.field(name);
        out.push(b'[');
        for (index, one) in items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            item(out, one);
        }
        out.push(b']');
    }

    pub fn end(self) {
        if self.before == b'{' {
            self.out.push(b'{');
        }
        self.out.push(b'}');
    }
}

/// A string in quotes.
#[expect(clippy::needless_bitwise_bool, reason = "a lazy operator would look at one byte at a time")]
pub fn text(out: &mut Vec<u8>, value: &str) {
    // Looks at every byte without a branch, which takes many at once.
    let escaped = value.bytes().fold(false, |any, byte| any | (byte < b' ') | (byte == b'"') | (byte == b'\\'));
    if escaped && serde_json::to_writer(&mut *out, value).is_ok() {
        return;
    }
    quoted(out, value);
}

fn quoted(out: &mut Vec<u8>, value: &str) {
    out.reserve(value.len() + 2);
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

pub fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_written_as_serde_writes_it() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.text("text", "plain");
        object.word("word", "plain");
        object.number("number", u64::MAX);
        object.number("signed", i64::MIN);
        object.flag("yes", true);
        object.flag("no", false);
        object.array("list", &["a", "b"], |out, item| text(out, item));
        object.array::<u64>("empty", &[], |out, item| number(out, *item));
        let nothing = Object::begin(object.field("nothing"));
        nothing.end();
        object.end();
        let expected = r#"{"text":"plain","word":"plain","number":18446744073709551615,"signed":-9223372036854775808,"yes":true,"no":false,"list":["a","b"],"empty":[],"nothing":{}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn every_character_is_written_as_serde_writes_it() {
        for character in (0..=0x2_FFFF).filter_map(char::from_u32) {
            let value = format!("before {character} after");
            let mut out = Vec::new();
            text(&mut out, &value);
            assert_eq!(out, serde_json::to_vec(&value).unwrap());
        }
    }
}
