//! Token counts as the dialects of the families report them, and what they amount to in billable quantities.
//!
//! Decides whether an input count includes the cached tokens: Bedrock's `inputTokens` does not, OpenAI's
//! `prompt_tokens` does, and the stated total decides where it can (one provider behind Converse was seen to report
//! inclusively). Sources: TokenUsage and CacheDetail of botocore 1.44.5; OpenAI's and Anthropic's usage objects.

use crate::types::tokens::Tokens;
use crate::types::usage::Usage;

/// Counts that one document, or a whole stream, has reported. `None` is "not reported", which is not zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub input: Option<u64>,
    /// The dialect counts cached tokens into `input`, unless the total says otherwise.
    pub input_includes_cache: bool,
    pub output: Option<u64>,
    pub cache_read: Option<u64>,
    /// All cache writes, whatever their lifetime.
    pub cache_write: Option<u64>,
    pub cache_write_5m: Option<u64>,
    pub cache_write_1h: Option<u64>,
    pub total: Option<u64>,
    pub audio_input: Option<u64>,
    pub audio_output: Option<u64>,
    pub queries: Option<u64>,
}

impl Counts {
    /// Whether anything that is billed by the token was reported.
    pub(super) fn any(&self) -> bool {
        [self.input, self.output, self.audio_input, self.audio_output].iter().any(Option::is_some)
    }

    /// Takes over what a later report of the same call states. Such reports are cumulative, so the later one counts;
    /// but a zero does not undo a count, because the first event of a stream has input and the last may omit it.
    pub(super) fn update(&mut self, later: &Self) {
        self.input_includes_cache |= later.input_includes_cache;
        for (mine, theirs) in self.fields_mut().into_iter().zip(later.fields()) {
            *mine = match (*mine, theirs) {
                (Some(count), Some(0) | None) => Some(count),
                (_, later) => later,
            };
        }
    }

    /// Fills in what is missing from a second source of the same call, without ever adding the two up.
    /// A source that includes the cache in its input is complete as it stands.
    pub(super) fn fill_from(&mut self, other: &Self) {
        if self.input_includes_cache && self.input.is_some() {
            self.output = self.output.or(other.output);
            return;
        }
        for (mine, theirs) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine = mine.or(theirs);
        }
    }

    /// Adds another call of the same request (an agent calls its model many times).
    pub(super) fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine = match (*mine, theirs) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            };
        }
    }

    fn fields(&self) -> [Option<u64>; 10] {
        [
            self.input,
            self.output,
            self.cache_read,
            self.cache_write,
            self.cache_write_5m,
            self.cache_write_1h,
            self.total,
            self.audio_input,
            self.audio_output,
            self.queries,
        ]
    }

    fn fields_mut(&mut self) -> [&mut Option<u64>; 10] {
        [
            &mut self.input,
            &mut self.output,
            &mut self.cache_read,
            &mut self.cache_write,
            &mut self.cache_write_5m,
            &mut self.cache_write_1h,
            &mut self.total,
            &mut self.audio_input,
            &mut self.audio_output,
            &mut self.queries,
        ]
    }

    /// The billable quantities.
    pub(super) fn usage(&self) -> Usage {
        let read = self.cache_read.unwrap_or(0);
        let split = self.cache_write_5m.unwrap_or(0).saturating_add(self.cache_write_1h.unwrap_or(0));
        let written = self.cache_write.unwrap_or(0).max(split);
        let written_1h = self.cache_write_1h.unwrap_or(0).min(written);
        let reported = self.input.unwrap_or(0);
        let cached = read.saturating_add(written);
        let input = if self.input_covers(reported, cached) { reported.saturating_sub(cached) } else { reported };
        Usage {
            input: Tokens(input),
            output: Tokens(self.output.unwrap_or(0)),
            cache_read: Tokens(read),
            cache_write_5m: Tokens(written - written_1h),
            cache_write_1h: Tokens(written_1h),
            audio_input: Tokens(self.audio_input.unwrap_or(0)),
            audio_output: Tokens(self.audio_output.unwrap_or(0)),
            queries: self.queries.unwrap_or(0),
            ..Usage::default()
        }
    }

    /// Whether the reported input contains the cached tokens.
    fn input_covers(&self, input: u64, cached: u64) -> bool {
        if cached == 0 || cached > input {
            return false;
        }
        let without_cache = input.saturating_add(self.output.unwrap_or(0));
        match self.total {
            Some(total) if total == without_cache => true,
            Some(total) if total == without_cache.saturating_add(cached) => false,
            _ => self.input_includes_cache,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(input: u64, output: u64, read: u64, write: u64, total: Option<u64>) -> Counts {
        Counts {
            input: Some(input),
            output: Some(output),
            cache_read: Some(read),
            cache_write: Some(write),
            total,
            ..Counts::default()
        }
    }

    #[test]
    fn the_total_decides_whether_the_input_includes_the_cache() {
        for (name, counts, input) in [
            ("additive by its total", counts(10, 2, 7, 5, Some(24)), 10),
            ("inclusive by its total", counts(30, 2, 7, 5, Some(32)), 18),
            ("no total, additive dialect", counts(30, 2, 7, 5, None), 30),
            ("odd total, additive dialect", counts(30, 2, 7, 5, Some(99)), 30),
            ("less input than cache cannot include it", counts(3, 2, 7, 5, Some(5)), 3),
            ("nothing cached", counts(30, 2, 0, 0, Some(32)), 30),
        ] {
            assert_eq!(counts.usage().input, Tokens(input), "{name}");
        }
        let dialect = Counts { input_includes_cache: true, ..counts(30, 2, 7, 5, None) };
        assert_eq!(dialect.usage().input, Tokens(18));
        let stated = Counts { input_includes_cache: true, ..counts(30, 2, 7, 5, Some(44)) };
        assert_eq!(stated.usage().input, Tokens(30));
    }

    #[test]
    fn cache_writes_of_unknown_lifetime_count_as_five_minutes() {
        let mut split = counts(1, 1, 0, 100, None);
        split.cache_write_1h = Some(60);
        assert_eq!((split.usage().cache_write_5m, split.usage().cache_write_1h), (Tokens(40), Tokens(60)));
        split.cache_write_5m = Some(70);
        assert_eq!((split.usage().cache_write_5m, split.usage().cache_write_1h), (Tokens(70), Tokens(60)));
        split.cache_write = None;
        assert_eq!((split.usage().cache_write_5m, split.usage().cache_write_1h), (Tokens(70), Tokens(60)));
    }

    #[test]
    fn hostile_counts_saturate() {
        let mut all = counts(u64::MAX, u64::MAX, u64::MAX, u64::MAX, Some(u64::MAX));
        let again = all;
        all.add(&again);
        assert_eq!(all.usage().output, Tokens(u64::MAX));
    }
}
