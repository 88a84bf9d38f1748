//! Reads a few small values out of a JSON document that passes by in pieces, and skips everything else.
//!
//! A response may be 25 MB of base64 or of vectors, so nothing is kept but the value that is wanted, and memory does
//! not depend on the document: where no wanted path can lead, only brackets are counted and strings are leapt over.
//! It is no validator: it accepts some text that is no JSON, but never reports a value from outside its path. Keys
//! with escapes match no name, since AWS writes none. Measured in one run: a 2 KB Converse body 1.8 µs (`serde_json`
//! into a `Value`: 2.7), 39 KB 14 µs (25), an image of 4 MB in base64 62 µs; and it needs no contiguous body.

use memchr::memchr2;

/// Longer than any name in a table; a longer key can only match `*`.
const KEY_BYTES_MAX: usize = 48;
/// Of a number's text; enough for every u64 and for seconds with a fraction.
const NUMBER_BYTES_MAX: usize = 32;
/// Longer than the longest path of a table, and one more for an array whose elements are counted.
const DEPTH_MAX: usize = 16;
/// Of a captured string that arrives in pieces: more than any model ARN (2,048).
const TEXT_BYTES_MAX: usize = 4096;

/// Any key of an object, in a path.
pub(super) const ANY: &str = "*";
/// Every element of an array, in a path.
pub(super) const EACH: &str = "[]";

/// An object of which some members are wanted.
#[derive(Debug)]
pub(super) struct Site<R: 'static, F: 'static> {
    /// Keys from the root; [`ANY`] and [`EACH`] stand for themselves.
    pub path: &'static [&'static str],
    pub role: R,
    pub members: &'static [Member<F>],
}

/// One wanted member.
#[derive(Debug)]
pub(super) struct Member<F: 'static> {
    pub name: &'static str,
    pub want: Want,
    pub field: F,
}

/// In which form a member is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    Number,
    /// A short string; one of over 4,096 bytes is [`Value::Other`].
    Text,
    /// A string of any length. For documents that are in memory anyway, where it is lent.
    Blob,
    /// Only how many bytes the string has, escapes and all.
    Length,
    /// Only how many elements the array has.
    Elements,
}

/// What was found at a wanted member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A whole number, saturating at `u64::MAX`.
    Count(u64),
    /// Any other number, as written, cut at 32 bytes.
    Number(&'a [u8]),
    /// The inside of a string, escapes untouched.
    Text(&'a [u8]),
    Length(u64),
    Elements(u64),
    Null,
    /// Present, but not of the kind that was wanted.
    Other,
}

/// Takes what the scanner finds.
pub(super) trait Sink {
    type Role: Copy + 'static;
    type Field: Copy + 'static;
    /// The object of a site opens; its earlier namesake, if any, is void (JSON: the last duplicate wins).
    fn begin(&mut self, role: Self::Role);
    /// The object of a site is complete.
    fn end(&mut self, role: Self::Role);
    fn value(&mut self, role: Self::Role, field: Self::Field, value: Value<'_>);
}

/// The document is no JSON; nothing more will be found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    InKey,
    Colon,
    InString,
    InNumber,
    InLiteral,
    AfterValue,
    /// Inside a container no wanted path leads into.
    Skipping,
    SkippingString,
    Done,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Object,
    Array,
}

/// A container that a wanted path leads through.
#[derive(Debug, Clone, Copy)]
struct Level<R, F> {
    kind: Kind,
    /// Bit n: the path of site n leads through here.
    sites: u32,
    elements: u64,
    /// The elements of this array are to be reported under this name.
    counted: Option<Wanted<R, F>>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted<R, F> {
    role: R,
    field: F,
    want: Want,
}

/// The scanner of one document at a time. [`Self::reset`] starts the next one without an allocation.
#[derive(Debug)]
pub(super) struct Scanner<R: 'static, F: 'static> {
    sites: &'static [Site<R, F>],
    state: State,
    levels: [Level<R, F>; DEPTH_MAX],
    depth: usize,
    /// Containers open below the first unwanted one, that one included.
    skipped_depth: u64,
    /// Where the value that comes next may lead, and as what it is wanted.
    next_sites: u32,
    wanted: Option<Wanted<R, F>>,
    /// The last byte of a string was a backslash.
    escaped: bool,
    key: [u8; KEY_BYTES_MAX],
    /// Longer than the buffer: the key matches no name.
    key_bytes: usize,
    number: [u8; NUMBER_BYTES_MAX],
    number_bytes: usize,
    /// The value of a number that so far has only digits.
    count: Option<u64>,
    /// The beginning of a wanted string that arrives in pieces.
    text: Vec<u8>,
    string_bytes: u64,
}

impl<R: Copy, F: Copy> Scanner<R, F> {
    /// `sites`: at most 32, paths shorter than 16; a test holds every table to it.
    pub(super) const fn new(sites: &'static [Site<R, F>]) -> Self {
        let level = Level { kind: Kind::Array, sites: 0, elements: 0, counted: None };
        Self {
            sites,
            state: State::Value,
            levels: [level; DEPTH_MAX],
            depth: 0,
            skipped_depth: 0,
            next_sites: u32::MAX,
            wanted: None,
            escaped: false,
            key: [0; KEY_BYTES_MAX],
            key_bytes: 0,
            number: [0; NUMBER_BYTES_MAX],
            number_bytes: 0,
            count: None,
            text: Vec::new(),
            string_bytes: 0,
        }
    }

    pub(super) fn reset(&mut self) {
        self.state = State::Value;
        self.depth = 0;
        self.skipped_depth = 0;
        self.next_sites = u32::MAX;
        self.wanted = None;
        self.escaped = false;
        self.text.clear();
    }

    /// Whether one whole value has been read.
    pub(super) fn complete(&self) -> bool {
        self.state == State::Done
    }

    /// Whether a value has begun.
    pub(super) fn begun(&self) -> bool {
        self.state != State::Value || self.depth > 0
    }

    /// Reads on. After [`Malformed`] it stays that way.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        sink: &mut impl Sink<Role = R, Field = F>,
    ) -> Result<(), Malformed> {
        while let Some((&byte, after)) = bytes.split_first() {
            bytes = match self.state {
                State::Skipping => self.skip(bytes),
                State::SkippingString => self.skip_string(bytes),
                State::InString => self.read_string(bytes, sink),
                State::InKey => self.read_key(bytes),
                State::InNumber => self.read_number(bytes, sink),
                State::InLiteral => self.read_literal(bytes),
                State::Failed => return Err(Malformed),
                _ => {
                    if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                        self.step(byte, sink);
                    }
                    after
                }
            };
        }
        if self.state == State::Failed { Err(Malformed) } else { Ok(()) }
    }

    /// One byte that is structure.
    fn step(&mut self, byte: u8, sink: &mut impl Sink<Role = R, Field = F>) {
        match (self.state, byte) {
            (State::Key | State::KeyOrEnd, b'"') => {
                self.state = State::InKey;
                self.key_bytes = 0;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::AfterValue, b',') => self.next_member(),
            (State::KeyOrEnd | State::AfterValue, b'}') => self.close(Kind::Object, sink),
            (State::ValueOrEnd | State::AfterValue, b']') => self.close(Kind::Array, sink),
            (State::Value | State::ValueOrEnd, _) => self.begin_value(byte, sink),
            _ => self.state = State::Failed,
        }
    }

    fn top(&mut self) -> Option<&mut Level<R, F>> {
        self.depth.checked_sub(1).and_then(|index| self.levels.get_mut(index))
    }

    fn next_member(&mut self) {
        self.state = match self.top() {
            Some(Level { kind: Kind::Object, .. }) => State::Key,
            Some(Level { kind: Kind::Array, .. }) => {
                self.enter_element();
                State::Value
            }
            None => State::Failed,
        };
    }

    fn begin_value(&mut self, byte: u8, sink: &mut impl Sink<Role = R, Field = F>) {
        if let Some(level) = self.top()
            && level.kind == Kind::Array
        {
            level.elements = level.elements.saturating_add(1);
        }
        match byte {
            b'{' => self.open(Kind::Object, sink),
            b'[' => self.open(Kind::Array, sink),
            b'"' => {
                self.state = State::InString;
                self.string_bytes = 0;
                self.text.clear();
            }
            b'-' | b'0'..=b'9' => {
                self.state = State::InNumber;
                self.number_bytes = 0;
                self.count = Some(0);
                self.take_digit(byte);
            }
            b't' | b'f' | b'n' => {
                self.state = State::InLiteral;
                if let Some(wanted) = self.wanted.take() {
                    let value = if byte == b'n' { Value::Null } else { Value::Other };
                    sink.value(wanted.role, wanted.field, value);
                }
            }
            _ => self.state = State::Failed,
        }
    }

    fn open(&mut self, kind: Kind, sink: &mut impl Sink<Role = R, Field = F>) {
        let wanted = self.wanted.take();
        let counted = wanted.filter(|wanted| kind == Kind::Array && wanted.want == Want::Elements);
        if let Some(wanted) = wanted
            && counted.is_none()
        {
            sink.value(wanted.role, wanted.field, Value::Other);
        }
        let sites = self.next_sites & self.sites_deeper_or_here(kind);
        if sites == 0 && counted.is_none() {
            self.skipped_depth = 1;
            self.state = State::Skipping;
            return;
        }
        let Some(level) = self.levels.get_mut(self.depth) else {
            self.state = State::Failed;
            return;
        };
        *level = Level { kind, sites, elements: 0, counted };
        self.depth += 1;
        if kind == Kind::Object {
            self.state = State::KeyOrEnd;
            self.each_site_here(sites, |role| sink.begin(role));
        } else {
            self.state = State::ValueOrEnd;
            self.enter_element();
        }
    }

    /// Of all sites, those that an object or array at the present depth can still serve.
    fn sites_deeper_or_here(&self, kind: Kind) -> u32 {
        self.filter_sites(u32::MAX, |path| match path.get(self.depth) {
            None => kind == Kind::Object && path.len() == self.depth,
            Some(&segment) => (segment == EACH) == (kind == Kind::Array),
        })
    }

    fn filter_sites(&self, among: u32, keep: impl Fn(&'static [&'static str]) -> bool) -> u32 {
        let mut kept = 0;
        for (site, bit) in self.sites.iter().zip((0..u32::BITS).map(|shift| 1u32 << shift)) {
            if among & bit != 0 && keep(site.path) {
                kept |= bit;
            }
        }
        kept
    }

    fn each_site_here(&self, sites: u32, mut act: impl FnMut(R)) {
        for (site, bit) in self.sites.iter().zip((0..u32::BITS).map(|shift| 1u32 << shift)) {
            if sites & bit != 0 && site.path.len() + 1 == self.depth {
                act(site.role);
            }
        }
    }

    fn close(&mut self, kind: Kind, sink: &mut impl Sink<Role = R, Field = F>) {
        let Some(level) = self.top().map(|level| *level).filter(|level| level.kind == kind) else {
            self.state = State::Failed;
            return;
        };
        if kind == Kind::Object {
            self.each_site_here(level.sites, |role| sink.end(role));
        }
        if let Some(counted) = level.counted {
            sink.value(counted.role, counted.field, Value::Elements(level.elements));
        }
        self.depth -= 1;
        self.value_done();
    }

    fn value_done(&mut self) {
        self.wanted = None;
        self.state = if self.depth == 0 { State::Done } else { State::AfterValue };
    }

    /// What an element of the innermost array may lead to; such a value is never itself a wanted member.
    fn enter_element(&mut self) {
        let depth = self.depth;
        let among = self.top().map_or(0, |level| level.sites);
        self.wanted = None;
        self.next_sites =
            self.filter_sites(among, |path| path.get(depth.wrapping_sub(1)).is_some_and(|&segment| segment == EACH));
    }

    /// What the member `key` of the innermost object may lead to, and whether it is wanted.
    fn enter_member(&mut self, key: &[u8]) {
        let here = self.depth.wrapping_sub(1);
        let among = self.top().map_or(0, |level| level.sites);
        self.wanted = None;
        self.next_sites = 0;
        for (site, bit) in self.sites.iter().zip((0..u32::BITS).map(|shift| 1u32 << shift)) {
            if among & bit == 0 {
                continue;
            }
            match site.path.get(here) {
                Some(&segment) if segment == ANY || (segment.as_bytes() == key && segment != EACH) => {
                    self.next_sites |= bit;
                }
                Some(_) => {}
                None => {
                    if let Some(member) = site.members.iter().find(|member| member.name.as_bytes() == key) {
                        self.wanted = Some(Wanted { role: site.role, field: member.field, want: member.want });
                    }
                }
            }
        }
    }

    fn read_key<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let escaped_before = self.escaped;
        let (inside, rest, closed) = self.string_part(bytes);
        if closed && self.key_bytes == 0 && !escaped_before && !inside.contains(&b'\\') {
            self.enter_member(inside);
        } else {
            if let Some(room) = self.key.get_mut(self.key_bytes..)
                && let Some(room) = room.get_mut(..inside.len())
            {
                room.copy_from_slice(inside);
            }
            self.key_bytes = self.key_bytes.saturating_add(inside.len());
            if closed {
                let key = self.key;
                let key = key.get(..self.key_bytes).filter(|key| !key.contains(&b'\\')).unwrap_or_default();
                self.enter_member(key);
            }
        }
        if closed {
            self.state = State::Colon;
        }
        rest
    }

    fn read_string<'a>(&mut self, bytes: &'a [u8], sink: &mut impl Sink<Role = R, Field = F>) -> &'a [u8] {
        let (inside, rest, closed) = self.string_part(bytes);
        let in_one_piece = closed && self.string_bytes == 0;
        self.string_bytes = self.string_bytes.saturating_add(inside.len() as u64);
        if let Some(wanted) = self.wanted {
            let room = match wanted.want {
                Want::Text => TEXT_BYTES_MAX.saturating_sub(self.text.len()),
                Want::Blob => usize::MAX,
                _ => 0,
            };
            if !in_one_piece {
                self.text.extend_from_slice(inside.get(..room).unwrap_or(inside));
            }
            if closed {
                let value = match wanted.want {
                    Want::Text if self.string_bytes > TEXT_BYTES_MAX as u64 => Value::Other,
                    Want::Text | Want::Blob => Value::Text(if in_one_piece { inside } else { &self.text }),
                    Want::Length => Value::Length(self.string_bytes),
                    Want::Number | Want::Elements => Value::Other,
                };
                sink.value(wanted.role, wanted.field, value);
            }
        }
        if closed {
            self.value_done();
        }
        rest
    }

    /// Splits at the closing quote: what is inside, what follows, and whether the quote was there.
    fn string_part<'a>(&mut self, bytes: &'a [u8]) -> (&'a [u8], &'a [u8], bool) {
        let mut at = 0;
        loop {
            if self.escaped {
                if at >= bytes.len() {
                    return (bytes, &[], false);
                }
                at += 1;
                self.escaped = false;
            }
            let tail = bytes.get(at..).unwrap_or_default();
            let Some(found) = memchr2(b'"', b'\\', tail) else { return (bytes, &[], false) };
            let end = at + found;
            if bytes.get(end) == Some(&b'"') {
                let (inside, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
                return (inside, rest.get(1..).unwrap_or_default(), true);
            }
            self.escaped = true;
            at = end + 1;
        }
    }

    fn skip<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        for (index, byte) in bytes.iter().enumerate() {
            match byte {
                b'"' => self.state = State::SkippingString,
                b'{' | b'[' => {
                    self.skipped_depth = self.skipped_depth.saturating_add(1);
                    continue;
                }
                b'}' | b']' => {
                    self.skipped_depth = self.skipped_depth.saturating_sub(1);
                    if self.skipped_depth > 0 {
                        continue;
                    }
                    self.value_done();
                }
                _ => continue,
            }
            return bytes.get(index + 1..).unwrap_or_default();
        }
        &[]
    }

    fn skip_string<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (_, rest, closed) = self.string_part(bytes);
        if closed {
            self.state = State::Skipping;
        }
        rest
    }

    fn read_number<'a>(&mut self, bytes: &'a [u8], sink: &mut impl Sink<Role = R, Field = F>) -> &'a [u8] {
        for (index, &byte) in bytes.iter().enumerate() {
            if matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') {
                self.take_digit(byte);
                continue;
            }
            if let Some(wanted) = self.wanted {
                let value = match (wanted.want, self.count) {
                    (Want::Number, Some(count)) => Value::Count(count),
                    (Want::Number, None) => Value::Number(self.number.get(..self.number_bytes).unwrap_or_default()),
                    _ => Value::Other,
                };
                sink.value(wanted.role, wanted.field, value);
            }
            self.value_done();
            return bytes.get(index..).unwrap_or_default();
        }
        &[]
    }

    fn take_digit(&mut self, byte: u8) {
        self.count = match (self.count, byte) {
            (Some(count), b'0'..=b'9') => Some(count.saturating_mul(10).saturating_add(u64::from(byte - b'0'))),
            _ => None,
        };
        if let Some(place) = self.number.get_mut(self.number_bytes) {
            *place = byte;
            self.number_bytes += 1;
        }
    }

    fn read_literal<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|byte| !byte.is_ascii_lowercase()) else { return &[] };
        self.value_done();
        bytes.get(end..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
