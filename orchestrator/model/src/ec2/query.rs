//! A request of the query protocol: one flat object, its lists numbered from 1.

use crate::ApiError;
use serde_json::{Map, Value};

/// Values of one filter, at most; AWS refuses more.
const FILTER_VALUES: usize = 200;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Query<'a> {
    map: Option<&'a Map<String, Value>>,
}

/// What a filter's value asks for.
#[derive(Debug)]
pub(crate) struct Pattern<'a> {
    text: &'a str,
    wild: bool,
}

impl Pattern<'_> {
    pub(crate) fn fits(&self, text: &str) -> bool {
        if self.wild { super::wildcard(self.text, text) } else { self.text == text }
    }
}

#[derive(Debug)]
pub(crate) struct Filter<'a> {
    pub(crate) name: &'a str,
    pub(crate) values: Vec<Pattern<'a>>,
}

impl Filter<'_> {
    pub(crate) fn fits(&self, text: &str) -> bool {
        self.values.iter().any(|value| value.fits(text))
    }
}

impl<'a> Query<'a> {
    pub(crate) fn new(body: &'a Value) -> Self {
        Self { map: body.as_object() }
    }

    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        self.map?.get(name)?.as_str()
    }

    pub(crate) fn required(self, name: &str) -> Result<&'a str, ApiError> {
        self.text(name).ok_or_else(|| ApiError::new("MissingParameter", format!("The request must contain the parameter {name}")))
    }

    pub(crate) fn flag(self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub(crate) fn number(self, name: &str) -> Result<Option<u32>, ApiError> {
        self.text(name)
            .map(|text| {
                text.parse().map_err(|_| super::invalid_value(format!("Value ({text}) for parameter {name} is invalid.")))
            })
            .transpose()
    }

    /// Members `NAME.1`, `NAME.2`, ….
    pub(crate) fn list(self, name: &str) -> Vec<&'a str> {
        (1..).map_while(|n| self.text(&format!("{name}.{n}"))).collect()
    }

    /// The prefixes `NAME.1.`, `NAME.2.`, … for which any member exists.
    pub(crate) fn structures(self, name: &str) -> Vec<String> {
        let Some(map) = self.map else { return Vec::new() };
        (1..).map(|n| format!("{name}.{n}.")).take_while(|prefix| map.keys().any(|key| key.starts_with(prefix))).collect()
    }

    /// Tags below a prefix such as `Tag.` or `TagSpecification.1.Tag.`.
    pub(crate) fn tags(self, list: &str) -> Vec<(String, String)> {
        self.structures(list)
            .iter()
            .map(|at| {
                let text = |member: &str| self.text(&format!("{at}{member}")).unwrap_or_default().to_owned();
                (text("Key"), text("Value"))
            })
            .collect()
    }

    /// The tags that `TagSpecification` gives to resources of one type.
    pub(crate) fn tags_for(self, kind: &str) -> Result<Vec<(String, String)>, ApiError> {
        let mut tags = Vec::new();
        for at in self.structures("TagSpecification") {
            if self.text(&format!("{at}ResourceType")) == Some(kind) {
                tags.extend(self.tags(&format!("{at}Tag")));
            }
        }
        super::check_tags(&tags)?;
        Ok(tags)
    }

    pub(crate) fn filters(self) -> Result<Vec<Filter<'a>>, ApiError> {
        let mut filters = Vec::new();
        for n in 1.. {
            let Some(name) = self.text(&format!("Filter.{n}.Name")) else { break };
            let values: Vec<Pattern<'a>> = self
                .list(&format!("Filter.{n}.Value"))
                .into_iter()
                .map(|text| Pattern { text, wild: text.contains(['*', '?']) })
                .collect();
            if values.len() > FILTER_VALUES {
                return Err(ApiError::new(
                    "FilterLimitExceeded",
                    "The maximum number of filter values specified on a single call is 200",
                ));
            }
            filters.push(Filter { name, values });
        }
        Ok(filters)
    }

    /// A digest of the whole request, in the order of its members' names.
    pub(crate) fn digest(self) -> String {
        use sha2::{Digest as _, Sha256};
        let mut members: Vec<String> = self.map.into_iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
        members.sort();
        hex::encode(Sha256::digest(members.join("&")))
    }

    pub(crate) fn dry_run(self) -> Result<(), ApiError> {
        if self.flag("DryRun") {
            return Err(
                ApiError::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set.").with_status(412)
            );
        }
        Ok(())
    }
}
