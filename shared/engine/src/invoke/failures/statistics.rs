//! How many failures there were: of which plugin, action and code, and when. Counted as they happen, by the hour.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use serde::{Deserialize, Serialize};

use super::name_of;
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ActionName, OrgId, PluginName};
use crate::core::outcome::OutcomeCode;
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::ports::table::{Item, Query, Range};
use crate::storage::keys;

/// The longest time that can be asked for, in days.
pub const DAYS_MAX: i64 = 31;
/// The longest time that can be asked for by the hour, in hours.
pub const HOURS_MAX: i64 = 7 * 24;
/// How many counters are read at once.
const PAGE: usize = 1_000;

/// Which failures are counted, and from when to when. Times are rounded outwards to whole hours.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatisticsQuery {
    /// From when; left out, 24 hours before the end.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub from: Option<Timestamp>,
    /// Until when; left out, the end of this hour.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub to: Option<Timestamp>,
    /// Of which plugin.
    pub tool: Option<PluginName>,
}

/// What is counted over time. Times are rounded outwards to whole hours or days, in UTC.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrendsQuery {
    /// By what; by the hour if left out.
    #[serde(default)]
    pub by: GroupBy,
    /// From when; left out, 24 hours or 7 days before the end.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub from: Option<Timestamp>,
    /// Until when; left out, the end of this hour or day.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub to: Option<Timestamp>,
    /// Of which plugin.
    pub tool: Option<PluginName>,
    /// Of which action, by its own name.
    pub intent: Option<ActionName>,
    /// With which code.
    pub code: Option<OutcomeCode>,
}

/// What a trend has a point for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Each hour.
    #[default]
    Hour,
    /// Each day, in UTC.
    Day,
}

/// How many failures there were, the most first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// From when, included.
    pub from: Timestamp,
    /// Until when, not included.
    pub to: Timestamp,
    /// All of them.
    pub total: u64,
    /// By plugin.
    pub by_tool: Vec<ToolCount>,
    /// By action.
    pub by_action: Vec<ActionCount>,
    /// By code.
    pub by_code: Vec<CodeCount>,
}

/// Failures of a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCount {
    /// The plugin.
    pub tool: String,
    /// How many.
    pub count: u64,
}

/// Failures of an action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionCount {
    /// The plugin.
    pub tool: String,
    /// The action.
    pub intent: String,
    /// How many.
    pub count: u64,
}

/// Failures with a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodeCount {
    /// The code.
    pub code: String,
    /// How many.
    pub count: u64,
}

/// How many failures there were over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trends {
    /// What there is a point for.
    pub by: GroupBy,
    /// One for each hour or day, the earliest first.
    pub points: Vec<Point>,
}

/// The failures of an hour or a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// When it began.
    pub time: Timestamp,
    /// How many.
    pub count: u64,
}

/// From when to when, in whole steps.
struct Span {
    from: Timestamp,
    to: Timestamp,
}

/// A counter that was read.
struct Counted {
    hour: Timestamp,
    plugin: String,
    action: String,
    code: String,
    count: u64,
}

impl Engine {
    /// How many failures the organization had: by plugin, action and code.
    pub async fn failure_statistics(
        &self,
        principal: &Principal,
        asked: &StatisticsQuery,
    ) -> Result<Statistics, Error> {
        principal.must_act_for_all()?;
        let rules = Rules { hours_max: DAYS_MAX * 24, ..GroupBy::Hour.rules() };
        let span = self.span(&rules, asked.from, asked.to)?;
        let mut total = 0;
        let (mut tools, mut actions, mut codes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for Counted { plugin, action, code, count, .. } in self.counted(&principal.org, &span).await? {
            if asked.tool.as_ref().is_some_and(|tool| tool.as_str() != plugin) {
                continue;
            }
            total += count;
            *actions.entry((plugin.clone(), action)).or_insert(0) += count;
            *tools.entry(plugin).or_insert(0) += count;
            *codes.entry(code).or_insert(0) += count;
        }
        Ok(Statistics {
            from: span.from,
            to: span.to,
            total,
            by_tool: the_most_first(tools).map(|(tool, count)| ToolCount { tool, count }).collect(),
            by_action: the_most_first(actions)
                .map(|((tool, intent), count)| ActionCount { tool, intent, count })
                .collect(),
            by_code: the_most_first(codes).map(|(code, count)| CodeCount { code, count }).collect(),
        })
    }

    /// How many failures the organization had in each hour or day.
    pub async fn failure_trends(&self, principal: &Principal, asked: &TrendsQuery) -> Result<Trends, Error> {
        principal.must_act_for_all()?;
        let rules = asked.by.rules();
        let span = self.span(&rules, asked.from, asked.to)?;
        let code = asked.code.map(name_of);
        let mut points = BTreeMap::new();
        let mut time = span.from;
        while time < span.to {
            points.insert(time, 0);
            time = time.checked_add(SignedDuration::from_hours(rules.step)).unwrap_or(span.to);
        }
        for counted in self.counted(&principal.org, &span).await? {
            let holds = asked.tool.as_ref().is_none_or(|tool| tool.as_str() == counted.plugin)
                && asked.intent.as_ref().is_none_or(|intent| intent.as_str() == counted.action)
                && code.as_ref().is_none_or(|code| *code == counted.code);
            // The last point that is not after it.
            if let Some((_, count)) = points.range_mut(..=counted.hour).next_back().filter(|_| holds) {
                *count += counted.count;
            }
        }
        let points = points.into_iter().map(|(time, count)| Point { time, count }).collect();
        Ok(Trends { by: asked.by, points })
    }

    /// Which time is meant.
    fn span(&self, rules: &Rules, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Span, Error> {
        let now = self.ports.clock.now();
        let step = SignedDuration::from_hours(rules.step);
        let far = |pointer: &str| Error::field(pointer, "is too far away");
        let end = match to {
            Some(to) => round(to, rules.step, RoundMode::Ceil).ok_or_else(|| far("/to"))?,
            // This hour or day counts, too.
            None => round(now, rules.step, RoundMode::Floor)
                .and_then(|begun| begun.checked_add(step).ok())
                .ok_or_else(|| far("/to"))?,
        };
        let begin = match from {
            Some(from) => round(from, rules.step, RoundMode::Floor),
            None => end.checked_sub(SignedDuration::from_hours(rules.hours_default)).ok(),
        };
        // The keys of counters are in order from then on.
        let begin = begin.filter(|begin| *begin >= Timestamp::UNIX_EPOCH).ok_or_else(|| far("/from"))?;
        let mut problems = Vec::new();
        if begin >= end {
            problems.push(FieldProblem::new("/from", "must be before the end"));
        }
        // As it was asked for: what comes of rounding is no fault.
        let asked = to.unwrap_or(now).duration_since(from.unwrap_or(begin));
        if asked > SignedDuration::from_hours(rules.hours_max) {
            let days = rules.hours_max / 24;
            problems.push(FieldProblem::new("/from", format!("is more than {days} days before the end")));
        }
        if problems.is_empty() { Ok(Span { from: begin, to: end }) } else { Err(Error::Invalid(problems)) }
    }

    /// Every counter of a time.
    async fn counted(&self, org: &OrgId, span: &Span) -> Result<Vec<Counted>, Error> {
        let range = Range::Between(keys::hour(span.from), keys::hour(span.to));
        let mut query = Query { range, ..Query::partition(keys::counts_of(org), PAGE) };
        let mut counted = Vec::new();
        loop {
            let page = self.ports.table.query(query.clone()).await?;
            counted.extend(page.entries.iter().filter_map(read));
            if page.next.is_none() {
                return Ok(counted);
            }
            query.cursor = page.next;
        }
    }
}

/// What a counter's key says of it.
fn read(item: &Item) -> Option<Counted> {
    let mut parts = item.stored.key.sort.split('#');
    let (hour, plugin, action, code) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some(Counted {
        hour: format!("{hour}:00:00Z").parse().ok()?,
        plugin: plugin.to_owned(),
        action: action.to_owned(),
        code: code.to_owned(),
        count: u64::try_from(item.stored.count?).ok()?,
    })
}

/// What may be asked for, in hours.
struct Rules {
    step: i64,
    hours_default: i64,
    hours_max: i64,
}

impl GroupBy {
    fn rules(self) -> Rules {
        match self {
            Self::Hour => Rules { step: 1, hours_default: 24, hours_max: HOURS_MAX },
            Self::Day => Rules { step: 24, hours_default: 7 * 24, hours_max: DAYS_MAX * 24 },
        }
    }
}

fn round(time: Timestamp, hours: i64, mode: RoundMode) -> Option<Timestamp> {
    time.round(TimestampRound::new().smallest(Unit::Hour).increment(hours).mode(mode)).ok()
}

fn the_most_first<K: Ord>(counts: BTreeMap<K, u64>) -> impl Iterator<Item = (K, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    // Those with the same number stay in the order of their names.
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts.into_iter()
}
