//! Reads JSON that is in memory in one pass, without a tree: what is wanted is looked at, the rest is leapt over, long
//! strings at the speed of memchr.
//!
//! The grammar is checked to the last byte, as `serde_json` checks what it ignores: a body that two parsers could read in
//! two ways has no reading here. Whether strings are UTF-8, and surrogates come in pairs, is for those who want their
//! text; [`Reader::strict`] asks it of all of them. Tests hold both to what `serde_json` accepts.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr2;

/// A place in a document. Whoever opens an array or an object reads it to its end before going on.
#[derive(Debug)]
pub struct Reader<'b> {
    text: &'b [u8],
    at: usize,
    /// Whether there may be control characters, which no string may have.
    controls: bool,
    strict: bool,
    /// The containers around a value that is skipped.
    around: Vec<Container>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// What stands at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'b> {
    Null,
    Bool,
    /// A whole number without sign, fraction or exponent.
    Count(u64),
    /// Any other number, as written.
    Number(&'b [u8]),
    Text(Text<'b>),
    /// Is read with [`Reader::elements`].
    Array,
    /// Is read with [`Reader::members`].
    Object,
}

/// A string as it stands in the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'b> {
    quoted: &'b [u8],
    /// How many bytes its escapes take more than what they stand for.
    longer: usize,
    escaped: bool,
}

impl<'b> Text<'b> {
    /// Without escapes; `None` where that is no Unicode.
    #[must_use]
    pub fn decoded(&self) -> Option<Cow<'b, str>> {
        if self.escaped {
            return serde_json::from_slice(self.quoted).ok().map(Cow::Owned);
        }
        std::str::from_utf8(self.inside()).ok().map(Cow::Borrowed)
    }

    #[must_use]
    pub fn is(&self, word: &str) -> bool {
        if self.escaped { self.decoded().is_some_and(|text| text == word) } else { self.inside() == word.as_bytes() }
    }

    /// Its length without escapes, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inside().len() - self.longer
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn inside(&self) -> &'b [u8] {
        self.quoted.get(1..self.quoted.len().saturating_sub(1)).unwrap_or_default()
    }
}

impl<'b> Reader<'b> {
    /// Begins at the first byte of a document.
    #[must_use]
    pub fn new(text: &'b [u8]) -> Self {
        Self { text, at: 0, controls: has_controls(text), strict: false, around: Vec::new() }
    }

    /// Every string has to be Unicode, also where nobody looks at it. `None` where the bytes are no UTF-8.
    #[must_use]
    pub fn strict(text: &'b [u8]) -> Option<Self> {
        let unicode = text.is_ascii() || std::str::from_utf8(text).is_ok();
        unicode.then(|| Self { strict: true, ..Self::new(text) })
    }

    /// The value that comes next. Of all methods, `None` is for what is no JSON.
    pub fn value(&mut self) -> Option<Value<'b>> {
        match self.next_byte()? {
            b'"' => self.string().map(Value::Text),
            b'{' => {
                self.at += 1;
                Some(Value::Object)
            }
            b'[' => {
                self.at += 1;
                Some(Value::Array)
            }
            b'-' | b'0'..=b'9' => self.number(),
            b'n' => self.word(b"null", Value::Null),
            b't' => self.word(b"true", Value::Bool),
            b'f' => self.word(b"false", Value::Bool),
            _ => None,
        }
    }

    /// Reads the members of an object that was opened: `each` gets the name, and reads or skips the value.
    pub fn members(&mut self, mut each: impl FnMut(&mut Self, Text<'b>) -> Option<()>) -> Option<()> {
        if self.next_byte()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.name()?;
            each(self, name)?;
            if !self.goes_on(b'}')? {
                return Some(());
            }
        }
    }

    /// Reads the elements of an array that was opened.
    pub fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.next_byte()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            each(self)?;
            if !self.goes_on(b']')? {
                return Some(());
            }
        }
    }

    /// Where the value that comes next begins, or another byte of the document's structure.
    pub fn here(&mut self) -> Option<usize> {
        self.next_byte().map(|_| self.at)
    }

    /// Behind what was read last.
    #[must_use]
    pub const fn behind(&self) -> usize {
        self.at
    }

    /// Leaps over the value that comes next, however deep it is, and says where it stands.
    pub fn skip(&mut self) -> Option<Range<usize>> {
        let start = self.here()?;
        self.around.clear();
        loop {
            let opened = match self.value()? {
                Value::Object => Some((Container::Object, b'}')),
                Value::Array => Some((Container::Array, b']')),
                _ => None,
            };
            if let Some((container, end)) = opened {
                if self.next_byte()? == end {
                    self.at += 1;
                } else {
                    self.around.push(container);
                    if container == Container::Object {
                        self.name()?;
                    }
                    continue;
                }
            }
            loop {
                let goes_on = match self.around.last() {
                    None => return Some(start..self.at),
                    Some(Container::Object) => self.goes_on(b'}')? && self.name().map(|_| true)?,
                    Some(Container::Array) => self.goes_on(b']')?,
                };
                if goes_on {
                    break;
                }
                self.around.pop();
            }
        }
    }

    /// Nothing but space may follow a document.
    #[must_use]
    pub fn end(mut self) -> Option<()> {
        self.skip_space();
        (self.at == self.text.len()).then_some(())
    }

    fn next_byte(&mut self) -> Option<u8> {
        let byte = *self.text.get(self.at)?;
        if byte > b' ' {
            return Some(byte);
        }
        self.skip_space();
        self.text.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.text.get(self.at) {
            self.at += 1;
        }
    }

    /// The name of a member, and the colon behind it.
    fn name(&mut self) -> Option<Text<'b>> {
        if self.next_byte()? != b'"' {
            return None;
        }
        let name = self.string()?;
        if self.next_byte()? != b':' {
            return None;
        }
        self.at += 1;
        Some(name)
    }

    /// Behind an element or a member: whether another one follows, or the end.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let byte = self.next_byte()?;
        self.at += 1;
        if byte == b',' { Some(true) } else { (byte == end).then_some(false) }
    }

    fn word(&mut self, word: &[u8], value: Value<'b>) -> Option<Value<'b>> {
        let end = self.at + word.len();
        if self.text.get(self.at..end)? != word {
            return None;
        }
        self.at = end;
        Some(value)
    }

    /// The string that begins with the quote here.
    fn string(&mut self) -> Option<Text<'b>> {
        let start = self.at;
        let (mut at, mut longer, mut escaped) = (start + 1, 0, false);
        loop {
            at = mark_from(self.text, at)?;
            match self.text.get(at..)? {
                [b'"', ..] => break,
                [_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => {
                    at += 2;
                    longer += 1;
                }
                [_, b'u', ..] => {
                    self.at = at + 2;
                    longer += self.unicode_escape()?;
                    at = self.at;
                }
                _ => return None,
            }
            escaped = true;
        }
        self.at = at + 1;
        let quoted = self.text.get(start..self.at)?;
        if self.controls && has_controls(quoted) {
            return None;
        }
        Some(Text { quoted, longer, escaped })
    }

    /// Passes over the code unit of an escape, or over two of them that are one character; gives how many bytes that takes
    /// more than the character.
    fn unicode_escape(&mut self) -> Option<usize> {
        let unit = self.code_unit()?;
        if let Some(character) = char::from_u32(unit) {
            return Some(UNIT_BYTES - character.len_utf8());
        }
        let end = self.at;
        if unit < LOW_SURROGATES.start && self.text.get(end..end + 2) == Some(b"\\u") {
            self.at += 2;
            if LOW_SURROGATES.contains(&self.code_unit()?) {
                return Some(2 * UNIT_BYTES - 4);
            }
            self.at = end;
        }
        // Half a character, which is no Unicode.
        if self.strict { None } else { Some(0) }
    }

    fn code_unit(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self) -> Option<Value<'b>> {
        let rest = self.text.get(self.at..)?;
        let digits = digits_of(rest);
        let (whole, after) = rest.split_at_checked(digits)?;
        if !matches!(after.first(), Some(b'.' | b'e' | b'E' | b'+' | b'-')) && has_no_zero_in_front(whole) {
            self.at += digits;
            return Some(count_of(whole).map_or(Value::Number(whole), Value::Count));
        }
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
        let length = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let number = rest.get(..length).filter(|number| is_number(number))?;
        self.at += length;
        Some(Value::Number(number))
    }
}

/// Where some members of an object that is a whole document stand.
#[derive(Debug, Clone)]
pub struct Outline<'b> {
    document: &'b [u8],
    members: Vec<(&'static str, Member<'b>)>,
}

/// A member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member<'b> {
    Missing,
    Once {
        /// As it stands in the document.
        value: &'b [u8],
        at: usize,
    },
    /// Two parsers could read two different values.
    Twice,
}

impl<'b> Member<'b> {
    /// The one value that it has.
    #[must_use]
    pub const fn value(self) -> Option<&'b [u8]> {
        match self {
            Self::Once { value, .. } => Some(value),
            Self::Missing | Self::Twice => None,
        }
    }
}

impl<'b> Outline<'b> {
    /// For these members, none of which was found yet.
    #[must_use]
    pub fn new(document: &'b [u8], names: &[&'static str]) -> Self {
        Self { document, members: names.iter().map(|name| (*name, Member::Missing)).collect() }
    }

    /// Finds these members; `None` where the document is no object.
    #[must_use]
    pub fn read(document: &'b [u8], names: &[&'static str]) -> Option<Self> {
        let mut outline = Self::new(document, names);
        let mut reader = Reader::new(document);
        if reader.value()? != Value::Object {
            return None;
        }
        reader.members(|reader, name| {
            let place = reader.skip()?;
            outline.note(&name, place);
            Some(())
        })?;
        reader.end()?;
        Some(outline)
    }

    /// Keeps where a member was found, if it is one of those.
    pub fn note(&mut self, name: &Text<'_>, place: Range<usize>) {
        let Some((_, member)) = self.members.iter_mut().find(|(wanted, _)| name.is(wanted)) else { return };
        *member = match (&member, self.document.get(place.clone())) {
            (Member::Missing, Some(value)) => Member::Once { value, at: place.start },
            _ => Member::Twice,
        };
    }

    #[must_use]
    pub fn member(&self, name: &str) -> Member<'b> {
        self.members.iter().find(|(wanted, _)| *wanted == name).map_or(Member::Missing, |(_, member)| *member)
    }
}

/// Of an escape with a code unit, `\u` included.
const UNIT_BYTES: usize = 6;
const LOW_SURROGATES: Range<u32> = 0xdc00..0xe000;

/// Whether there is a control character. Without a way out of the loop, so that it takes many bytes at a time.
fn has_controls(text: &[u8]) -> bool {
    text.iter().fold(u8::MAX, |least, byte| least.min(*byte)) < b' '
}

/// Where the next quote or backslash stands. Most are near: code in a string has one in every other word, and there a call
/// of memchr takes longer than looking.
fn mark_from(text: &[u8], mut at: usize) -> Option<usize> {
    const NEAR_WORDS: usize = 4;
    for _ in 0..NEAR_WORDS {
        let Some(word) = text.get(at..).and_then(<[u8]>::first_chunk::<8>) else { break };
        let marks = marks_of(u64::from_le_bytes(*word));
        if marks != 0 {
            return Some(at + marks.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Some(at + memchr2(b'"', b'\\', text.get(at..)?)?)
}

/// The highest bit of each byte that is a quote or a backslash, up to the first one; beyond it, also of others.
const fn marks_of(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let quotes = word ^ (ONES * b'"' as u64);
    let backslashes = word ^ (ONES * b'\\' as u64);
    // Of a byte below 128, one less has the highest bit only if it is zero.
    (quotes.wrapping_sub(ONES) | backslashes.wrapping_sub(ONES)) & !word & HIGHEST
}

fn digits_of(text: &[u8]) -> usize {
    text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len())
}

fn has_no_zero_in_front(whole: &[u8]) -> bool {
    matches!(whole, [b'0'] | [b'1'..=b'9', ..])
}

fn count_of(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |count, digit| count.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// Whether this is a number from its first byte to its last.
fn is_number(text: &[u8]) -> bool {
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let (whole, rest) = text.split_at(digits_of(text));
    let rest = match rest.strip_prefix(b".") {
        Some(fraction) => match digits_of(fraction) {
            0 => return false,
            digits => fraction.get(digits..).unwrap_or_default(),
        },
        None => rest,
    };
    let exponent = match rest {
        [] => return has_no_zero_in_front(whole),
        [b'e' | b'E', b'+' | b'-', digits @ ..] | [b'e' | b'E', digits @ ..] => digits,
        _ => return false,
    };
    has_no_zero_in_front(whole) && !exponent.is_empty() && digits_of(exponent) == exponent.len()
}

#[cfg(test)]
mod tests;
