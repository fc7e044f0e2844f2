//! What all Lambdas share. A cold start sets up the log, the AWS clients, the engine and the first connection to the table.
//! Each request gets a deadline, a path without the gateway's stage, and metrics.

pub mod log;
mod metrics;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use lambda_http::lambda_runtime::Context;
use lambda_http::request::{LambdaRequest, RequestContext};
use lambda_http::tower::{ServiceExt as _, service_fn};
use lambda_http::{Adapter, Error, LambdaEvent, Request, RequestExt as _};
pub use metrics::Metrics;
use overseer_aws::Settings;
use overseer_engine::engine::Engine;
use overseer_engine::outbound::config::{Authorities, Config};
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::table::{Key, Read};
use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock};
use overseer_http::{Deadline, ErrorCode, Routes, service};
use serde_json::Value;

/// The time that is reserved at the end of an invocation, to store the result and to answer.
const MARGIN: Duration = Duration::from_secs(4);
/// The prefixes of all of Overseer's paths.
const PATH_PREFIXES: [&str; 4] = ["/api/", "/health", "/plugins", "/schemas/"];

/// A Lambda after its cold start.
pub struct Lambda {
    /// The engine that answers its events.
    pub engine: Arc<Engine>,
    /// The metrics of its invocations.
    pub metrics: Metrics,
}

/// Runs a Lambda that only answers requests for `routes`. Fails at the start if the routes are `for_browsers` and
/// `PUBLIC_URL` is not set.
pub async fn serve(routes: Routes, for_browsers: bool) -> Result<(), Error> {
    let lambda = Lambda::start().await?;
    if for_browsers && lambda.engine.config.public_url.is_none() {
        return Err(
            "PUBLIC_URL must be the URL at which browsers reach this Overseer, such as https://overseer.example.com"
                .into(),
        );
    }
    lambda_http::run(lambda.http(routes)).await
}

impl Lambda {
    /// Reads the environment, creates the clients and opens a connection to the table. Fails if the environment is invalid.
    pub async fn start() -> Result<Arc<Self>, Error> {
        log::init()?;
        let variable = |name: &str| std::env::var(name).ok();
        let settings = Settings::read(variable)?;
        let sdk = overseer_aws::load().await;
        let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock), Arc::new(RandomIds));
        let ports = overseer_aws::ports(settings, &sdk, clock, ids);
        // Lambda gives a cold start more CPU than a request: do the first TLS handshakes now.
        let missing = Key { partition: "cold start".to_owned(), sort: "nothing".to_owned() };
        let (connected, secret_variables) = tokio::join!(ports.table.get(&missing, Read::Eventual), async {
            match variable("OVERSEER_SETTINGS") {
                Some(name) => overseer_aws::secret_variables(&sdk, &name).await,
                None => Ok(BTreeMap::new()),
            }
        });
        if let Err(error) = connected {
            tracing::warn!(error = %overseer_engine::core::error::causes(&error), "table unreachable at cold start");
        }
        let secret_variables = secret_variables?;
        let catalog = Catalog::built_in();
        let mut config = Config::read(&catalog, |name| variable(name).or_else(|| secret_variables.get(name).cloned()))?;
        config.authorities = Authorities::Mozilla;
        let engine = Engine::new(ports, catalog, config)?;
        Ok(Arc::new(Self { engine, metrics: Metrics::new(variable("AWS_LAMBDA_FUNCTION_NAME")) }))
    }

    /// Answers a gateway's event with `routes`, for a Lambda that accepts other events as well.
    pub async fn answer(
        self: &Arc<Self>,
        routes: Routes,
        request: LambdaRequest,
        context: Context,
    ) -> Result<Value, Error> {
        let response = Adapter::from(self.http(routes)).oneshot(LambdaEvent::new(request, context)).await?;
        Ok(serde_json::to_value(response)?)
    }

    /// The HTTP service of `routes`.
    fn http(
        self: &Arc<Self>,
        routes: Routes,
    ) -> impl lambda_http::tower::Service<
        Request,
        Response = axum::response::Response,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static {
        let (lambda, app) = (Arc::clone(self), service(Arc::clone(&self.engine), routes));
        service_fn(move |mut request: Request| {
            let (lambda, app) = (Arc::clone(&lambda), app.clone());
            async move {
                let started = Instant::now();
                without_stage(&mut request);
                if let Some(deadline) = request.lambda_context_ref().and_then(deadline) {
                    request.extensions_mut().insert(Deadline(deadline));
                }
                let response = match app.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let code = response.extensions().get::<ErrorCode>().map(|code| code.0.clone());
                let status = response.status();
                let code = code.unwrap_or_else(|| {
                    if status.is_client_error() || status.is_server_error() {
                        format!("status_{}", status.as_u16())
                    } else {
                        "ok".to_owned()
                    }
                });
                lambda.metrics.record(&code, started.elapsed(), &[]);
                Ok(response)
            }
        })
    }
}

/// Removes the name of the gateway's stage from the path. A REST API, and an HTTP API with a named stage, put it there. The
/// rest must be a path of Overseer, because a stage may be called `api`.
fn without_stage(request: &mut Request) {
    let stage = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.stage.as_ref(),
        Some(RequestContext::ApiGatewayV1(context)) => context.stage.as_ref(),
        _ => None,
    };
    let Some(prefix) = stage.map(|stage| format!("/{stage}")) else { return };
    let rest = request.uri().path().strip_prefix(&prefix);
    if !rest.is_some_and(|rest| PATH_PREFIXES.iter().any(|prefix| rest.starts_with(prefix))) {
        return;
    }
    let mut parts = request.uri().clone().into_parts();
    let rest = parts.path_and_query.as_ref().and_then(|path| path.as_str().get(prefix.len()..)?.parse().ok());
    parts.path_and_query = rest.or(parts.path_and_query);
    if let Ok(uri) = parts.try_into() {
        *request.uri_mut() = uri;
    }
}

/// When an invocation must have ended. `None` if that was past before it started, which `cargo lambda watch` reports for every
/// invocation.
pub fn deadline(context: &Context) -> Option<tokio::time::Instant> {
    let remaining = context.deadline().duration_since(SystemTime::now()).ok()?;
    Some(tokio::time::Instant::now() + remaining.saturating_sub(MARGIN))
}
