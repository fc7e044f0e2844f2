//! Permissions: each role calls every route, and so do a caller without a key and another organization's administrator.

use std::collections::BTreeSet;

use overseer_engine::access::api_keys::NewApiKey;
use overseer_engine::access::principal::Role;
use overseer_engine::core::ids::{OrgId, UserId};
use overseer_engine::ports::table::{Item, Read};
use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::access::two_organizations::day::{Made, morning};
use crate::access::two_organizations::world::{CRON, Side, World};
use crate::access::two_organizations::{ACME, GLOBEX};
use crate::support::app::{Answer, App};
use crate::support::bundle::Bundle;
use crate::support::gateway::Route;

/// The caller: a role by its JSON name, `none` for a request without a key, and `another` for an administrator of
/// another organization who requests this organization's data.
const COLUMNS: [&str; 8] =
    ["platform_administrator", "administrator", "operator", "service", "user", "agent", "none", "another"];

/// What comes of each request, in the order of [`COLUMNS`]:
///
/// - `yes`: it is done. `own`: it is done, too, with nothing of the first organization in the answer.
/// - `no`: 403. `key`: 401. A number: the request is let in, and comes to that status.
/// - `open`: no key is asked for.
///
/// `{}` holds an id of the first organization; `()` selects one of several bodies. Each column has its own server and
/// sends its requests in this order: deletions come last.
const TABLE: &str = "
GET /health                                                              open open open open open open open open
GET /health/ready                                                        open open open open open open open open
GET /schemas/plugin-manifest.json                                        open open open open open open open open
GET /api/plugin-engine/oauth/start/{link}                                open open open open open open open open
POST /api/plugin-engine/oauth/start/{link}                               open open open open open open open open
GET /api/plugin-engine/oauth/callback                                    open open open open open open open open
GET /api/plugin-engine/oauth/callback/desk                               open open open open open open open open
GET /api/plugin-engine/cron                                              key  key  key  key  key  key  key  key
POST /api/plugin-engine/cron                                             key  key  key  key  key  key  key  key

GET /api/plugin-engine?userId=ann                                        yes  yes  yes  yes  yes  yes  key  own
GET /api/plugin-engine?userId=ben                                        yes  yes  yes  yes  no   yes  key  own
POST /api/plugin-engine                                                  yes  yes  yes  yes  yes  yes  key  404
POST /api/plugin-engine (for ben)                                        yes  yes  yes  yes  no   yes  key  404
POST /api/plugin-engine (later)                                          yes  yes  yes  yes  yes  yes  key  404
POST /api/plugin-engine?explain=true                                     yes  yes  yes  yes  yes  yes  key  404
POST /api/plugins/desk                                                   yes  yes  yes  yes  yes  yes  key  404
POST /api/booking                                                        yes  yes  yes  yes  yes  yes  key  404

GET /api/plugin-engine/tasks                                             yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/tasks?userId=ben                                  yes  yes  yes  yes  no   no   key  own
GET /api/plugin-engine/tasks/{task}                                      yes  yes  yes  yes  yes  no   key  404
PATCH /api/plugin-engine/tasks/{task}                                    yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/tasks/{daily}/pause                              yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/tasks/{daily}/resume                             yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/tasks/{failed}/retry                             yes  yes  yes  yes  yes  no   key  404
DELETE /api/plugin-engine/tasks/{task}                                   yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/tasks/cancel                                     yes  yes  yes  yes  yes  no   key  own

GET /api/plugin-engine/runs                                              yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/runs?userId=ben                                   yes  yes  yes  yes  no   no   key  own
GET /api/plugin-engine/runs/{run}                                        yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/runs/{run}/resolve                               yes  yes  yes  yes  yes  no   key  404

GET /api/plugin-engine/errors                                            yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/errors?userId=ben                                 yes  yes  yes  yes  no   no   key  own
GET /api/plugin-engine/errors/{failure}                                  yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/errors/{failure}/resolve                         yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/errors/bulk                                      yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/errors/stats                                      yes  yes  yes  yes  no   no   key  own
GET /api/plugin-engine/errors/trends                                     yes  yes  yes  yes  no   no   key  own
GET /api/plugin-engine/errors/fallbacks                                  yes  yes  yes  yes  no   no   key  own
PUT /api/plugin-engine/errors/fallbacks                                  yes  yes  no   no   no   no   key  own
DELETE /api/plugin-engine/errors/fallbacks?agentId=lexi&tool=desk        yes  yes  no   no   no   no   key  404

GET /api/plugin-engine/context-mappings                                  yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/context-mappings?userId=ann                       yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/context-mappings?userId=ben                       yes  yes  yes  yes  no   no   key  own
GET /api/plugin-engine/context-mappings?agentId=lexi                     yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/context-mappings/lookup?tool=desk&kind=room&name=lobby&userId=ann yes yes yes yes yes no key 400
PUT /api/plugin-engine/context-mappings                                  yes  yes  yes  yes  no   no   key  400
PUT /api/plugin-engine/context-mappings (of ann)                         yes  yes  yes  yes  yes  no   key  400
PUT /api/plugin-engine/context-mappings (of ben)                         yes  yes  yes  yes  no   no   key  400
PUT /api/plugin-engine/context-mappings (of an agent)                    yes  yes  yes  yes  no   no   key  400
POST /api/plugin-engine/context-mappings/bulk                            yes  yes  yes  yes  no   no   key  400
DELETE /api/plugin-engine/context-mappings?tool=desk&kind=room&name=lobby yes yes  yes  yes  no   no   key  400
DELETE /api/plugin-engine/context-mappings?tool=desk&kind=room&name=lobby&userId=ann yes yes yes yes yes no key 400

GET /api/plugin-engine/integrations?userId=ann                           yes  yes  yes  yes  yes  no   key  own
GET /api/plugin-engine/integrations?userId=ben                           yes  yes  yes  yes  no   no   key  own
GET /api/plugin-engine/integrations/desk?userId=ann                      yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/integrations/desk/connect                        yes  yes  yes  yes  yes  no   key  404
POST /api/plugin-engine/integrations/desk/connect (for ben)              yes  yes  yes  yes  no   no   key  404
POST /api/plugin-engine/integrations/desk/connect (the organization's)   yes  yes  no   no   no   no   key  404
POST /api/plugin-engine/integrations/desk/connect/complete               400  400  400  400  400  no   key  404
PUT /api/plugin-engine/integrations/desk/default                         yes  yes  yes  yes  yes  no   key  404
PUT /api/plugin-engine/integrations/desk/default (the organization's)    yes  yes  no   no   no   no   key  404
GET /api/plugin-engine/integrations/desk/client                          yes  yes  no   no   no   no   key  404
PUT /api/plugin-engine/integrations/desk/client                          yes  yes  no   no   no   no   key  404
DELETE /api/plugin-engine/integrations/desk/client                       yes  yes  no   no   no   no   key  404
DELETE /api/plugin-engine/integrations/desk?userId=ann&alias=second      yes  yes  yes  yes  yes  no   key  404
DELETE /api/plugin-engine/integrations/desk?owner=organization           yes  yes  no   no   no   no   key  404

GET /api/v1/keys                                                         yes  yes  no   no   no   no   key  own
POST /api/v1/keys                                                        yes  yes  no   no   no   no   key  own
POST /api/v1/keys (of a platform administrator)                          yes  no   no   no   no   no   key  no
DELETE /api/v1/keys/{service}                                            yes  yes  no   no   no   no   key  404

GET /api/v1/webhooks                                                     yes  yes  no   no   no   no   key  own
POST /api/v1/webhooks                                                    yes  yes  no   no   no   no   key  own
GET /api/v1/webhooks/{webhook}                                           yes  yes  no   no   no   no   key  404
PATCH /api/v1/webhooks/{webhook}                                         yes  yes  no   no   no   no   key  404
POST /api/v1/webhooks/{webhook}/rotate                                   yes  yes  no   no   no   no   key  404
GET /api/v1/webhooks/{webhook}/deliveries                                yes  yes  no   no   no   no   key  404
POST /api/v1/webhooks/{webhook}/deliveries/{delivery}/retry              yes  yes  no   no   no   no   key  404
DELETE /api/v1/webhooks/{webhook}                                        yes  yes  no   no   no   no   key  404

GET /api/v1/channels                                                     yes  yes  yes  no   no   no   key  own
GET /api/v1/channels/front                                               yes  yes  yes  no   no   no   key  404
GET /api/v1/agents/front                                                 yes  yes  yes  yes  no   yes  key  404
POST /api/v1/agents/front/diff                                           yes  yes  yes  no   no   no   key  404
GET /api/v1/agents/front/locks                                           yes  yes  yes  no   no   no   key  404
POST /api/v1/agents/front/lock                                           yes  yes  no   no   no   no   key  404
POST /api/v1/agents/front/rollback                                       yes  yes  no   no   no   no   key  404
POST /api/v1/agents/front/unlock                                         yes  yes  no   no   no   no   key  404
PUT /api/v1/channels/front                                               yes  yes  no   no   no   no   key  own
DELETE /api/v1/channels/front                                            yes  yes  no   no   no   no   key  own

POST /api/v1/hooks/on_reasoning_step                                     yes  yes  yes  yes  yes  yes  key  own
POST /api/v1/hooks/on_reasoning_step (for ben)                           yes  yes  yes  yes  no   yes  key  own

GET /plugins                                                             yes  yes  yes  no   no   no   key  own
GET /plugins?scope=global                                                yes  yes  yes  no   no   no   key  own
GET /plugins/desk                                                        yes  yes  yes  no   no   no   key  404
GET /plugins/desk/1.1.0                                                  yes  yes  yes  no   no   no   key  404
POST /plugins                                                            yes  yes  no   no   no   no   key  own
POST /plugins?scope=global                                               yes  no   no   no   no   no   key  no
PATCH /plugins/desk/1.1.0                                                yes  yes  no   no   no   no   key  404
PATCH /plugins/extra/1.0.0?scope=global                                  yes  no   no   no   no   no   key  no

GET /api/v1/plugins                                                      yes  yes  yes  no   no   no   key  own
GET /api/v1/plugins/desk                                                 yes  yes  yes  no   no   no   key  404
GET /api/v1/plugins/desk/config                                          yes  yes  no   no   no   no   key  404
GET /api/v1/plugins/desk/diff                                            yes  yes  yes  no   no   no   key  404
PUT /api/v1/plugins/desk/config                                          yes  yes  no   no   no   no   key  404
PATCH /api/v1/plugins/desk                                               yes  yes  no   no   no   no   key  404
POST /api/v1/plugins/desk/upgrade                                        yes  yes  no   no   no   no   key  404
POST /api/v1/plugins/desk/rollback                                       yes  yes  no   no   no   no   key  404
POST /api/v1/plugins/desk/disable                                        yes  yes  no   no   no   no   key  404
POST /api/v1/plugins/desk/enable                                         yes  yes  no   no   no   no   key  404
POST /api/v1/plugins/warden/hook-secret                                  yes  yes  no   no   no   no   key  404
POST /api/v1/plugins/desk/reset                                          yes  yes  no   no   no   no   key  404
DELETE /api/v1/plugins/desk                                              yes  yes  no   no   no   no   key  404
";

/// A line of the table: what is asked, and what comes of it.
struct Line {
    asked: &'static str,
    cells: Vec<&'static str>,
}

fn lines() -> Vec<Line> {
    let lines = TABLE.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let mut words: Vec<_> = line.split_whitespace().collect();
            let cells = words.split_off(words.len() - COLUMNS.len());
            let (asked, _) = line.split_at(line.find(words.last().unwrap()).unwrap() + words.last().unwrap().len());
            Line { asked, cells }
        })
        .collect()
}

impl Line {
    /// Method and path, with what the morning made.
    fn request(&self, made: &Made) -> String {
        let request = self.asked.split(" (").next().unwrap();
        let link = made.link.rsplit('/').next().unwrap();
        let Made { task, daily, failed, run, failure, service, webhook, delivery, .. } = made;
        [
            ("{task}", task.as_str()),
            ("{daily}", daily),
            ("{failed}", failed),
            ("{run}", run),
            ("{failure}", failure),
            ("{service}", service),
            ("{webhook}", webhook),
            ("{delivery}", delivery),
            ("{link}", link),
        ]
        .into_iter()
        .fold(request.to_owned(), |request, (name, value)| request.replace(name, value))
    }

    /// The request body. It holds no data of the first organization: any in the answer comes from the server.
    fn body(&self, acme: &Side<'_>, made: &Made) -> Value {
        let act = |user: &str| json!({ "tool": "desk", "intent": "act", "userId": user, "agentId": "lexi", "context": { "note": "a note" } });
        let name = json!({ "tool": "desk", "kind": "room", "name": "lobby", "externalId": "R-1" });
        let with = |mut body: Value, field: &str, value: &str| {
            body[field] = json!(value);
            body
        };
        let account = json!({ "userId": "ann", "alias": "another", "token": "a-token-of-nobody" });
        let config = json!({ "place": "there" });
        match self.asked {
            "POST /api/plugin-engine" | "POST /api/plugin-engine?explain=true" => act("ann"),
            "POST /api/plugin-engine (for ben)" => act("ben"),
            "POST /api/plugin-engine (later)" => with(act("ann"), "scheduledTime", "2026-11-21T12:00:00Z"),
            "POST /api/plugins/desk" | "POST /api/booking" => json!({ "function": "act", "userId": "ann" }),
            "PATCH /api/plugin-engine/tasks/{task}" => json!({ "context": { "note": "another" } }),
            "POST /api/plugin-engine/runs/{run}/resolve" => json!({ "as": "failed" }),
            "POST /api/plugin-engine/errors/bulk" => json!({ "filter": {} }),
            "PUT /api/plugin-engine/errors/fallbacks" => json!({ "message": "Sorry." }),
            "PUT /api/plugin-engine/context-mappings" => name,
            "PUT /api/plugin-engine/context-mappings (of ann)" => with(name, "userId", "ann"),
            "PUT /api/plugin-engine/context-mappings (of ben)" => with(name, "userId", "ben"),
            "PUT /api/plugin-engine/context-mappings (of an agent)" => with(name, "agentId", "lexi"),
            "POST /api/plugin-engine/context-mappings/bulk" => json!({ "mappings": [name] }),
            "POST /api/plugin-engine/integrations/desk/connect" => account,
            "POST /api/plugin-engine/integrations/desk/connect (for ben)" => with(account, "userId", "ben"),
            "POST /api/plugin-engine/integrations/desk/connect (the organization's)" => {
                with(account, "owner", "organization")
            }
            "POST /api/plugin-engine/integrations/desk/connect/complete" => json!({ "code": "none", "userId": "ann" }),
            "PUT /api/plugin-engine/integrations/desk/default" => json!({ "alias": "second", "userId": "ann" }),
            "PUT /api/plugin-engine/integrations/desk/default (the organization's)" => {
                json!({ "alias": "default", "owner": "organization" })
            }
            "PUT /api/plugin-engine/integrations/desk/client" => json!({ "clientId": "a", "clientSecret": "a-secret" }),
            "POST /api/v1/keys" => json!({ "name": "a", "roles": ["service"] }),
            "POST /api/v1/keys (of a platform administrator)" => {
                json!({ "name": "a", "roles": ["platform_administrator"] })
            }
            "POST /api/v1/webhooks" => {
                json!({ "url": format!("http://{}/hook/nobody", acme.world.address), "events": ["api_key.revoked"] })
            }
            "PATCH /api/v1/webhooks/{webhook}" => json!({ "description": "another" }),
            "POST /api/v1/agents/front/rollback" => json!({ "hash": made.lock }),
            "POST /api/v1/hooks/on_reasoning_step" => json!({ "user_id": "ann", "data": "a step" }),
            "POST /api/v1/hooks/on_reasoning_step (for ben)" => json!({ "user_id": "ben", "data": "a step" }),
            "PUT /api/v1/channels/front" => json!({ "plugin_assignments": [] }),
            "POST /plugins" | "POST /plugins?scope=global" => {
                let manifest = acme.manifest("extra", "1.0.0", &json!({ "type": "none" })).to_string();
                serde_json::from_str(&manifest.replace(ACME, "nobody")).unwrap()
            }
            "PATCH /plugins/desk/1.1.0" | "PATCH /plugins/extra/1.0.0?scope=global" => json!({ "is_active": true }),
            "PUT /api/v1/plugins/desk/config" => config,
            "PATCH /api/v1/plugins/desk" => json!({ "record_reads": true }),
            "POST /api/v1/plugins/desk/upgrade" => {
                json!({ "version": "1.1.0", "permissions": ["network:127.0.0.1", "network:provider.example"] })
            }
            "POST /api/plugin-engine/tasks/cancel" | "POST /api/plugin-engine/errors/{failure}/resolve" => json!({}),
            _ => Value::Null,
        }
    }
}

/// The key of the column's caller.
async fn key_of(column: &str, acme: &Side<'_>, globex: &Side<'_>, made: &Made) -> Option<String> {
    let role = match column {
        "none" => return None,
        "another" => return Some(globex.key.clone()),
        "agent" => return Some(made.agent.clone()),
        role => serde_json::from_value::<Role>(json!(role)).unwrap(),
    };
    let user_id = (role == Role::User).then(|| UserId::parse("ann").unwrap());
    let new = NewApiKey { name: "a".to_owned(), roles: [role].into(), user_id, channel: None, agent_id: None };
    let made = acme.app.engine.create_api_key(&OrgId::parse(ACME).unwrap(), new).await.unwrap();
    Some(made.0.expose_secret().to_owned())
}

/// Whether an answer is what a cell of the table says.
fn is_as_written(answer: &Answer, cell: &str) -> bool {
    let status = answer.status;
    let done = status.is_success() || status.is_redirection();
    match cell {
        "yes" | "own" => done,
        "no" => status == StatusCode::FORBIDDEN,
        "key" => status == StatusCode::UNAUTHORIZED,
        "open" => status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN,
        number => status.as_str() == number,
    }
}

/// Everything that is stored of the first organization.
async fn of_acme(app: &App) -> Vec<Item> {
    let mut items = Vec::new();
    for key in app.table.items().await {
        let item = app.table.inner.get(&key, Read::Consistent).await.unwrap();
        items.extend(item.filter(|item| format!("{item:?}").contains(ACME)));
    }
    items
}

/// Asks everything as one column of the table; gives what came otherwise than it says.
async fn asked_as(column: &str) -> Vec<String> {
    let at = COLUMNS.iter().position(|one| *one == column).unwrap();
    let world = World::start().await;
    let app = world.app().await;
    let (acme, globex) = (Side::new(&app, &world, ACME, None).await, Side::new(&app, &world, GLOBEX, None).await);
    let made = morning(&acme).await;
    let key = key_of(column, &acme, &globex, &made).await;
    let before = of_acme(&app).await;
    let mut wrong = Vec::new();
    for line in lines() {
        let (request, body, cell) = (line.request(&made), line.body(&acme, &made), line.cells[at]);
        let answer = acme.ask_as(key.as_deref(), &request, &body).await;
        let shows = |mark: &&str| format!("{answer:?}").contains(*mark);
        let told = column == "another" && cell != "open" && (shows(&ACME) || made.ids().iter().any(shows));
        if !is_as_written(&answer, cell) || told {
            wrong.push(format!("{column}: {}: {cell}, but {} {}", line.asked, answer.status, answer.text));
        }
    }
    if column == "none" || column == "another" {
        let after = of_acme(&app).await;
        let changed = before.iter().chain(&after).filter(|item| !before.contains(item) || !after.contains(item));
        wrong.extend(changed.map(|item| format!("{column}: changed {:?}", item.stored.key)));
    }
    wrong
}

#[tokio::test]
async fn roles_permit_exactly_the_documented_routes() {
    let mut wrong = Vec::new();
    for column in COLUMNS {
        wrong.extend(asked_as(column).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn role_matrix_covers_every_route() {
    let world = World::start().await;
    let app = world.app().await;
    let made = morning(&Side::new(&app, &world, ACME, None).await).await;
    let routes = Bundle::read().routes();
    let written: BTreeSet<_> = lines()
        .iter()
        .map(|line| {
            assert!(line.cells.iter().all(|cell| cell.len() < 5), "{}: {:?}", line.asked, line.cells);
            let request = line.request(&made);
            let (method, path) = request.split_once(' ').unwrap();
            let path = path.split('?').next().unwrap();
            let route = Route::of(&routes, &method.parse().unwrap(), path);
            route.unwrap_or_else(|| panic!("{} leads nowhere", line.asked)).clone()
        })
        .collect();
    let missing: Vec<_> = routes.into_iter().filter(|route| !written.contains(route)).collect();
    assert!(missing.is_empty(), "nothing is written about {missing:#?}");
    assert_eq!(Role::ALL.map(Role::as_str), COLUMNS[..6], "each role has its column");
}

#[tokio::test]
async fn header_of_another_organization_is_refused() {
    let world = World::start().await;
    let app = world.app().await;
    let (acme, globex) = (Side::new(&app, &world, ACME, None).await, Side::new(&app, &world, GLOBEX, None).await);
    let made = morning(&acme).await;
    for line in lines().iter().filter(|line| !["open", "key"].contains(&line.cells[0])) {
        let (request, body) = (line.request(&made), line.body(&acme, &made));
        let (method, path) = request.split_once(' ').unwrap();
        let asked = app.request(method.parse().unwrap(), path).header("x-organization-id", ACME);
        let asked = asked.header("authorization", format!("Bearer {}", globex.key));
        let answer =
            Answer::of(asked.header("content-type", "application/json").body(body.to_string()).send().await.unwrap())
                .await;
        assert_eq!(answer.problem(403), "forbidden", "{}", line.asked);
        assert!(!answer.text.contains(ACME), "{}", answer.text);
    }
    // The one route that takes another key than everybody's.
    let cron = acme.ask_as(Some(CRON), "POST /api/plugin-engine/cron", &Value::Null).await;
    assert_eq!(cron.status, StatusCode::OK, "{}", cron.text);
}
