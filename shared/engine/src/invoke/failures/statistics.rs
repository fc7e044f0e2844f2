//! Statistics of failures by plugin, action and code, and trends over time. Failures are counted as they happen, by the hour.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::{RoundMode, SignedDuration, Timestamp, TimestampRound, Unit};
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use super::log::code_name;
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ActionName, OrgId, PluginName};
use crate::core::outcome::OutcomeCode;
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{Item, Query, Range};
use crate::storage::keys;

/// The longest period, in days.
pub const DAYS_MAX: i64 = 31;
/// The longest period of hourly trends, in hours.
pub const HOURS_MAX: i64 = 7 * 24;
/// How many counters one read returns.
const PAGE: usize = 1_000;

/// Which failures statistics count. Times are rounded outwards to whole hours.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatisticsQuery {
    /// The start; 24 hours before the end if left out.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub from: Option<Timestamp>,
    /// The end; the end of this hour if left out.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub to: Option<Timestamp>,
    /// Of which plugin.
    pub tool: Option<PluginName>,
}

/// Which failures trends count. Times are rounded outwards to whole hours or days, in UTC.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TrendsQuery {
    /// The step; an hour if left out.
    #[serde(default)]
    pub by: GroupBy,
    /// The start; 24 hours (by hour) or 7 days (by day) before the end if left out.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub from: Option<Timestamp>,
    /// The end; the end of this hour or day if left out.
    #[serde(default, deserialize_with = "crate::core::intent::time")]
    pub to: Option<Timestamp>,
    /// Of which plugin.
    pub tool: Option<PluginName>,
    /// Of which action, by its own name.
    pub intent: Option<ActionName>,
    /// With which code.
    pub code: Option<OutcomeCode>,
}

/// The step of a trend: one point for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Each hour.
    #[default]
    Hour,
    /// Each day, in UTC.
    Day,
}

/// The numbers of failures in a period. Lists have the highest count first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// The start, included.
    pub from: Timestamp,
    /// The end, not included.
    pub to: Timestamp,
    /// The number of all failures.
    pub total: u64,
    /// Their numbers by plugin.
    pub by_tool: Vec<ToolCount>,
    /// Their numbers by action.
    pub by_action: Vec<ActionCount>,
    /// Their numbers by code.
    pub by_code: Vec<CodeCount>,
}

/// The number of a plugin's failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCount {
    /// The plugin's name.
    pub tool: String,
    /// The number of failures.
    pub count: u64,
}

/// The number of an action's failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ActionCount {
    /// The plugin's name.
    pub tool: String,
    /// The action, by its own name.
    pub intent: String,
    /// The number of failures.
    pub count: u64,
}

/// The number of failures with a code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CodeCount {
    /// The code of the failures.
    pub code: String,
    /// The number of failures.
    pub count: u64,
}

/// The numbers of failures over time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trends {
    /// The step.
    pub by: GroupBy,
    /// One point for each hour or day, the earliest first.
    pub points: Vec<Point>,
}

/// The number of failures in an hour or a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// When the hour or day begins.
    pub time: Timestamp,
    /// The number of failures.
    pub count: u64,
}

/// A period in whole steps.
struct Span {
    from: Timestamp,
    to: Timestamp,
}

/// The counter of an hour, for a plugin, action and code.
struct FailureCounter {
    hour: Timestamp,
    plugin: String,
    action: String,
    code: String,
    count: u64,
}

impl Engine {
    /// The organization's failures by plugin, action and code.
    pub async fn failure_statistics(
        &self,
        principal: &Principal,
        query: &StatisticsQuery,
    ) -> Result<Statistics, Error> {
        let span = debug_span!("failure_statistics", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_act_for_all()?;
            let rules = PeriodRules { hours_max: DAYS_MAX * 24, ..GroupBy::Hour.rules() };
            let span = self.span(&rules, query.from, query.to)?;
            let mut total = 0;
            let (mut tools, mut actions, mut codes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
            for FailureCounter { plugin, action, code, count, .. } in
                self.failure_counters(&principal.org, &span).await?
            {
                if query.tool.as_ref().is_some_and(|tool| tool.as_str() != plugin) {
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
                by_tool: by_count_descending(tools).map(|(tool, count)| ToolCount { tool, count }).collect(),
                by_action: by_count_descending(actions)
                    .map(|((tool, intent), count)| ActionCount { tool, intent, count })
                    .collect(),
                by_code: by_count_descending(codes).map(|(code, count)| CodeCount { code, count }).collect(),
            })
        })
        .await
    }

    /// The organization's failures in each hour or day.
    pub async fn failure_trends(&self, principal: &Principal, query: &TrendsQuery) -> Result<Trends, Error> {
        let span = debug_span!("failure_trends", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_act_for_all()?;
            let rules = query.by.rules();
            let span = self.span(&rules, query.from, query.to)?;
            let code = query.code.map(code_name);
            let mut points = BTreeMap::new();
            let mut time = span.from;
            while time < span.to {
                points.insert(time, 0);
                time = time.checked_add(SignedDuration::from_hours(rules.step)).unwrap_or(span.to);
            }
            for counter in self.failure_counters(&principal.org, &span).await? {
                let matches = query.tool.as_ref().is_none_or(|tool| tool.as_str() == counter.plugin)
                    && query.intent.as_ref().is_none_or(|intent| intent.as_str() == counter.action)
                    && code.as_ref().is_none_or(|code| *code == counter.code);
                // The point of the step that contains the counter's hour.
                if let Some((_, count)) = points.range_mut(..=counter.hour).next_back().filter(|_| matches) {
                    *count += counter.count;
                }
            }
            let points = points.into_iter().map(|(time, count)| Point { time, count }).collect();
            Ok(Trends { by: query.by, points })
        })
        .await
    }

    /// The period that a query means. `Invalid` if it is empty, too long, or out of range.
    fn span(&self, rules: &PeriodRules, from: Option<Timestamp>, to: Option<Timestamp>) -> Result<Span, Error> {
        let now = self.ports.clock.now();
        let step = SignedDuration::from_hours(rules.step);
        let far = |pointer: &str| Error::field(pointer, "is too far away");
        let end = match to {
            Some(to) => round(to, rules.step, RoundMode::Ceil).ok_or_else(|| far("/to"))?,
            // The current hour or day counts as well.
            None => round(now, rules.step, RoundMode::Floor)
                .and_then(|start| start.checked_add(step).ok())
                .ok_or_else(|| far("/to"))?,
        };
        let start = match from {
            Some(from) => round(from, rules.step, RoundMode::Floor),
            None => end.checked_sub(SignedDuration::from_hours(rules.hours_default)).ok(),
        };
        // The keys of counters sort by time from the epoch on.
        let start = start.filter(|start| *start >= Timestamp::UNIX_EPOCH).ok_or_else(|| far("/from"))?;
        let mut problems = Vec::new();
        if start >= end {
            problems.push(FieldProblem::new("/from", "must be before the end"));
        }
        // The limit applies to the period as the caller gave it, before rounding.
        let period = to.unwrap_or(now).duration_since(from.unwrap_or(start));
        if period > SignedDuration::from_hours(rules.hours_max) {
            let days = rules.hours_max / 24;
            problems.push(FieldProblem::new("/from", format!("is more than {days} days before the end")));
        }
        if problems.is_empty() { Ok(Span { from: start, to: end }) } else { Err(Error::Invalid(problems)) }
    }

    /// Every counter of a period.
    async fn failure_counters(&self, org: &OrgId, span: &Span) -> Result<Vec<FailureCounter>, Error> {
        let range = Range::Between(keys::hour(span.from), keys::hour(span.to));
        let mut query = Query { range, ..Query::partition(keys::counts_of(org), PAGE) };
        let mut counters = Vec::new();
        loop {
            let page = self.ports.table.query(query.clone()).await?;
            counters.extend(page.entries.iter().filter_map(FailureCounter::read));
            if page.next.is_none() {
                return Ok(counters);
            }
            query.cursor = page.next;
        }
    }
}

impl FailureCounter {
    /// Reads a counter from its key and count; none for a key of another form.
    fn read(item: &Item) -> Option<Self> {
        let mut parts = item.stored.key.sort.split('#');
        let (hour, plugin, action, code) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            hour: format!("{hour}:00:00Z").parse().ok()?,
            plugin: plugin.to_owned(),
            action: action.to_owned(),
            code: code.to_owned(),
            count: u64::try_from(item.stored.count?).ok()?,
        })
    }
}

/// The step, default and limit of a period, in hours.
struct PeriodRules {
    step: i64,
    hours_default: i64,
    hours_max: i64,
}

impl GroupBy {
    fn rules(self) -> PeriodRules {
        match self {
            Self::Hour => PeriodRules { step: 1, hours_default: 24, hours_max: HOURS_MAX },
            Self::Day => PeriodRules { step: 24, hours_default: 7 * 24, hours_max: DAYS_MAX * 24 },
        }
    }
}

fn round(time: Timestamp, hours: i64, mode: RoundMode) -> Option<Timestamp> {
    time.round(TimestampRound::new().smallest(Unit::Hour).increment(hours).mode(mode)).ok()
}

fn by_count_descending<K: Ord>(counts: BTreeMap<K, u64>) -> impl Iterator<Item = (K, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    // A stable sort: equal counts stay in the order of their names.
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts.into_iter()
}
