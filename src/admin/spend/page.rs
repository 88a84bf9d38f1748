//! Which page a path means, which parameters it knows, and by what it sums.

use crate::budget::entry::Dimension;
use crate::store::Kind;

/// The pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// Entry by entry.
    Logs,
    /// One sum over everything.
    Total,
    /// Sums by what the query says.
    Report,
    /// Sums by what the path says.
    By(Group),
}

/// By what a report sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    Day,
    Model,
    Of(Dimension),
}

impl Page {
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/spend/logs" => Self::Logs,
            "/global/spend" => Self::Total,
            "/global/spend/report" => Self::Report,
            "/spend/keys" => Self::By(Group::Of(Dimension::Key)),
            "/spend/teams" => Self::By(Group::Of(Dimension::Team)),
            "/spend/users" => Self::By(Group::Of(Dimension::User)),
            "/spend/customers" | "/spend/end_users" => Self::By(Group::Of(Dimension::Customer)),
            "/spend/tags" => Self::By(Group::Of(Dimension::Tag)),
            "/spend/models" => Self::By(Group::Model),
            _ => return None,
        })
    }

    pub(super) const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Logs => &[
                "api_key",
                "user_id",
                "team_id",
                "end_user",
                "model",
                "tag",
                "request_id",
                "start_date",
                "end_date",
                "page_token",
                "page_size",
            ],
            Self::Total => &["start_date", "end_date"],
            Self::Report => &["start_date", "end_date", "group_by", "limit"],
            Self::By(_) => &["start_date", "end_date", "limit"],
        }
    }
}

impl Group {
    pub(super) const ALL: [Self; 7] = [
        Self::Day,
        Self::Of(Dimension::Key),
        Self::Of(Dimension::Team),
        Self::Of(Dimension::User),
        Self::Of(Dimension::Customer),
        Self::Of(Dimension::Tag),
        Self::Model,
    ];

    /// As `group_by` names it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Of(dimension) => dimension.as_str(),
        }
    }

    /// The member that says what a line is of.
    pub(super) const fn member(self) -> &'static str {
        match self {
            Self::Day => "date",
            Self::Model => "model",
            Self::Of(Dimension::Key) => "api_key",
            Self::Of(Dimension::Team) => "team_id",
            Self::Of(Dimension::User) => "user_id",
            Self::Of(Dimension::Customer) => "end_user",
            Self::Of(Dimension::Tag) => "tag",
        }
    }

    /// The member that holds its name, and where names are kept, of what can have one.
    pub(super) const fn alias(self) -> Option<(&'static str, Kind)> {
        match self {
            Self::Of(Dimension::Key) => Some(("key_alias", Kind::Key)),
            Self::Of(Dimension::Team) => Some(("team_alias", Kind::Team)),
            Self::Of(Dimension::User) => Some(("user_alias", Kind::User)),
            Self::Of(Dimension::Customer) => Some(("alias", Kind::Customer)),
            Self::Day | Self::Model | Self::Of(Dimension::Tag) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Group, Page};

    #[test]
    fn only_exact_paths_are_pages() {
        for (path, page) in [
            ("/spend/logs", Some(Page::Logs)),
            ("/global/spend", Some(Page::Total)),
            ("/global/spend/report", Some(Page::Report)),
            ("/spend/models", Some(Page::By(Group::Model))),
            ("/spend/logs/", None),
            ("/spend", None),
            ("/bedrock/spend/logs", None),
        ] {
            assert_eq!(Page::of(path), page, "{path}");
        }
    }
}
