//! Lists: `{"Items":[…],"NextCursor":"…"|null}`, newest first.
//!
//! A cursor is the id of the last item of the page before. Ids grow with time, so what is added while
//! somebody pages comes before what they have seen, and nothing is shown twice or left out.

use crate::api::query::Query;
use herald_access::problem::Problem;
use serde::Serialize;
use std::fmt::Display;
use std::str::FromStr;
use utoipa::ToSchema;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct List<T> {
    /// Newest first.
    pub items: Vec<T>,
    /// What to give as `Cursor` for the next page; null on the last.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paging<K> {
    pub limit: usize,
    /// Only what comes after this one in the list.
    pub before: Option<K>,
}

/// The parameters of every list.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query, rename_all = "PascalCase")]
#[expect(dead_code, reason = "describes what Paging::read reads")]
pub(crate) struct PageParams {
    /// The most items on the page.
    #[param(default = 50, minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// The `NextCursor` of the page before.
    cursor: Option<String>,
}

impl<K: FromStr> Paging<K> {
    /// Reads `Limit` and `Cursor`.
    pub(crate) fn read(query: &mut Query) -> Self {
        let must = format!("a whole number from 1 to {MAX_LIMIT}");
        let limit = query.read("Limit", "range", must, |text| {
            text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
        });
        let before = query.read("Cursor", "cursor", "the NextCursor of the page before", |text| {
            text.parse().ok()
        });
        Self {
            limit: limit.unwrap_or(DEFAULT_LIMIT),
            before,
        }
    }

    /// Reads `Limit` and `Cursor` of a list without other parameters.
    pub(crate) fn only(mut query: Query) -> Result<Self, Problem> {
        query.only(&["Limit", "Cursor"]);
        let paging = Self::read(&mut query);
        query.finish(paging)
    }

    /// How many to ask for: one more than the page has, which says whether there is a next one.
    pub(crate) fn ask(&self) -> usize {
        self.limit + 1
    }
}

impl<T> List<T> {
    /// The page of what was found on asking for [`Paging::ask`].
    pub(crate) fn page<K: Display>(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| key(last).to_string());
        Self { items, next_cursor }
    }

    /// A list that is always whole.
    pub(crate) fn whole(items: Vec<T>) -> Self {
        Self {
            items,
            next_cursor: None,
        }
    }

    /// The same page in another shape.
    pub(crate) fn map<U>(self, shape: impl FnMut(T) -> U) -> List<U> {
        List {
            items: self.items.into_iter().map(shape).collect(),
            next_cursor: self.next_cursor,
        }
    }
}
