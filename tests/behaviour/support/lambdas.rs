//! The Lambdas of the AWS bundle, behind a gateway with the routes of `template.yaml`, over stand-ins of AWS. What comes to
//! the work queue is brought to the function of cron, as an event source mapping does it.

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
use crate::support::gateway::Gateway;
use crate::support::process::command;
use crate::support::stand_ins::{StandIns, sdk};

/// Running functions with everything around them.
pub struct Lambdas {
    /// The gateway before them.
    pub gateway: Arc<Gateway>,
    /// What stands in for AWS.
    pub stand_ins: StandIns,
    log: NamedTempFile,
}

impl Lambdas {
    /// Starts them behind a gateway at `listener`; `tell` adds variables that they are told.
    pub async fn start(
        listener: TcpListener,
        vault: &str,
        secret: &Value,
        tell: impl FnOnce(&mut Vec<(String, String)>),
    ) -> Self {
        let stand_ins = StandIns::start(vault, secret).await;
        let mut variables = stand_ins.variables.clone();
        tell(&mut variables);
        let bundle = Bundle::read();
        let log = NamedTempFile::new().unwrap();
        let to = log.path().to_owned();
        let routes = bundle.routes();
        let launch = Box::new(move |name: &str| {
            let mut function = command(name);
            function.envs(bundle.told(name, &variables));
            let log = OpenOptions::new().create(true).append(true).open(&to).unwrap();
            function.stdout(log).stderr(Stdio::inherit());
            function
        });
        let gateway = Gateway::start(listener, routes, (stand_ins.dynamo, stand_ins.aws), launch);
        let gateway = Arc::new(gateway);
        tokio::spawn(bring(gateway.clone(), stand_ins.aws, stand_ins.variable("OVERSEER_QUEUE_URL").unwrap()));
        Self { gateway, stand_ins, log }
    }

    /// What all functions have logged, which on AWS is for `CloudWatch`.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// The ports of an engine of the test's own over the same stand-ins.
    pub async fn ports(&self, clock: Arc<dyn Clock>) -> Ports {
        let endpoint = self.gateway.tap("test").await;
        self.stand_ins.ports(endpoint, clock, Arc::new(RandomIds))
    }
}

/// Brings what comes to the queue to the function of cron, until the test ends.
async fn bring(gateway: Arc<Gateway>, aws: SocketAddr, queue_url: String) {
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
        let again: Vec<_> = answer["batchItemFailures"].as_array().unwrap().iter().collect();
        for message in &messages {
            if again.iter().any(|failed| failed["itemIdentifier"].as_str() == message.message_id.as_deref()) {
                continue;
            }
            let receipt = message.receipt_handle.clone().unwrap();
            let _ = queue.delete_message().queue_url(&queue_url).receipt_handle(receipt).send().await;
        }
    }
}
