//! Failures that somebody has seen to, one at a time and many at once.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::{join_all, try_join_all};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::record::{FailureRecord, Resolved, ResolvedBy};
use super::{FailureFilter, FailureView};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{FailureId, OrgId};
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::ports::table::{BATCH_MAX, Condition, Cursor, Item, TableError};

/// About how many failures are resolved at once by a filter.
pub const RESOLVE_MAX: usize = 1_000;
/// The longest note, in characters.
pub const NOTE_MAX: usize = 1_000;
/// How many are written at the same time.
const AT_ONCE: usize = 20;

/// Which failures to resolve: either those of `ids`, or those that `filter` holds for.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResolveMany {
    /// These, 1 to 100.
    pub ids: Option<Vec<FailureId>>,
    /// Those that this holds for and that are not resolved; `{}` holds for all.
    // Without an alternative in its schema every problem has its own place.
    #[serde(default)]
    #[schemars(with = "FailureFilter")]
    pub filter: Option<FailureFilter>,
    /// What to say about them.
    pub note: Option<String>,
    /// Do nothing, and say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Where an earlier answer to the same filter ended.
    #[schemars(with = "Option<String>")]
    pub cursor: Option<Cursor>,
}

/// What was resolved, or would be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ManyResolved {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// The failures that are resolved now, or would be; also those that were already.
    pub resolved: Vec<FailureId>,
    /// Those that are not there, or not for this caller to see.
    pub not_found: Vec<FailureId>,
    /// Present if there may be more: ask again with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<Cursor>,
}

impl Engine {
    /// Resolves a failure. One that is resolved already stays as it is.
    pub async fn resolve_failure(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        note: Option<String>,
    ) -> Result<FailureView, Error> {
        refuse(wrong_note(note.as_deref()))?;
        let (engine, principal, id) = (Arc::clone(self), principal.clone(), id.to_owned());
        self.run_to_completion(async move {
            let resolved = engine.resolution(&principal, note);
            let record = engine.resolve_one(&principal, &id, Some(&resolved)).await?;
            Ok(record.ok_or(Error::NotFound("error"))?.whole())
        })
        .await
    }

    /// Resolves many failures, or says which they would be: up to 100 by their ids, or about 1,000 by a filter.
    pub async fn resolve_failures(
        self: &Arc<Self>,
        principal: &Principal,
        many: ResolveMany,
    ) -> Result<ManyResolved, Error> {
        let which = which(&many)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        let ResolveMany { note, dry_run, cursor, .. } = many;
        match which {
            FailureSelection::Ids(ids) => {
                self.run_to_completion(async move {
                    let resolved = (!dry_run).then(|| engine.resolution(&principal, note));
                    let mut done =
                        ManyResolved { dry_run, resolved: Vec::new(), not_found: Vec::new(), next_cursor: None };
                    let ids: Vec<FailureId> = ids.into_iter().collect();
                    for ids in ids.chunks(AT_ONCE) {
                        let all = ids.iter().map(|id| engine.resolve_one(&principal, id.as_str(), resolved.as_ref()));
                        for (id, found) in ids.iter().zip(try_join_all(all).await?) {
                            let list = if found.is_some() { &mut done.resolved } else { &mut done.not_found };
                            list.push(id.clone());
                        }
                    }
                    Ok(done)
                })
                .await
            }
            FailureSelection::Filter(filter) => {
                let user = principal.visible_user(filter.user_id.as_ref())?;
                self.run_to_completion(async move {
                    let resolved = (!dry_run).then(|| engine.resolution(&principal, note));
                    let mut done =
                        ManyResolved { dry_run, resolved: Vec::new(), not_found: Vec::new(), next_cursor: cursor };
                    for _ in 0..RESOLVE_MAX / BATCH_MAX {
                        let (org, which) = (&principal.org, (&filter, Some(false)));
                        let page =
                            engine.failures(org, user.as_ref(), which, BATCH_MAX, done.next_cursor.take()).await?;
                        for entries in page.entries.chunks(AT_ONCE) {
                            if let Some(resolved) = &resolved {
                                let all = entries.iter().cloned().map(|entry| engine.resolve(org, entry, resolved));
                                for outcome in join_all(all).await {
                                    outcome?;
                                }
                            }
                            done.resolved.extend(entries.iter().map(|(record, _)| record.id.clone()));
                        }
                        done.next_cursor = page.next;
                        if done.next_cursor.is_none() {
                            break;
                        }
                    }
                    Ok(done)
                })
                .await
            }
        }
    }

    /// What is put down where this caller resolves a failure now.
    fn resolution(&self, principal: &Principal, note: Option<String>) -> Resolved {
        let by = match &principal.user {
            Some(user) => ResolvedBy::User(user.clone()),
            None => ResolvedBy::Key(principal.key.clone()),
        };
        Resolved { at: self.ports.clock.now(), by, note }
    }

    /// Resolves the failure of that id, if the caller may see one; without `resolved` only looks.
    async fn resolve_one(
        &self,
        principal: &Principal,
        id: &str,
        resolved: Option<&Resolved>,
    ) -> Result<Option<FailureRecord>, Error> {
        let Some(found) = self.failure(principal, id).await? else { return Ok(None) };
        match resolved {
            Some(resolved) => self.resolve(&principal.org, found, resolved).await,
            None => Ok(Some(found.0)),
        }
    }

    /// Resolves a failure, unless somebody has. None where it is gone by now.
    async fn resolve(
        &self,
        org: &OrgId,
        (mut record, mut item): (FailureRecord, Item),
        resolved: &Resolved,
    ) -> Result<Option<FailureRecord>, Error> {
        while record.resolved.is_none() {
            record.resolved = Some(resolved.clone());
            match self.ports.table.put(record.item(org)?, Condition::Version(item.version)).await {
                Ok(_) => break,
                Err(TableError::Condition { standing: Some(found), .. }) => {
                    (record, item) = (found.record()?, *found);
                }
                Err(TableError::Condition { standing: None, .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(record))
    }
}

/// What is to be resolved.
enum FailureSelection {
    Ids(BTreeSet<FailureId>),
    Filter(FailureFilter),
}

/// Reads which failures are meant, with every problem at once.
fn which(many: &ResolveMany) -> Result<FailureSelection, Error> {
    let mut problems: Vec<FieldProblem> = wrong_note(many.note.as_deref()).into_iter().collect();
    let mut problem = |pointer: &str, message: &str| problems.push(FieldProblem::new(pointer, message));
    let which = match (&many.ids, &many.filter) {
        (Some(_), Some(_)) => {
            problem("/filter", "is there beside ids; leave one of them out");
            None
        }
        (None, None) => {
            problem("", "ids or filter is needed");
            None
        }
        (Some(ids), None) => {
            if !(1..=BATCH_MAX).contains(&ids.len()) {
                problem("/ids", "must be 1 to 100 ids");
            }
            if many.cursor.is_some() {
                problem("/cursor", "is of no use beside ids; leave it out");
            }
            Some(FailureSelection::Ids(ids.iter().cloned().collect()))
        }
        (None, Some(filter)) => Some(FailureSelection::Filter(filter.clone())),
    };
    match which {
        Some(which) if problems.is_empty() => Ok(which),
        Some(_) | None => Err(Error::Invalid(problems)),
    }
}

fn wrong_note(note: Option<&str>) -> Option<FieldProblem> {
    let long = note.is_some_and(|note| note.chars().count() > NOTE_MAX);
    long.then(|| FieldProblem::new("/note", format!("has more than {NOTE_MAX} characters")))
}

fn refuse(problem: Option<FieldProblem>) -> Result<(), Error> {
    problem.map_or(Ok(()), |problem| Err(Error::Invalid(vec![problem])))
}
