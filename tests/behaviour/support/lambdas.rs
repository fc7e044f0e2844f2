//! The Lambdas of the AWS bundle, behind a gateway with the template's routes, over stand-ins of AWS. Messages of the work
//! queue go to the cron function, as by an event source mapping.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;

use overseer_engine::engine::Ports;
use overseer_engine::ports::{Clock, RandomIds};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;

use crate::support::bundle::Bundle;
use crate::support::gateway::{AwsEndpoints, Gateway};
use crate::support::process::command;
use crate::support::stand_ins::{StandIns, sdk};

/// Running functions with everything around them.
pub struct Lambdas {
    /// The gateway before them.
    pub gateway: Arc<Gateway>,
    /// The stand-ins of AWS.
    pub stand_ins: StandIns,
    log: NamedTempFile,
}

impl Lambdas {
    /// Starts them behind a gateway at `listener`, with `more` environment variables beside those of the stand-ins.
    pub async fn start(listener: TcpListener, vault: &str, secret: &Value, more: Vec<(String, String)>) -> Self {
        let stand_ins = StandIns::start(vault, secret).await;
        let variables = [stand_ins.variables.clone(), more].concat();
        let bundle = Bundle::read();
        let log = NamedTempFile::new().unwrap();
        let to = log.path().to_owned();
        let routes = bundle.routes();
        let launch = Box::new(move |name: &str| {
            let mut function = command(name);
            function.envs(bundle.environment(name, &variables));
            let log = OpenOptions::new().create(true).append(true).open(&to).unwrap();
            function.stdout(log).stderr(Stdio::inherit());
            function
        });
        let endpoints = AwsEndpoints { dynamo: stand_ins.dynamo, aws: stand_ins.aws };
        let gateway = Arc::new(Gateway::start(listener, routes, endpoints, launch));
        tokio::spawn(deliver_messages(
            gateway.clone(),
            stand_ins.aws,
            stand_ins.variable("OVERSEER_QUEUE_URL").unwrap(),
        ));
        Self { gateway, stand_ins, log }
    }

    /// The log of all functions, which on AWS goes to `CloudWatch`.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Ports over the same stand-ins, for the test's own engine.
    pub async fn ports(&self, clock: Arc<dyn Clock>) -> Ports {
        let endpoint = self.gateway.tap("test").await;
        self.stand_ins.ports(endpoint, clock, Arc::new(RandomIds))
    }
}

/// Invokes the cron function with messages of the queue, and deletes those that it handled, until the test ends.
async fn deliver_messages(gateway: Arc<Gateway>, aws: SocketAddr, queue_url: String) {
    let queue = aws_sdk_sqs::Client::new(&sdk(aws));
    loop {
        let received = queue.receive_message().queue_url(&queue_url).max_number_of_messages(10).wait_time_seconds(20);
        // The queue ends with the test.
        let Ok(received) = received.send().await else { return };
        let messages = received.messages.unwrap_or_default();
        if messages.is_empty() {
            continue;
        }
        let records = messages.iter().map(|message| {
            json!({ "messageId": message.message_id, "receiptHandle": message.receipt_handle, "body": message.body,
                    "attributes": {}, "messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": "eu-central-1" })
        });
        let event = json!({ "Records": records.collect::<Vec<_>>() });
        let Ok(answer) = gateway.invoke("cron", event).await else { continue };
        let failures = answer["batchItemFailures"].as_array().unwrap();
        for message in &messages {
            if failures.iter().any(|failed| failed["itemIdentifier"].as_str() == message.message_id.as_deref()) {
                continue;
            }
            let receipt = message.receipt_handle.clone().unwrap();
            let _ = queue.delete_message().queue_url(&queue_url).receipt_handle(receipt).send().await;
        }
    }
}
