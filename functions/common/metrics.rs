//! The `CloudWatch` metrics of a Lambda. They are written to the log in the embedded metric format, which needs no request.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

/// The namespace of our metrics.
const NAMESPACE: &str = "Overseer";

/// The metrics of one Lambda.
#[derive(Debug)]
pub struct Metrics {
    function: String,
    /// Whether no invocation was recorded yet: the next one is a cold start.
    cold: AtomicBool,
}

impl Metrics {
    /// The metrics of the Lambda with this name.
    pub fn new(function: Option<String>) -> Self {
        Self { function: function.unwrap_or_else(|| "unnamed".to_owned()), cold: AtomicBool::new(true) }
    }

    /// Records an invocation: the code of its outcome (`ok` for a success), how long it took, and `more` metrics as name,
    /// unit and value.
    pub fn record(&self, code: &str, latency: Duration, more: &[(&str, &str, f64)]) {
        let document = self.document(Timestamp::now(), code, latency, more);
        // A failed write to the log cannot be logged either.
        let _ = writeln!(std::io::stdout(), "{document}");
    }

    fn document(&self, now: Timestamp, code: &str, latency: Duration, more: &[(&str, &str, f64)]) -> Value {
        let cold = u8::from(self.cold.swap(false, Ordering::Relaxed));
        let metric = |name: &str, unit: &str| json!({ "Name": name, "Unit": unit });
        let mut metrics =
            vec![metric("Requests", "Count"), metric("Latency", "Milliseconds"), metric("ColdStarts", "Count")];
        metrics.extend(more.iter().map(|(name, unit, _)| metric(name, unit)));
        let mut document = json!({
            "_aws": {
                "Timestamp": now.as_millisecond(),
                "CloudWatchMetrics": [
                    { "Namespace": NAMESPACE, "Dimensions": [["Function"]], "Metrics": metrics },
                    // AWS bills each metric, so codes have only the count of requests.
                    { "Namespace": NAMESPACE, "Dimensions": [["Function", "Code"]], "Metrics": [metric("Requests", "Count")] },
                ],
            },
            "Function": self.function, "Code": code,
            "Requests": 1, "Latency": latency.as_millis(), "ColdStarts": cold,
        });
        if let Some(document) = document.as_object_mut() {
            document.extend(more.iter().map(|(name, _, value)| ((*name).to_owned(), json!(value))));
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metric_has_a_value_for_each_name_and_dimension() {
        let metrics = Metrics::new(Some("dev-intent".to_owned()));
        let now = Timestamp::from_second(1_795_251_600).unwrap();
        let first = metrics.document(now, "ok", Duration::from_millis(41), &[("OldestDue", "Seconds", 2.5)]);
        assert_eq!(
            (&first["Requests"], &first["Latency"], &first["ColdStarts"], &first["OldestDue"]),
            (&json!(1), &json!(41), &json!(1), &json!(2.5))
        );
        assert_eq!(first["_aws"]["Timestamp"], json!(1_795_251_600_000_i64));
        // CloudWatch ignores a metric or dimension that has no value beside the directive.
        for directive in first["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
            let metrics = directive["Metrics"].as_array().unwrap().iter().map(|metric| &metric["Name"]);
            for name in metrics.chain(directive["Dimensions"][0].as_array().unwrap()) {
                assert!(!first[name.as_str().unwrap()].is_null(), "{name}: {first}");
            }
        }
        let second = metrics.document(now, "timeout", Duration::ZERO, &[]);
        assert_eq!((&second["ColdStarts"], &second["Code"]), (&json!(0), &json!("timeout")));
    }
}
