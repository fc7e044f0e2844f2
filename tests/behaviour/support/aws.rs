//! Clients of AWS for the tests of alarms and events: pointed at a stand-in, with or without a recording of requests.

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_sqs::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_sqs::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::Timestamp;
use overseer_aws::timer::TimerConfig;
use overseer_aws::{AwsEvents, AwsTimer};
use overseer_engine::engine::{Engine, Ports};
use overseer_engine::ports::{Clock, Ids, RandomIds};
use serde_json::Value;

use crate::support::app::App;
use crate::support::ministack::Ministack;

/// The schedule group.
pub const GROUP: &str = "overseer";
/// The role of schedules, which the stand-in does not check.
pub const ROLE: &str = "arn:aws:iam::000000000000:role/alarms";
/// The bus of the events.
pub const BUS: &str = "overseer";

/// A recorded request: the operation, such as `AmazonSQS.SendMessage` or `POST /schedules/…`, and the body.
#[derive(Debug, Clone)]
pub struct Seen {
    pub what: String,
    pub body: Value,
}

/// The recorded requests, in order.
#[derive(Debug, Clone, Default)]
pub struct Wire(Arc<Mutex<Vec<Seen>>>);

impl Wire {
    /// The requests since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// The operations of the requests since the last call.
    pub fn asked(&self) -> Vec<String> {
        self.take().into_iter().map(|seen| seen.what).collect()
    }
}

impl Intercept for Wire {
    fn name(&self) -> &'static str {
        "Wire"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let request = context.request();
        let path = request.uri().parse::<axum::http::Uri>()?.path().to_owned();
        let rest = || format!("{} {path}", request.method());
        let what = request.headers().get("x-amz-target").map_or_else(rest, str::to_owned);
        let body = request.body().bytes().unwrap_or_default();
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body)? };
        self.0.lock().unwrap().push(Seen { what, body });
        Ok(())
    }
}

/// A client of `$sdk` at `$endpoint`, with more configuration.
macro_rules! client {
    ($sdk:ident, $endpoint:expr $(, $more:ident($with:expr))*) => {{
        let config = $sdk::Config::builder()
            .behavior_version($sdk::config::BehaviorVersion::latest())
            .region($sdk::config::Region::new("eu-central-1"))
            .credentials_provider($sdk::config::Credentials::new("test", "test", None, None, "a test"))
            .endpoint_url($endpoint);
        $sdk::Client::from_conf(config$(.$more($with))*.build())
    }};
}
pub(crate) use client;

/// A clock that stands still.
pub struct Stopped(Timestamp);

impl Stopped {
    pub fn at(time: &str) -> Arc<Self> {
        Arc::new(Self(time.parse().unwrap()))
    }
}

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        self.0
    }
}

/// Ids that are all zeros: a random backoff then has no length.
pub struct Zeros;

impl Ids for Zeros {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0);
    }
}

/// A stand-in of AWS with a queue, a schedule group and a bus. The requests of its public clients are not recorded.
pub struct Cloud {
    pub wire: Wire,
    pub sqs: aws_sdk_sqs::Client,
    pub scheduler: aws_sdk_scheduler::Client,
    pub bus: aws_sdk_eventbridge::Client,
    pub alarms: TimerConfig,
    /// The number of clients that were made on first use.
    pub made: Arc<AtomicUsize>,
    ministack: Ministack,
}

impl Cloud {
    pub async fn start() -> Self {
        let ministack = Ministack::start().await;
        let endpoint = &ministack.endpoint;
        let sqs = client!(aws_sdk_sqs, endpoint);
        let scheduler = client!(aws_sdk_scheduler, endpoint);
        let bus = client!(aws_sdk_eventbridge, endpoint);
        let (queue_url, queue_arn) = queue(&sqs, "work").await;
        scheduler.create_schedule_group().name(GROUP).send().await.unwrap();
        bus.create_event_bus().name(BUS).send().await.unwrap();
        let alarms = TimerConfig { queue_url, queue_arn, group: GROUP.to_owned(), role_arn: ROLE.to_owned() };
        Self { wire: Wire::default(), sqs, scheduler, bus, alarms, made: Arc::default(), ministack }
    }

    /// A timer whose requests are recorded.
    pub fn timer(&self, clock: Arc<dyn Clock>) -> AwsTimer {
        self.timer_of(self.alarms.clone(), clock)
    }

    pub fn timer_of(&self, alarms: TimerConfig, clock: Arc<dyn Clock>) -> AwsTimer {
        let (endpoint, wire, made) = (self.ministack.endpoint.clone(), self.wire.clone(), Arc::clone(&self.made));
        let sqs = client!(aws_sdk_sqs, &endpoint, interceptor(wire.clone()));
        let scheduler = move || {
            made.fetch_add(1, Ordering::SeqCst);
            client!(aws_sdk_scheduler, endpoint, interceptor(wire))
        };
        AwsTimer::new(|| sqs, scheduler, alarms, clock)
    }

    /// A bus whose requests are recorded.
    pub fn events(&self) -> AwsEvents {
        let (endpoint, wire, made) = (self.ministack.endpoint.clone(), self.wire.clone(), Arc::clone(&self.made));
        let client = move || {
            made.fetch_add(1, Ordering::SeqCst);
            client!(aws_sdk_eventbridge, endpoint, interceptor(wire))
        };
        AwsEvents::new(client, BUS, Arc::new(RandomIds))
    }

    /// Another engine over the records of `app`, with its alarms and events here.
    pub fn engine(&self, app: &App) -> Arc<Engine> {
        let Engine { ports, catalog, config, .. } = app.engine.as_ref();
        let timer = Arc::new(self.timer(Arc::clone(&ports.clock)));
        let ports = Ports { timer, events: Arc::new(self.events()), ..ports.clone() };
        Engine::new(ports, catalog.clone(), config.clone()).unwrap()
    }

    /// A rule that sends the events of `pattern` to a queue of that name, whose URL this is.
    pub async fn rule(&self, name: &str, pattern: &Value) -> String {
        let (url, arn) = queue(&self.sqs, name).await;
        let rule = self.bus.put_rule().name(name).event_bus_name(BUS).event_pattern(pattern.to_string());
        rule.send().await.unwrap();
        let target = aws_sdk_eventbridge::types::Target::builder().id("1").arn(arn).build().unwrap();
        let put = self.bus.put_targets().rule(name).event_bus_name(BUS).targets(target).send().await.unwrap();
        assert_eq!(put.failed_entry_count(), 0);
        url
    }

    /// Receives and deletes the next message; waits up to 20 seconds for it.
    pub async fn receive(&self, queue_url: &str) -> Option<String> {
        let messages = self.sqs.receive_message().queue_url(queue_url).wait_time_seconds(20).send().await.unwrap();
        let message = messages.messages?.into_iter().next()?;
        let receipt = message.receipt_handle.unwrap();
        self.sqs.delete_message().queue_url(queue_url).receipt_handle(receipt).send().await.unwrap();
        message.body
    }

    /// The number of visible messages of a queue, and of delayed ones.
    pub async fn waiting(&self, queue_url: &str) -> (String, String) {
        use QueueAttributeName::{ApproximateNumberOfMessages as Now, ApproximateNumberOfMessagesDelayed as Later};
        let request = self.sqs.get_queue_attributes().queue_url(queue_url).attribute_names(Now).attribute_names(Later);
        let attributes = request.send().await.unwrap().attributes.unwrap();
        (attributes[&Now].clone(), attributes[&Later].clone())
    }
}

/// A queue, by its URL and its ARN.
async fn queue(sqs: &aws_sdk_sqs::Client, name: &str) -> (String, String) {
    let url = sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap();
    let arn = QueueAttributeName::QueueArn;
    let asked = sqs.get_queue_attributes().queue_url(&url).attribute_names(arn.clone()).send().await.unwrap();
    (url, asked.attributes.unwrap()[&arn].clone())
}
