//! Resolving failures: a caller marks them as dealt with, one or many at once. The first mark counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use super::list::FailureFilter;
use super::record::{FailureRecord, FailureView, Resolved, ResolvedBy};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{FailureId, OrgId};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{BATCH_MAX, Condition, Cursor, Item};
use crate::storage::compare_and_set::CompareAndSet;

/// About how many failures one request with a filter resolves.
pub const RESOLVE_MAX: usize = 1_000;
/// The longest note, in characters.
pub const NOTE_MAX: usize = 1_000;
/// How many failures are read or written concurrently.
const CONCURRENT: usize = 20;

/// Which failures to resolve: those of `ids`, or those that `filter` matches.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolveMany {
    /// The failures' ids, 1 to 100.
    pub ids: Option<Vec<FailureId>>,
    /// Resolves the unresolved failures that match; `{}` matches all.
    // A plain schema, without `null` as an alternative, gives every problem its own pointer.
    #[serde(default)]
    #[schemars(with = "FailureFilter")]
    pub filter: Option<FailureFilter>,
    /// A note to store with each, at most 1,000 characters.
    pub note: Option<String>,
    /// Changes nothing, and answers which failures would be resolved.
    #[serde(default)]
    pub dry_run: bool,
    /// `nextCursor` of the previous answer to the same filter.
    #[schemars(with = "Option<String>")]
    pub cursor: Option<Cursor>,
}

/// The failures that were resolved, or would be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManyResolved {
    /// Whether this was a dry run, which changes nothing.
    pub dry_run: bool,
    /// The failures that are resolved now, or would be; with `ids` also those that were resolved before.
    pub resolved: Vec<FailureId>,
    /// Ids that do not exist, or that this caller may not see.
    pub not_found: Vec<FailureId>,
    /// Present if there may be more: repeat the request with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<Cursor>,
}

/// The failures that a request selects.
enum FailureSelection {
    Ids(BTreeSet<FailureId>),
    Filter { filter: FailureFilter, cursor: Option<Cursor> },
}

impl FailureSelection {
    /// Reads the selection of a request. `Invalid` has every problem of the request at once.
    fn of(request: ResolveMany) -> Result<Self, Error> {
        let mut problems: Vec<FieldProblem> = note_problem(request.note.as_deref()).into_iter().collect();
        let mut problem = |pointer: &str, message: &str| problems.push(FieldProblem::new(pointer, message));
        let selection = match (request.ids, request.filter) {
            (Some(_), Some(_)) => {
                problem("/filter", "cannot be combined with ids; send one of them");
                None
            }
            (None, None) => {
                problem("", "ids or filter is required");
                None
            }
            (Some(ids), None) => {
                if !(1..=BATCH_MAX).contains(&ids.len()) {
                    problem("/ids", "must be 1 to 100 ids");
                }
                if request.cursor.is_some() {
                    problem("/cursor", "cannot be combined with ids; leave it out");
                }
                Some(Self::Ids(ids.into_iter().collect()))
            }
            (None, Some(filter)) => Some(Self::Filter { filter, cursor: request.cursor }),
        };
        match selection {
            Some(selection) if problems.is_empty() => Ok(selection),
            Some(_) | None => Err(Error::Invalid(problems)),
        }
    }
}

impl Resolved {
    /// The mark of this caller.
    fn by(principal: &Principal, note: Option<String>, at: Timestamp) -> Self {
        let by = match &principal.user {
            Some(user) => ResolvedBy::User(user.clone()),
            None => ResolvedBy::Key(principal.key.clone()),
        };
        Self { at, by, note }
    }
}

impl ManyResolved {
    fn none_yet(dry_run: bool) -> Self {
        Self { dry_run, resolved: Vec::new(), not_found: Vec::new(), next_cursor: None }
    }
}

impl Engine {
    /// Resolves a failure. One that is resolved already keeps its mark.
    pub async fn resolve_failure(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        note: Option<String>,
    ) -> Result<FailureView, Error> {
        let span = debug_span!("resolve_failure", org = %principal.org, id, outcome = Empty);
        traced(span, async {
            if let Some(problem) = note_problem(note.as_deref()) {
                return Err(Error::Invalid(vec![problem]));
            }
            let (engine, principal, id) = (Arc::clone(self), principal.clone(), id.to_owned());
            self.run_to_completion(async move {
                let mark = Resolved::by(&principal, note, engine.ports.clock.now());
                let record = engine.resolve_visible(&principal, &id, Some(&mark)).await?;
                Ok(record.ok_or(Error::NotFound("error"))?.whole())
            })
            .await
        })
        .await
    }

    /// Resolves many failures, or, in a dry run, answers which it would: up to 100 by their ids, or about 1,000 by a filter.
    pub async fn resolve_failures(
        self: &Arc<Self>,
        principal: &Principal,
        request: ResolveMany,
    ) -> Result<ManyResolved, Error> {
        let span = debug_span!("resolve_failures", org = %principal.org, outcome = Empty);
        traced(span, async {
            let (note, dry_run) = (request.note.clone(), request.dry_run);
            let selection = FailureSelection::of(request)?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move {
                let mark = (!dry_run).then(|| Resolved::by(&principal, note, engine.ports.clock.now()));
                match selection {
                    FailureSelection::Ids(ids) => engine.resolve_by_ids(&principal, ids, mark.as_ref()).await,
                    FailureSelection::Filter { filter, cursor } => {
                        engine.resolve_by_filter(&principal, &filter, cursor, mark.as_ref()).await
                    }
                }
            })
            .await
        })
        .await
    }

    /// Resolves the failures of these ids; without a mark it only finds out which exist.
    async fn resolve_by_ids(
        &self,
        principal: &Principal,
        ids: BTreeSet<FailureId>,
        mark: Option<&Resolved>,
    ) -> Result<ManyResolved, Error> {
        let mut answer = ManyResolved::none_yet(mark.is_none());
        let ids: Vec<FailureId> = ids.into_iter().collect();
        for ids in ids.chunks(CONCURRENT) {
            let records = ids.iter().map(|id| self.resolve_visible(principal, id.as_str(), mark));
            for (id, record) in ids.iter().zip(try_join_all(records).await?) {
                let list = if record.is_some() { &mut answer.resolved } else { &mut answer.not_found };
                list.push(id.clone());
            }
        }
        Ok(answer)
    }

    /// Resolves the unresolved failures that match, page by page up to [`RESOLVE_MAX`]. `next_cursor` says where to go on.
    async fn resolve_by_filter(
        &self,
        principal: &Principal,
        filter: &FailureFilter,
        mut cursor: Option<Cursor>,
        mark: Option<&Resolved>,
    ) -> Result<ManyResolved, Error> {
        let user = principal.visible_user(filter.user_id.as_ref())?;
        let mut answer = ManyResolved::none_yet(mark.is_none());
        for _ in 0..RESOLVE_MAX / BATCH_MAX {
            let page = self.failures(&principal.org, user.as_ref(), filter, Some(false), BATCH_MAX, cursor).await?;
            answer.resolved.extend(page.entries.iter().map(|(record, _)| record.id.clone()));
            if let Some(mark) = mark {
                self.mark_page(&principal.org, page.entries, mark).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        answer.next_cursor = cursor;
        Ok(answer)
    }

    /// Marks failures, 20 at a time. Those that are gone by now are left out.
    async fn mark_page(
        &self,
        org: &OrgId,
        mut failures: Vec<(FailureRecord, Item)>,
        mark: &Resolved,
    ) -> Result<(), Error> {
        while !failures.is_empty() {
            let batch = failures.drain(..CONCURRENT.min(failures.len()));
            let marked = join_all(batch.map(|(record, item)| self.mark_resolved(org, record, item, mark))).await;
            marked.into_iter().collect::<Result<Vec<_>, Error>>()?;
        }
        Ok(())
    }

    /// Resolves a failure that the caller may see, or only reads it without a mark. `None` if there is none.
    async fn resolve_visible(
        &self,
        principal: &Principal,
        id: &str,
        mark: Option<&Resolved>,
    ) -> Result<Option<FailureRecord>, Error> {
        let Some((record, item)) = self.visible_failure(principal, id).await? else { return Ok(None) };
        match mark {
            Some(mark) => self.mark_resolved(&principal.org, record, item, mark).await,
            None => Ok(Some(record)),
        }
    }

    /// Writes the mark, unless the failure has one. `None` if the failure is gone by now.
    async fn mark_resolved(
        &self,
        org: &OrgId,
        mut record: FailureRecord,
        mut item: Item,
        mark: &Resolved,
    ) -> Result<Option<FailureRecord>, Error> {
        let mut race = CompareAndSet::default();
        while record.resolved.is_none() {
            record.resolved = Some(mark.clone());
            match self.ports.table.put(record.item(org)?, Condition::Version(item.version)).await {
                Ok(_) => break,
                Err(error) => {
                    let Some(current) = race.after_lost_race(error, "the failure")? else { return Ok(None) };
                    (record, item) = (current.record()?, current);
                }
            }
        }
        Ok(Some(record))
    }
}

fn note_problem(note: Option<&str>) -> Option<FieldProblem> {
    let too_long = note.is_some_and(|note| note.chars().count() > NOTE_MAX);
    too_long.then(|| FieldProblem::new("/note", format!("has more than {NOTE_MAX} characters")))
}
