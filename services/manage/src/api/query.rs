//! Query parameters, each known, each once.

use axum::extract::{FromRequestParts, Query as AxumQuery};
use axum::http::request::Parts;
use herald_access::problem::Problem;
use herald_domain::problem::{Fault, Faults, pointer_to};
use std::fmt::Display;
use std::str::FromStr;

/// The parameters of a request, and the faults found so far. A parameter with an empty value counts as
/// absent, so that forms and `?Status=&Limit=` work; but not for [`Query::switch`].
#[derive(Debug)]
pub(crate) struct Query {
    given: Vec<(String, String)>,
    faults: Faults,
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let given = AxumQuery::<Vec<(String, String)>>::try_from_uri(&parts.uri).map_err(|rejection| {
            let detail = format!("the query string could not be read: {rejection}");
            Problem::faults(Fault::new("", "query", detail))
        })?;
        Ok(Self {
            given: given.0,
            faults: Faults::default(),
        })
    }
}

impl Query {
    /// Whether there is none at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.given.is_empty()
    }

    /// Refuses parameters that are not known or are given twice.
    pub(crate) fn only(&mut self, known: &[&str]) {
        let mut seen: Vec<&str> = Vec::with_capacity(self.given.len());
        for (name, _) in &self.given {
            let name = name.as_str();
            if !known.contains(&name) {
                let detail = || match known {
                    [] => format!("there is no parameter {name}, nor any other"),
                    known => format!("there is no parameter {name}; the parameters are {}", known.join(", ")),
                };
                self.faults
                    .push_with(|| Fault::new(pointer_to(name), "known_parameter", detail()));
            } else if seen.contains(&name) {
                let detail = || format!("{name} is given more than once");
                self.faults
                    .push_with(|| Fault::new(pointer_to(name), "unique", detail()));
            } else {
                seen.push(name);
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .given
            .iter()
            .find(|(given, value)| given == name && !value.is_empty())?;
        Some(value)
    }

    /// The parameter read with `read`; where it has no meaning, `rule` and what it must be are the fault.
    pub(crate) fn read<T>(
        &mut self,
        name: &str,
        rule: &'static str,
        must: impl Display,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.get(name)?);
        if value.is_none() {
            self.faults
                .add(pointer_to(name), rule, format!("{name} must be {must}"));
        }
        value
    }

    /// Whether the parameter is `true`. An empty value is a fault and not `false`: whoever writes `?DryRun` must not change
    /// something for real.
    pub(crate) fn switch(&mut self, name: &str) -> bool {
        let given = self.given.iter().find(|(given, _)| given == name);
        let read = given.map(|(_, value)| value.parse::<bool>());
        match read {
            None => false,
            Some(Ok(value)) => value,
            Some(Err(_neither)) => {
                let detail = format!("{name} must be true or false; {name}=true switches it on");
                self.faults.add(pointer_to(name), "boolean", detail);
                false
            }
        }
    }

    /// The parameter as a GUID.
    pub(crate) fn guid<T: FromStr>(&mut self, name: &str) -> Option<T> {
        self.read(name, "guid", "a GUID", |text| text.parse().ok())
    }

    /// What was read, unless something was wrong.
    pub(crate) fn finish<T>(self, read: T) -> Result<T, Problem> {
        self.faults.into_result(read).map_err(Problem::faults)
    }
}
